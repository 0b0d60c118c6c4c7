"""The batch worker: one engine that takes prepared shards, several at once, and commits each as a part.

An adapter: shards come in as Arrow bytes from pipeline/prepare.py, rows go through the engine's loop, only
counts go back to the driver. Does not know files of the input, Ray's dataset or how drafts are made.
"""

import asyncio
import json
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple

import pyarrow as pa

from actors.engine_process import end_process, start_loop
from drafting.config import SpeculationConfig
from engine.config import GenerationConfig, ModelConfig
from rows.engine_counts import NewCounts
from rows.output_columns import Generated, OutputColumns, summarize
from rows.output_folder import OutputFolder
from rows.parts import PartSummary
from rows.prompts import Prompt
from rows.samples import RowGenerator
from rows.text_codec import TextCodec, load_codec

if TYPE_CHECKING:
    from engine.loop import EngineLoop

# What prepare makes of a shard besides the columns that are carried through
PROMPTS_SCHEMA = pa.schema(
    [
        ("token_ids", pa.list_(pa.int32())),
        ("sampling", pa.string()),
        ("seed", pa.uint64()),
        ("error", pa.string()),
        ("group", pa.string()),
        ("prediction_ids", pa.list_(pa.int32())),
    ]
)


class PreparedRow(NamedTuple):
    """A row that is ready for the engine, or has an error. id: its shard and its place there."""

    id: str
    prompt: Prompt
    seed: int


def prepared_rows(shard: int, prompts: bytes) -> list[PreparedRow]:
    """The rows of a shard from the Arrow stream that prepare made of them."""
    return [
        PreparedRow(
            f"{shard}-{index}",
            Prompt(
                token_ids=row["token_ids"],
                sampling=json.loads(row["sampling"]),
                error=row["error"],
                group=row["group"],
                prediction_ids=row["prediction_ids"],
            ),
            row["seed"],
        )
        for index, row in enumerate(pa.ipc.open_stream(prompts).read_all().to_pylist())
    ]


@dataclass(frozen=True)
class WorkerJob:
    """What every worker of a job does. output: folder of the parts.

    max_shards: how many shards a worker takes at once. max_rows: with this many unfinished rows, a worker
    begins no further shard.
    """

    output: OutputFolder
    model: ModelConfig
    speculation: SpeculationConfig
    generation: GenerationConfig
    columns: OutputColumns
    max_shards: int
    max_rows: int
    max_engine_faults: int
    start_loop: "Callable[[ModelConfig, SpeculationConfig], EngineLoop]" = start_loop
    load_codec: Callable[[ModelConfig], TextCodec] = load_codec


class BatchWorker:
    """Ray calls it with batches of prepared shards: columns shard, carried and prompts (Arrow streams)."""

    def __init__(self, job: WorkerJob) -> None:
        self.job = job
        self.free_shards = asyncio.Semaphore(job.max_shards)
        self.num_unfinished = 0  # rows of the shards that have begun
        self.next_shard = asyncio.Lock()
        self.room = asyncio.Event()
        self.room.set()
        self.failure: Exception | None = None
        try:
            job.output.check_faults(job.max_engine_faults)
            self.codec = job.load_codec(job.model)
            self.loop = job.start_loop(job.model, job.speculation)
            self.rows = RowGenerator(self.loop, job.generation, job.columns, self.codec)
            self.counts = NewCounts(lambda: self.loop.stats().counts())
        except Exception as error:
            # Raised by the first call: Ray would print pages about an actor that cannot be made.
            self.failure = error
        self.began: float | None = None

    async def __call__(self, batch: dict[str, Any]) -> dict[str, list[Any]]:
        if self.failure:
            raise self.failure
        self.began = self.began or time.time()
        columns = (batch["shard"], batch["carried"], batch["prompts"])
        shards = [
            self._shard(int(shard), carried, prompts)
            for shard, carried, prompts in zip(*columns, strict=True)
        ]
        summaries = await asyncio.gather(*shards)
        return {
            "summary": [summary.to_json() for summary in summaries],
            "began": [self.began] * len(summaries),
        }

    async def _shard(self, shard: int, carried: bytes, prompts: bytes) -> PartSummary:
        async with self.free_shards:
            done = await asyncio.to_thread(self.job.output.read_summary, shard)
            if done:  # a call that Ray repeats after a worker has died
                return done
            rows = prepared_rows(shard, prompts)
            async with self.next_shard:
                await self.room.wait()
                self._count(len(rows))
            results = await asyncio.gather(*map(self._row, rows))
            return await asyncio.to_thread(self._commit, shard, carried, results)

    def _count(self, more: int) -> None:
        # Rows and not shards: most of a shard's rows are long done while it waits for its longest
        self.num_unfinished += more
        (self.room.set if self.num_unfinished < self.job.max_rows else self.room.clear)()

    async def _row(self, row: PreparedRow) -> Generated | str:
        """What a row gives, or its error."""
        try:
            return await self.rows.generate(row.id, row.prompt, row.seed)
        except RuntimeError as fault:  # EngineDead
            end_process(fault, self.job.output)
        finally:
            self._count(-1)

    def _commit(self, shard: int, carried: bytes, results: list[Generated | str]) -> PartSummary:
        table = pa.ipc.open_stream(carried).read_all()
        summary = summarize(results)
        added = self.job.columns.table(results, self.codec.decode)
        sizes = (table.num_rows, added.num_rows, summary.num_rows)
        assert len({*sizes}) == 1, (shard, *sizes)
        for field, column in zip(added.schema, added.columns, strict=True):
            table = table.append_column(field, column)
        summary = replace(summary, engine=self.counts.take())
        self.job.output.write_part(shard, table, summary)
        return summary
