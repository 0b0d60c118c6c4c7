"""Plain and mixed decoding against transformers' generate, on the same prompts, in one process, in
alternation. No Ray.

    python -m benchmarks.bench_engine --workload ragged   # 64 prompts, 16 at once, 32 to 256 tokens each
    python -m benchmarks.bench_engine --workload equal    # 16 prompts, equal lengths
    python -m benchmarks.bench_engine --workload single   # one at a time; also generate's prompt lookup
    python -m benchmarks.bench_engine --workload equal --prompts 64 --running 64 --prompt_tokens 48 --mixed

One torch thread, float32. generate takes the prompts as many at a time as run at once here, in input order,
padded on the left, each batch to its longest max_tokens; only the tokens asked for count. Every output is
compared.
"""

import argparse
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoModelForCausalLM

from benchmarks.measure import alternate, report
from benchmarks.workloads import DEMO, demo_prompts, model_folder
from drafting.config import MixedConfig, SpeculationConfig
from engine.build import build_proposer, engine_for
from engine.config import ModelConfig
from engine.model.loading import load_model
from engine.request import Request

WORKLOADS = {"ragged": (64, 16), "equal": (16, 16), "single": (8, 1)}  # prompts, running at once, unless told


def engine_contender(
    loaded: Any, config: ModelConfig, speculation: SpeculationConfig, requests: list[Request]
) -> Callable[[], dict[str, Any]]:
    """Runs all requests through one engine; counts what verification cost and gave."""
    engine = engine_for(loaded, config, build_proposer(loaded, config, speculation))

    def counts() -> np.ndarray:
        return np.array(
            [engine.stats.num_calls, sum(engine.stats.verified.values()), engine.stats.num_tokens]
        )

    def run() -> dict[str, Any]:
        before = counts()
        completions = engine.generate(requests)
        calls, nodes, tokens = (counts() - before).tolist()
        outputs = [list(completion.token_ids) for completion in completions]
        return {"outputs": outputs, "acceptance_length": tokens / calls, "nodes_per_call": nodes / calls}

    return run


def generate_contender(
    model: Any, requests: list[Request], batch_size: int, **options: Any
) -> Callable[[], dict[str, Any]]:
    """transformers' generate over batches in input order."""

    def run() -> dict[str, Any]:
        outputs = []
        for first in range(0, len(requests), batch_size):
            batch = requests[first : first + batch_size]
            width = max(len(request.prompt_ids) for request in batch)
            ids = torch.tensor([[0] * (width - len(r.prompt_ids)) + list(r.prompt_ids) for r in batch])
            mask = torch.tensor([[0] * (width - len(r.prompt_ids)) + [1] * len(r.prompt_ids) for r in batch])
            longest = max(request.max_tokens for request in batch)
            out = model.generate(
                ids,
                attention_mask=mask,
                max_new_tokens=longest,
                do_sample=False,
                eos_token_id=None,
                pad_token_id=0,
                **options,
            )
            outputs += [
                row[: request.max_tokens] for row, request in zip(out[:, width:].tolist(), batch, strict=True)
            ]
        return {"outputs": outputs}

    return run


def main() -> None:
    """Parses the workload, runs the contenders, prints table and JSON line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--workload", choices=WORKLOADS, default="ragged")
    parser.add_argument(
        "--model", default=str(DEMO / "model"), help="a folder, or random-100m: a Llama of random weights"
    )
    parser.add_argument("--prompts", type=int, help="how many of the demo prompts")
    parser.add_argument("--running", type=int, help="sequences at once")
    parser.add_argument(
        "--prompt_tokens",
        type=int,
        help="repeat and cut every prompt to this length; without it, as they are",
    )
    parser.add_argument(
        "--max_tokens", type=int, default=128, help="per prompt, for the workloads equal and single"
    )
    parser.add_argument(
        "--mixed", nargs="*", default=["1,4", "2,4", "5,4", "10,10"], help="k,w of the mixed contenders"
    )
    parser.add_argument("--sources", nargs="*", default=["context", "bigram"], help="of the mixed contenders")
    parser.add_argument("--alternations", type=int, default=10)
    arguments = parser.parse_args()
    with model_folder(arguments.model) as folder:
        compare(folder, arguments)


def make_requests(num_prompts: int, arguments: argparse.Namespace) -> list[Request]:
    """Demo prompts with the workload's output lengths, which differ from row to row in `ragged`."""
    lengths = random.Random(0)
    ragged = arguments.workload == "ragged"
    return [
        Request(str(i), ids, lengths.randint(32, 256) if ragged else arguments.max_tokens, ignore_eos=True)
        for i, ids in enumerate(demo_prompts(num_prompts, arguments.prompt_tokens))
    ]


def compare(folder: str, arguments: argparse.Namespace) -> None:
    """Runs the contenders over one workload and reports."""
    num_prompts, running = WORKLOADS[arguments.workload]
    num_prompts = arguments.prompts or num_prompts
    running = arguments.running or running
    config = ModelConfig(path=folder, dtype="float32", device="cpu", max_running=running)
    requests = make_requests(num_prompts, arguments)
    loaded = load_model(config)
    reference = AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, attn_implementation="sdpa"
    ).eval()
    contenders = {"generate": generate_contender(reference, requests, running)}
    if running == 1:
        contenders["generate, prompt lookup"] = generate_contender(
            reference, requests, 1, prompt_lookup_num_tokens=10
        )
    contenders["plain"] = engine_contender(loaded, config, SpeculationConfig(mode="off"), requests)
    for grid in arguments.mixed:
        k, w = (int(part) for part in grid.split(","))
        speculation = SpeculationConfig(
            "mixed", MixedConfig(num_drafts=k, draft_len=w, sources=list(arguments.sources))
        )
        contenders[f"mixed ({k},{w})"] = engine_contender(loaded, config, speculation, requests)
    runs = alternate(contenders, sum(r.max_tokens for r in requests), arguments.alternations)
    outputs = {name: run.counts.pop("outputs") for name, run in runs.items()}
    for name, run in runs.items():
        run.counts["rows_equal_to_plain"] = sum(
            a == b for a, b in zip(outputs[name], outputs["plain"], strict=True)
        )
    settings = {
        "workload": arguments.workload, "model": Path(arguments.model).name, "prompts": len(requests),
        "running": running,
        "prompt_tokens": arguments.prompt_tokens, "alternations": arguments.alternations,
    }  # fmt: skip
    report(
        f"{arguments.workload}: {len(requests)} prompts, {running} at once",
        runs,
        ["generate", "plain"],
        settings,
    )


if __name__ == "__main__":
    main()
