"""One output holds one run: another one is refused with the difference, leftovers are swept, a second driver
is kept off.
"""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from pipeline.plan import PIECES_SCHEMA, Plan
from pipeline.run_folder import RunRecord, check_same, make_record, open_run, read_record
from rows.output_folder import OutputFolder
from rows.parts import PartSummary

PLAN = Plan(PIECES_SCHEMA.empty_table(), pa.schema([]), num_rows=7, rows_per_shard=2, digest="abc")
CONFIG: dict[str, dict[str, Any]] = {
    "input": {"path": "in", "limit": None},
    "output": {"path": "out", "prefix": ""},
    "model": {"path": "m", "dtype": "auto", "max_running": None, "threads": 1},
    "generation": {"max_tokens": 8},
    "speculation": {"mode": "mixed"},
    "pool": {"num_workers": 1},
}
RECORD = make_record(CONFIG, PLAN, "f1")


def changed(group: str, key: str, value: Any) -> RunRecord:
    return replace(RECORD, config={**CONFIG, group: {**CONFIG[group], key: value}})


def test_a_record_comes_back_as_it_was_written(tmp_path: Path) -> None:
    assert read_record(OutputFolder(str(tmp_path / "fresh"))) is None
    open_run(OutputFolder(str(tmp_path)), RECORD, PLAN)
    assert read_record(OutputFolder(str(tmp_path))) is None, "a run that has made no part binds nobody"
    OutputFolder(str(tmp_path)).write_part(0, pa.table({"x": [1]}), PartSummary())
    assert read_record(OutputFolder(str(tmp_path))) == RECORD
    assert RECORD.plan == {"digest": "abc", "num_rows": 7, "num_shards": 0, "rows_per_shard": 2}
    assert RECORD.versions["ray"].startswith("2.")


@pytest.mark.parametrize(
    ("group", "key", "value"),
    [
        ("speculation", "mode", "off"),
        ("pool", "num_workers", 9),
        ("model", "threads", 2),
        ("model", "path", "moved"),
        ("input", "path", "moved"),
        ("input", "group_column", "kind"),
        ("input", "order", "longest_first"),
    ],
)
def test_what_does_not_change_the_rows_may_change_between_starts(group: str, key: str, value: Any) -> None:
    check_same(RECORD, changed(group, key, value), "out")


@pytest.mark.parametrize(
    ("new", "difference"),
    [
        (changed("generation", "max_tokens", 9), "generation.max_tokens: 8 -> 9"),
        (changed("model", "dtype", "float32"), "model.dtype: auto -> float32"),
        (changed("model", "quantization", "int8"), "model.quantization: None -> int8"),
        (
            replace(changed("model", "adapter", "other"), model={"fingerprint": "f1 with adapter a"}),
            "model (fingerprint): f1 -> f1 with adapter a; model.adapter: None -> other",
        ),
        (changed("output", "prefix", "x_"), "output.prefix: '' -> x_"),
        (replace(RECORD, model={"fingerprint": "f2"}), "model (fingerprint): f1 -> f2"),
        (
            replace(changed("input", "path", "other"), plan={**RECORD.plan, "digest": "xyz"}),
            "input (rows, digest): 7, abc -> 7, xyz; input.path: in -> other",
        ),
    ],
)
def test_a_different_run_is_refused_with_the_difference(new: RunRecord, difference: str) -> None:
    with pytest.raises(ValueError) as caught:
        check_same(RECORD, new, "out")
    assert (
        f"output.path 'out' belongs to a different run ({difference}); "
        "name another folder, or remove this one" == str(caught.value)
    )


def test_parts_without_a_record_are_somebody_elses(tmp_path: Path) -> None:
    OutputFolder(str(tmp_path)).write_part(0, pa.table({"x": [1]}), PartSummary())
    with pytest.raises(ValueError, match=r"holds part files but no _run/run.json"):
        read_record(OutputFolder(str(tmp_path)))


def test_a_torn_record_is_an_error_that_says_what_to_do(tmp_path: Path) -> None:
    OutputFolder(str(tmp_path)).write("_run/run.json", b'{"config"')
    OutputFolder(str(tmp_path)).write_part(0, pa.table({"x": [1]}), PartSummary())
    with pytest.raises(
        ValueError, match=r"_run/run.json cannot be read .*; name another folder, or remove this one"
    ):
        read_record(OutputFolder(str(tmp_path)))


def test_a_start_that_made_no_part_is_replaced_by_the_next(tmp_path: Path) -> None:
    open_run(OutputFolder(str(tmp_path)), RECORD, PLAN)
    fixed = changed("model", "dtype", "bfloat16")
    open_run(OutputFolder(str(tmp_path)), fixed, PLAN)
    OutputFolder(str(tmp_path)).write_part(0, pa.table({"x": [1]}), PartSummary())
    assert read_record(OutputFolder(str(tmp_path))) == fixed


def test_opening_sweeps_temp_files_and_faults_but_no_parts(tmp_path: Path) -> None:
    OutputFolder(str(tmp_path)).write_part(0, pa.table({"x": [1]}), PartSummary())
    (tmp_path / "_run" / "tmp" / "part-00000001.parquet.left").touch()
    (tmp_path / "_run" / "fault-1.txt").touch()
    open_run(OutputFolder(str(tmp_path)), RECORD, PLAN)
    assert sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()) == [
        "_run/plan.parquet", "_run/run.json", "part-00000000.parquet",
    ]  # fmt: skip


def test_a_second_driver_is_kept_off(tmp_path: Path) -> None:
    hold = (
        "import fcntl, sys; f = open(sys.argv[1], 'w'); fcntl.flock(f, fcntl.LOCK_EX); "
        "print('held', flush=True); sys.stdin.read()"
    )
    with OutputFolder(str(tmp_path)).hold():
        pass
    with subprocess.Popen(
        [sys.executable, "-c", hold, tmp_path / "_run" / "lock"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as other:
        assert other.stdout and other.stdout.readline() == "held\n"
        with (
            pytest.raises(ValueError, match="another process is writing"),
            OutputFolder(str(tmp_path)).hold(),
        ):
            pass
        other.communicate()
    with OutputFolder(str(tmp_path)).hold():
        pass


def test_an_output_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with (
        pytest.raises(ValueError, match="cannot be made: Not a directory; name a folder that can be written"),
        OutputFolder(str(tmp_path / "file")).hold(),
    ):
        pass
