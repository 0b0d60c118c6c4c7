"""Models and requests that the engine's benchmarks share: the demo model or a random one, demo prompts as
they are or of one length.
"""

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

DEMO = Path(__file__).parent.parent / "demo"
RANDOM_100M = "random-100m"


@contextmanager
def model_folder(name: str) -> Iterator[str]:
    """The folder of a model: `name` itself, or for "random-100m" a Llama of 100 M random weights, made anew
    from a fixed seed.
    """
    if name != RANDOM_100M:
        yield name
        return
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=32000, hidden_size=768, intermediate_size=2048, num_hidden_layers=12,
        num_attention_heads=12,
        num_key_value_heads=4, max_position_embeddings=2048, tie_word_embeddings=True, initializer_range=0.05,
    )  # fmt: skip
    with TemporaryDirectory() as folder:
        model: Any = LlamaForCausalLM(config)  # its `to` is not annotated as a module's
        model.to(torch.bfloat16).save_pretrained(folder)
        yield folder


@contextmanager
def demo_with_context(num_positions: int) -> Iterator[str]:
    """The folder of a copy of the demo model that takes longer texts than it was trained for."""
    with TemporaryDirectory() as folder:
        shutil.copytree(DEMO / "model", folder, dirs_exist_ok=True)
        config = json.loads((DEMO / "model" / "config.json").read_text(encoding="utf-8"))
        (Path(folder) / "config.json").write_text(
            json.dumps({**config, "max_position_embeddings": num_positions}), encoding="utf-8"
        )
        yield folder


def demo_prompts(count: int, num_tokens: int | None = None) -> list[tuple[int, ...]]:
    """Token ids of the first prompts, by the demo model's tokenizer; with num_tokens repeated and cut to that
    length each.
    """
    tokenizer = AutoTokenizer.from_pretrained(DEMO / "model")
    texts = [
        json.loads(line)["prompt"]
        for line in (DEMO / "prompts.jsonl").read_text(encoding="utf-8").split("\n")
        if line
    ]
    prompts = [tuple(tokenizer(texts[i % len(texts)]).input_ids) for i in range(count)]
    return [(ids * num_tokens)[:num_tokens] if num_tokens else ids for ids in prompts]
