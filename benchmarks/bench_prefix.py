"""What the prefix cache saves: questions that share a long header, with the cache and without, in one
process, in alternation. No Ray.

    python -m benchmarks.bench_prefix   # 64 questions after one header of 1000 tokens, 32 tokens each

The demo model with its context raised to 2048 (rotary positions go on; what the text says does not matter
here), float32, one torch thread, no speculation. The header differs from run to run, so each run computes it
anew: what is measured is sharing within one workload, not a cache that is warm from the run before. Every
output is compared.
"""

import argparse
import random
from collections.abc import Callable
from typing import Any

from benchmarks.measure import alternate, report
from benchmarks.workloads import demo_prompts, demo_with_context
from engine.build import engine_for
from engine.config import ModelConfig
from engine.model.loading import load_model
from engine.request import Request


def few_shot(number: int, arguments: argparse.Namespace) -> list[Request]:
    """The requests of run `number`: its own header, then each question's own 16 to 48 tokens."""
    texts = demo_prompts(100)
    rng = random.Random(0)
    words = [token for text in texts for token in text][number:]
    header = tuple((words * arguments.header)[: arguments.header])
    questions = [(text * 48)[: rng.randint(16, 48)] for text in texts[-arguments.questions :]]
    return [
        Request(str(i), header + question, arguments.max_tokens, ignore_eos=True)
        for i, question in enumerate(questions)
    ]


def contender(
    loaded: Any, config: ModelConfig, workloads: list[list[Request]]
) -> Callable[[], dict[str, Any]]:
    """Runs the next workload through one engine; counts the prompt tokens and how many of them ran."""
    engine = engine_for(loaded, config, None)
    following = iter(workloads)

    def run() -> dict[str, Any]:
        tokens = engine.stats.num_prompt_tokens
        cached = engine.stats.num_cached_tokens
        completions = engine.generate(next(following))
        tokens = engine.stats.num_prompt_tokens - tokens
        cached = engine.stats.num_cached_tokens - cached
        return {
            "outputs": [c.token_ids for c in completions],
            "prompt_tokens": tokens,
            "prefilled_tokens": tokens - cached,
        }

    return run


def main() -> None:
    """Parses the sizes, runs both contenders, prints table and JSON line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    for name, default in (
        ("header", 1000),
        ("questions", 64),
        ("max_tokens", 32),
        ("running", 16),
        ("alternations", 7),
    ):
        parser.add_argument(f"--{name}", type=int, default=default)
    arguments = parser.parse_args()
    workloads = [few_shot(number, arguments) for number in range(arguments.alternations + 1)]
    with demo_with_context(2048) as folder:
        config = {"path": folder, "dtype": "float32", "device": "cpu", "max_running": arguments.running}
        loaded = load_model(ModelConfig(**config))
    contenders = {
        "no prefix cache": contender(loaded, ModelConfig(**config, prefix_cache=False), workloads),
        "prefix cache": contender(loaded, ModelConfig(**config), workloads),
    }
    runs = alternate(contenders, arguments.questions * arguments.max_tokens, arguments.alternations)
    outputs = {name: run.counts.pop("outputs") for name, run in runs.items()}
    for name, run in runs.items():
        run.counts["rows_equal"] = sum(
            a == b for a, b in zip(outputs[name], outputs["no prefix cache"], strict=True)
        )
        print(f"{name}: {run.counts}")
    report(
        f"{arguments.questions} questions after {arguments.header} tokens",
        runs,
        ["no prefix cache"],
        vars(arguments),
    )


if __name__ == "__main__":
    main()
