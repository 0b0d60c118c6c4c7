"""Settings of the model and of generation, as the user writes them.

Standard library only: the driver imports this without torch. The fields of GenerationConfig are the one table
of sampling settings: range checks, the `sampling` struct of a row, the endpoint's parameters, --help and
docs/settings.md all derive from it, so that a new setting is one field.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

from engine.settings import at_least, check, setting

MAX_STOPS = 64
MAX_STOP_LEN = 1000
MAX_SAMPLES = 1000
MAX_LOGPROBS = 20
DTYPES = ("auto", "float64", "float32", "bfloat16", "float16")
QUANTIZATIONS = ("int8", "nf4")
AT_LEAST_1 = "at least 1"


def default_max_running(on_gpu: bool) -> int:
    """The sequences that a worker decodes at once where model.max_running says nothing."""
    return 256 if on_gpu else 16


@dataclass(frozen=True)
class ModelConfig:
    """Which model a worker loads, and how much of it runs at once."""

    path: str = ""
    """A folder in Hugging Face format, or a hub name."""
    revision: str | None = None
    """Branch, tag or commit on the hub."""
    dtype: str = setting("auto", f"one of {', '.join(DTYPES)}", DTYPES.__contains__)
    """The type of the weights: auto is bfloat16 on CUDA and float32 on a CPU; or float64, float32, bfloat16,
    float16.
    """
    device: str = setting(
        "auto", "auto, cpu, cuda or cuda:N", lambda v: bool(re.fullmatch(r"auto|cpu|cuda(:\d+)?", v))
    )
    """Where the model runs: auto is CUDA when present, else the CPU; or cpu, cuda, cuda:N."""
    trust_remote_code: bool = False
    """Run code that comes with the model. Read that code first."""
    quantization: str | None = setting(
        None, f"null or one of {', '.join(QUANTIZATIONS)}", QUANTIZATIONS.__contains__
    )
    """Round the weights while they are loaded: int8, or nf4 (4 bits). Null leaves the checkpoint as it is."""
    adapter: str | None = None
    """A folder or a hub name of a LoRA adapter, which is merged into the weights."""
    adapter_revision: str | None = None
    """Branch, tag or commit of the adapter on the hub."""
    check_memory: bool = True
    """Refuse a model that will not fit before it is loaded."""
    max_context: int | None = setting(None, AT_LEAST_1, at_least(1))
    """Positions per sequence. Null means what the model was made for."""
    max_running: int | None = setting(None, AT_LEAST_1, at_least(1))
    """Sequences decoded at once. Null means 16 on a CPU and 256 on CUDA."""
    cache_tokens: int | None = setting(None, AT_LEAST_1, at_least(1))
    """Tokens of K/V kept in pages. Null means max_running x max_context, within a share of the free memory.

    The prefix cache comes to use all of them, so set this where several workers share a machine's memory.
    """
    page_size: int = setting(16, AT_LEAST_1, at_least(1))
    """Tokens per page of the K/V cache."""
    prefix_cache: bool = True
    """Let prompts that begin alike share the full pages of their beginning."""
    prefill_chunk: int = setting(512, AT_LEAST_1, at_least(1))
    """Prompt tokens that one step runs at most."""
    threads: int = setting(1, AT_LEAST_1, at_least(1))
    """Torch threads per worker."""

    def __post_init__(self) -> None:
        check(ModelConfig, vars(self), "model.")
        if self.quantization and self.dtype == "float64":
            raise ValueError(
                f"model.quantization {self.quantization} works with float32, bfloat16 and float16, "
                "not with model.dtype float64; change one"
            )
        if self.quantization and self.adapter:
            raise ValueError(
                f"model.adapter cannot be merged into weights that model.quantization {self.quantization} "
                "rounds; leave one of them out, or merge the adapter first (peft's merge_and_unload), save "
                "the model and name that folder as model.path"
            )


def _are_stops(stop: Sequence[object]) -> bool:
    texts = as_list(stop)
    return len(texts) <= MAX_STOPS and all(
        isinstance(text, str) and 1 <= len(text) <= MAX_STOP_LEN for text in texts
    )


def as_list(stop: Any) -> Any:
    """Stop texts as a list: OpenAI's API takes a single one as well."""
    return [stop] if isinstance(stop, str) else stop


def _are_ids(values: Sequence[object]) -> bool:
    return all(isinstance(value, int) and not isinstance(value, bool) and value >= 0 for value in values)


@dataclass(frozen=True)
class GenerationConfig:
    """How tokens are chosen and when a sequence ends.

    A row's own `sampling` overrides these field by field.
    """

    max_tokens: int = setting(256, "an integer of at least 1", at_least(1))
    """Output tokens at most."""
    temperature: float = setting(0.0, "a number of at least 0 (0 = greedy)", at_least(0))
    """The temperature of sampling; 0 is greedy."""
    top_p: float = setting(1.0, "a number above 0 and at most 1 (1 = off)", lambda v: 0 < v <= 1)
    """Sample from the likeliest tokens that together have this probability; 1 is off."""
    top_k: int = setting(0, "an integer of at least 0 (0 = off)", at_least(0))
    """Sample from this many of the likeliest tokens; 0 is off."""
    min_p: float = setting(0.0, "a number of at least 0 and below 1 (0 = off)", lambda v: 0 <= v < 1)
    """Sample from tokens that have at least this share of the likeliest token's probability; 0 is off."""
    seed: int = setting(0, "an integer")
    """The seed of the job. A row's own seed is derived from it and from the row's place in the input."""
    ignore_eos: bool = setting(False, "true or false")
    """Go on to max_tokens when the model ends the text."""
    speculate: str = setting("auto", "auto or off", ("auto", "off").__contains__)
    """Drafts for a row: auto is as the section speculation says; off is plain decoding."""
    stop_token_ids: list[int] = setting([], "a list of token ids", _are_ids)
    """Token ids that end the output, besides the model's own. The stop token is kept in generated_ids."""
    stop: list[str] | str = setting(
        [],
        f"a text or a list of at most {MAX_STOPS} texts of 1 to {MAX_STOP_LEN} characters",
        _are_stops,
        served=False,
    )
    """Texts that end the output, which is cut before the one that came; a single one needs no list."""
    include_stop: bool = setting(False, "true or false", served=False)
    """Cut the output after the stop text instead of before it."""
    n: int = setting(1, f"an integer of 1 to {MAX_SAMPLES}", lambda v: 1 <= v <= MAX_SAMPLES, served=False)
    """Samples of each prompt."""
    logprobs: int | None = setting(
        None,
        f"an integer of 0 (the chosen token alone) to {MAX_LOGPROBS}; leave it out for none",
        lambda v: 0 <= v <= MAX_LOGPROBS,
        served=False,
    )
    """Give the log-probability of each token and of this many likeliest tokens beside it; null gives none."""

    def __post_init__(self) -> None:
        check(GenerationConfig, vars(self), "generation.")
        object.__setattr__(self, "stop", as_list(self.stop))


SAMPLING_FIELDS = tuple(known.name for known in fields(GenerationConfig))
# The endpoint takes these settings, in its configuration and in requests; the others are the batch job's
# alone.
SERVED_FIELDS = tuple(known.name for known in fields(GenerationConfig) if known.metadata["served"])


def check_generation(values: dict[str, object], prefix: str = "") -> None:
    """Raises ValueError, naming value and limit, for a setting out of its range; absent fields pass."""
    check(GenerationConfig, values, prefix)
