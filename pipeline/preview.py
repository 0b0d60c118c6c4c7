"""What a job would do, for `--dry_run`: its plan, its columns, and its first prompts as the model would see
them.

Starts no Ray and writes nothing. The prompts are made in a process of their own, since a tokenizer brings
torch with it.
"""

import multiprocessing
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from itertools import islice

import pyarrow as pa

from pipeline.formats.registry import prompt_columns
from pipeline.pieces import PieceReader
from pipeline.plan import Plan
from pipeline.prepare import PrepareJob
from rows.prompts import PromptReader
from rows.text_codec import load_codec

NUM_PROMPTS = 3
NUM_FILES = 5
MAX_SHOWN = 2000


@dataclass(frozen=True)
class SeenPrompt:
    """A prompt as text with its special tokens, or the row's error."""

    text: str
    num_tokens: int
    settings: str
    error: str | None


def first_prompts(plan: Plan, job: PrepareJob, count: int = NUM_PROMPTS) -> list[SeenPrompt]:
    """The prompts of the first rows; raises ValueError for a tokenizer that cannot be loaded."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        return pool.submit(_read_prompts, plan.pieces.slice(0, count), job, count).result()


def _read_prompts(pieces: pa.Table, job: PrepareJob, count: int) -> list[SeenPrompt]:
    reader = PieceReader(job.source, job.schema, job.carried, job.strict)
    codec = load_codec(job.model)
    prompter = PromptReader(codec, prompt_columns(job.source), job.max_context)
    seen: list[SeenPrompt] = []
    for piece in pieces.to_pylist():
        rows = reader.read(piece).first(count - len(seen))
        for prompt in rows.with_errors(prompter.read(rows.rows)):
            settings = ", ".join(f"{name} {value}" for name, value in prompt.sampling.items())
            seen.append(
                SeenPrompt(codec.show(prompt.token_ids), len(prompt.token_ids), settings, prompt.error)
            )
        if len(seen) == count:
            break
    return seen


def print_plan(plan: Plan, added: pa.Schema, job: PrepareJob, output: str, num_done: int) -> None:
    """What a person sees; plain lines, for no path may be cut."""
    model = job.model
    source = job.source
    settings = "".join(
        f", {name} {getattr(model, name)}"
        for name in ("revision", "dtype", "device")
        if getattr(model, name) != "auto"
    )
    for name, value in (
        ("model", f"{model.path}{settings.replace(', revision None', '')}"),
        ("context", f"{job.max_context:,} tokens" if job.max_context else "unknown"),
        ("input", _files(plan)),
        ("rows", f"{plan.num_rows:,}" + (f" (input.limit is {source.limit:,})" if source.limit else "")),
        ("shards", f"{plan.num_shards:,} of up to {plan.rows_per_shard:,} rows, {num_done:,} of them done"),
        ("columns in", _columns(plan.schema)),
        ("columns out", _columns(pa.schema([*job.carried, *added]))),
        ("output", output + (" (continues)" if num_done else "")),
    ):
        print(f"{name:<13}" + value.replace("\n", "\n" + 13 * " "))


def print_prompts(seen: Sequence[SeenPrompt]) -> None:
    """Each under a line with its length; a long one is cut."""
    for number, prompt in enumerate(seen, 1):
        told = f"row {number}: {prompt.error or f'{prompt.num_tokens:,} tokens'}" + (
            f", {prompt.settings}" if prompt.settings else ""
        )
        left = len(prompt.text) - MAX_SHOWN
        text = prompt.text if left <= 0 else f"{prompt.text[:MAX_SHOWN]} ... ({left:,} characters more)"
        print(f"\n--- {told}", *filter(None, [text]), sep="\n")


def _files(plan: Plan) -> str:
    """How many files of what kind, and the first of them with their rows."""
    rows: Counter[str] = Counter()
    kinds: dict[str, str] = {}
    for path, format_, compression, count in zip(
        *(plan.pieces[name].to_pylist() for name in ("path", "format", "compression", "num_rows")),
        strict=True,
    ):
        rows[path] += count
        kinds[path] = format_ + (f" in {compression}" if compression else "")
    several = ", ".join(f"{count:,} {kind}" for kind, count in Counter(kinds.values()).items())
    lines = [f"{path} ({kinds[path]}, {count:,} rows)" for path, count in islice(rows.items(), NUM_FILES)]
    more = [f"... and {len(rows) - NUM_FILES:,} more"] if len(rows) > NUM_FILES else []
    return "\n".join([f"files: {several}", *lines, *more])


def _columns(schema: pa.Schema) -> str:
    return "\n".join(f"{field.name}: {field.type}" for field in schema) or "none"
