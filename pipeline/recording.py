"""Runs the rows of a plan through an engine in this process and writes them as transcripts, for replays.

It prepares rows and makes requests as the batch job does, so their texts are the job's. Does not know Ray,
parts, or how a transcript is replayed.
"""

import asyncio
import time
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pyarrow as pa

from actors.engine_process import start_loop
from actors.worker import PreparedRow, prepared_rows
from drafting.config import SpeculationConfig
from engine.config import GenerationConfig, ModelConfig
from engine.request import Completion, Request
from pipeline.prepare import PrepareJob, prepare_shards
from rows.output_columns import Generated, OutputColumns
from rows.samples import Loop, RowGenerator
from rows.text_codec import TextCodec, load_codec

if TYPE_CHECKING:
    from drafting.replay.transcripts import Transcript


class RecordedRow(NamedTuple):
    """What a row gave, or its error.

    place: where the input has it; lines: a transcript for each sample that was decoded; began: when the
    model was there.
    """

    place: str
    result: Generated | str
    lines: list[str]
    began: float


@dataclass(frozen=True)
class Recorder:
    """Records rows as a job with these settings generates them.

    num_likely: how many of the likeliest tokens are asked for. max_rows: rows that are in flight at most.
    """

    model: ModelConfig
    speculation: SpeculationConfig
    generation: GenerationConfig
    columns: OutputColumns
    num_likely: int
    max_rows: int

    async def rows(self, pieces: pa.Table, prepare: PrepareJob) -> AsyncGenerator[RecordedRow, None]:
        """The rows of these pieces of a plan, in order; raises RuntimeError when the engine has ended."""
        codec = load_codec(self.model)
        loop = start_loop(self.model, self.speculation)
        began = time.time()
        room = asyncio.Semaphore(self.max_rows)
        waiting: deque[asyncio.Task[RecordedRow]] = deque()
        try:
            for place, row in rows_of(pieces, prepare):
                await room.acquire()
                task = asyncio.create_task(self._row(loop, codec, place, row, began))
                task.add_done_callback(lambda _: room.release())
                waiting.append(task)
                while waiting and waiting[0].done():
                    yield waiting.popleft().result()
            while waiting:
                yield await waiting.popleft()
        finally:
            loop.close()
            await asyncio.gather(*waiting, return_exceptions=True)

    async def _row(
        self, loop: Loop, codec: TextCodec, place: str, row: PreparedRow, began: float
    ) -> RecordedRow:
        from drafting.replay.transcripts import to_line

        asking = AskingLoop(loop, self.num_likely)
        rows = RowGenerator(asking, self.generation, self.columns, codec)
        result = await rows.generate(row.id, row.prompt, row.seed)
        completions = [] if isinstance(result, str) else result.completions
        pairs = zip(asking.requests, completions, strict=False)  # a row with an error may have made requests
        lines = [to_line(transcript_of(request, completion)) for request, completion in pairs]
        return RecordedRow(place, result, lines, began)


class AskingLoop:
    """An engine loop for one row: it asks for the likeliest tokens, and keeps the requests in their order."""

    def __init__(self, loop: Loop, num_likely: int) -> None:
        self.loop = loop
        self.num_likely = num_likely
        self.requests: list[Request] = []

    def complete(self, request: Request) -> Awaitable[Completion]:
        """All of a request's tokens, with their log-probabilities."""
        self.requests.append(request)
        return self.loop.complete(replace(request, logprobs=self.num_likely))


def rows_of(pieces: pa.Table, prepare: PrepareJob) -> Iterable[tuple[str, PreparedRow]]:
    """The rows of these pieces in order, each with its place: the file, and its number there from 1."""
    places = (
        f"{piece['path']}, row {piece['first_row'] + number}"
        for piece in pieces.to_pylist()
        for number in range(1, piece["num_rows"] + 1)
    )
    return zip(places, _prepared(prepare_shards(pieces, prepare)), strict=True)


def _prepared(shards: Iterable[dict[str, list[Any]]]) -> Iterator[PreparedRow]:
    for shard in shards:
        yield from prepared_rows(shard["shard"][0], shard["prompts"][0])


def transcript_of(request: Request, completion: Completion) -> "Transcript":
    """A completion as replay reads it; tokens that cannot come, of log-probability -inf, are left out."""
    from drafting.likely import Likely
    from drafting.replay.transcripts import Transcript

    assert completion.logprobs is not None, completion
    is_possible = np.isfinite(completion.logprobs.top)
    return Transcript(
        id=request.id,
        group=request.group,
        prompt_ids=np.array(request.prompt_ids, np.int32),
        output_ids=np.array(completion.token_ids, np.int32),
        likely=Likely(
            np.where(is_possible, completion.logprobs.top_ids, -1).astype(np.int32),
            np.where(is_possible, completion.logprobs.top, 0).astype(np.float32),
        ),
        sampling=request.sampling,
        prediction_ids=request.prediction_ids,
    )
