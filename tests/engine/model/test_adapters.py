"""LoRA adapters: merged at load, the text is that of peft's own merged model; what does not fit is refused,
not half applied.
"""

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from drafting.config import MixedConfig, SpeculationConfig
from engine.build import build_engine
from engine.config import ModelConfig
from engine.model import adapters
from engine.model.fingerprint import model_fingerprint
from engine.model.loading import load_model
from engine.request import Request
from tests.engine.harness import random_prompts
from tests.tiny_models import reference_greedy, tiny_model

pytestmark = pytest.mark.slow
PROMPTS = random_prompts(4, seed=5)
NUM_TOKENS = 20
TARGETS = {"llama": ["q_proj", "v_proj", "down_proj"], "gpt2": ["c_attn", "c_proj"]}


def save_adapter(folder: Path, family: str = "llama", seed: int = 1, **model: Any) -> Path:
    """An adapter of random numbers, as peft saves one."""
    from peft import LoraConfig, get_peft_model

    base = tiny_model(family, "sdpa", **model)
    torch.manual_seed(seed)
    config = LoraConfig(
        r=4,
        lora_alpha=16,
        init_lora_weights=False,
        target_modules=TARGETS[family],
        fan_in_fan_out=family == "gpt2",
    )
    get_peft_model(base, config).save_pretrained(folder)
    return folder


def save_model(folder: Path, family: str = "llama") -> str:
    tiny_model(family, "sdpa").save_pretrained(folder)
    return str(folder)


def texts(model: Any) -> list[tuple[int, ...]]:
    return [tuple(reference_greedy(model, list(prompt), NUM_TOKENS)) for prompt in PROMPTS]


def refusal(config: ModelConfig) -> str:
    with pytest.raises(ValueError) as error:
        load_model(config)
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize("mode", ["off", "mixed"])
@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_an_adapted_model_gives_the_text_of_pefts_merged_model(
    family: str, mode: str, tmp_path: Path
) -> None:
    from peft import PeftModel

    adapter = save_adapter(tmp_path / "adapter", family)
    wanted = texts(PeftModel.from_pretrained(tiny_model(family, "sdpa"), str(adapter)).merge_and_unload())
    assert all(one != other for one, other in zip(wanted, texts(tiny_model(family, "sdpa")), strict=True))
    config = ModelConfig(
        path=save_model(tmp_path / "model", family), adapter=str(adapter), dtype="float64", max_running=3
    )
    engine = build_engine(config, SpeculationConfig(mode, MixedConfig(num_drafts=4, draft_len=3)), tmp_path)
    completions = engine.generate(
        [Request(f"{n}", p, NUM_TOKENS, ignore_eos=True) for n, p in enumerate(PROMPTS)]
    )
    assert [completion.token_ids for completion in completions] == wanted
    assert (sum(engine.stats.accepted.values()) > 0) == (mode != "off")


@pytest.mark.parametrize("tied", [True, False], ids=["tied", "untied"])
@pytest.mark.parametrize(
    "settings",
    [
        {"target_modules": ["q_proj", "embed_tokens"]},
        {"target_modules": ["q_proj", "lm_head"]},
        {"target_modules": ["embed_tokens", "lm_head"]},
        {"target_modules": ["q_proj", "lm_head"], "use_dora": True},
        {"target_modules": ["q_proj", "embed_tokens"], "ensure_weight_tying": True},
        {"target_modules": ["q_proj"], "modules_to_save": ["embed_tokens"]},
        {"target_modules": ["q_proj"], "modules_to_save": ["lm_head"]},
        {"target_modules": ["q_proj"], "trainable_token_indices": [5, 6, 9]},
        {"target_modules": ["q_proj"], "trainable_token_indices": {"embed_tokens": [5, 6], "lm_head": [7]}},
        {"target_modules": ["q_proj"], "layer_replication": [[0, 2], [1, 3]]},
        {"target_modules": ["q_proj"], "bias": "all"},
    ],
    ids=str,
)
def test_an_adapter_gives_the_logits_that_it_gives_unmerged(
    settings: dict[str, Any], tied: bool, tmp_path: Path
) -> None:
    ids = torch.tensor([[5, 6, 7, 9, 30]])
    unmerged = save_trained(tmp_path, tied, **settings)
    with torch.no_grad():
        wanted = unmerged(input_ids=ids).logits
    model = tiny_model("llama", "sdpa", tie_word_embeddings=tied)
    merged = adapters.merge_adapter(model, ModelConfig(path="model", adapter=str(tmp_path)))
    with torch.no_grad():
        assert (merged(input_ids=ids).logits - wanted).abs().max() < 1e-9


def save_trained(folder: Path, tied: bool, attention_bias: bool = False, **settings: Any) -> Any:
    """Saves an adapter all of whose parts have changed; gives the model with it, unmerged."""
    from peft import LoraConfig, get_peft_model

    base = tiny_model("llama", "sdpa", tie_word_embeddings=tied, attention_bias=attention_bias)

    config = LoraConfig(r=4, lora_alpha=16, init_lora_weights=False, **settings)
    torch.manual_seed(1)
    unmerged = get_peft_model(base, config)
    with torch.no_grad():
        for parameter in unmerged.parameters():
            if parameter.requires_grad:
                parameter += 0.1 * torch.randn_like(parameter)
    unmerged.save_pretrained(folder)
    return unmerged


def test_lora_over_trained_tokens_of_tied_embeddings_is_refused(tmp_path: Path) -> None:
    save_trained(tmp_path, True, target_modules=["q_proj", "lm_head"], trainable_token_indices=[5, 6])
    model = tiny_model("llama", "sdpa", tie_word_embeddings=True)
    with pytest.raises(ValueError, match="changes the output layer by LoRA and by single tokens too"):
        adapters.merge_adapter(model, ModelConfig(path="model", adapter=str(tmp_path)))


@pytest.mark.parametrize("change", ["missing", "strange"])
def test_every_kind_of_weight_of_an_adapter_must_fit(change: str, tmp_path: Path) -> None:
    """Not only those of LoRA itself: here the biases that were trained with it."""
    save_trained(tmp_path, False, attention_bias=True, target_modules=["q_proj"], bias="all")
    weights = load_file(tmp_path / "adapter_model.safetensors")
    name = "base_model.model.model.layers.1.self_attn.k_proj.bias"
    if change == "missing":
        del weights[name]
    else:
        name = name.replace("k_proj", "r_proj")
        weights[name] = torch.ones(32)
    save_file(weights, tmp_path / "adapter_model.safetensors", metadata={"format": "pt"})
    model = tiny_model("llama", "sdpa", attention_bias=True)
    with pytest.raises(ValueError, match=f"1 of its weights are missing .* in the model, first {name}"):
        adapters.merge_adapter(model, ModelConfig(path="model", adapter=str(tmp_path)))


def test_draft_tables_of_an_adapted_model_are_its_own(tmp_path: Path) -> None:
    model = save_model(tmp_path / "model")
    one, other = (str(save_adapter(tmp_path / name, seed=seed)) for name, seed in (("one", 1), ("other", 2)))
    same = shutil.copytree(one, tmp_path / "same")
    found = [
        model_fingerprint(ModelConfig(path=model, adapter=adapter))
        for adapter in (None, one, other, str(same))
    ]
    assert len(set(found)) == 3
    assert found[1] == found[3]


@pytest.mark.parametrize(
    ("model", "why"),
    [
        ({"hidden_size": 32}, "size mismatch"),
        (
            {"num_hidden_layers": 2},
            "6 of its weights are missing or have no place in the model, first "
            "base_model.model.model.layers.2",
        ),
        (
            {"num_hidden_layers": 4},
            "6 of its weights are missing or have no place in the model, first "
            "base_model.model.model.layers.3",
        ),
    ],
)
def test_an_adapter_of_another_model_is_refused(model: dict[str, int], why: str, tmp_path: Path) -> None:
    adapter = save_adapter(tmp_path / "adapter", **model)
    message = refusal(ModelConfig(path=save_model(tmp_path / "model"), adapter=str(adapter)))
    assert message.startswith(f"model.adapter '{adapter}' does not fit LlamaForCausalLM: ")
    assert why in message
    assert message.endswith("; use one made for this model")


def test_an_adapter_of_another_family_is_refused(tmp_path: Path) -> None:
    adapter = save_adapter(tmp_path / "adapter", "gpt2")
    message = refusal(ModelConfig(path=save_model(tmp_path / "model"), adapter=str(adapter)))
    assert "does not fit LlamaForCausalLM: Target modules" in message


def test_what_cannot_be_merged_is_refused(tmp_path: Path) -> None:
    from peft import PromptTuningConfig, get_peft_model

    prompts = PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=2)
    get_peft_model(tiny_model("llama", "sdpa"), prompts).save_pretrained(tmp_path / "adapter")
    message = refusal(ModelConfig(path=save_model(tmp_path / "model"), adapter=str(tmp_path / "adapter")))
    assert "it is of the kind PROMPT_TUNING, and only LoRA can be merged" in message


def test_a_torn_adapter_is_refused(tmp_path: Path) -> None:
    weights = save_adapter(tmp_path / "adapter") / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    assert "does not fit LlamaForCausalLM: " in refusal(
        ModelConfig(path=save_model(tmp_path / "model"), adapter=str(tmp_path / "adapter"))
    )


def test_a_place_without_an_adapter_is_named(tmp_path: Path) -> None:
    model = save_model(tmp_path / "model")
    message = f"model.adapter '{model}' has no adapter_config.json; give a LoRA adapter that peft has saved"
    assert refusal(ModelConfig(path=model, adapter=model)) == message
    message = "model.adapter './nope' does not exist; give a folder in Hugging Face format or a hub name"
    assert refusal(ModelConfig(path=model, adapter="./nope")) == message


def test_without_peft_the_error_says_what_installs_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(adapters, "find_spec", lambda name: None)
    message = refusal(ModelConfig(path=save_model(tmp_path / "model"), adapter="a/b"))
    assert (
        message
        == "model.adapter needs peft; in the project's folder: pip install -c constraints.txt -e '.[lora]'"
    )
