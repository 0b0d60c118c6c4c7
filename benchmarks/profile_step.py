"""Where the time of the engine's steps goes: each phase's share, and PyTorch's operators inside the forward
pass.

    python -m benchmarks.profile_step                         # demo model: 1, 16, 64 at once; plain and mixed
    python -m benchmarks.profile_step --model random-100m --running 16 --operators 15
    python -m benchmarks.profile_step --running 16 --host 40               # Python functions, by cProfile

One torch thread, float32. Steps that prefill count too, as in a job. "all but forward" and ms/step are the
thread's CPU time, read twice per step; the phases are read off the engine's own clock, which is the wall's
where nothing learns from it.
"""

import argparse
import cProfile
import json
import pstats
from collections.abc import Callable
from pathlib import Path
from time import thread_time
from typing import Any
from unittest.mock import patch

from rich.console import Console
from rich.table import Table
from torch.profiler import ProfilerActivity, profile

from benchmarks.measure import environment
from benchmarks.workloads import DEMO, demo_prompts, model_folder
from drafting.config import MixedConfig, SpeculationConfig
from engine.build import build_proposer, engine_for
from engine.config import ModelConfig
from engine.engine import Engine
from engine.model.loading import LoadedModel, load_model
from engine.request import Request
from engine.stats import PHASES


def measured(engine: Engine, requests: list[Request], repeats: int) -> dict[str, float]:
    """Seconds of each phase over the runs after a first one, their steps as `steps`; CPU time of all steps
    and of the forward passes.
    """
    engine.generate(requests)
    before = dict(engine.stats.seconds)
    steps = engine.stats.num_steps
    step = OwnTime(engine.step)
    forward = OwnTime(engine.runner.forward)
    with patch.object(engine, "step", step), patch.object(engine.runner, "forward", forward):
        for _ in range(repeats):
            engine.generate(requests)
    phases = {phase: engine.stats.seconds[phase] - before[phase] for phase in PHASES}
    return {
        "steps": engine.stats.num_steps - steps,
        "cpu_step": step.seconds,
        "cpu_forward": forward.seconds,
        **phases,
    }


class OwnTime:
    """A function that counts the thread's CPU time in it."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function = function
        self.seconds = 0.0

    def __call__(self, *arguments: Any) -> Any:
        """What the function gives."""
        started = thread_time()
        result = self.function(*arguments)
        self.seconds += thread_time() - started
        return result


def made(
    loaded: LoadedModel, folder: str, running: int, mode: str, arguments: argparse.Namespace
) -> tuple[Engine, list[Request]]:
    """An engine for `running` sequences in a mode, "plain" or "k,w", and as many requests."""
    config = ModelConfig(path=folder, max_running=running)
    requests = [
        Request(str(i), ids, arguments.max_tokens, ignore_eos=True)
        for i, ids in enumerate(demo_prompts(running))
    ]
    if mode == "plain":
        return engine_for(loaded, config, None), requests
    k, w = map(int, mode.split(","))
    speculation = SpeculationConfig(
        "mixed", MixedConfig(num_drafts=k, draft_len=w, sources=list(arguments.sources))
    )
    return engine_for(loaded, config, build_proposer(loaded, config, speculation)), requests


def show_inside(engine: Engine, requests: list[Request], num_operators: int, num_functions: int) -> None:
    """One more run under each profiler that was asked for, apart from the measured ones: both slow down what
    they watch.
    """
    if num_operators:
        with profile(activities=[ProfilerActivity.CPU]) as operators:
            engine.generate(requests)
        print(
            operators.key_averages().table(
                sort_by="self_cpu_time_total", row_limit=num_operators, max_name_column_width=60
            )
        )
    if num_functions:
        with cProfile.Profile() as functions:
            engine.generate(requests)
        pstats.Stats(functions).sort_stats("tottime").print_stats(num_functions)


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default=str(DEMO / "model"), help="a folder, or random-100m")
    parser.add_argument("--running", type=int, nargs="*", default=[1, 16, 64])
    parser.add_argument("--mixed", nargs="*", default=["1,4"], help="k,w of the mixed runs, besides plain")
    parser.add_argument(
        "--sources",
        nargs="*",
        default=["context"],
        help="of the mixed runs; a bigram table takes a minute to build",
    )
    parser.add_argument("--max_tokens", type=int, default=128)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument(
        "--operators", type=int, default=0, help="show this many operators of PyTorch, by their own time"
    )
    parser.add_argument(
        "--host", type=int, default=0, help="show this many Python functions, by their own time"
    )
    return parser.parse_args()


def main() -> None:
    """One table line per running count and mode, then one JSON line."""
    arguments = parse_arguments()
    table = Table("running", "mode", "ms/step", *PHASES, "all but forward", title="share of step time, %")
    results = []
    with model_folder(arguments.model) as folder:
        loaded = load_model(ModelConfig(path=folder, dtype="float32", device="cpu"))
        for running in arguments.running:
            for mode in ["plain", *arguments.mixed]:
                engine, requests = made(loaded, folder, running, mode, arguments)
                found = measured(engine, requests, arguments.repeats)
                total = sum(found[phase] for phase in PHASES)
                shares = [f"{100 * found[phase] / total:.1f}" for phase in PHASES]
                own = found["cpu_step"]
                rest = 100 - 100 * found["cpu_forward"] / own
                table.add_row(str(running), mode, f"{1e3 * own / found['steps']:.2f}", *shares, f"{rest:.1f}")
                results.append(
                    {
                        "running": running,
                        "mode": mode,
                        **{name: round(value, 4) for name, value in found.items()},
                    }
                )
                show_inside(engine, requests, arguments.operators, arguments.host)
    Console(width=160).print(table)
    print(
        json.dumps(
            {
                "title": "profile of the step",
                "model": Path(arguments.model).name,
                "runs": results,
                **environment(),
            }
        )
    )


if __name__ == "__main__":
    main()
