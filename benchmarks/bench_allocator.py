"""A model's step on a CPU where memory is asked for again in each layer, and where it is kept, by sequences
and context.

    python -m benchmarks.bench_allocator

"new": K/V gathered into new tensors, the C library as it comes. "room": into one room that stays
(engine/attention.py). "kept": the C library told to keep what is freed (engine/model/allocator.py). "both":
as the engine does it. The C library's setting cannot be taken back, so each run is a process of its own; they
alternate. Demo model, float32, one torch thread, plain decoding steps of the ModelRunner and a draw at
temperature 0.8, median of 20 by the thread's own time.
"""

import argparse
import json
import statistics
import subprocess
import sys
from typing import Any

from benchmarks.measure import environment, ratio
from benchmarks.workloads import DEMO

SHAPES = ((16, 100), (16, 250), (16, 500), (64, 100), (64, 250), (64, 500))
CONTENDERS = ("new", "room", "kept", "both")
REPEATS = 20


def steps(name: str) -> dict[str, float]:
    """Seconds of a step of each shape, in this process."""
    from drafting.sampling import Sampling
    from engine import step_profile
    from engine.cache_size import StepLimits
    from engine.config import ModelConfig
    from engine.kv_cache import KVCache
    from engine.model import loading
    from engine.model_runner import ModelRunner

    if name in ("new", "room"):
        vars(loading)["keep_freed_memory"] = lambda: False
    if name in ("new", "kept"):
        setattr(KVCache, "_gather", gather_anew)  # noqa: B010, a plain assignment needs an ignore
    vars(step_profile)["Sampling"] = lambda: Sampling(temperature=0.8, seed=1)
    loaded = loading.load_model(ModelConfig(path=str(DEMO / "model"), dtype="float32", device="cpu"))
    runner = ModelRunner(loaded, num_pages=4096, page_size=16, limits=StepLimits(64, 1))
    found = {}
    for sequences, context in SHAPES:
        times = [step_profile._time_step(runner, sequences, 0, context) for _ in range(REPEATS + 3)][3:]
        found[f"{sequences} x {context}"] = statistics.median(times)
    return found


def gather_anew(cache: Any, side: int, source: Any, head_pages: Any) -> Any:
    """What KVCache._gather does, into new memory."""
    return source.index_select(0, head_pages)


def alternate_processes(alternations: int) -> dict[str, list[dict[str, float]]]:
    """Seconds by shape of every run of every contender, each run in a process of its own."""
    runs: dict[str, list[dict[str, float]]] = {name: [] for name in CONTENDERS}
    for turn in range(alternations):
        for name in CONTENDERS[turn % 4 :] + CONTENDERS[: turn % 4]:
            command = [sys.executable, "-m", "benchmarks.bench_allocator", "--only", name]
            done = subprocess.run(
                command, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
            )
            runs[name].append(json.loads(done.stdout.splitlines()[-1]))
    return runs


def main() -> None:
    """One line per shape, then one JSON line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--alternations", type=int, default=6)
    parser.add_argument(
        "--only", choices=CONTENDERS, help="a single run, in this process: seconds by shape as JSON"
    )
    arguments = parser.parse_args()
    if arguments.only:
        print(json.dumps(steps(arguments.only)))
        return
    runs = alternate_processes(arguments.alternations)
    results: dict[str, Any] = {}
    for shape in runs["new"][0]:
        times = {name: [run[shape] for run in runs[name]] for name in CONTENDERS}
        results[shape] = {
            name: {"ms": 1e3 * statistics.median(own), **ratio(times["new"], own)}
            for name, own in times.items()
        }
        shown = [
            f"{name} {r['ms']:.2f} ms {r['median']:.2f}x [{r['low']:.2f}, {r['high']:.2f}]"
            for name, r in results[shape].items()
        ]
        print(f"{shape:>9}: {', '.join(shown)}")
    print(
        json.dumps(
            {
                "title": "memory kept from step to step",
                "alternations": arguments.alternations,
                "shapes": results,
                **environment(),
            }
        )
    )


if __name__ == "__main__":
    main()
