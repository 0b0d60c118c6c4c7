"""Every supported family against transformers' generate, and the table of it in docs/models.md.

    python -m tests.engine.family_table      # compares all, rewrites the table

A tiny random model each, in float64: greedy texts must equal generate's, sampled ones those of a sequence
that is decoded alone without drafts, whatever is drafted, batched, cached in pages of whatever size, or
preempted.
"""

import random
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

from transformers import AttentionInterface

from drafting.sampling import Sampling
from engine import attention
from engine.build import engine_for
from engine.config import ModelConfig
from engine.model import families
from engine.model.loading import load_model
from tests.engine.harness import Case, make_engine, mixed_proposer, random_prompts, run_under_load
from tests.tiny_families import EAGER
from tests.tiny_models import reference_greedy, tiny_family

DOCUMENT = Path(__file__).parent.parent.parent / "docs" / "models.md"
BEGIN = "<!-- written by python -m tests.engine.family_table -->\n"
END = "<!-- end of what it writes -->\n"
# (with drafts, running at once, page size), the last two for sampled texts as well. The cache holds one and
# a half of the longest texts, so sequences are preempted, and prompts of more than 23 tokens run in chunks.
ENGINES = [(False, 1, 16), (True, 1, 4), (True, 3, 16), (False, 8, 4), (True, 8, 1)]
CONTEXT = 96
CACHE = 128
CHUNK = 23
SAMPLED = [Sampling(0.8, top_p=0.9), Sampling(1.2, top_k=7), Sampling(0.8, min_p=0.05), Sampling(1.0)]


@dataclass(frozen=True)
class Found:
    """What a comparison found: how the family attends, and how many tokens were equal, each of them in every
    engine.
    """

    attention: str
    num_greedy: int
    num_sampled: int


@cache
def compare(model_type: str) -> Found:
    """Raises AssertionError where a token differs, and ValueError where the family does not load
    in float32.
    """
    model = tiny_family(model_type)
    greedy = _greedy_cases(model_type)
    with _notes(model) as notes:
        alone = make_engine(model, None, CONTEXT, cache_tokens=CACHE, max_running=1)
        notes.register()
        sampling = {case.name: replace(SAMPLED[n % 4], seed=n) for n, case in enumerate(greedy)}
        completions = alone.generate([case.request(sampling=sampling[case.name]) for case in greedy])
    sampled = [
        replace(case, token_ids=completion.token_ids)
        for case, completion in zip(greedy, completions, strict=True)
    ]
    for number, (drafts, max_running, page_size) in enumerate(ENGINES):
        for cases, settings in [(greedy, None), (sampled, sampling)][: 1 if number < 3 else 2]:
            engine = make_engine(
                model, mixed_proposer(5, 4, cases) if drafts else None, CONTEXT,
                cache_tokens=CACHE, max_running=max_running, page_size=page_size, prefill_chunk=CHUNK,
            )  # fmt: skip
            run_under_load(engine, cases, seed=max_running, sampling=settings)
            assert (sum(engine.stats.accepted.values()) > 0) == drafts
    _load_from_disk(model_type)
    return Found(notes.words(), *(sum(len(case.token_ids) for case in cases) for cases in (greedy, sampled)))


def _greedy_cases(model_type: str) -> list[Case]:
    rng = random.Random(0)
    model = tiny_family(model_type, "eager" if model_type in EAGER else "sdpa")
    prompts = random_prompts(8, seed=0)
    return [
        Case(f"case {n}", prompt, tuple(reference_greedy(model, list(prompt), rng.randint(10, 40))))
        for n, prompt in enumerate(prompts)
    ]


def _load_from_disk(model_type: str) -> None:
    """Weights written and read, float32, linear layers packed for the CPU, experts as transformers runs them:
    the parity check judges.
    """
    with tempfile.TemporaryDirectory() as folder:
        tiny_family(model_type, "eager").save_pretrained(folder)
        engine_for(load_model(ModelConfig(path=folder, dtype="float32")), ModelConfig(max_running=1), None)


class _Notes:
    """Passes attention calls on, and notes what the layers ask for."""

    def __init__(self, model: Any) -> None:
        self.experts = any("Experts" in type(module).__name__ for module in model.modules())
        self.windows: dict[int, int | None] = {}
        self.asked: set[str] = set()

    def register(self) -> None:
        AttentionInterface.register(attention.NAME, self)

    def __call__(
        self, module: Any, query: Any, key: Any, value: Any, attention_mask: Any = None, **given: Any
    ) -> Any:
        self.windows[module.layer_idx] = given.get("sliding_window")
        names = {"soft cap": given.get("softcap"), "sinks": given.get("s_aux")}
        self.asked |= {name for name, value in names.items() if value is not None}
        self.asked |= {"latent K/V"} if key.shape[3] != value.shape[3] else set()
        return attention.tree_attention(module, query, key, value, attention_mask, **given)

    def words(self) -> str:
        windowed = [window is not None for window in self.windows.values()]
        words = ["window"] if all(windowed) else ["window in some layers"] if any(windowed) else []
        return ", ".join(words + sorted(self.asked) + (["experts"] if self.experts else [])) or "plain"


@contextmanager
def _notes(model: Any) -> Iterator[_Notes]:
    try:
        yield _Notes(model)
    finally:
        AttentionInterface.register(attention.NAME, attention.tree_attention)


def table(found: dict[str, Found]) -> str:
    """The part of docs/models.md that is written, from what was found for each family."""
    lines = ["| model_type | models | attention | greedy text | sampled text |", "|---|---|---|---|---|"]
    for model_type, name in families.SUPPORTED.items():
        row = found[model_type]
        equal = f"equal ({row.num_greedy} tokens) | equal ({row.num_sampled} tokens)"
        lines.append(f"| `{model_type}` | {name} | {row.attention} | {equal} |")
    lines += [
        "",
        "Refused at load, before weights are read:",
        "",
        "| model_type | why | what to use instead |",
        "|---|---|---|",
    ]
    for reason, instead, model_types in families.REFUSALS:
        lines.append(
            f"| {', '.join(f'`{model_type}`' for model_type in model_types)} | {reason} | {instead} |"
        )
    return "\n".join([*lines, ""])


def written() -> str:
    """That part as docs/models.md has it."""
    return DOCUMENT.read_text(encoding="utf-8").split(BEGIN)[1].split(END)[0].strip() + "\n"


def main() -> None:
    before, rest = DOCUMENT.read_text(encoding="utf-8").split(BEGIN)
    after = rest.split(END)[1]
    new = table({model_type: compare(model_type) for model_type in families.SUPPORTED})
    DOCUMENT.write_text(f"{before}{BEGIN}\n{new}\n{END}{after}", encoding="utf-8")


if __name__ == "__main__":
    main()
