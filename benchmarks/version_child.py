"""Runs cells of benchmarks/bench_versions.py on one checkout of this project: one process, commands by line
on stdin.

The process is started with the checkout as its working folder. It uses only what every version of the engine
has had: settings, build_proposer, engine_for, Request, Sampling and Engine.generate.
"""

import importlib
import json
import random
import sys
import time
from pathlib import Path
from typing import Any

TEMPERATURES = {"greedy": 0.0, "sampled": 0.8, "hostile": 2.0}


class Cells:
    """The engines of one model in this checkout; an engine is kept from run to run, as a worker keeps it."""

    def __init__(self, model: str, prompts: list[list[int]]) -> None:
        from engine.config import ModelConfig

        self.config: dict[str, Any] = {
            "path": model,
            "dtype": "float32",
            "device": "cpu",
            "prefix_cache": False,
        }
        self.loaded = load_model()(ModelConfig(**self.config))
        self.prompts = prompts
        self.engines: dict[tuple[str, int, str], Any] = {}

    def run(self, name: str, running: int, mode: str, max_tokens: int) -> dict[str, Any]:
        """Decodes the requests of a cell; returns CPU seconds, wall seconds and a digest of each output."""
        engine = self._engine(name, running, mode)
        forget_texts(engine)
        requests = self._requests(name, max(12, 3 * running), max_tokens)
        wall = time.perf_counter()
        cpu = time.process_time()
        outputs = [list(completion.token_ids) for completion in engine.generate(requests)]
        return {
            "cpu_s": time.process_time() - cpu,
            "wall_s": time.perf_counter() - wall,
            "tokens": sum(map(len, outputs)),
            "calls": engine.stats.num_calls,
            "nodes": sum(engine.stats.verified.values()),
            "outputs": outputs,
        }

    def _engine(self, name: str, running: int, mode: str) -> Any:
        from drafting.config import SpeculationConfig
        from engine.build import build_proposer, engine_for
        from engine.config import ModelConfig

        if (name, running, mode) not in self.engines:
            config = ModelConfig(**self.config, max_running=running)
            proposer = build_proposer(self.loaded, config, SpeculationConfig(mode=mode))
            self.engines[name, running, mode] = engine_for(self.loaded, config, proposer)
        return self.engines[name, running, mode]

    def _requests(self, name: str, count: int, max_tokens: int) -> list[Any]:
        from engine.request import Request, Sampling

        rng = random.Random(0)
        requests = []
        for index in range(count):
            prompt = tuple(self.prompts[index % len(self.prompts)])
            length = rng.randint(max_tokens // 2, 3 * max_tokens // 2)
            if name == "hostile":
                prompt = tuple(rng.randrange(self.loaded.vocab_size) for _ in prompt)
            sampling = Sampling(temperature=TEMPERATURES[name], seed=index)
            requests.append(Request(str(index), prompt, length, sampling, ignore_eos=True))
        return requests


def load_model() -> Any:
    """The function that loads a model, wherever this checkout has it."""
    place = "engine.model.loading" if Path("engine/model").is_dir() else "engine.loading"
    return importlib.import_module(place).load_model


def forget_texts(engine: Any) -> None:
    """Forgets what earlier runs said, or the second run of a prompt would find the answers of the first."""
    proposer: Any = getattr(engine.speculation, "proposer", None)
    if hasattr(proposer, "clear"):
        proposer.clear()


def main() -> None:
    """Answers each command with one line of JSON."""
    sys.path.insert(0, str(Path.cwd()))
    cells: Cells | None = None
    for line in sys.stdin:
        command = json.loads(line)
        if "model" in command:
            cells = Cells(command["model"], command["prompts"])
            print(json.dumps({"ready": True}), flush=True)
        else:
            assert cells is not None, "the first command names the model"
            print(json.dumps(cells.run(**command)), flush=True)


if __name__ == "__main__":
    main()
