"""Whether a request can run, asked before it is queued: whatever is wrong with it must fail it alone.

A value of a wrong type would otherwise raise in the middle of a step, which is the step of all requests.
"""

from collections.abc import Set
from dataclasses import asdict
from typing import Any

import numpy as np

from drafting.sampling import Sampling
from engine.config import check_generation
from engine.prompt_length import check_prompt_length
from engine.request import Request
from engine.settings import shown


def check_request(request: Request, max_context: int, vocab_size: int) -> None:
    """Raises ValueError, naming value and limit, for a request that cannot run."""
    if not isinstance(request.id, str):
        raise ValueError(f"the request's id is {shown(request.id)}; it must be a text")
    _check_prompt(request.prompt_ids, max_context, vocab_size)
    if not isinstance(request.sampling, Sampling):
        raise ValueError(f"sampling is {shown(request.sampling)}; it must be a Sampling")
    names = ("max_tokens", "logprobs", "ignore_eos")
    check_generation({name: getattr(request, name) for name in names} | asdict(request.sampling))
    if not isinstance(request.stop_ids, Set):
        raise ValueError(f"stop_ids is {shown(request.stop_ids)}; it must be a set of token ids")
    if not isinstance(request.group, str):
        raise ValueError(f"group is {shown(request.group)}; it must be a text")
    if request.make_stop_check is not None and not callable(request.make_stop_check):
        raise ValueError(f"make_stop_check is {shown(request.make_stop_check)}; it must be a function")


def _check_prompt(prompt_ids: Any, max_context: int, vocab_size: int) -> None:
    try:
        ids = np.array(prompt_ids)
    except ValueError:  # lists of several lengths
        ids = np.array(None)
    if ids.ndim != 1:
        raise ValueError(f"prompt_ids is {shown(prompt_ids)}; it must be a tuple of token ids")
    check_prompt_length(len(ids), max_context)
    if ids.dtype.kind not in "iu":  # one value of another type gives all of them that type
        others = [value for value in prompt_ids if not isinstance(value, (int, np.integer))]
        wrong = others[0] if others else max(prompt_ids, key=abs)  # too large for an array
        raise ValueError(f"the prompt holds {shown(wrong)} in place of a token id; ids are integers")
    low = int(ids.min())
    high = int(ids.max())
    if low < 0 or high >= vocab_size:
        outside = low if low < 0 else high
        raise ValueError(
            f"the prompt holds token id {outside}; ids of this model go from 0 to {vocab_size - 1}"
        )
