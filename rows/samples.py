"""Runs a row through the engine: its settings become one request per sample, and the completions of these
requests become the row's result.
"""

import asyncio
from collections.abc import Awaitable
from dataclasses import asdict, dataclass, replace
from typing import Any, Protocol

from engine.config import GenerationConfig
from engine.request import Completion, Request
from rows.output_columns import Generated, OutputColumns
from rows.prompts import Prompt, make_request, row_seed
from rows.stop_strings import StopStringCheck, StopStrings
from rows.text_codec import TextCodec


class Loop(Protocol):
    """What a row needs of an engine loop."""

    def complete(self, request: Request) -> Awaitable[Completion]:
        """All of a request's tokens; raises ValueError for one that cannot run, RuntimeError when the engine
        has ended.
        """


@dataclass(frozen=True)
class RowGenerator:
    """What all rows of a job share on their way through the engine."""

    loop: Loop
    generation: GenerationConfig
    columns: OutputColumns
    codec: TextCodec

    async def generate(self, row_id: str, prompt: Prompt, seed: int) -> Generated | str:
        """What a row gives, or its error. Raises RuntimeError when the engine has ended."""
        if prompt.error is not None:
            return prompt.error
        settings: dict[str, Any] = {**asdict(self.generation), **prompt.sampling}
        stops = StopStrings(tuple(settings["stop"]), settings["include_stop"]) if settings["stop"] else None
        try:
            self.columns.check(settings)
            request = _stopping(make_request(row_id, prompt, self.generation, seed), stops, self.codec)
            requests = sample_requests(request, settings["n"])
            completions = await asyncio.gather(*map(self.loop.complete, requests))
        except ValueError as error:  # the output has no place for it, or the engine cannot run it
            return str(error)
        return Generated(completions, settings["n"], stops, self.codec.context(prompt.token_ids))


def sample_requests(request: Request, num_samples: int) -> list[Request]:
    """One request per sample, all in one group: the row's own, if it has one.

    The first request is what a single sample would get; each other has a seed made from the first one's seed
    and its own number. Greedy samples are equal, so one request stands for all of them.
    """
    if num_samples == 1 or request.sampling.temperature == 0:
        return [request]
    requests = [replace(request, group=request.group or request.id)]
    for number in range(1, num_samples):
        sampling = replace(request.sampling, seed=row_seed(request.sampling.seed, "sample", number))
        requests.append(replace(requests[0], id=f"{request.id}/{number}", sampling=sampling))
    return requests


def _stopping(request: Request, stops: StopStrings | None, codec: TextCodec) -> Request:
    if stops is None:
        return request
    if not codec.can_stream:
        kind = type(codec.tokenizer).__name__
        raise ValueError(
            f"stop needs a tokenizer that comes as a tokenizer.json, and this model's is a {kind}; "
            "use stop_token_ids"
        )
    return replace(
        request, make_stop_check=lambda: StopStringCheck(stops.texts, codec.tokenizer, request.prompt_ids)
    )
