"""top_k and top_p by counting octaves (engine/top_k_top_p.py) against a sort of the vocabulary, on a CPU, by
rows and vocabulary.

    python -m benchmarks.bench_rank_filter

One torch thread, float64, logits from a normal distribution of width 3; the tokens kept must be the same.
"""

import argparse
import json
from collections.abc import Callable
from typing import Any

import torch

from benchmarks.measure import alternate, environment, ratio
from engine.top_k_top_p import kept_by_rank, kept_by_sorting

SIZES = ((16, 4096), (64, 4096), (16, 128_000))


def contender(keep: Callable[..., torch.Tensor], *inputs: torch.Tensor) -> Callable[[], dict[str, Any]]:
    """One call."""
    return lambda: {"kept": keep(*inputs)}


def main() -> None:
    """One line per size, then one JSON line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--top_p", type=float, default=0.9)
    parser.add_argument("--top_k", type=int, default=0)
    parser.add_argument("--alternations", type=int, default=20)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    results = {}
    for rows, vocabulary in SIZES:
        logits = 3 * torch.randn(rows, vocabulary, dtype=torch.float64)
        probabilities = (logits - logits.amax(-1, keepdim=True)).exp()
        top_k, top_p = (
            torch.full((rows, 1), float(limit), dtype=torch.float64)
            for limit in (arguments.top_k, arguments.top_p)
        )
        inputs = (probabilities, top_k, top_p)
        contenders = {
            "sorting": contender(kept_by_sorting, *inputs),
            "counting": contender(kept_by_rank, *inputs),
        }
        runs = alternate(contenders, 0, arguments.alternations)
        assert torch.equal(runs["sorting"].counts["kept"], runs["counting"].counts["kept"])
        found = results[f"{rows} x {vocabulary}"] = ratio(runs["sorting"].cpu_s, runs["counting"].cpu_s)
        print(
            f"{rows:3} rows of {vocabulary:6}: counting is {found['median']:.2f}x [{found['low']:.2f}, "
            f"{found['high']:.2f}]"
        )
    print(
        json.dumps(
            {
                "title": "top_k and top_p, counting against sorting",
                **vars(arguments),
                "ratio_cpu": results,
                **environment(),
            }
        )
    )


if __name__ == "__main__":
    main()
