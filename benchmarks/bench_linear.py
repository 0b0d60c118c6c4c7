"""nn.Linear against engine/model/packed_linear.py on a CPU, over the weight shapes of the demo model, by
number of rows.

    python -m benchmarks.bench_linear

One torch thread, float32; all 29 weights in turn, as a step does, so that they come from memory and not from
a cache.
"""

import argparse
import json
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from benchmarks.measure import alternate, environment, ratio
from engine.model.packed_linear import PackedLinear

LAYER = [(256, 256), (64, 256), (64, 256), (256, 256), (704, 256), (704, 256), (256, 704)]
SHAPES = LAYER * 4 + [(4096, 256)]
REPEATS = 20


def contender(layers: list[nn.Module], inputs: list[torch.Tensor]) -> Callable[[], dict[str, Any]]:
    """Every layer once, REPEATS times."""

    @torch.inference_mode()
    def run() -> dict[str, Any]:
        for _ in range(REPEATS):
            for layer, rows in zip(layers, inputs, strict=True):
                layer(rows)
        return {}

    return run


def main() -> None:
    """One line per number of rows, then one JSON line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, nargs="*", default=[1, 2, 4, 8, 16, 32, 64, 128])
    parser.add_argument("--alternations", type=int, default=15)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    linears = [nn.Linear(columns, rows, bias=False) for rows, columns in SHAPES]
    packed = [PackedLinear(linear, keep_weight=False) for linear in linears]
    results = {}
    for num_rows in arguments.rows:
        inputs = [torch.randn(1, num_rows, columns) for _, columns in SHAPES]
        runs = alternate(
            {"linear": contender(list(linears), inputs), "packed": contender(list(packed), inputs)},
            0,
            arguments.alternations,
        )
        found = results[num_rows] = ratio(runs["linear"].cpu_s, runs["packed"].cpu_s)
        print(
            f"{num_rows:4} rows: packed is {found['median']:.2f}x [{found['low']:.2f}, {found['high']:.2f}]"
        )
    print(
        json.dumps({"title": "packed linear layers against nn.Linear", "ratio_cpu": results, **environment()})
    )


if __name__ == "__main__":
    main()
