"""Every supported family gives generate's text, docs/models.md says so, and all others are
refused at once.
"""

import json
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoConfig
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from engine.config import ModelConfig
from engine.model import families
from engine.model.families import context_of
from engine.model.loading import load_model
from pipeline.resolve_model import resolve_model
from tests.engine import family_table
from tests.engine.harness import Case, make_engine, mixed_proposer, random_prompts
from tests.tiny_families import TINY
from tests.tiny_models import reference_greedy, tiny_family

MISSING = [model_type for model_type in families.SUPPORTED if model_type not in CONFIG_MAPPING]
REFUSED = [model_type for _, _, model_types in families.REFUSALS for model_type in model_types]


def test_every_supported_family_is_compared_and_none_is_refused() -> None:
    assert list(TINY) == list(families.SUPPORTED)
    assert not set(REFUSED) & set(families.SUPPORTED)
    assert len(set(REFUSED)) == len(REFUSED)


@pytest.mark.slow
@pytest.mark.parametrize("model_type", TINY)
def test_a_family_gives_the_text_of_generate(model_type: str) -> None:
    if model_type in MISSING:
        pytest.skip(f"the installed transformers has no {model_type}")
    found = family_table.compare(model_type)
    assert min(found.num_greedy, found.num_sampled) > 200


@pytest.mark.slow
def test_the_documents_table_says_what_was_found() -> None:
    if MISSING:
        pytest.skip(f"the installed transformers has no {', '.join(MISSING)}: the table cannot be made whole")
    found = {model_type: family_table.compare(model_type) for model_type in families.SUPPORTED}
    assert family_table.written() == family_table.table(found), (
        "docs/models.md is old; python -m tests.engine.family_table writes it"
    )


def folder_of(tmp_path: Path, model_type: str, **settings: Any) -> Path:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": model_type, **settings}))
    (tmp_path / "model.safetensors").write_bytes(b"not read")
    return tmp_path


@pytest.mark.parametrize(
    ("model_type", "settings", "why"),
    [
        ("bloom", {"n_layer": 2}, r"its positions are a bias on the attention scores \(ALiBi\)"),
        ("falcon", {}, "its code computes attention itself"),
        (
            "falcon",
            {"auto_map": {"AutoModelForCausalLM": "modeling_falcon.FalconForCausalLM"}},
            "its code computes attention itself",
        ),
        ("mpt", {}, r"\(ALiBi\)"),
        ("mamba", {}, "its layers keep a running state"),
        ("qwen3_next", {}, "its layers keep a running state"),
        ("llama4", {}, "its attention is cut into chunks"),
        ("qwen2_5_vl", {}, r"it takes images or sound, .*; use a release of its text model alone"),
        ("t5", {}, "an encoder comes with it"),
        ("longcat_flash", {}, "nobody has compared its text"),
    ],
)
def test_a_family_that_does_not_run_is_refused_within_a_second_by_driver_and_worker(
    model_type, settings, why, tmp_path
) -> None:
    folder = folder_of(tmp_path, model_type, **settings)
    for refuse in (resolve_model, load_model):
        started = time.monotonic()
        with pytest.raises(
            ValueError,
            match=f"model type '{model_type}' is not supported: .*{why}.*transformers' own generate",
        ) as error:
            refuse(ModelConfig(path=str(folder)))
        assert time.monotonic() - started < 1
        assert "\n" not in str(error.value)


LONGROPE = {
    "rope_parameters": {
        "rope_type": "longrope",
        "rope_theta": 10_000.0,
        "short_factor": [1.0] * 8,
        "long_factor": [3.0] * 8,
    },
    "original_max_position_embeddings": 64,
}


QWEN_YARN = {"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32768}
DEEPSEEK_YARN = {"type": "yarn", "factor": 40, "original_max_position_embeddings": 4096}
LLAMA3 = {"rope_type": "llama3", "factor": 8.0, "original_max_position_embeddings": 8192}
OLMO3_YARN = {"rope_type": "yarn", "factor": 8.0, "original_max_position_embeddings": 8192}
DEFAULT = {"rope_type": "default"}
GEMMA3 = {"rope_type": "linear", "factor": 8.0}


@pytest.mark.parametrize(
    ("settings", "context"),
    [
        ({"max_position_embeddings": 256}, 256),
        ({"n_positions": 48}, 48),
        ({"text_config": {"max_position_embeddings": 99}}, 99),
        ({"max_position_embeddings": 256, **LONGROPE}, 64),
        (
            {
                "max_position_embeddings": 256,
                "rope_scaling": {"type": "su"},
                "original_max_position_embeddings": 64,
            },
            64,
        ),
        (
            {
                "max_position_embeddings": 256,
                "rope_scaling": {"rope_type": "longrope", "original_max_position_embeddings": 32},
            },
            32,
        ),
        ({"max_position_embeddings": 256, "rope_scaling": {"rope_type": "linear", "factor": 4.0}}, 1024),
        ({"max_position_embeddings": 256, "rope_parameters": {"rope_type": "linear", "factor": 2.0}}, 512),
        # Qwen2.5's card: yarn is added to config.json, and the rest is left as it was.
        ({"max_position_embeddings": 32768, "rope_scaling": QWEN_YARN}, 131072),
        ({"max_position_embeddings": 40960, "rope_scaling": QWEN_YARN}, 131072),  # Qwen3's
        ({"max_position_embeddings": 32768, "rope_scaling": {"type": "yarn", "factor": 4.0}}, 131072),
        # DeepSeek V3 and Llama 3.1 say the whole length themselves.
        ({"max_position_embeddings": 163840, "rope_scaling": DEEPSEEK_YARN}, 163840),
        ({"max_position_embeddings": 131072, "rope_scaling": LLAMA3}, 131072),
        ({"model_type": "gemma3_text", "max_position_embeddings": 131072, "rope_scaling": GEMMA3}, 131072),
        (
            {
                "model_type": "gemma3_text",
                "max_position_embeddings": 131072,
                "rope_parameters": {"full_attention": GEMMA3, "sliding_attention": DEFAULT},
            },
            131072,
        ),
        # As transformers 5 saves OLMo 3: only the layers without a window are stretched.
        (
            {
                "model_type": "olmo3",
                "max_position_embeddings": 8192,
                "rope_parameters": {
                    "full_attention": OLMO3_YARN,
                    "sliding_attention": {"rope_type": "default"},
                },
            },
            65536,
        ),
        (
            {
                "max_position_embeddings": 256,
                "rope_parameters": {"full_attention": {"rope_type": "dynamic", "factor": 4.0}},
            },
            256,
        ),
        (
            {
                "max_position_embeddings": 256,
                "rope_parameters": {
                    "full_attention": {"rope_type": "longrope", "original_max_position_embeddings": 64},
                    "sliding_attention": None,
                },
            },
            64,
        ),
        # Added to what transformers 5 saved: it takes rope_scaling, wherever both are.
        (
            {
                "max_position_embeddings": 32768,
                "rope_parameters": {"rope_type": "default", "rope_theta": 1e6},
                "rope_scaling": QWEN_YARN,
            },
            131072,
        ),
        # transformers takes the first length from beside the rope settings (Phi-3 has it there).
        (
            {
                "max_position_embeddings": 4096,
                "original_max_position_embeddings": 4096,
                "rope_scaling": {"type": "yarn", "factor": 2.0, "original_max_position_embeddings": 8192},
            },
            8192,
        ),
        # The angles of `dynamic` depend on the longest row of a step.
        ({"max_position_embeddings": 256, "rope_scaling": {"type": "dynamic", "factor": 4.0}}, 256),
        ({}, None),
    ],
)
def test_a_models_context_ends_where_its_positions_or_its_rotary_angles_do(settings, context) -> None:
    assert context_of(settings, None) == context
    assert context_of(settings, 16) == 16
    if context:
        with pytest.raises(
            ValueError, match=f"model.max_context is 1000000, but .* {context} positions.*; lower it"
        ):
            context_of(settings, 1_000_000)


def test_driver_and_worker_find_the_same_context(tmp_path) -> None:
    """The driver reads config.json, the worker what transformers made of it, where ropes are by layer."""
    folder = folder_of(tmp_path, "olmo3", max_position_embeddings=8192, rope_scaling=OLMO3_YARN)
    settings = json.loads((folder / "config.json").read_text())
    made = AutoConfig.from_pretrained(folder).to_dict()
    assert set(made["rope_parameters"]) == {"full_attention", "sliding_attention"}
    assert context_of(settings, None) == context_of(made, None) == 65536


YARN = {"rope_type": "yarn", "factor": 4.0, "rope_theta": 10_000.0, "original_max_position_embeddings": 32}
LINEAR = {"rope_type": "linear", "factor": 4.0, "rope_theta": 10_000.0}
BY_LAYER = {"full_attention": YARN, "sliding_attention": {"rope_type": "default", "rope_theta": 10_000.0}}
DYNAMIC = {"rope_parameters": {"rope_type": "dynamic", "factor": 4.0, "rope_theta": 10_000.0}}


def check_whole_context(model_type: str, context: int) -> None:
    """Compares texts that fill the context of a tiny model of the family with those of generate."""
    reference = tiny_family(model_type, "sdpa")
    cases = [
        Case(f"{n}", p, tuple(reference_greedy(reference, list(p), context - len(p))))
        for n, p in enumerate(random_prompts(3, seed=0))
    ]
    engine = make_engine(tiny_family(model_type), mixed_proposer(5, 4, cases), max_running=3)
    assert engine.max_context == context
    for case, completion in zip(cases, engine.generate([case.request() for case in cases]), strict=True):
        assert completion.token_ids == case.token_ids


@pytest.mark.parametrize(
    ("model_type", "rope"), [("qwen2", YARN), ("qwen2", LINEAR), ("olmo3", BY_LAYER)], ids=str
)
def test_a_stretched_model_gives_the_text_of_generate_beyond_the_length_it_was_trained_for(
    model_type, rope, monkeypatch
) -> None:
    settings = {**TINY[model_type], "max_position_embeddings": 32, "rope_parameters": rope}
    monkeypatch.setitem(TINY, model_type, settings)
    check_whole_context(model_type, 128)


@pytest.mark.parametrize(
    ("model_type", "settings"),
    [
        ("phi3", {"sliding_window": None, **LONGROPE}),
        ("llama", {"max_position_embeddings": 64, **DYNAMIC}),
    ],
    ids=["longrope", "dynamic"],
)
def test_a_model_whose_angles_change_gives_the_text_of_generate_within_its_first_context(
    model_type, settings, monkeypatch
) -> None:
    monkeypatch.setitem(TINY, model_type, settings)
    check_whole_context(model_type, 64)


def test_float64_experts_run_one_by_one_since_grouped_mm_takes_no_float64(monkeypatch) -> None:
    model = tiny_family("mixtral")
    model.set_experts_implementation("grouped_mm")
    make_engine(model)
    assert model.config._experts_implementation == "eager"
    with pytest.raises(RuntimeError, match="Double"):
        torch.nn.functional.grouped_mm(
            torch.ones(2, 16).double(),
            torch.ones(1, 16, 16).double(),
            offs=torch.tensor([2], dtype=torch.int32),
        )
