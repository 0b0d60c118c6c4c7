"""Prepares shards in Ray tasks: reads rows, renders, tokenizes and checks them, and sends each shard on as
one Ray row.

User columns travel as Arrow bytes, so Ray never unifies their types. A bad row goes on with its error; it
stops nothing.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import pyarrow as pa

from actors.worker import PROMPTS_SCHEMA
from engine.config import ModelConfig
from pipeline.config import InputConfig
from pipeline.formats.registry import prompt_columns
from pipeline.pieces import PieceReader
from rows.prompts import Prompt, PromptReader, row_seed
from rows.text_codec import load_codec


@dataclass(frozen=True)
class PrepareJob:
    """What every prepare task of a job does.

    schema: all columns of the input; carried: the columns that are kept. strict: a column that the schema
    lacks is an error of its row.
    """

    model: ModelConfig
    source: InputConfig
    schema: pa.Schema
    carried: pa.Schema
    strict: bool
    job_seed: int
    max_context: int | None


def prepare_shards(pieces: pa.Table, job: PrepareJob) -> Iterator[dict[str, list[Any]]]:
    """Ray rows, one per shard, of these pieces of the plan, in order."""
    reader = PieceReader(job.source, job.schema, job.carried, job.strict)
    prompter = PromptReader(load_codec(job.model), prompt_columns(job.source), job.max_context)
    for shard, group in groupby(pieces.to_pylist(), key=lambda piece: piece["shard"]):
        tables = []
        prompts = []
        seeds = []
        for piece in group:
            read = reader.read(piece)
            if read.carried.num_rows != piece["num_rows"]:
                found = f"shard {shard} has {read.carried.num_rows} rows of it, not {piece['num_rows']}"
                raise ValueError(f"{piece['path']} has changed since the plan: {found}")
            tables.append(read.carried)
            prompts += read.with_errors(prompter.read(read.rows))
            seeds += [row_seed(job.job_seed, piece["file"], place) for place in read.places]
        carried = pa.concat_tables(tables).combine_chunks()
        yield {
            "shard": [shard],
            "carried": [_to_bytes(carried)],
            "prompts": [_to_bytes(_prompt_table(prompts, seeds))],
        }


def _prompt_table(prompts: list[Prompt], seeds: list[int]) -> pa.Table:
    columns = {
        "token_ids": [prompt.token_ids for prompt in prompts],
        "sampling": [json.dumps(prompt.sampling) for prompt in prompts],
        "seed": seeds,
        "error": [prompt.error for prompt in prompts],
        "group": [prompt.group for prompt in prompts],
        "prediction_ids": [prompt.prediction_ids for prompt in prompts],
    }
    return pa.Table.from_pydict(columns, schema=PROMPTS_SCHEMA)


def _to_bytes(table: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue().to_pybytes()
