"""What torch.compile of the decoder layers would give on a CPU: seconds to compile, recompiles, and speed
against the engine as it is.

    python -m benchmarks.bench_compile --running 16

Every decoder layer is compiled with dynamic shapes, attention left out of the graph (it reads numpy arrays
and pages). Needs a C++ compiler. One torch thread, float32; nothing of this is used by the engine:
docs/lab-notes.md says why.
"""

import argparse
import json
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch._dynamo.utils import counters
from transformers import AttentionInterface, AutoModelForCausalLM

from benchmarks.measure import alternate, environment, ratio
from benchmarks.workloads import DEMO, demo_prompts, model_folder
from engine import attention
from engine.build import engine_for
from engine.config import ModelConfig
from engine.model.loading import LoadedModel, inspect_model, load_model
from engine.model.packed_linear import PackedLinear, pack_linears
from engine.request import Request

PACKED: list[PackedLinear] = []


@torch.library.custom_op("bench_compile::packed_linear", mutates_args=())
def packed_linear(rows: Tensor, index: int, out_features: int) -> Tensor:
    """A packed layer that the compiler does not look into: it takes packed weights in frozen graphs only."""
    return PackedLinear.forward(PACKED[index], rows).clone()


@packed_linear.register_fake
def _(rows: Tensor, index: int, out_features: int) -> Tensor:
    return rows.new_empty(*rows.shape[:-1], out_features)


def compiled_model(folder: str, packed: bool) -> LoadedModel:
    """The model with its layers compiled, over packed linear layers or over its own."""
    model: Any = AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, attn_implementation=attention.NAME
    ).eval()
    if packed:
        pack_linears(model, model.get_output_embeddings(), siblings=())
        for module in model.modules():
            if isinstance(module, PackedLinear):
                opaque: Any = partial(packed_linear, index=len(PACKED), out_features=module.out_features)
                vars(module)["forward"] = opaque
                PACKED.append(module)
    loaded = inspect_model(model)  # registers the attention function anew
    AttentionInterface.register(attention.NAME, torch.compiler.disable(attention.tree_attention))
    for layer in model.model.layers:
        layer.compile(dynamic=True)
    return loaded


def contender(
    loaded: LoadedModel, config: ModelConfig, requests: list[Request]
) -> Callable[[], dict[str, Any]]:
    """Runs the requests through one plain engine."""
    engine = engine_for(loaded, config, None)

    def run() -> dict[str, Any]:
        engine.generate(requests)
        return {}

    return run


def main() -> None:
    """One line per contender, then one JSON line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default=str(DEMO / "model"), help="a folder, or random-100m")
    parser.add_argument("--running", type=int, default=16)
    parser.add_argument("--max_tokens", type=int, default=64)
    parser.add_argument("--alternations", type=int, default=10)
    arguments = parser.parse_args()
    with model_folder(arguments.model) as folder:
        config = ModelConfig(path=folder, dtype="float32", device="cpu", max_running=arguments.running)
        requests = [
            Request(str(i), ids, arguments.max_tokens, ignore_eos=True)
            for i, ids in enumerate(demo_prompts(arguments.running))
        ]
        contenders = {"engine": contender(load_model(config), config, requests)}
        first_run_s = {}
        for name, packed in (("compiled", False), ("compiled, packed linear layers", True)):
            started = time.perf_counter()
            contenders[name] = contender(compiled_model(folder, packed), config, requests)
            contenders[name]()
            first_run_s[name] = round(time.perf_counter() - started, 1)
        graphs = dict(counters["stats"])
        runs = alternate(contenders, 0, arguments.alternations)
        found = {name: ratio(runs["engine"].cpu_s, run.cpu_s) for name, run in runs.items()}
    for name, speed in found.items():
        print(
            f"{name}: {speed['median']:.2f}x [{speed['low']:.2f}, {speed['high']:.2f}], first run "
            f"{first_run_s.get(name, 0):.0f} s"
        )
    settings = {"running": arguments.running, "first_run_s": first_run_s, "graphs": graphs}
    print(
        json.dumps(
            {"title": "torch.compile of the decoder layers", **settings, "ratio_cpu": found, **environment()}
        )
    )


if __name__ == "__main__":
    main()
