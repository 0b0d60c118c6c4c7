"""Generation for people with their own Ray Data pipeline: `ds.map_batches(Generate, ...)` adds the output
columns.

    ds = ray.data.read_parquet("prompts/").map_batches(
        Generate, fn_constructor_kwargs={"model": "demo/model", "max_tokens": 64}, batch_size=16,
        compute=ray.data.ActorPoolStrategy(size=1, max_concurrent_calls_per_actor=8),
    )

Rows only: no run folder, no parts, no resume; those are jobs/offline.py's.
"""

import asyncio
import uuid
from typing import Any

import pyarrow as pa

from actors.engine_process import end_process, start_loop
from drafting.config import SpeculationConfig
from engine.config import GenerationConfig, ModelConfig
from rows.arrow_rows import arrow_rows
from rows.output_columns import Generated, OutputColumns
from rows.prompts import Prompt, PromptColumns, PromptReader, row_seed
from rows.samples import RowGenerator
from rows.text_codec import load_codec


class Generate:
    """Keyword arguments: of the model a path or a ModelConfig, the columns' names, and GenerationConfig's
    fields.

    A row's seed comes from the job's seed and its id (id_column), or its prompt when no id is named.
    group_column: rows with the same value resemble each other. prediction_column: the texts that outputs
    probably become. samples_column and logprobs_column: have these
    columns also when only a row's own settings ask for them.
    """

    def __init__(
        self,
        model: str | ModelConfig,
        *,
        speculation: SpeculationConfig | None = None,
        prompt_column: str = "prompt",
        messages_column: str | None = None,
        tools_column: str | None = "tools",
        sampling_column: str | None = "sampling",
        id_column: str | None = None,
        group_column: str | None = None,
        prediction_column: str | None = None,
        prefix: str = "",
        generated_ids: bool = False,
        samples_column: bool = False,
        logprobs_column: bool = False,
        **generation: Any,
    ) -> None:
        config = ModelConfig(path=model) if isinstance(model, str) else model
        self.generation = GenerationConfig(**generation)
        self.columns = OutputColumns.of(
            self.generation, prefix, generated_ids, samples_column, logprobs_column
        )
        self.id_column = id_column
        self.needed_columns = {"group_column": group_column, "prediction_column": prediction_column}
        self.codec = load_codec(config)
        self.reader = PromptReader(
            self.codec,
            PromptColumns(
                prompt_column,
                messages_column,
                sampling_column,
                group=group_column,
                tools=tools_column,
                prediction=prediction_column,
            ),
        )
        loop = start_loop(config, speculation or SpeculationConfig())
        self.rows = RowGenerator(loop, self.generation, self.columns, self.codec)

    async def __call__(self, batch: Any) -> pa.Table:
        table = _as_table(batch)
        clash = set(self.columns.schema.names) & set(table.column_names)
        if clash:
            raise ValueError(
                f"the rows already have columns {', '.join(sorted(clash))}; give a prefix for the added ones"
            )
        self._check_columns(table.column_names)
        rows = arrow_rows(table)
        prompts = await asyncio.to_thread(self.reader.read, rows)
        results = await asyncio.gather(
            *(self._row(row, prompt) for row, prompt in zip(rows, prompts, strict=True))
        )
        added = await asyncio.to_thread(self.columns.table, results, self.codec.decode)
        for field, column in zip(added.schema, added.columns, strict=True):
            table = table.append_column(field, column)
        return table

    def _check_columns(self, names: list[str]) -> None:
        for argument, column in self.needed_columns.items():
            if column and column not in names:
                raise ValueError(
                    f"{argument} is {column!r}, but the rows have no such column: {', '.join(names)}"
                )

    async def _row(self, row: dict[str, Any], prompt: Prompt) -> Generated | str:
        place = row[self.id_column] if self.id_column else ",".join(map(str, prompt.token_ids))
        seed = row_seed(self.generation.seed, place)
        try:
            return await self.rows.generate(uuid.uuid4().hex, prompt, seed)
        except RuntimeError as fault:  # EngineDead
            end_process(fault)


def _as_table(batch: Any) -> pa.Table:
    """Whatever batch_format gave, as Arrow, so that the added columns have the same types in every block."""
    from ray.data.block import BlockAccessor

    block = BlockAccessor.batch_to_block(batch)
    return block if isinstance(block, pa.Table) else pa.Table.from_pandas(block, preserve_index=False)
