"""What a request must get, found without the engine under test: transformers' generate for greedy texts, the
plain engine with nothing else in it for sampled ones. One forward pass over the text, without a cache, is the
judge of both.

Owns no settings of a case: a reference depends on the model, the prompt and the sampling alone, so it is kept
for the cases that ask again. The rule that ends an output is written here a second time.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray

from checks.fuzz.fuzz_case import Case, EngineChoice, ModelChoice, RequestChoice
from checks.fuzz.fuzz_engines import fuzz_engine
from checks.fuzz.fuzz_models import MAX_CONTEXT, fuzz_model, tiny_share
from checks.fuzz.sampling_rule import Target, target
from drafting.sampling import Sampling
from engine.request import Request

PLAIN = EngineChoice(max_context=MAX_CONTEXT, num_pages=MAX_CONTEXT // 16)
STEPS_AT_ONCE = 16  # references are made somewhat longer than asked, so that fewer are made twice


class Difference(Exception):
    """Two things that must be equal are not, or a rule was broken."""


class ReferencesDisagree(Difference):
    """The references differ among themselves."""


@dataclass(frozen=True, eq=False)
class Text:
    """A continuation without stops, and the logits float32 [T, V] that gave each of its tokens.

    close: the places where the last digits of the logits decide; there another token is right as well.
    doubt: what the rule, by the logits of the whole text, makes otherwise; None = nothing.
    """

    token_ids: tuple[int, ...]
    close: frozenset[int]
    logits: NDArray[np.float32]
    doubt: str | None


@dataclass(frozen=True, eq=False)
class Expected:
    """What a request must get: tokens and why they end; and where its text may differ, with the logits."""

    token_ids: tuple[int, ...]
    finish_reason: str
    text: Text


def expected(case: Case, request: RequestChoice) -> Expected:
    """What a request of a case must get: its text, cut by the rules of eos, stops, max_tokens and context.

    Raises ReferencesDisagree where the text itself is in doubt.
    """
    room = min(request.max_tokens, case.engine.max_context - len(request.prompt_ids))
    text = continuation(case.model, request.prompt_ids, request.sampling, room)
    if text.doubt:
        raise ReferencesDisagree(f"prompt {request.prompt_ids}, {request.sampling}: {text.doubt}")
    stop_ids = stop_ids_of(case, request)
    for end in range(1, room + 1):
        output = text.token_ids[:end]
        if output[-1] not in stop_ids and request.check_fails == end:
            return Expected(output, "error", text)
        if output[-1] in stop_ids or ends_with(output, request.stop_words):
            return Expected(output, "stop", text)
    return Expected(output, "length", text)


def stop_ids_of(case: Case, request: RequestChoice) -> set[int]:
    """The token ids that end a request's output."""
    return {*request.stop_ids} | (set() if request.ignore_eos else {*case.eos_ids})


def ends_with(output: Sequence[int], words: Sequence[Sequence[int]]) -> bool:
    """Whether an output ends with one of these token sequences."""
    return any(tuple(output[-len(word) :]) == tuple(word) for word in words)


def continuation(
    model: ModelChoice, prompt_ids: tuple[int, ...], sampling: Sampling, num_tokens: int
) -> Text:
    """At least num_tokens tokens of a prompt's continuation, as far as there are positions."""
    most = MAX_CONTEXT - len(prompt_ids)
    return _continuation(
        model, prompt_ids, sampling, min(most, -(-num_tokens // STEPS_AT_ONCE) * STEPS_AT_ONCE)
    )


@lru_cache(maxsize=4096)
def _continuation(
    model: ModelChoice, prompt_ids: tuple[int, ...], sampling: Sampling, num_tokens: int
) -> Text:
    if sampling.temperature == 0:
        token_ids = _generated(model, prompt_ids, num_tokens)
    else:
        token_ids = _sampled(model, prompt_ids, sampling, num_tokens)
    logits = _logits(model, prompt_ids, token_ids)
    targets = [target(row, sampling, position, tiny_share(model)) for position, row in enumerate(logits)]
    close = frozenset(place for place, found in enumerate(targets) if found.is_close)
    return Text(token_ids, close, logits, _doubt(token_ids, targets))


def _generated(model: ModelChoice, prompt_ids: tuple[int, ...], num_tokens: int) -> tuple[int, ...]:
    ids = torch.tensor([prompt_ids])
    output = fuzz_model(model).reference.generate(
        ids, attention_mask=torch.ones_like(ids), max_new_tokens=num_tokens, do_sample=False,
        eos_token_id=None, pad_token_id=0,
    )  # fmt: skip
    return tuple(output[0, len(prompt_ids) :].tolist())


def _sampled(
    model: ModelChoice, prompt_ids: tuple[int, ...], sampling: Sampling, num_tokens: int
) -> tuple[int, ...]:
    engine = fuzz_engine(fuzz_model(model), PLAIN, eos_ids=())
    (completion,) = engine.generate([Request("alone", prompt_ids, num_tokens, sampling)])
    return completion.token_ids


@torch.inference_mode()
def _logits(
    model: ModelChoice, prompt_ids: tuple[int, ...], token_ids: tuple[int, ...]
) -> NDArray[np.float32]:
    """The logits of each output position, from one forward pass over the whole text without a cache."""
    ids = torch.tensor([[*prompt_ids, *token_ids[:-1]]])
    logits = fuzz_model(model).reference(input_ids=ids, use_cache=False).logits
    return logits[0, len(prompt_ids) - 1 :].float().numpy()


def _doubt(token_ids: tuple[int, ...], targets: list[Target]) -> str | None:
    """The first place where the rule gives another token than stepwise decoding did."""
    for place, (token, found) in enumerate(zip(token_ids, targets, strict=True)):
        if token != found.token and not found.is_close:
            return (
                f"token {place} is {token} step by step, and {found.token} by the rule and one forward pass "
                "over the whole text"
            )
    return None
