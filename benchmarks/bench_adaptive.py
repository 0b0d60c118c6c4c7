"""Adaptive speculation against plain decoding and the paper's fixed (k, w), on the same prompts, in
alternation. No Ray.

    python -m benchmarks.bench_adaptive                        # the demo model, 1, 4, 16 and 64 sequences
    python -m benchmarks.bench_adaptive --running 16 --sets hostile # one cell of it
    python -m benchmarks.bench_adaptive --model FOLDER --prompts FILE.jsonl --fixed

Sets: greedy; sampled (temperature 0.8); sampled1 (temperature 1); hostile (prompts of random tokens, temperature 2: nothing can be
guessed). Lengths differ and a new prompt starts where one has ended, as in a job. One torch thread, float32.
Before each run what was learned from texts is forgotten, or a prompt's second run would find the answers of
its first; calibration and costs are kept, as a worker keeps them. The criterion is never_slower: the lower
end of the 95 % bootstrap interval of the median ratio to plain.
"""

import argparse
import json
import random
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

from transformers import AutoTokenizer

from benchmarks.measure import alternate, report
from drafting.adaptive.adaptive_proposer import AdaptiveProposer
from drafting.config import MixedConfig, SpeculationConfig
from drafting.sampling import Sampling
from drafting.speculation import Speculation
from engine.build import build_proposer, engine_for
from engine.config import ModelConfig
from engine.engine import Engine
from engine.model.loading import load_model
from engine.request import Request
from engine.stats import EngineStats

DEMO = Path(__file__).parent.parent / "demo"
SETS = {"greedy": 0.0, "sampled": 0.8, "sampled1": 1.0, "hostile": 2.0}
FIXED = ((1, 4), (2, 4), (5, 4), (10, 4), (10, 10))


def requests_of(
    name: str, prompts: list[tuple[int, ...]], count: int, max_tokens: int, vocab_size: int
) -> list[Request]:
    """count requests of the set, half to one and a half times max_tokens long; prompts are taken in turn."""
    rng = random.Random(0)
    requests = []
    for index in range(count):
        prompt = prompts[index % len(prompts)]
        length = rng.randint(max_tokens // 2, 3 * max_tokens // 2)
        if name == "hostile":
            prompt = tuple(rng.randrange(vocab_size) for _ in prompt)
        requests.append(
            Request(str(index), prompt, length, Sampling(temperature=SETS[name], seed=index), ignore_eos=True)
        )
    return requests


def contender(engine: Engine, requests: list[Request]) -> Callable[[], dict[str, Any]]:
    """Runs the requests and says what speculation cost and gave."""

    def run() -> dict[str, Any]:
        speculation = engine.speculation
        if isinstance(speculation, Speculation) and isinstance(speculation.proposer, AdaptiveProposer):
            speculation.proposer.clear()
        before = deepcopy(engine.stats)
        outputs = [completion.token_ids for completion in engine.generate(requests)]
        return {"outputs": outputs, **gains(before, engine.stats)}

    return run


def gains(before: EngineStats, after: EngineStats) -> dict[str, Any]:
    """What happened between two states of an engine's counts."""
    calls = after.num_calls - before.num_calls
    tokens = after.num_tokens - before.num_tokens
    both = (before.verified, after.verified), (before.accepted, after.accepted)
    verified, accepted = (
        {source: count - old.get(source, 0) for source, count in new.items()} for old, new in both
    )
    spent = {phase: seconds - before.seconds[phase] for phase, seconds in after.seconds.items()}
    return {
        "acceptance_length": tokens / calls,
        "nodes_per_call": sum(verified.values()) / calls,
        "verified": verified,
        "accepted": accepted,
        "time_share": {phase: round(seconds / sum(spent.values()), 4) for phase, seconds in spent.items()},
    }


def measure(
    args: argparse.Namespace, loaded: Any, prompts: list[tuple[int, ...]], running: int, name: str
) -> None:
    """One cell: a table and a JSON line."""
    config = ModelConfig(
        path=args.model, dtype="float32", device="cpu", max_running=running, prefix_cache=False
    )
    requests = requests_of(name, prompts, max(12, args.waves * running), args.max_tokens, loaded.vocab_size)
    settings = {"plain": SpeculationConfig(mode="off"), "adaptive": SpeculationConfig(mode="adaptive")}
    if args.fixed:
        settings |= {
            f"mixed ({k},{w})": SpeculationConfig("mixed", MixedConfig(num_drafts=k, draft_len=w))
            for k, w in FIXED
        }
    contenders = {
        label: contender(engine_for(loaded, config, build_proposer(loaded, config, speculation)), requests)
        for label, speculation in settings.items()
    }
    runs = alternate(contenders, sum(request.max_tokens for request in requests), args.alternations)
    outputs = {label: run.counts.pop("outputs") for label, run in runs.items()}
    for label, run in runs.items():
        run.counts["rows_equal_to_plain"] = sum(
            a == b for a, b in zip(outputs[label], outputs["plain"], strict=True)
        )
    title = f"{Path(args.model).name}, {name}: {len(requests)} prompts, {running} at once"
    cell = {
        "model": Path(args.model).name,
        "set": name,
        "running": running,
        "alternations": args.alternations,
    }
    report(title, runs, ["plain"], {**cell, "prompts": len(requests), "max_tokens": args.max_tokens})


def main() -> None:
    """Parses the settings and measures each cell."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default=str(DEMO / "model"))
    parser.add_argument(
        "--prompts", type=Path, default=DEMO / "prompts.jsonl", help="JSONL with a column `prompt`"
    )
    parser.add_argument("--running", type=int, nargs="+", default=[1, 4, 16, 64])
    parser.add_argument("--sets", nargs="+", choices=SETS, default=list(SETS))
    parser.add_argument("--max_tokens", type=int, default=96, help="per prompt, on average")
    parser.add_argument(
        "--waves", type=int, default=3, help="prompts per run, in running sequences; at least 12 in all"
    )
    parser.add_argument("--fixed", action="store_true", help="also the paper's fixed grids")
    parser.add_argument("--alternations", type=int, default=20)
    args = parser.parse_args()
    tokenizer = AutoTokenizer.from_pretrained(args.model)
    lines = args.prompts.read_text(encoding="utf-8").split("\n")
    prompts = [tuple(tokenizer(json.loads(line)["prompt"]).input_ids) for line in lines if line]
    loaded = load_model(ModelConfig(path=args.model, dtype="float32", device="cpu"))
    for running in args.running:
        for name in args.sets:
            measure(args, loaded, prompts, running, name)


if __name__ == "__main__":
    main()
