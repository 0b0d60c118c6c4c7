"""The way of an input's rows up to the worker, without Ray."""

from pathlib import Path
from typing import Any

import pyarrow as pa

from engine.config import ModelConfig
from pipeline import prepare
from pipeline.config import InputConfig, OutputConfig
from pipeline.plan import carried_schema, make_plan
from rows.output_columns import OutputColumns


def prepared(path: Path | str, columns: list[str] | None = None, **settings: Any) -> list[dict[str, Any]]:
    """All rows of all shards: what is carried, and what the worker gets."""
    source = InputConfig(path=str(path), **settings)
    plan = make_plan(source, 1, columns=columns)
    carried = carried_schema(plan, source, OutputConfig(path="x", columns=columns), OutputColumns())
    job = prepare.PrepareJob(ModelConfig(), source, plan.schema, carried, columns is None, 0, 100)
    rows = []
    for shard in prepare.prepare_shards(plan.pieces, job):
        tables = [pa.ipc.open_stream(shard[name][0]).read_all() for name in ("carried", "prompts")]
        assert tables[0].schema == carried
        rows += [
            {"carried": one, **other}
            for one, other in zip(tables[0].to_pylist(), tables[1].to_pylist(), strict=True)
        ]
    return rows


def told(rows: list[dict[str, Any]]) -> list[str]:
    """What becomes of each row: its prompt, or its error."""
    return [row["error"] or bytes(row["token_ids"]).decode() for row in rows]
