"""The draw by Gumbel numbers (engine/draw.py) against the former one by inverse CDF, on a CPU, by rows and
vocabulary; also the same draw without bounds, which torch makes, and argmax alone.

    python -m benchmarks.bench_draw

One torch thread, memory kept as a worker keeps it, temperature 0.8, float32 logits from a normal distribution
of width 3. All contenders find the likeliest token first and have the same filters. Ratios say how many times
faster than the former draw.
"""

import argparse
import json
from collections.abc import Callable
from statistics import median
from typing import Any

import numpy as np
import torch

from benchmarks.measure import Runs, alternate, environment, ratio
from drafting.gumbel import row_keys
from drafting.sampling import Sampling
from engine.draw import draw_with_torch
from engine.model.allocator import keep_freed_memory
from engine.targets import TargetSampling, kept, target_tokens
from engine.top_k_top_p import kept_by_rank

SIZES = ((16, 4096), (64, 4096), (64, 32_000), (64, 151_936))
WIDTH = 3


def inverse_cdf(logits: torch.Tensor, rows: TargetSampling) -> torch.Tensor:
    """The former draw: the first token, in vocabulary order, whose cumulative share is above a uniform
    number.
    """
    target_tokens(logits, None)
    uniform = (row_keys([s.seed for s in rows.sampling], rows.positions) >> np.uint64(11)) * 2.0**-53
    sampling = rows.sampling[0]
    below = logits.double() - logits.amax(-1, keepdim=True)
    probabilities = below.div_(sampling.temperature).exp_()
    if sampling.filters:
        top_k = torch.full((len(logits), 1), sampling.top_k, dtype=torch.float64)
        top_p = torch.full((len(logits), 1), sampling.top_p, dtype=torch.float64)
        probabilities = probabilities * kept_by_rank(probabilities, top_k, top_p)
    cumulative = probabilities.cumsum(-1)
    wanted = torch.from_numpy(uniform)[:, None] * cumulative[:, -1:]
    tokens = torch.searchsorted(cumulative, wanted, right=True)
    return torch.minimum(tokens, torch.searchsorted(cumulative, cumulative[:, -1:].contiguous()))[:, 0]


def with_torch(logits: torch.Tensor, rows: TargetSampling) -> torch.Tensor:
    """The draw by Gumbel numbers of every token."""
    target_tokens(logits, None)
    temperatures = np.array([s.temperature for s in rows.sampling])
    keys = row_keys([s.seed for s in rows.sampling], rows.positions)
    if rows.sampling[0].filters:
        logits = logits.masked_fill(~kept(logits, rows.sampling), -torch.inf)
    return draw_with_torch(logits, temperatures, keys)


def contender(
    draw: Callable[..., Any], logits: torch.Tensor, rows: TargetSampling | None
) -> Callable[[], dict[str, Any]]:
    """One call."""

    @torch.inference_mode()
    def run() -> dict[str, Any]:
        return {"tokens": draw(logits, rows).tolist()}

    return run


def measured(num_rows: int, vocabulary: int, top_p: float, alternations: int) -> dict[str, Runs]:
    """All contenders at one size."""
    logits = WIDTH * torch.randn(num_rows, vocabulary)
    sampling = [Sampling(0.8, top_p=top_p, seed=seed) for seed in range(num_rows)]
    rows = TargetSampling(sampling, np.arange(num_rows))
    contenders = {
        "inverse CDF": contender(inverse_cdf, logits, rows),
        "Gumbel": contender(target_tokens, logits, rows),
        "Gumbel, torch": contender(with_torch, logits, rows),
        "argmax": contender(target_tokens, logits, None),
    }
    runs = alternate(contenders, 0, alternations)
    assert runs["Gumbel"].counts["tokens"] == runs["Gumbel, torch"].counts["tokens"]
    return runs


def main() -> None:
    """One line per size and filter, then one JSON line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--alternations", type=int, default=20)
    arguments = parser.parse_args()
    keep_freed_memory()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    results: dict[str, Any] = {}
    for num_rows, vocabulary in SIZES:
        for top_p in (1.0, 0.9):
            runs = measured(num_rows, vocabulary, top_p, arguments.alternations)
            former = runs.pop("inverse CDF")
            found = {name: ratio(former.cpu_s, run.cpu_s) for name, run in runs.items()}
            results[f"{num_rows} x {vocabulary}, top_p {top_p}"] = {
                "inverse_cdf_ms": round(1000 * median(former.cpu_s), 3),
                "ratio_cpu": found,
            }
            shown = ", ".join(
                f"{name} {own['median']:.2f}x [{own['low']:.2f}, {own['high']:.2f}]"
                for name, own in found.items()
            )
            print(
                f"{num_rows:2} rows of {vocabulary:6}, top_p {top_p}: "
                f"inverse CDF {1000 * median(former.cpu_s):8.3f} ms; {shown}"
            )
    title = "the draw by Gumbel numbers against inverse CDF"
    print(json.dumps({"title": title, **vars(arguments), "sizes": results, **environment()}))


if __name__ == "__main__":
    main()
