"""Quantised models: the engine's text is that of transformers' generate on the same rounded weights, with
drafts and without.
"""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from transformers import AutoModelForCausalLM, BitsAndBytesConfig, TorchAoConfig

from drafting.config import MixedConfig, SpeculationConfig
from engine.build import build_engine
from engine.config import ModelConfig
from engine.model import quantization
from engine.model.fingerprint import model_fingerprint
from engine.model.loading import load_model
from engine.model.packed_linear import PackedLinear
from engine.request import Request
from tests.engine.harness import random_prompts
from tests.tiny_models import tiny_model

pytestmark = pytest.mark.slow
PROMPTS = random_prompts(6, seed=3)
NUM_TOKENS = 24
SPECULATION = {
    "off": SpeculationConfig(mode="off"),
    "mixed": SpeculationConfig("mixed", MixedConfig(num_drafts=4, draft_len=3)),
}
# Of the largest |logit|. bitsandbytes rounds a layer's inputs to bfloat16 where the processor computes with
# those.
NEAR_TIE = {"int8": 1e-4, "nf4": 2e-2}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tiny") / "model"
    tiny_model("llama", "sdpa", torch.float32, hidden_size=128, intermediate_size=192).save_pretrained(folder)
    return folder


def own_model(folder: Path, name: str | None) -> Any:
    """The model as transformers itself loads it, quantised as the engine is told to."""
    from torchao.quantization import Int8WeightOnlyConfig

    nf4 = {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4", "bnb_4bit_compute_dtype": torch.float32}
    config = {
        "int8": lambda: TorchAoConfig(Int8WeightOnlyConfig()),
        "nf4": lambda: BitsAndBytesConfig(**nf4),
        None: lambda: None,
    }[name]()
    how = {} if config is None else {"quantization_config": config}
    return AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, attn_implementation="sdpa", **how
    ).eval()


def generated(model: Any) -> list[tuple[int, ...]]:
    settings = {
        "max_new_tokens": NUM_TOKENS,
        "min_new_tokens": NUM_TOKENS,
        "do_sample": False,
        "eos_token_id": None,
        "pad_token_id": 0,
    }
    every = [
        model.generate(torch.tensor([p]), attention_mask=torch.ones(1, len(p), dtype=torch.long), **settings)
        for p in PROMPTS
    ]
    return [tuple(ids[0, len(prompt) :].tolist()) for prompt, ids in zip(PROMPTS, every, strict=True)]


def engine_texts(config: ModelConfig, mode: str, tables: Path) -> list[tuple[int, ...]]:
    engine = build_engine(config, SPECULATION[mode], tables)
    completions = engine.generate(
        [Request(f"{n}", p, NUM_TOKENS, ignore_eos=True) for n, p in enumerate(PROMPTS)]
    )
    assert (sum(engine.stats.accepted.values()) > 0) == (mode != "off")
    return [completion.token_ids for completion in completions]


@torch.inference_mode()
def assert_equal_but_for_near_ties(
    model: Any, wanted: list[tuple[int, ...]], found: list[tuple[int, ...]], close: float
) -> None:
    """At the first difference of two texts the model itself hardly prefers one token; most texts
    are equal.
    """
    assert sum(one == other for one, other in zip(wanted, found, strict=True)) >= len(PROMPTS) // 2
    for prompt, one, other in zip(PROMPTS, wanted, found, strict=True):
        if one != other:
            position = next(i for i in range(NUM_TOKENS) if one[i] != other[i])
            logits = model(input_ids=torch.tensor([prompt + one[:position]]), use_cache=False).logits[0, -1]
            gap = float(logits.max() - logits[[one[position], other[position]]].min())
            assert gap <= close * float(logits.abs().max()), (position, gap)


@pytest.mark.parametrize("mode", SPECULATION)
@pytest.mark.parametrize("name", ["int8", "nf4"])
def test_a_model_quantised_at_load_gives_generates_text(
    name: str, mode: str, folder: Path, tmp_path: Path
) -> None:
    model = own_model(folder, name)
    wanted = generated(model)
    assert wanted != generated(own_model(folder, None)), "the rounding was meant to be seen"
    found = engine_texts(ModelConfig(path=str(folder), quantization=name, max_running=4), mode, tmp_path)
    assert_equal_but_for_near_ties(model, wanted, found, NEAR_TIE[name])


@pytest.mark.parametrize("mode", SPECULATION)
@pytest.mark.parametrize("name", ["int8", "nf4"])
def test_a_checkpoint_that_was_saved_quantised_gives_generates_text(
    name: str, mode: str, folder: Path, tmp_path: Path
) -> None:
    own_model(folder, name).save_pretrained(tmp_path / "saved")
    assert "quantization_config" in json.loads((tmp_path / "saved" / "config.json").read_text())
    model = own_model(tmp_path / "saved", None)
    found = engine_texts(ModelConfig(path=str(tmp_path / "saved"), max_running=4), mode, tmp_path)
    assert_equal_but_for_near_ties(model, generated(model), found, NEAR_TIE[name])


@pytest.mark.parametrize(("name", "kind"), [("int8", "Int8Tensor"), ("nf4", "Params4bit")])
def test_quantised_layers_stay_and_the_others_are_packed(name: str, kind: str, folder: Path) -> None:
    model = load_model(ModelConfig(path=str(folder), quantization=name)).model
    layers = [module for module in model.model.layers.modules() if isinstance(module, nn.Linear)]
    assert {type(layer.weight).__name__ for layer in layers} == {kind}
    assert len(layers) == 3 * 7
    assert isinstance(model.lm_head, PackedLinear)


def test_draft_tables_of_a_quantised_model_are_kept_apart(folder: Path) -> None:
    kinds = [
        model_fingerprint(ModelConfig(path=str(folder), quantization=name)) for name in (None, "int8", "nf4")
    ]
    assert len(set(kinds)) == 3


def test_half_precision_is_quantised_too(folder: Path, tmp_path: Path) -> None:
    config = ModelConfig(path=str(folder), quantization="int8", dtype="bfloat16")
    assert load_model(config).dtype == torch.bfloat16
    assert len(engine_texts(config, "mixed", tmp_path)) == len(PROMPTS)


def refusal(config: ModelConfig) -> str:
    with pytest.raises(ValueError) as error:
        load_model(config)
    return str(error.value)


def test_a_quantised_checkpoint_is_not_quantised_again(folder: Path, tmp_path: Path) -> None:
    own_model(folder, "int8").save_pretrained(tmp_path)
    message = refusal(ModelConfig(path=str(tmp_path), quantization="nf4"))
    assert (
        message
        == "model.quantization is 'nf4', but the model is quantised already (torchao); leave the setting out"
    )


def test_a_missing_package_is_named_with_what_installs_it(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(quantization, "find_spec", lambda name: None)
    message = refusal(ModelConfig(path=str(folder), quantization="nf4"))
    assert message.startswith("model.quantization 'nf4' needs bitsandbytes and accelerate; ")
    assert message.endswith("pip install -c constraints.txt -e '.[quantization]'")


def test_a_checkpoint_whose_quantiser_is_not_installed_is_refused_with_its_name(
    folder: Path, tmp_path: Path
) -> None:
    tiny_model("llama", "sdpa", torch.float32).save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    own = {
        "quant_method": "aqlm",
        "in_group_size": 8,
        "out_group_size": 1,
        "num_codebooks": 1,
        "nbits_per_codebook": 16,
    }
    (tmp_path / "config.json").write_text(json.dumps({**config, "quantization_config": own}))
    message = refusal(ModelConfig(path=str(tmp_path)))
    assert "needs a package that is not installed: " in message
    assert "aqlm" in message


@pytest.mark.parametrize(
    ("settings", "error"),
    [
        ({"quantization": "int3"}, "model.quantization is 'int3'; it must be null or one of int8, nf4"),
        (
            {"quantization": "int8", "dtype": "float64"},
            "works with float32, bfloat16 and float16, not with model.dtype float64",
        ),
        (
            {"quantization": "int8", "adapter": "a"},
            "model.adapter cannot be merged into weights that model.quantization int8 rounds",
        ),
    ],
)
def test_settings_that_cannot_be_are_refused(settings: dict[str, str], error: str) -> None:
    with pytest.raises(ValueError, match=error):
        ModelConfig(path="m", **settings)
