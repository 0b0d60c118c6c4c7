"""Draws a job of the demo model as its steps went: sequences that run, nodes that are verified, the price
of a node.

    python -m benchmarks.plot_adaptive --out docs/adaptive-job.png

One torch thread, float32, greedy; the picture of docs/drafting.md. matplotlib comes with the dev extra.
"""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np

from benchmarks.workloads import DEMO, demo_prompts
from drafting.adaptive.controller import Controller
from drafting.config import SpeculationConfig
from drafting.speculation import Speculation
from engine.build import build_proposer, engine_for
from engine.config import ModelConfig
from engine.engine import Engine
from engine.model.loading import load_model
from engine.request import Request

SMOOTH = 9  # steps of the running mean


class Step(NamedTuple):
    """Sequences that ran, nodes verified, tokens given, and the price of one more node in tokens."""

    running: int
    nodes: int
    tokens: int
    node_price: float


def job(num_rows: int, max_running: int, max_tokens: int) -> tuple[Engine, list[Request]]:
    """An engine that has warmed up, and the rows: shorter ones first, so that the batch drains slowly at the
    end.
    """
    config = ModelConfig(
        path=str(DEMO / "model"), dtype="float32", max_running=max_running, prefix_cache=False
    )
    loaded = load_model(config)
    engine = engine_for(loaded, config, build_proposer(loaded, config, SpeculationConfig(mode="adaptive")))
    rng = np.random.default_rng(0)
    requests = []
    for index, prompt in enumerate(demo_prompts(num_rows)):
        requests.append(
            Request(str(index), prompt, int(rng.integers(max_tokens // 4, max_tokens)), ignore_eos=True)
        )
    engine.generate([Request("warm up", requests[0].prompt_ids, 8)])
    return engine, requests


def run(engine: Engine, requests: list[Request]) -> list[Step]:
    """Every step of the job."""
    assert isinstance(engine.speculation, Speculation)
    controller = engine.speculation.controller
    assert isinstance(controller, Controller)
    steps: list[Step] = []

    def record(times: Callable[[], tuple[float, float]], num_tokens: int) -> None:
        step = controller.step
        node_price = steps[-1].node_price if steps else 0.0  # a step in a pause has no price of its own
        if step.drafts:
            node_seconds = controller.cost.node_seconds(step.plain, 32)
            node_price = step.price * (node_seconds[32] - node_seconds[1]) / 31
        steps.append(Step(step.num_sequences, step.num_nodes, num_tokens, node_price))
        controller.observe(times, num_tokens)

    engine.speculation.observe = record
    engine.generate(requests)
    return steps


def smooth(values: np.ndarray) -> np.ndarray:
    """A running mean; at the ends of fewer steps."""
    window = np.ones(SMOOTH)
    return np.convolve(values, window, "same") / np.convolve(np.ones(len(values)), window, "same")


def draw(steps: list[Step], out: Path) -> None:
    """Three panels over the steps, on a light ground."""
    running, nodes, tokens, price = (np.array(column, float) for column in zip(*steps, strict=True))
    panels = (
        ("rows that run", running, "#444444"),
        ("price of a node, tokens", price, "#b3541e"),
        ("nodes verified, per sequence", nodes / running, "#1f6f8b"),
        ("tokens per row and step", tokens / running, "#3a7d44"),
    )
    figure, axes = plt.subplots(len(panels), 1, sharex=True, figsize=(8, 7.5), dpi=100, facecolor="white")
    for axis, (name, values, colour) in zip(axes, panels, strict=True):
        if name != "rows that run":
            axis.plot(values, color=colour, alpha=0.25, linewidth=0.8)
            values = smooth(values)
        axis.plot(values, color=colour, linewidth=2)
        axis.set_title(name, loc="left", fontsize=13)
        axis.set_ylim(bottom=0)
        axis.grid(alpha=0.3)
        axis.tick_params(labelsize=11)
    axes[-1].set_xlabel("step of the job", fontsize=12)
    figure.tight_layout()
    figure.savefig(out)
    plt.close(figure)


def main() -> None:
    """Parses the settings, runs the job and writes the picture."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--rows", type=int, default=96)
    parser.add_argument("--running", type=int, default=32)
    parser.add_argument("--max_tokens", type=int, default=240)
    args = parser.parse_args()
    engine, requests = job(args.rows, args.running, args.max_tokens)
    steps = run(engine, requests)
    draw(steps, args.out)
    print(
        f"{len(steps)} steps, {sum(step.tokens for step in steps)} tokens, "
        f"{sum(step.nodes for step in steps)} nodes verified"
    )


if __name__ == "__main__":
    main()
