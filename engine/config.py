"""Settings of the model and of generation, as the user writes them.

Standard library only: the driver imports this without torch.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

MAX_STOPS = 64
MAX_STOP_LEN = 1000
MAX_SAMPLES = 1000
MAX_LOGPROBS = 20
DTYPES = ("auto", "float64", "float32", "bfloat16", "float16")
QUANTIZATIONS = ("int8", "nf4")


@dataclass(frozen=True)
class ModelConfig:
    """Which model a worker loads and how much of it runs at once.

    path: a folder or a hub name; revision: branch, tag or commit on the hub. dtype: auto = bfloat16 on CUDA,
    float32 on a CPU. device: auto = CUDA when present. trust_remote_code: run code that comes with the model.
    check_memory: refuse before loading what will not fit. quantization: None = as the checkpoint is; int8 or
    nf4 (4 bits) = rounded while it is loaded. adapter: a folder or a hub name of a LoRA adapter, merged into
    the weights; adapter_revision: as revision. max_context: positions per sequence; None = what the model was
    made for. max_running: sequences decoded at once; None = 16 on a CPU, 256 on CUDA. cache_tokens: tokens of
    K/V kept in pages; None = max_running x max_context, within the memory that is free. With prefix_cache a
    worker comes to use all of them: set this where several workers share a machine's memory. page_size: K/V
    slots per page. prefix_cache: prompts that begin alike share the full pages of their beginning.
    prefill_chunk: prompt tokens run in one step at most. threads: torch threads per worker.
    """

    path: str = ""
    revision: str | None = None
    dtype: str = "auto"
    device: str = "auto"
    trust_remote_code: bool = False
    quantization: str | None = None
    adapter: str | None = None
    adapter_revision: str | None = None
    check_memory: bool = True
    max_context: int | None = None
    max_running: int | None = None
    cache_tokens: int | None = None
    page_size: int = 16
    prefix_cache: bool = True
    prefill_chunk: int = 512
    threads: int = 1

    def __post_init__(self) -> None:
        if self.dtype not in DTYPES:
            raise ValueError(f"model.dtype is {self.dtype!r}; it must be one of {', '.join(DTYPES)}")
        if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", self.device):
            raise ValueError(f"model.device is {self.device!r}; it must be auto, cpu, cuda or cuda:N")
        if self.quantization is not None:
            self._check_quantization(self.quantization)
        for name in ("max_context", "max_running", "cache_tokens", "page_size", "prefill_chunk", "threads"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"model.{name} is {value}; it must be at least 1")

    def _check_quantization(self, name: str) -> None:
        if name not in QUANTIZATIONS:
            raise ValueError(
                f"model.quantization is {name!r}; it must be null or one of {', '.join(QUANTIZATIONS)}"
            )
        if self.dtype == "float64":
            raise ValueError(
                f"model.quantization {name} works with float32, bfloat16 and float16, not with model.dtype "
                "float64; change one"
            )
        if self.adapter:
            raise ValueError(
                f"model.adapter cannot be merged into weights that model.quantization {name} rounds; "
                "leave one of them out, "
                "or merge the adapter ahead (peft's merge_and_unload), save the model and name that folder "
                "as model.path"
            )


@dataclass(frozen=True)
class GenerationConfig:
    """How tokens are chosen and when a sequence ends; a row's own `sampling` overrides these field by field.

    temperature: 0 = greedy. top_k: 0 = off. top_p: 1 = off. min_p: 0 = off, relative to the likeliest token.
    seed: of the job; a row's own seed is derived from it and the row's place in the input. speculate: auto =
    as speculation.* says; off = plain decoding, for rows that should not be guessed for. ignore_eos: go on to
    max_tokens. stop_token_ids: end like eos; the stop token itself is kept in the ids. stop: texts that end
    the output, which is cut before the one that came; include_stop: cut behind it instead. n: samples of each
    prompt. logprobs: of each token, and of so many likeliest ones beside it; None = none.
    """

    max_tokens: int = 256
    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    seed: int = 0
    ignore_eos: bool = False
    speculate: str = "auto"
    stop_token_ids: list[int] = field(default_factory=list)
    stop: list[str] = field(default_factory=list)
    include_stop: bool = False
    n: int = 1
    logprobs: int | None = None

    def __post_init__(self) -> None:
        check_generation(vars(self), "generation.")


def check_generation(values: dict[str, object], prefix: str = "") -> None:
    """Raises ValueError, naming value, limit and field, for a value outside its range; fields that are absent
    pass.
    """
    _check(values, prefix, "max_tokens", int, lambda v: v >= 1, "an integer of at least 1")
    _check(
        values,
        prefix,
        "temperature",
        (int, float),
        lambda v: 0 <= v < float("inf"),
        "a number of at least 0 (0 = greedy)",
    )
    _check(
        values,
        prefix,
        "top_p",
        (int, float),
        lambda v: 0 < v <= 1,
        "a number above 0 and at most 1 (1 = off)",
    )
    _check(values, prefix, "top_k", int, lambda v: v >= 0, "an integer of at least 0 (0 = off)")
    _check(
        values,
        prefix,
        "min_p",
        (int, float),
        lambda v: 0 <= v < 1,
        "a number of at least 0 and below 1 (0 = off)",
    )
    _check(values, prefix, "seed", int, lambda v: True, "an integer")
    _check(values, prefix, "ignore_eos", bool, lambda v: True, "true or false")
    _check(values, prefix, "speculate", str, lambda v: v in ("auto", "off"), "auto or off")
    ids = "a list of token ids"
    _check(
        values,
        prefix,
        "stop_token_ids",
        (list, tuple),
        lambda v: all(isinstance(i, int) and i >= 0 for i in v),
        ids,
    )
    _check(
        values,
        prefix,
        "stop",
        (list, tuple),
        _are_stops,
        f"a list of at most {MAX_STOPS} texts of 1 to {MAX_STOP_LEN} characters",
    )
    _check(values, prefix, "include_stop", bool, lambda v: True, "true or false")
    _check(values, prefix, "n", int, lambda v: 1 <= v <= MAX_SAMPLES, f"an integer of 1 to {MAX_SAMPLES}")
    top = f"an integer of 0 (the chosen token alone) to {MAX_LOGPROBS}; leave it out for none"
    _check(values, prefix, "logprobs", (int, type(None)), lambda v: v is None or 0 <= v <= MAX_LOGPROBS, top)


def _are_stops(texts: Sequence[object]) -> bool:
    return len(texts) <= MAX_STOPS and all(
        isinstance(text, str) and 1 <= len(text) <= MAX_STOP_LEN for text in texts
    )


def _check(values, prefix, name, types, fits, wanted) -> None:  # type: ignore[no-untyped-def]
    if name not in values:
        return
    value = values[name]
    right_type = isinstance(value, types) and (types is bool or not isinstance(value, bool))
    if not right_type or not fits(value):
        raise ValueError(f"{prefix}{name} is {shown(value)}; it must be {wanted}")


def shown(value: object) -> str:
    """A value as an error shows it: short."""
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
