"""An edit job, whose rows bring the text that they probably become: plain decoding against adaptive
speculation without these predictions and with them, on the same prompts, in alternation. No Ray.

    python -m benchmarks.bench_edit                                   # the demo model, made predictions
    python -m benchmarks.bench_edit --damage 4 --running 1            # every fourth token of them is wrong
    python -m benchmarks.bench_edit --model FOLDER --rows FILE.jsonl --device cuda --dtype auto

A row is {"prompt", "prediction"}: the prompt holds a text and asks for a change, the prediction is that text.
Where a row has no prediction, one is made of its greedy answer: every n-th token (--damage) is exchanged for
another. So a small model that cannot edit can be measured. The prompt does not hold a made prediction, while
a real edit job's does, and `context` copies from there already: made predictions say how well one is
followed, and real rows what it adds. Greedy, one torch thread on a CPU. Before each run what was learned from
texts is forgotten.
"""

import argparse
import json
import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from transformers import AutoTokenizer

from benchmarks.bench_adaptive import DEMO, contender
from benchmarks.measure import Runs, alternate, report
from drafting.config import SpeculationConfig
from engine.build import build_proposer, engine_for
from engine.config import ModelConfig
from engine.engine import Engine
from engine.model.loading import load_model
from engine.request import Request

SPECULATION = {
    "plain": SpeculationConfig(mode="off"),
    "adaptive": SpeculationConfig(),
    "adaptive, predictions": SpeculationConfig(),
}


def read_rows(path: Path, num_rows: int, tokenizer: Any, max_tokens: int) -> list[Request]:
    """The first rows as requests, with their predictions where they have some."""
    lines = [line for line in path.read_text(encoding="utf-8").split("\n") if line]
    requests = []
    for index, line in enumerate(lines[:num_rows]):
        row = json.loads(line)
        text = row.get("prediction") or ""
        prediction = tokenizer(text, add_special_tokens=False).input_ids if text else []
        prompt = tuple(tokenizer(row["prompt"]).input_ids)
        requests.append(Request(str(index), prompt, max_tokens, prediction_ids=tuple(prediction)))
    return requests


def damaged(answer: Sequence[int], every: int, vocab_size: int, rng: random.Random) -> tuple[int, ...]:
    """The answer with each `every`-th token exchanged for another one; 0 changes none."""
    tokens = list(answer)
    for index in range(every - 1, len(tokens), every) if every else ():
        tokens[index] = (tokens[index] + rng.randrange(1, vocab_size)) % vocab_size
    return tuple(tokens)


def with_predictions(
    requests: list[Request], answers: list[tuple[int, ...]], every: int, vocab_size: int
) -> list[Request]:
    """The requests; one that has no prediction gets its damaged answer."""
    rng = random.Random(0)
    return [
        replace(request, prediction_ids=request.prediction_ids or damaged(answer, every, vocab_size, rng))
        for request, answer in zip(requests, answers, strict=True)
    ]


def print_sources(runs: dict[str, Runs]) -> None:
    """What of each source was accepted and verified in a contender's last run."""
    names = list(dict.fromkeys(name for run in runs.values() for name in run.counts["verified"]))
    table = Table(title="accepted / verified nodes by source")
    for column in ("", *names):
        table.add_column(column, justify="left" if not column else "right")
    for label, run in runs.items():
        accepted, verified = (run.counts[kind] for kind in ("accepted", "verified"))
        table.add_row(label, *(f"{accepted.get(name, 0):,} / {verified.get(name, 0):,}" for name in names))
    Console(width=160).print(table)


def measure(args: argparse.Namespace, loaded: Any, requests: list[Request], running: int) -> None:
    """One cell: the tables and a JSON line."""
    config = ModelConfig(
        path=args.model, dtype=args.dtype, device=args.device, max_running=running, prefix_cache=False
    )
    engines: dict[str, Engine] = {
        label: engine_for(loaded, config, build_proposer(loaded, config, speculation))
        for label, speculation in SPECULATION.items()
    }
    answers = [completion.token_ids for completion in engines["plain"].generate(requests)]
    predicted = with_predictions(requests, answers, args.damage, loaded.vocab_size)
    bare = [replace(request, prediction_ids=()) for request in requests]
    contenders = {
        label: contender(engine, predicted if "predictions" in label else bare)
        for label, engine in engines.items()
    }
    runs = alternate(contenders, sum(map(len, answers)), args.alternations)
    for run in runs.values():
        outputs = run.counts.pop("outputs")
        run.counts["rows_equal_to_plain"] = sum(map(tuple.__eq__, outputs, answers))
    made = sum(not request.prediction_ids for request in requests)
    cell = {
        "model": Path(args.model).name,
        "running": running,
        "rows": len(requests),
        "made_predictions": made,
        "damage": args.damage,
        "max_tokens": args.max_tokens,
        "alternations": args.alternations,
    }
    title = f"{cell['model']}, edits: {len(requests)} rows, {running} at once, {made} made predictions"
    print_sources(runs)
    report(title, runs, ["plain", "adaptive"], cell)


def main() -> None:
    """Parses the settings and measures each cell."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default=str(DEMO / "model"))
    parser.add_argument(
        "--rows", type=Path, default=DEMO / "prompts.jsonl", help="JSONL with `prompt`, and with `prediction`"
    )
    parser.add_argument("--num_rows", type=int, default=32)
    parser.add_argument("--running", type=int, nargs="+", default=[1, 16])
    parser.add_argument("--max_tokens", type=int, default=96)
    parser.add_argument(
        "--damage", type=int, default=10, help="of a made prediction every n-th token is wrong"
    )
    parser.add_argument("--alternations", type=int, default=10)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="float32")
    args = parser.parse_args()
    tokenizer = AutoTokenizer.from_pretrained(args.model)
    requests = read_rows(args.rows, args.num_rows, tokenizer, args.max_tokens)
    loaded = load_model(ModelConfig(path=args.model, dtype=args.dtype, device=args.device))
    for running in args.running:
        measure(args, loaded, requests, running)


if __name__ == "__main__":
    main()
