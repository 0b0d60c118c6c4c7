"""A worker inside Ray against the bare engine: the same 500 prompts, in alternation, start-up excluded on
both sides.

    python -m benchmarks.bench_worker

Bare: Engine.generate in a process of its own, all requests given at once. Job: jobs/offline.py with one
worker, from its first shard's beginning to its last part (what the job reports as tokens/s), so reading,
tokenizing, committing and Ray's own work are in it. Both decode the same tokens.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.measure import environment, ratio
from demo.corpus import demo_prompts

ROOT = Path(__file__).parent.parent


def bare_engine(prompts: Path, model: str, max_tokens: int) -> None:
    """Prints tokens and seconds of one run; called in a process of its own."""
    from transformers import AutoTokenizer

    from drafting.config import SpeculationConfig
    from engine.build import build_engine
    from engine.config import ModelConfig
    from engine.request import Request

    tokenizer = AutoTokenizer.from_pretrained(model)
    texts = [json.loads(line)["prompt"] for line in prompts.read_text(encoding="utf-8").split("\n") if line]
    requests = [
        Request(str(i), tuple(tokenizer(text).input_ids), max_tokens, ignore_eos=True)
        for i, text in enumerate(texts)
    ]
    engine = build_engine(ModelConfig(path=model), SpeculationConfig(mode="off"))
    started = time.time()
    completions = engine.generate(requests)
    print(
        json.dumps({"tokens": sum(len(c.token_ids) for c in completions), "seconds": time.time() - started})
    )


def job(prompts: Path, model: str, max_tokens: int) -> dict[str, float]:
    """Tokens and seconds of one offline job, from its report."""
    with tempfile.TemporaryDirectory() as folder:
        settings = {
            "generation.max_tokens": max_tokens,
            "generation.ignore_eos": "true",
            "speculation.mode": "off",
        }
        flags = [part for name, value in settings.items() for part in (f"--{name}", str(value))]
        command = [
            sys.executable,
            "jobs/offline.py",
            "--input",
            str(prompts),
            "--output",
            f"{folder}/out",
            "--model",
            model,
            *flags,
        ]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        if done.returncode:
            raise SystemExit(f"the job failed: {done.stderr}")
        report = json.loads(Path(folder, "out", "_run", "report.json").read_text(encoding="utf-8"))
    return {"tokens": report["tokens"], "seconds": report["seconds"]}


def main() -> None:
    """Alternates both, prints the ratio and one JSON line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default=str(ROOT / "demo" / "model"))
    parser.add_argument("--num_prompts", type=int, default=500)
    parser.add_argument("--max_tokens", type=int, default=64)
    parser.add_argument("--alternations", type=int, default=5)
    parser.add_argument("--bare", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.bare:
        return bare_engine(arguments.bare, arguments.model, arguments.max_tokens)
    os.environ["OMP_NUM_THREADS"] = "1"
    bare, jobs = alternate_both(arguments)
    compared = ratio([run["seconds"] for run in bare], [run["seconds"] for run in jobs])
    spread = f"[{compared['low']:.2f}, {compared['high']:.2f}]"
    print(f"worker in Ray / bare engine: {compared['median']:.2f} {spread}")
    results = {"title": "worker in Ray against bare engine", "bare": bare, "job": jobs}
    print(json.dumps({**results, "ratio_wall": compared, **environment()}))


def alternate_both(arguments: argparse.Namespace) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The runs of the bare engine and those of the job, in alternation over the same prompts."""
    bare = []
    jobs = []
    with tempfile.TemporaryDirectory() as folder:
        prompts = Path(folder, "prompts.jsonl")
        prompts.write_text(
            "".join(json.dumps(row) + "\n" for row in demo_prompts(arguments.num_prompts)), encoding="utf-8"
        )
        command = [sys.executable, "-m", "benchmarks.bench_worker", "--bare", str(prompts)]
        command += ["--model", arguments.model, "--max_tokens", str(arguments.max_tokens)]
        for _ in range(arguments.alternations):
            done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
            bare.append(json.loads(done.stdout.splitlines()[-1]))
            jobs.append(job(prompts, arguments.model, arguments.max_tokens))
            assert bare[-1]["tokens"] == jobs[-1]["tokens"], (bare[-1], jobs[-1])
            print(
                f"bare {bare[-1]['tokens'] / bare[-1]['seconds']:.0f} tokens/s, job "
                f"{jobs[-1]['tokens'] / jobs[-1]['seconds']:.0f}",
                flush=True,
            )
    return bare, jobs


if __name__ == "__main__":
    main()
