"""One case of the engine's random test: a model, the engine's settings, and requests with the steps at which
they come and go.

A case is plain data, so it can be printed as one line of JSON and run again. Every setting's default is its
simplest value: what a shrunken case still says is what the difference needs.
"""

import json
from dataclasses import dataclass, field, fields
from typing import Any

from drafting.sampling import Sampling


@dataclass(frozen=True)
class ModelChoice:
    """A tiny random model.

    family: a model_type of tests/tiny_families.py. kv_heads, window: None = as that file says.
    embedding_scale: the larger, the more a text depends on its last token, so that it repeats itself.
    fused_norms: the engine's RMS norms are its own (engine/model/rms_norm.py), as those of a loaded model
    are.
    """

    family: str = "llama"
    kv_heads: int | None = None
    window: int | None = None
    embedding_scale: float = 1.0
    fused_norms: bool = False
    seed: int = 0


@dataclass(frozen=True)
class SpeculationChoice:
    """How the engine drafts.

    mode: off; mixed and adaptive as in drafting/config.py; trees = random trees that are partly right.
    num_successors: tokens that the draft tables have in a row; 0 = no tables.
    is_free: mode adaptive verifies every candidate, instead of pricing them with an invented clock.
    seed: of the trees and of the clock.
    """

    mode: str = "off"
    num_drafts: int = 1
    draft_len: int = 1
    query_len: int = 1
    sources: tuple[str, ...] = ("context",)
    max_nodes: int = 8
    corpus_tokens: int = 0
    num_successors: int = 12
    is_free: bool = True
    seed: int = 0


@dataclass(frozen=True)
class EngineChoice:
    """The engine's settings, as in ModelConfig; num_pages: pages of the cache."""

    max_context: int = 64
    page_size: int = 16
    num_pages: int = 64
    max_running: int = 1
    prefill_chunk: int = 512
    prefix_cache: bool = False
    speculation: SpeculationChoice = SpeculationChoice()


@dataclass(frozen=True)
class RequestChoice:
    """A request, and when it comes and goes.

    stop_words: token sequences; the output ends with the first of them that comes. check_fails: the output
    token, counted from 1, at which the stop check raises. arrives: the step before
    which it is added. aborted: the step before which it is aborted, if it still runs. comes_back: it is added
    again right after its abort, under the same id.
    """

    prompt_ids: tuple[int, ...] = (0,)
    max_tokens: int = 1
    sampling: Sampling = Sampling()
    stop_ids: tuple[int, ...] = ()
    stop_words: tuple[tuple[int, ...], ...] = ()
    check_fails: int | None = None
    ignore_eos: bool = True
    group: str = ""
    logprobs: int | None = None
    speculate: bool = True
    prediction_ids: tuple[int, ...] = ()
    arrives: int = 0
    aborted: int | None = None
    comes_back: bool = False


@dataclass(frozen=True)
class Case:
    """A model, an engine over it, and what it is asked; refused: steps before which it is asked for what it
    must refuse.
    """

    model: ModelChoice = ModelChoice()
    engine: EngineChoice = EngineChoice()
    eos_ids: tuple[int, ...] = ()
    requests: tuple[RequestChoice, ...] = field(default=(RequestChoice(),))
    refused: tuple[int, ...] = ()


def to_json(case: Case) -> str:
    """The case as one line, without what has its default."""
    return json.dumps(_sparse(case))


def from_json(text: str) -> Case:
    """The case that to_json wrote; raises TypeError for a name that no setting has."""
    values = json.loads(text)
    engine = dict(values.get("engine", {}))
    speculation = SpeculationChoice(**_tuples(engine.pop("speculation", {})))
    requests = [_request(request) for request in values.get("requests", [{}])]
    return Case(
        ModelChoice(**values.get("model", {})),
        EngineChoice(**engine, speculation=speculation),
        tuple(values.get("eos_ids", ())),
        tuple(requests),
        tuple(values.get("refused", ())),
    )


def _request(values: dict[str, Any]) -> RequestChoice:
    given = _tuples(values)
    given["stop_words"] = tuple(map(tuple, values.get("stop_words", ())))
    return RequestChoice(**{**given, "sampling": Sampling(**values.get("sampling", {}))})


def _tuples(values: dict[str, Any]) -> dict[str, Any]:
    return {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}


def _sparse(choice: Any) -> dict[str, Any]:
    default = type(choice)()
    found: dict[str, Any] = {}
    for name in (known.name for known in fields(choice)):
        value = getattr(choice, name)
        if name == "requests":
            found[name] = [_sparse(request) for request in value]
        elif name in ("model", "engine", "speculation", "sampling"):
            found |= {name: inner} if (inner := _sparse(value)) else {}
        elif value != getattr(default, name):
            found[name] = value
    return found
