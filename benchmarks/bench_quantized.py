"""A quantised model against the same one in float32 (with packed linear layers) and bfloat16 on a CPU, plain
decoding.

    python -m benchmarks.bench_quantized --running 1 16

One torch thread, a Llama of 100 M random weights.
"""

import argparse
from collections.abc import Callable
from typing import Any

from benchmarks.measure import alternate, report
from benchmarks.workloads import RANDOM_100M, demo_prompts, model_folder
from engine.build import engine_for
from engine.config import ModelConfig
from engine.engine import Engine
from engine.model.loading import load_model
from engine.request import Request

KINDS: dict[str, dict[str, Any]] = {
    "float32": {"dtype": "float32"},
    "bfloat16": {"dtype": "bfloat16"},
    "int8": {"dtype": "float32", "quantization": "int8"},
    "int8, bfloat16": {"dtype": "bfloat16", "quantization": "int8"},
    "nf4": {"dtype": "float32", "quantization": "nf4"},
    "nf4, bfloat16": {"dtype": "bfloat16", "quantization": "nf4"},
}


def contender(
    engine: Engine, prompts: list[tuple[int, ...]], max_tokens: int
) -> Callable[[], dict[str, Any]]:
    """Decodes all prompts at once."""

    def run() -> dict[str, Any]:
        engine.generate(
            [Request(str(n), prompt, max_tokens, ignore_eos=True) for n, prompt in enumerate(prompts)]
        )
        return {}

    return run


def main() -> None:
    """A table and a JSON line for each number of sequences at once."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--running", type=int, nargs="*", default=[1, 16])
    parser.add_argument("--kinds", nargs="*", choices=KINDS, default=list(KINDS))
    parser.add_argument("--tokens", type=int, default=16)
    parser.add_argument("--alternations", type=int, default=5)
    arguments = parser.parse_args()
    with model_folder(RANDOM_100M) as path:
        configs = {
            kind: ModelConfig(path=path, device="cpu", max_context=256, **KINDS[kind])
            for kind in arguments.kinds
        }
        loaded = {kind: load_model(config) for kind, config in configs.items()}
    engines = {kind: engine_for(loaded[kind], config, None) for kind, config in configs.items()}
    for running in arguments.running:
        prompts = [tuple(token % 4096 for token in prompt) for prompt in demo_prompts(running, 32)]
        contenders = {kind: contender(engine, prompts, arguments.tokens) for kind, engine in engines.items()}
        runs = alternate(contenders, running * arguments.tokens, arguments.alternations)
        report(f"{running} at once", runs, ["float32"], {"running": running, "tokens": arguments.tokens})


if __name__ == "__main__":
    main()
