"""Whether a request can run, asked before it is queued: whatever is wrong with it must fail it alone.

A value of a wrong type would otherwise raise in the middle of a step, which is the step of all requests.
"""

from collections.abc import Set
from dataclasses import asdict
from typing import Any

import numpy as np
from numpy.typing import NDArray

from drafting.sampling import Sampling
from engine.config import check_generation
from engine.prompt_length import check_prompt_length
from engine.request import Request
from engine.settings import shown


def check_request(request: Request, max_context: int, vocab_size: int) -> None:
    """Raises ValueError, naming value and limit, for a request that cannot run."""
    if not isinstance(request.id, str):
        raise ValueError(f"the request's id is {shown(request.id)}; it must be a text")
    prompt_ids = _array("prompt_ids", request.prompt_ids)
    check_prompt_length(len(prompt_ids), max_context)
    _check_ids("the prompt", request.prompt_ids, prompt_ids, vocab_size)
    prediction_ids = _array("prediction_ids", request.prediction_ids)
    if len(prediction_ids):
        _check_ids("the prediction", request.prediction_ids, prediction_ids, vocab_size)
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


def _array(name: str, token_ids: Any) -> NDArray[Any]:
    """The ids as an array [num_tokens], of whatever type they are."""
    try:
        ids = np.array(token_ids)
    except ValueError:  # lists of several lengths
        ids = np.array(None)
    if ids.ndim != 1:
        raise ValueError(f"{name} is {shown(token_ids)}; it must be a tuple of token ids")
    return ids


def _check_ids(what: str, token_ids: Any, ids: NDArray[Any], vocab_size: int) -> None:
    if ids.dtype.kind not in "iu":  # one value of another type gives all of them that type
        others = [value for value in token_ids if not isinstance(value, (int, np.integer))]
        wrong = others[0] if others else max(token_ids, key=abs)  # too large for an array
        raise ValueError(f"{what} holds {shown(wrong)} in place of a token id; ids are integers")
    low = int(ids.min())
    high = int(ids.max())
    if low < 0 or high >= vocab_size:
        outside = low if low < 0 else high
        raise ValueError(f"{what} holds token id {outside}; ids of this model go from 0 to {vocab_size - 1}")
