"""The batch worker over an engine that answers from a script: rows keep their places, parts are written once,
faults end the process.
"""

import asyncio
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from actors import worker as worker_module
from actors.worker import PROMPTS_SCHEMA, BatchWorker, WorkerJob
from drafting.config import SpeculationConfig
from engine.config import GenerationConfig, ModelConfig
from engine.request import Completion, Request
from rows.output_columns import OutputColumns
from rows.output_folder import OutputFolder
from rows.parts import PartSummary
from tests.actors.fakes import load_byte_codec, start_reversing_loop


def worker(output: Path, max_shards: int = 2, max_rows: int = 99, **changes: Any) -> BatchWorker:
    job = WorkerJob(
        OutputFolder(str(output)), ModelConfig(), SpeculationConfig(), GenerationConfig(), OutputColumns(),
        max_shards, max_rows, 3,
        **{"start_loop": start_reversing_loop, "load_codec": load_byte_codec, **changes},
    )  # fmt: skip
    return BatchWorker(job)


def to_bytes(table: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue().to_pybytes()


def batch(shards: dict[int, list[str]]) -> dict[str, list[Any]]:
    """Prepared shards; a prompt that begins with ? stands for a row with an error."""
    rows = {"shard": [], "carried": [], "prompts": []}  # type: dict[str, list[Any]]
    for shard, prompts in shards.items():
        errors = [prompt[1:] if prompt.startswith("?") else None for prompt in prompts]
        table = {
            "token_ids": [list(p.encode()) for p in prompts],
            "sampling": ["{}"] * len(prompts),
            "seed": [2**64 - 1] * len(prompts),
        }
        table["group"] = ["law"] * len(prompts)
        table["prediction_ids"] = [[7, 8]] * len(prompts)
        rows["shard"].append(shard)
        rows["carried"].append(to_bytes(pa.table({"text": prompts})))
        rows["prompts"].append(
            to_bytes(pa.Table.from_pydict({**table, "error": errors}, schema=PROMPTS_SCHEMA))
        )
    return rows


def texts(output: Path, shard: int) -> list[tuple[str, str | None]]:
    table = pq.read_table(output / f"part-{shard:08d}.parquet")
    return list(zip(table["text"].to_pylist(), table["generated_text"].to_pylist(), strict=True))


async def test_answers_that_come_in_reverse_order_land_in_their_rows(tmp_path: Path) -> None:
    actor = worker(tmp_path)
    summaries = await actor(batch({3: ["abc", "?broken", "de"], 4: ["fg"]}))
    assert actor.loop.answered[0] != "3-0"
    assert texts(tmp_path, 3) == [("abc", "cba"), ("?broken", None), ("de", "ed")]
    assert texts(tmp_path, 4) == [("fg", "gf")]
    assert '"num_rows": 3, "num_errors": 1' in summaries["summary"][0]
    assert actor.loop.seen[0].sampling.seed == 2**64 - 1
    assert actor.loop.seen[0].group == "law"
    assert actor.loop.seen[0].prediction_ids == (7, 8)


async def test_a_shard_whose_part_exists_is_not_generated_again(tmp_path: Path) -> None:
    first = await worker(tmp_path)(batch({3: ["abc"]}))
    again = worker(tmp_path)
    assert (await again(batch({3: ["abc"]})))["summary"] == first["summary"]
    assert again.loop.seen == []


async def test_what_the_engine_did_is_counted_in_one_part_only(tmp_path: Path) -> None:
    actor = worker(tmp_path)
    parts = [
        PartSummary.from_json((await actor(batch({shard: rows})))["summary"][0])
        for shard, rows in ((1, ["a", "b"]), (2, ["c"]))
    ]
    assert [part.engine for part in parts] == [
        {"steps": {"all": 2}, "step_nodes": {"1": 2}, "call_lengths": {"1": 2}},
        {"steps": {"all": 1}, "step_nodes": {"1": 1}, "call_lengths": {"1": 1}},
    ]
    # Another worker, as of a second start: its engine begins from nothing, and the footers of both starts add
    # up.
    await worker(tmp_path)(batch({2: ["c"], 3: ["d", "e", "f"]}))
    total = sum(
        (OutputFolder(str(tmp_path)).read_summary(shard) or PartSummary() for shard in (1, 2, 3)),
        PartSummary(),
    )
    assert total.engine == {"steps": {"all": 6}, "step_nodes": {"1": 6}, "call_lengths": {"1": 6}}


async def test_no_more_shards_are_live_than_allowed(tmp_path: Path) -> None:
    actor = worker(tmp_path, max_shards=1)
    await asyncio.gather(*(actor(batch({shard: ["a", "b", "c"]})) for shard in range(3)))
    shards = [request.id.split("-")[0] for request in actor.loop.seen]
    assert shards == sorted(shards)


async def test_a_shard_that_waits_for_its_longest_row_does_not_keep_others_from_beginning(
    tmp_path: Path,
) -> None:
    actor = worker(tmp_path, max_shards=9, max_rows=2)
    release = asyncio.Event()
    complete = actor.loop.complete

    async def complete_late(request: Request) -> Completion:
        found = await complete(request)
        if request.prompt_ids == tuple(b"long"):
            await release.wait()
        return found

    actor.loop.complete = complete_late
    calls = []
    for shard, prompts in enumerate((["long", "a"], ["b", "c"], ["long", "long"])):
        calls.append(asyncio.create_task(actor(batch({shard: prompts}))))
        while len(actor.loop.answered) < 2 * shard + 2:
            await asyncio.sleep(0.01)
    calls.append(asyncio.create_task(actor(batch({3: ["d"]}))))
    await asyncio.sleep(0.1)
    assert "3-0" not in {request.id for request in actor.loop.seen}, "three rows are not done"
    release.set()
    await asyncio.gather(*calls)
    assert actor.loop.seen[-1].id == "3-0"


async def test_a_request_that_the_engine_cannot_run_is_an_error_of_its_row(tmp_path: Path) -> None:
    await worker(tmp_path)(batch({0: ["# too much", "ok"]}))
    assert pq.read_table(tmp_path / "part-00000000.parquet")["error"].to_pylist() == [
        "the engine cannot run this",
        None,
    ]


async def test_an_engine_fault_ends_the_process_and_commits_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Ended(BaseException):
        pass

    def end(fault: BaseException, output: OutputFolder) -> None:
        raise Ended(f"{fault} {output.path}")

    monkeypatch.setattr(worker_module, "end_process", end)
    with pytest.raises(Ended, match=f"the device is gone {tmp_path}"):
        await worker(tmp_path)(batch({0: ["!", "ok"]}))
    assert not (tmp_path / "part-00000000.parquet").exists()


async def test_a_model_that_cannot_be_loaded_is_told_by_the_first_call(tmp_path: Path) -> None:
    def broken(model: ModelConfig, speculation: SpeculationConfig) -> None:
        raise ValueError("model.path 'x' cannot be loaded")

    actor = worker(tmp_path, start_loop=broken)
    with pytest.raises(ValueError, match="model.path 'x' cannot be loaded"):
        await actor(batch({0: ["a"]}))


def test_after_so_many_faults_no_worker_starts(tmp_path: Path) -> None:
    for number in range(2):
        OutputFolder(str(tmp_path)).write(
            f"_run/fault-{number}.txt", b"Traceback\nRuntimeError: CUDA error\n"
        )
    OutputFolder(str(tmp_path)).check_faults(3)
    with pytest.raises(
        ValueError,
        match=r"the engine failed 2 times \(pool.max_engine_faults\); the last time: RuntimeError: CUDA "
        r"error",
    ):
        OutputFolder(str(tmp_path)).check_faults(2)
