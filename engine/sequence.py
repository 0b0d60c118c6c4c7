"""A request in flight: its tokens so far, how much of it is in the cache, the pages it holds, its counts.

Owns the rule that ends a sequence, token by token, also inside an accepted path. Knows no tensors and no
model.
"""

from typing import Any

import numpy as np

from drafting.sampling import Sampling
from engine.request import Event, FinishReason, Logprobs, Request, SequenceStats, StopCheck


def _stop_check(request: Request) -> StopCheck | None:
    """The request's own check of its output; raises ValueError when it cannot be made."""
    try:
        return request.make_stop_check() if request.make_stop_check else None
    except Exception as error:  # it is the caller's code
        raise ValueError(f"no stop check could be made: {type(error).__name__}: {error}") from error


class Sequence:
    """Tokens [0, num_tokens) are prompt and output.

    The K/V of [0, num_cached) is in pages; the rest must run.
    """

    def __init__(self, request: Request, stop_ids: frozenset[int], max_context: int) -> None:
        self.request = request
        self.stop_ids = stop_ids
        self.stop_check = _stop_check(request)
        self.num_prompt = len(request.prompt_ids)
        self.max_tokens_total = min(self.num_prompt + request.max_tokens, max_context)
        self._buffer = np.empty(self.max_tokens_total, np.int32)
        self._buffer[: self.num_prompt] = request.prompt_ids
        self.num_tokens = self.num_prompt
        self.last_token = request.prompt_ids[-1]
        self.num_cached = 0
        self.page_ids: list[int] = []
        # Keys of its first full pages, as many as were needed so far (engine/prefix_cache.py).
        self.page_keys: list[bytes] = []
        self.num_published = 0  # its pages that other sequences can find, or that it has found
        self.awaited_key: bytes | None = None  # the key of the first page that was not found
        self.was_admitted = False
        self.draft_state: Any = None  # what the proposer knows of it, of its first num_drafted tokens
        self.num_drafted = 0
        self.finish_reason: FinishReason | None = None
        self.error: str | None = None  # why it failed
        self.stats = SequenceStats(num_prompt_tokens=self.num_prompt)

    @property
    def token_ids(self) -> np.ndarray[Any, np.dtype[np.int32]]:
        """Prompt and output so far, int32 [num_tokens]; a view."""
        return self._buffer[: self.num_tokens]

    @property
    def num_uncached(self) -> int:
        """Tokens that still have to run through the model: 1 while decoding, more while prefilling."""
        return self.num_tokens - self.num_cached

    @property
    def group(self) -> str:
        """The name that rows which resemble each other share."""
        return self.request.group

    @property
    def sampling(self) -> Sampling:
        """How its tokens are drawn."""
        return self.request.sampling

    @property
    def prediction_ids(self) -> tuple[int, ...]:
        """What the output probably becomes, no longer than the output can be; empty = nothing is known."""
        return self.request.prediction_ids[: self.max_tokens_total - self.num_prompt]

    @property
    def num_output(self) -> int:
        """Output tokens so far, which is also the position that the next draw is keyed by."""
        return self.num_tokens - self.num_prompt

    @property
    def max_draft_depth(self) -> int:
        """How deep a tree can be of use: the last token allowed is the model's own."""
        return max(0, self.max_tokens_total - self.num_tokens - 1)

    def append(self, token_ids: list[int]) -> int:
        """Takes tokens until one ends the sequence, and returns how many were taken.

        With stop id 2: append([7, 2, 9]) takes 7 and 2, sets finish_reason "stop" and returns 2.
        """
        for taken, token in enumerate(token_ids, 1):
            self.append_one(token)
            if self.finish_reason:
                return taken
        return len(token_ids)

    def append_one(self, token: int) -> None:
        """Takes a token, which may end the sequence; a stop check that raises fails this sequence alone."""
        self._buffer[self.num_tokens] = self.last_token = token
        self.num_tokens += 1
        try:
            stops = token in self.stop_ids or (self.stop_check and self.stop_check(token))
        except Exception as error:  # it is the caller's code
            self.fail(
                f"the stop check raised {type(error).__name__} at output token {self.num_output}: {error}"
            )
            return
        if stops:
            self.finish_reason = "stop"
        elif self.num_tokens == self.max_tokens_total:
            self.finish_reason = "length"

    def fail(self, error: str) -> None:
        """Ends the sequence with an error; the tokens that it has remain its output."""
        self.finish_reason = "error"
        self.error = error

    def event(
        self, token_ids: list[int], sources: tuple[str | None, ...], logprobs: Logprobs | None = None
    ) -> Event:
        """The event of a step; the last one carries the counts."""
        if self.finish_reason:
            self.stats.num_generated_tokens = self.num_output
        stats = self.stats if self.finish_reason else None
        return Event(
            self.request.id, tuple(token_ids), sources, self.finish_reason, stats, logprobs, self.error
        )
