"""What steps of a model cost on this machine, as a file that jobs/replay.py --cost_model predicts with.

    python -m benchmarks.save_cost_model --out costs.json                              # the demo model
    python -m benchmarks.save_cost_model --model FOLDER --max_running 256 --dtype bfloat16 --out costs.json

Profiles made-up steps as a worker does, only longer, then runs demo prompts at 1, 4, 16 ... rows at once, so
that the costs hold for whole steps: taking tokens in and out too, not the model's call alone. --threads:
torch threads, as model.threads.
"""

import argparse
import platform
import time
from collections.abc import Callable
from datetime import date
from importlib.metadata import version
from itertools import cycle
from pathlib import Path
from typing import Any

import torch

from benchmarks.workloads import DEMO, demo_prompts, model_folder
from drafting.adaptive.adaptive_proposer import AdaptiveProposer
from drafting.adaptive.controller import Controller, LoadState
from drafting.adaptive.cost_model import CostModel, StepShape, load_class
from drafting.config import SpeculationConfig
from drafting.speculation import Speculation
from engine.build import build_proposer, engine_for
from engine.config import ModelConfig
from engine.engine import Engine
from engine.model.loading import LoadedModel, load_model
from engine.request import Request
from engine.step_profile import profile_steps

MAX_SECONDS = 60.0  # of profiling, and of real steps at each width
CHECKED_STEPS = 200  # real steps of each width that correct the profile


def device_name(device: torch.device) -> str:
    """What people call it."""
    if device.type == "cuda":
        return str(torch.cuda.get_device_name(device))
    cpu_info = Path("/proc/cpuinfo")
    lines = cpu_info.read_text(encoding="utf-8").splitlines() if cpu_info.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return f"CPU, {names[0] if names else platform.machine()}"


def about(name: str, loaded: LoadedModel) -> dict[str, Any]:
    """What the costs belong to."""
    return {
        "model": name,
        "device": device_name(loaded.device),
        "dtype": str(loaded.dtype).removeprefix("torch."),
        "threads": torch.get_num_threads(),
        "date": date.today().isoformat(),
        **{library: version(library) for library in ("torch", "transformers")},
    }


def real_steps(
    engine: Engine, widths: list[int], vocab_size: int, max_tokens: int
) -> list[tuple[StepShape, float]]:
    """The shapes and seconds of decoding steps in real runs at these widths.

    Eight steps with draft nodes and eight without them follow each other in turn.
    """
    speculation = engine.speculation
    assert isinstance(speculation, Speculation)
    controller = speculation.controller
    assert isinstance(controller, Controller) and isinstance(speculation.proposer, AdaptiveProposer)
    steps: list[tuple[StepShape, float]] = []
    turns = cycle([0] * 8 + [1] * 8)

    def wants_drafts(plain: Callable[[], StepShape], num_sequences: int) -> bool:
        controller.loads = {load_class(num_sequences): LoadState(plain_left=next(turns))}
        return controller.wants_drafts(plain, num_sequences)

    def record(times: Callable[[], tuple[float, float]], num_tokens: int) -> None:
        plain = controller.step.plain
        seconds, drafting_seconds = times()
        controller.observe(lambda: (seconds, drafting_seconds), num_tokens)
        if controller.step.is_measured and not plain.has_prompts and plain.sequences in widths:
            steps.append((plain.with_nodes(controller.step.num_nodes), seconds))

    speculation.wants_drafts = wants_drafts
    speculation.observe = record
    prompts = [tuple(token % vocab_size for token in ids) for ids in demo_prompts(max(widths))]
    for width in widths:
        requests = [
            Request(str(index), ids, max_tokens, ignore_eos=True) for index, ids in enumerate(prompts[:width])
        ]
        first = len(steps)
        started = time.perf_counter()
        while len(steps) - first < CHECKED_STEPS and time.perf_counter() - started < MAX_SECONDS:
            speculation.proposer.clear()  # or the second round would find the answers of the first
            engine.generate(requests)
    return steps


def measure(args: argparse.Namespace) -> CostModel:
    """Profile and correction."""
    with model_folder(args.model) as folder:
        config = ModelConfig(
            path=folder, dtype=args.dtype, max_running=args.max_running, threads=args.threads
        )
        loaded = load_model(config)
        proposer = build_proposer(loaded, config, SpeculationConfig(mode="adaptive"))
        engine = engine_for(loaded, config, proposer)
        assert proposer
        profile = profile_steps(
            engine.runner, args.max_running, proposer.max_nodes, loaded.max_context, MAX_SECONDS
        )
        name = Path(args.model).name if Path(args.model) != DEMO / "model" else "demo"
        cost = CostModel(profile, about=about(name, loaded))
        widths = [width for width in (1, 4, 16, 64) if width < args.max_running] + [args.max_running]
        steps = real_steps(engine, widths, loaded.vocab_size, args.max_tokens)
    for shape, seconds in steps:
        cost.observe(shape, seconds)
    return cost


def main() -> None:
    """Parses the settings, measures and writes."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default=str(DEMO / "model"), help='a folder, or "random-100m"')
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--max_running", type=int, default=64)
    parser.add_argument("--max_tokens", type=int, default=96)
    args = parser.parse_args()
    cost = measure(args)
    cost.save(args.out)
    for sequences, nodes in ((1, 0), (1, 7), (args.max_running, 0), (args.max_running, args.max_running)):
        shape = StepShape(sequences, 128 * sequences, 128 * sequences, sequences).with_nodes(nodes)
        print(
            f"{sequences} sequences with {nodes} nodes at 128 tokens of context: "
            f"{1000 * cost.seconds(shape):.2f} ms"
        )


if __name__ == "__main__":
    main()
