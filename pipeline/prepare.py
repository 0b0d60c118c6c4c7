"""Prepares shards in Ray tasks: reads rows, renders, tokenizes and checks them, and sends each shard on as one Ray row.

User columns travel as Arrow bytes, so Ray never unifies their types. A bad row goes on with its error; it stops nothing.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from actors.prompts import Prompt, PromptColumns, PromptReader, row_seed
from actors.storage import locate
from actors.text import load_codec
from actors.worker import PROMPTS_SCHEMA
from engine.config import ModelConfig
from pipeline import jsonl
from pipeline.parquet import read_groups
from pipeline.schema import fit_rows


@dataclass(frozen=True)
class PrepareJob:
    """What every prepare task of a job does. schema: of the whole input; carried: the columns kept; strict: they are all there are."""

    model: ModelConfig
    columns: PromptColumns
    schema: pa.Schema
    carried: pa.Schema
    strict: bool
    job_seed: int
    max_context: int | None


def prepare_shards(shards: pa.Table, job: PrepareJob) -> Iterator[dict[str, list[Any]]]:
    """Ray rows of these rows of the plan, one at a time, in order; a unit's row groups are read once."""
    reader = PromptReader(load_codec(job.model), job.columns, job.max_context)
    unit, table = None, None
    for shard in shards.to_pylist():
        if shard["format"] == "jsonl":
            carried, prompts, places = _prepare_jsonl(shard, job, reader)
        else:
            if unit != shard["unit"]:
                unit, table = shard["unit"], _read_unit(shard, job)
            carried, prompts, places = _prepare_parquet(shard, table, job, reader)
        if carried.num_rows != shard["num_rows"]:
            raise ValueError(
                f"{shard['path']} has changed since the plan: shard {shard['shard']} has {carried.num_rows} rows, not {shard['num_rows']}"
            )
        seeds = [row_seed(job.job_seed, shard["file"], place) for place in places]
        yield {"shard": [shard["shard"]], "carried": [_to_bytes(carried)], "prompts": [_to_bytes(_prompt_table(prompts, seeds))]}


def _prepare_jsonl(shard: dict[str, Any], job: PrepareJob, reader: PromptReader) -> tuple[pa.Table, list[Prompt], list[int]]:
    filesystem, inner = locate(shard["path"])
    with filesystem.open_input_file(inner) as file:
        data = file.read_at(shard["num_bytes"], shard["first_byte"])
    places, parsed = [], []
    for offset, line in jsonl.read_lines(data, shard["first_byte"]):
        places.append(offset)
        parsed.append(jsonl.parse_line(line, first=offset == 0))
    rows = [row if isinstance(row, dict) else {} for row in parsed]
    carried, misfits = fit_rows(rows, job.carried, job.strict)
    prompts = [
        Prompt(error=row) if isinstance(row, str) else Prompt(error=prompt.error or misfit) if misfit else prompt
        for row, prompt, misfit in zip(parsed, reader.read(rows), misfits, strict=True)
    ]
    return carried, prompts, places


def _read_unit(shard: dict[str, Any], job: PrepareJob) -> pa.Table:
    """The columns that the unit's shards need: those carried and those that make the prompts."""
    special = (job.columns.messages or job.columns.prompt, job.columns.sampling)
    names = [*job.carried.names, *(name for name in special if name in job.schema.names and name not in job.carried.names)]
    return read_groups(shard["path"], shard["row_groups"], names, job.schema)


def _prepare_parquet(
    shard: dict[str, Any], unit: pa.Table, job: PrepareJob, reader: PromptReader
) -> tuple[pa.Table, list[Prompt], list[int]]:
    table = unit.slice(shard["skip_rows"], shard["num_rows"])
    special = [name for name in vars(job.columns).values() if name in table.column_names]
    places = list(range(shard["first_row"], shard["first_row"] + table.num_rows))
    return table.select(job.carried.names), reader.read(table.select(special).to_pylist()), places


def _prompt_table(prompts: list[Prompt], seeds: list[int]) -> pa.Table:
    columns = {
        "token_ids": [prompt.token_ids for prompt in prompts],
        "sampling": [json.dumps(prompt.sampling) for prompt in prompts],
        "seed": seeds,
        "error": [prompt.error for prompt in prompts],
    }
    return pa.Table.from_pydict(columns, schema=PROMPTS_SCHEMA)


def _to_bytes(table: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue().to_pybytes()
