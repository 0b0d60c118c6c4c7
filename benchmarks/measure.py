"""Runs contenders in alternation and says how their speeds compare: medians, paired ratios, bootstrap
intervals.

Shared by the scripts of this folder. Machines are noisy: only ratios of runs that alternate in one process
count.
"""

import json
import platform
import statistics
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table


@dataclass
class Runs:
    """Seconds of each run of one contender, and what it counted in its last run.

    tokens: of useful output, per run.
    """

    tokens: int
    cpu_s: list[float] = field(default_factory=list)
    wall_s: list[float] = field(default_factory=list)
    counts: dict[str, Any] = field(default_factory=dict)


def alternate(
    contenders: dict[str, Callable[[], dict[str, Any]]], tokens: int, alternations: int
) -> dict[str, Runs]:
    """Each contender once to warm up, then all of them in turn, in an order that rotates; a contender returns
    its counts.
    """
    runs = {name: Runs(tokens) for name in contenders}
    for run in contenders.values():
        run()
    names = list(contenders)
    for turn in range(alternations):
        for name in names[turn % len(names) :] + names[: turn % len(names)]:
            wall = time.perf_counter()
            cpu = time.process_time()
            runs[name].counts = contenders[name]()
            runs[name].cpu_s.append(time.process_time() - cpu)
            runs[name].wall_s.append(time.perf_counter() - wall)
    return runs


def ratio(baseline: list[float], contender: list[float], seed: int = 0) -> dict[str, float]:
    """How many times faster the contender is: median of the paired ratios and its 95 % bootstrap interval."""
    pairs = np.array(baseline) / np.array(contender)
    picks = np.random.default_rng(seed).integers(0, len(pairs), (2000, len(pairs)))
    low, high = np.percentile(np.median(pairs[picks], axis=1), [2.5, 97.5])
    return {
        "median": round(float(np.median(pairs)), 3),
        "low": round(float(low), 3),
        "high": round(float(high), 3),
    }


def report(title: str, runs: dict[str, Runs], baselines: list[str], settings: dict[str, Any]) -> None:
    """A table for people, then one JSON line for machines."""
    table = Table(title=title)
    for column in (
        "",
        "tokens/s (CPU)",
        "tokens/s (wall)",
        *(f"x {name} (CPU)" for name in baselines),
        "acceptance length",
        "nodes/call",
    ):
        table.add_column(column, justify="left" if not column else "right")
    rows: dict[str, Any] = {}
    for name, run in runs.items():
        ratios = {base: ratio(runs[base].cpu_s, run.cpu_s) for base in baselines}
        rows[name] = {
            "tokens_per_cpu_s": round(run.tokens / statistics.median(run.cpu_s), 1),
            "tokens_per_wall_s": round(run.tokens / statistics.median(run.wall_s), 1),
            "cpu_s": [round(s, 4) for s in run.cpu_s],
            "ratio_cpu": ratios,
            "ratio_wall": {base: ratio(runs[base].wall_s, run.wall_s) for base in baselines},
            **run.counts,
        }
        shown = [f"{r['median']:.2f} [{r['low']:.2f}, {r['high']:.2f}]" for r in ratios.values()]
        counts = [
            f"{run.counts[key]:.2f}" if key in run.counts else ""
            for key in ("acceptance_length", "nodes_per_call")
        ]
        table.add_row(
            name,
            f"{rows[name]['tokens_per_cpu_s']:.0f}",
            f"{rows[name]['tokens_per_wall_s']:.0f}",
            *shown,
            *counts,
        )
    Console(width=160).print(table)
    print(json.dumps({"title": title, **settings, **environment(), "runs": rows}))


def environment() -> dict[str, str]:
    """Commit, hardware and versions that a figure belongs to."""
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False
    ).stdout.strip()
    return {
        "commit": commit,
        "machine": platform.machine(),
        **{name: version(name) for name in ("torch", "transformers", "numpy")},
    }
