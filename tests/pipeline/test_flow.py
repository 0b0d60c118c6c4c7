"""The stream on a real Ray with an engine that answers from a script: a pool shares the shards, faults end
the job.
"""

from pathlib import Path

import pyarrow.parquet as pq
import pytest

from actors.config import PoolConfig
from actors.worker import WorkerJob
from drafting.config import SpeculationConfig
from engine.config import GenerationConfig, ModelConfig
from pipeline.config import InputConfig
from pipeline.plan import make_plan
from pipeline.prepare import PrepareJob
from pipeline.ray_session import JobFailed
from rows.output_columns import OutputColumns
from rows.output_folder import OutputFolder
from rows.parts import PartSummary
from tests.actors.fakes import load_byte_codec, start_reversing_loop

pytestmark = pytest.mark.ray


def run(source: Path, output: Path, model: Path, num_workers: int) -> list[tuple[PartSummary, float]]:
    from pipeline.flow import run_flow

    config = ModelConfig(path=str(model))
    rows = InputConfig(path=str(source), rows_per_shard=2)
    plan = make_plan(rows, num_workers)
    prepare = PrepareJob(config, rows, plan.schema, plan.schema, True, 0, None)
    worker = WorkerJob(
        OutputFolder(str(output)), config, SpeculationConfig(), GenerationConfig(), OutputColumns(), 2, 99, 2,
        start_reversing_loop, load_byte_codec
    )  # fmt: skip
    return list(run_flow(plan.pieces, prepare, worker, PoolConfig(num_workers=num_workers)))


def test_a_pool_shares_the_shards_and_every_row_comes_out_once(
    ray_session: None, tiny_folder: Path, tmp_path: Path
) -> None:
    (tmp_path / "in.jsonl").write_text("".join(f'{{"prompt": "row {i}"}}\n' for i in range(81)))
    summaries = run(tmp_path / "in.jsonl", tmp_path / "out", tiny_folder, num_workers=2)
    total = sum((summary for summary, _ in summaries), PartSummary())
    assert (total.num_parts, total.num_rows, total.num_errors) == (41, 81, 0)
    assert len({began for _, began in summaries}) == 2, "both workers took part"
    parts = sorted((tmp_path / "out").glob("part-*.parquet"))
    texts = [text for part in parts for text in pq.read_table(part)["generated_text"].to_pylist()]
    assert texts == [f"row {i}"[::-1] for i in range(81)]


def test_a_row_that_kills_every_engine_ends_the_job_after_so_many_faults(
    ray_session: None, tiny_folder: Path, tmp_path: Path
) -> None:
    (tmp_path / "in.jsonl").write_text('{"prompt": "fine"}\n{"prompt": "fine"}\n{"prompt": "!"}\n')
    with pytest.raises(
        JobFailed, match=r"the engine failed 2 times .*; the last time: RuntimeError: the device is gone"
    ):
        run(tmp_path / "in.jsonl", tmp_path / "out", tiny_folder, num_workers=1)
    assert not (tmp_path / "out" / "part-00000001.parquet").exists()
