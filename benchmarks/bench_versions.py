"""Two checkouts of this project against each other: plain and adaptive decoding, in alternation, on the same
prompts.

    python -m benchmarks.bench_versions OLD_CHECKOUT    # the demo model, all sets, 1 4 16 64 at once
    python -m benchmarks.bench_versions OLD_CHECKOUT --model FOLDER --prompts FILE.jsonl --running 16

Each checkout has one process (benchmarks/version_child.py) that keeps its engines. One turn of a cell runs
plain and adaptive in both processes, in an order that rotates. The sets are those of
benchmarks/bench_adaptive.py. Ratios are of CPU seconds: new / old of either mode says whether the new version
lost speed, adaptive / plain whether speculation is ever slower. Outputs of the two versions are compared.
"""

import argparse
import json
import subprocess
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from transformers import AutoTokenizer

from benchmarks.measure import environment, ratio
from benchmarks.version_child import TEMPERATURES
from benchmarks.workloads import DEMO

ROOT = Path(__file__).parent.parent
CHILD = ROOT / "benchmarks" / "version_child.py"
RATIOS = {
    "plain, new / old": ("old off", "new off"),
    "adaptive, new / old": ("old adaptive", "new adaptive"),
    "old, adaptive / plain": ("old off", "old adaptive"),
    "new, adaptive / plain": ("new off", "new adaptive"),
}


class Checkout:
    """A process that runs cells on one checkout."""

    def __init__(self, folder: Path, model: str, prompts: list[list[int]]) -> None:
        self.process = subprocess.Popen(
            [sys.executable, str(CHILD)], cwd=folder, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        self.ask({"model": model, "prompts": prompts})

    def ask(self, command: dict[str, Any]) -> dict[str, Any]:
        """Sends a command and waits for its answer."""
        assert self.process.stdin and self.process.stdout
        self.process.stdin.write(json.dumps(command) + "\n")
        self.process.stdin.flush()
        answer: dict[str, Any] = json.loads(self.process.stdout.readline())
        return answer

    def close(self) -> None:
        """Ends the process."""
        assert self.process.stdin
        self.process.stdin.close()
        self.process.wait()


def measure(
    checkouts: dict[str, Checkout], name: str, running: int, args: argparse.Namespace
) -> dict[str, Any]:
    """One cell: the CPU seconds of every run by version and mode, and how many outputs differ between the
    versions.
    """
    contenders = [(version, mode) for version in checkouts for mode in ("off", "adaptive")]
    seconds: dict[str, list[float]] = defaultdict(list)
    outputs: dict[str, Any] = {}
    for turn in range(-1, args.alternations):  # the first turn warms up
        for place in range(len(contenders)):
            version, mode = contenders[(turn + place) % len(contenders)]
            command = {"name": name, "running": running, "mode": mode, "max_tokens": args.max_tokens}
            answer = checkouts[version].ask(command)
            outputs[f"{version} {mode}"] = answer["outputs"]
            if turn >= 0:
                seconds[f"{version} {mode}"].append(answer["cpu_s"])
    different = {
        key: sum(one != other for one, other in zip(outputs["old off"], found, strict=True))
        for key, found in outputs.items()
    }
    ratios = {label: ratio(seconds[base], seconds[other]) for label, (base, other) in RATIOS.items()}
    return {
        "set": name,
        "running": running,
        "ratios": ratios,
        "different_outputs": different,
        "cpu_s": seconds,
    }


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("old", type=Path, metavar="OLD_CHECKOUT")
    parser.add_argument("--model", default=str(DEMO / "model"))
    parser.add_argument(
        "--prompts", type=Path, default=DEMO / "prompts.jsonl", help="JSONL with a column `prompt`"
    )
    parser.add_argument("--running", type=int, nargs="+", default=[1, 4, 16, 64])
    parser.add_argument("--sets", nargs="+", choices=TEMPERATURES, default=list(TEMPERATURES))
    parser.add_argument("--max_tokens", type=int, default=96, help="per prompt, on average")
    parser.add_argument("--alternations", type=int, default=20)
    return parser.parse_args()


def main() -> None:
    """Measures each cell, and prints a table and one JSON line."""
    args = parse_arguments()
    tokenizer = AutoTokenizer.from_pretrained(args.model)
    lines = args.prompts.read_text(encoding="utf-8").split("\n")
    prompts = [tokenizer(json.loads(line)["prompt"]).input_ids for line in lines if line]
    folders = {"old": args.old, "new": ROOT}
    # The processes have other working folders; a hub name stays as it is.
    model = str(Path(args.model).resolve()) if Path(args.model).is_dir() else args.model
    checkouts = {version: Checkout(folder, model, prompts) for version, folder in folders.items()}
    table = Table(*["set", "running", *RATIOS, "outputs that differ from old plain"])
    cells = []
    for running in args.running:
        for name in args.sets:
            cells.append(measure(checkouts, name, running, args))
            shown = [
                f"{r['median']:.3f} [{r['low']:.3f}, {r['high']:.3f}]" for r in cells[-1]["ratios"].values()
            ]
            table.add_row(name, str(running), *shown, str(list(cells[-1]["different_outputs"].values())))
            print(name, running, *shown, file=sys.stderr, flush=True)
    for checkout in checkouts.values():
        checkout.close()
    Console(width=180).print(table)
    print(
        json.dumps(
            {
                "model": Path(args.model).name,
                **environment(),
                "alternations": args.alternations,
                "cells": cells,
            }
        )
    )


if __name__ == "__main__":
    main()
