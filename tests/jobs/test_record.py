"""jobs/record.py as a user runs it: the offline job's rows, with what the model found likely, for replay."""

import gzip
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from drafting.replay.transcripts import Transcript, read_transcripts
from drafting.sampling import Sampling
from engine.loop import EngineLoop
from engine.request import Completion, Logprobs, Request, SequenceStats
from jobs import offline, record, replay
from pipeline import recording
from rows.prompts import row_seed
from tests.engine.harness import make_engine
from tests.time_limits import PROCESS_S
from tests.tiny_models import tiny_model

ROOT = Path(__file__).parents[2]
OWN: dict[int, dict[str, Any]] = {
    1: {"temperature": 0.0, "n": 2},
    2: {"n": 1, "seed": -5, "top_k": 9, "top_p": 0.9, "min_p": 0.01, "logprobs": 0},
    4: {"n": 1001},
}


@pytest.fixture
def flags(tmp_path: Path, tiny_folder: Path) -> Callable[..., list[str]]:
    """Flags of a sampled job over seven rows, of which the fifth and the last are bad."""
    rows = [
        {"prompt": f"row {i} " + "abc" * i, "topic": f"t{i % 2}", "sampling": OWN.get(i)} for i in range(6)
    ]
    del rows[5]["topic"]
    lines = [json.dumps(row) for row in rows] + ["not json"]
    (tmp_path / "in.jsonl").write_text("\n".join(lines) + "\n")

    def made(*more: str, **settings: Any) -> list[str]:
        default = {
            "input": tmp_path / "in.jsonl", "model": tiny_folder, "model.dtype": "float64",
            "model.max_running": 4, "input.group_column": "topic", "input.rows_per_shard": 3,
            "generation.n": 3, "generation.temperature": 0.8, "generation.max_tokens": 20,
            "output.logprobs": "true", "speculation.mode": "off",
        }  # fmt: skip
        return [*(f"--{name}={value}" for name, value in {**default, **settings}.items()), *more]

    return made


def recorded(path: Path, flags: list[str]) -> list[Transcript]:
    assert record.main([*flags, f"--out={path}"]) == 0
    return list(read_transcripts(path))


def test_rows_are_recorded_with_their_groups_seeds_and_likeliest_tokens(
    flags: Callable[..., list[str]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "a.jsonl.gz"
    found = recorded(path, flags())
    printed = capsys.readouterr()
    assert [transcript.id for transcript in found] == [
        *("0-0", "0-0/1", "0-0/2"),
        "0-1",  # greedy: all samples are equal
        "0-2",
        *("1-0", "1-0/1", "1-0/2"),
        *("1-2", "1-2/1", "1-2/2"),
    ]
    assert [transcript.group for transcript in found] == ["t0"] * 3 + ["t1", "t0"] + ["t1"] * 3 + ["1-2"] * 3
    assert bytes(found[0].prompt_ids.tolist()) == b"row 0 "
    seed = row_seed(0, "in.jsonl", 0)
    assert found[0].sampling == Sampling(0.8, seed=seed)
    assert found[1].sampling == Sampling(0.8, seed=row_seed(seed, "sample", 1))
    assert found[3].sampling is not None and found[3].sampling.temperature == 0
    assert found[4].sampling == Sampling(0.8, 0.9, 9, 0.01, 2**64 - 5)
    for transcript in found:
        assert transcript.likely is not None
        assert transcript.likely.ids.shape == (len(transcript.output_ids), 8)
        assert (np.diff(transcript.likely.logprobs) <= 0).all()
    assert found[3].likely is not None
    assert found[3].likely.ids[:, 0].tolist() == found[3].output_ids.tolist(), "the greedy row"
    tokens = sum(len(transcript.output_ids) for transcript in found)
    assert printed.out.splitlines() == [
        f"{path}: 5 rows, 11 transcripts, {tokens} tokens; 2 rows with errors were left out",
        f"next: python jobs/replay.py --transcripts {path} --speculate adaptive",
    ]
    assert [line for line in printed.err.splitlines() if "in.jsonl" in line] == [
        f"{tmp_path}/in.jsonl, row 5: sampling.n is 1001; it must be an integer of 1 to 1000",
        f"{tmp_path}/in.jsonl, row 7: the line is not JSON: Expecting value: line 1 column 1 (char 0); "
        "fix the row",
    ]


def test_equal_commands_write_equal_files_and_a_limit_takes_the_first_rows(
    flags: Callable[..., list[str]], tmp_path: Path
) -> None:
    path = tmp_path / "a.jsonl.gz"
    recorded(path, flags())
    first = path.read_bytes()
    recorded(path, flags())
    assert path.read_bytes() == first
    plain = tmp_path / "a.jsonl"
    few = recorded(plain, flags("--limit=2", **{"record.num_likely": 3, "output.columns": "[prompt]"}))
    assert [transcript.id for transcript in few] == ["0-0", "0-0/1", "0-0/2", "0-1"]
    assert few[0].likely is not None and few[0].likely.ids.shape[1] == 3
    lines = gzip.decompress(first).decode().splitlines()
    for line, other in zip(plain.read_text().splitlines(), lines, strict=False):
        assert json.loads(line)["output"] == json.loads(other)["output"]


def test_replay_reads_what_was_recorded(
    flags: Callable[..., list[str]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "a b.jsonl"
    found = recorded(path, flags(**{"speculation.mode": "mixed"}))
    command = capsys.readouterr().out.splitlines()[-1]
    start, tables = command.rsplit(" ", 1)
    assert start == f"next: python jobs/replay.py --transcripts '{path}' --speculate mixed --tables"
    out = tmp_path / "figures.json"
    arguments = ["--transcripts", str(path), "--speculate=mixed", "--tables", tables, "--json", str(out)]
    assert replay.main(arguments) == 0
    figures = json.loads(out.read_text())
    assert figures["tokens"] == sum(len(transcript.output_ids) for transcript in found)
    assert sorted(figures["by_group"]) == ["1-2", "t0", "t1"]


def refused(flags: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """The one line of a command that is refused."""
    assert record.main(flags) == 2
    captured = capsys.readouterr()
    assert captured.out == "" and captured.err.count("\n") == 1 and captured.err.startswith("error: ")
    return captured.err.removeprefix("error: ").strip()


@pytest.mark.parametrize(
    ("more", "complaint"),
    [
        (["--record.num_likely=0"], "record.num_likely is 0; it must be an integer of 1 to 20"),
        (["--record.num_likely=21"], "record.num_likely is 21; it must be an integer of 1 to 20"),
        (["--out="], "record.out is ''; name a file on this machine (--out)"),
        (["--out=s3://bucket/a"], "record.out is 's3://bucket/a'; name a file on this machine"),
        (["--out=nowhere/a.jsonl"], "nowhere/a.jsonl cannot be written: No such file or directory"),
        (["--out=tests"], "tests cannot be written: Is a directory"),
        (["--input=nope.jsonl"], "input.path 'nope.jsonl' does not exist"),
        (["--model=./nope"], "model.path './nope' does not exist"),
        (["--input.group_column=topik"], "input.group_column is 'topik', but the input has no such column"),
        (["--generation.top_p=0"], "generation.top_p is 0.0; it must be a number above 0"),
        (["--record.num_likly=3"], "unknown setting --record.num_likly; did you mean --record.num_likely?"),
        (["--transcripts=a"], "unknown setting --transcripts; see --help"),
    ],
)
def test_bad_settings_are_refused_in_one_line_before_a_model_is_loaded(
    flags: Callable[..., list[str]],
    more: list[str],
    complaint: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(recording, "start_loop", None)
    monkeypatch.chdir(ROOT)
    assert complaint in refused([*flags(), f"--out={tmp_path}/out", *more], capsys)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["in.jsonl"]


def test_the_output_must_be_named(
    flags: Callable[..., list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    assert "record.out" in refused(flags(), capsys)


def test_nothing_is_written_where_every_row_is_bad(
    flags: Callable[..., list[str]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "in.jsonl").write_text('{"prompt": "a", "topic": "", "sampling": {"n": 0}}\n')
    (tmp_path / "out").write_text("an earlier recording")
    assert record.main([*flags(), f"--out={tmp_path}/out"]) == 2
    assert capsys.readouterr().err.endswith("error: all 1 rows have errors; nothing was written\n")
    (tmp_path / "in.jsonl").write_text("")
    message = refused([*flags(**{"input.group_column": "null"}), f"--out={tmp_path}/out"], capsys)
    assert message
    assert (tmp_path / "out").read_text() == "an earlier recording"
    assert sorted(file.name for file in tmp_path.iterdir()) == ["in.jsonl", "out"]


def test_an_engine_that_fails_ends_the_job_and_leaves_no_file(
    flags: Callable[..., list[str]],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def start(*_: Any) -> EngineLoop:
        engine = make_engine(tiny_model("llama", vocab_size=257))

        def step() -> Any:
            raise RuntimeError("the device is gone")

        monkeypatch.setattr(engine, "step", step)
        return EngineLoop(engine)

    monkeypatch.setattr(recording, "start_loop", start)
    assert record.main([*flags(), f"--out={tmp_path}/out"]) == 1
    error = capsys.readouterr().err.splitlines()[-1]
    assert error == "failed: the engine has ended: RuntimeError: the device is gone; nothing was written"
    assert sorted(file.name for file in tmp_path.iterdir()) == ["in.jsonl"]


def test_tokens_that_cannot_come_are_left_out() -> None:
    top = np.array([[-0.1, -2.4, -np.inf], [0.0, -np.inf, -np.inf]], np.float32)
    logprobs = Logprobs(top[:, 0], np.array([[5, 6, 0], [7, 0, 1]], np.int32), top)
    completion = Completion("0-0", (5, 7), "stop", SequenceStats(), logprobs)
    likely = recording.transcript_of(Request("0-0", (1,), 9), completion).likely
    assert likely is not None
    assert likely.ids.tolist() == [[5, 6, -1], [7, -1, -1]]
    assert likely.logprobs[:, 1:].tolist() == [[np.float32(-2.4), 0], [0, 0]]


def test_a_worker_without_a_gpu_decodes_on_the_cpu() -> None:
    from actors.config import PoolConfig
    from engine.config import ModelConfig

    assert record.decoding_like_a_worker(ModelConfig(), PoolConfig()).device == "cpu"
    assert record.decoding_like_a_worker(ModelConfig(), PoolConfig(gpus_per_worker=1)).device == "auto"
    assert record.decoding_like_a_worker(ModelConfig(device="cuda:1"), PoolConfig()).device == "cuda:1"


@pytest.mark.slow
def test_ray_is_not_even_loaded(flags: Callable[..., list[str]], tmp_path: Path) -> None:
    command = [*flags("--limit=1"), f"--out={tmp_path}/out"]
    code = f"import sys; from jobs import record; print(record.main({command!r}), 'ray' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=PROCESS_S
    )
    assert done.stdout.splitlines()[-1] == "0 False", done.stderr


@pytest.mark.ray
@pytest.mark.parametrize("mode", ["off", "adaptive"])
def test_the_texts_are_those_of_the_offline_job(
    flags: Callable[..., list[str]], ray_session: None, tmp_path: Path, mode: str
) -> None:
    settings = {"speculation.mode": mode, "output.generated_ids": "true"}
    output = tmp_path / "parts"
    assert offline.main([*flags(**settings), f"--output={output}"]) == 0
    found = recorded(tmp_path / "a.jsonl", flags(**settings))
    expected = []
    for shard in range(3):
        for index, row in enumerate(pq.read_table(output / f"part-{shard:08d}.parquet").to_pylist()):
            samples = row["samples"] or []
            is_greedy = row["sampling"] and row["sampling"]["temperature"] == 0
            for number, sample in enumerate(samples[:1] if is_greedy else samples):
                row_id = f"{shard}-{index}" + (f"/{number}" if number else "")
                expected.append((row_id, row["topic"], sample["generated_ids"]))
    assert [transcript.id for transcript in found] == [row_id for row_id, _, _ in expected]
    for transcript, (row_id, topic, ids) in zip(found, expected, strict=True):
        assert transcript.output_ids.tolist() == ids, row_id
        assert transcript.group == topic or (topic is None and transcript.group == row_id.split("/")[0])
