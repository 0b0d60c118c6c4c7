"""What the engine refuses at load, and how it says so; a model that would run wrongly must not run at all."""

import json
import logging
import shutil
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM
from transformers.models.auto.configuration_auto import CONFIG_MAPPING
from transformers.models.llama import modeling_llama
from transformers.models.mistral import modeling_mistral
from transformers.models.starcoder2 import modeling_starcoder2

from engine import attention
from engine.build import engine_for
from engine.cache_size import StepLimits
from engine.config import ModelConfig
from engine.model import probe
from engine.model.loading import inspect_model, load_model
from engine.model.probe import PARITY_TOLERANCE, check_parity
from engine.model_runner import ModelRunner
from engine.request import Request
from tests.engine.harness import greedy_cases, make_engine
from tests.tiny_models import BASE, FAMILIES, reference_greedy, tiny_model


@pytest.fixture
def folder(tmp_path):
    """A tiny Llama on disk, to be spoilt."""
    tiny_model("llama", "sdpa").save_pretrained(tmp_path / "model")
    return tmp_path / "model"


def refusal(folder, **settings) -> str:
    with pytest.raises(ValueError) as error:
        load_model(ModelConfig(path=str(folder), **settings))
    assert "\n" not in str(error.value), "the message must fit on one line"
    return str(error.value)


def other_model(model_type: str, **settings):
    config = CONFIG_MAPPING[model_type](**{**BASE, **settings})
    torch.manual_seed(7)
    return AutoModelForCausalLM.from_config(config, attn_implementation=attention.NAME).double().eval()


def change_config(folder, **changes) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **changes}))


@pytest.mark.parametrize("family", FAMILIES)
def test_a_model_from_a_folder_gives_the_text_of_generate(family, tmp_path):
    tiny_model(family, "sdpa").save_pretrained(tmp_path)
    loaded = load_model(ModelConfig(path=str(tmp_path), dtype="float64"))
    assert (loaded.dtype, loaded.vocab_size, loaded.max_context, loaded.eos_ids) == (
        torch.float64,
        97,
        256,
        frozenset({2}),
    )
    assert loaded.windows == ((24,) if family == "mistral-window" else (None,))
    case = greedy_cases(family)[1]
    (completion,) = engine_for(loaded, ModelConfig(), None).generate([case.request()])
    assert completion.token_ids == case.token_ids


def test_shapes_are_found_by_running_the_model():
    assert inspect_model(tiny_model("llama")).layer_shapes == [(2, 16, 16)] * 3
    assert inspect_model(tiny_model("gpt2")).layer_shapes == [(4, 16, 16)] * 3


def test_several_eos_tokens_are_found_in_the_generation_config_first(folder):
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": [4, 5]}))
    assert load_model(ModelConfig(path=str(folder))).eos_ids == {4, 5}


def test_a_model_that_never_calls_the_attention_function_is_refused_by_the_probe():
    with pytest.raises(
        ValueError,
        match="BloomForCausalLM cannot run on this engine: 0 of its 3 layers called the attention function",
    ):
        inspect_model(other_model("bloom"))


def test_a_model_that_says_more_to_attention_than_ours_knows_is_refused_by_the_probe(monkeypatch):
    own = modeling_llama.LlamaAttention.forward
    bias = torch.zeros(1)
    monkeypatch.setattr(
        modeling_llama.LlamaAttention, "forward", lambda self, **given: own(self, **given, position_bias=bias)
    )
    with pytest.raises(
        ValueError, match="its attention needs 'position_bias', which this engine does not compute"
    ):
        inspect_model(tiny_model("llama"))


def test_the_probe_leaves_our_attention_registered_after_a_refusal():
    with pytest.raises(ValueError):
        inspect_model(other_model("bloom"))
    case = greedy_cases("llama")[1]
    assert make_engine(tiny_model("llama")).generate([case.request()])[0].token_ids == case.token_ids


@pytest.mark.parametrize(
    ("model_type", "settings", "lost"),
    [
        ("gemma2", {"head_dim": 16, "attn_logit_softcapping": 5.0}, {"softcap": None}),
        ("gpt_oss", {"head_dim": 16, "num_local_experts": 2, "num_experts_per_tok": 1}, {"s_aux": None}),
    ],
)
def test_a_cap_or_a_sink_that_is_lost_is_found_by_the_parity_check(model_type, settings, lost, monkeypatch):
    make_engine(other_model(model_type, **settings))
    monkeypatch.setattr(
        attention,
        "tree_attention",
        lambda *given, _own=attention.tree_attention, **named: _own(*given, **named | lost),
    )
    with pytest.raises(ValueError, match="cannot run on this engine: its logits differ by"):
        make_engine(other_model(model_type, **settings))


def test_a_window_that_the_models_own_attention_has_not_is_found_by_the_parity_check(monkeypatch):
    """It is longer than anything that the check compares as it is."""
    make_engine(other_model("mistral", sliding_window=200))
    monkeypatch.setattr(
        modeling_mistral, "create_sliding_window_causal_mask", modeling_mistral.create_causal_mask
    )
    with pytest.raises(
        ValueError, match="MistralForCausalLM cannot run on this engine: its logits differ by"
    ):
        make_engine(other_model("mistral", sliding_window=200))


def model_that_amplifies_rounding(implementation: str):
    """Its weights are whole numbers, so that its scores are large and often tied: after twelve layers the
    rounding of one softmax shows in the third digit of the logits.
    """
    settings = {"sliding_window": 8, "hidden_size": 32, "intermediate_size": 64, "vocab_size": 32}
    layers = {"num_key_value_heads": 1, "num_hidden_layers": 12, "initializer_range": 2.0}
    torch.manual_seed(79)
    config = CONFIG_MAPPING["starcoder2"](**{**BASE, **settings, **layers})
    model = AutoModelForCausalLM.from_config(config, attn_implementation=implementation)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.round_()
    return model.double().eval()


def test_a_model_that_amplifies_rounding_may_differ_by_as_much_as_from_itself():
    """transformers' eager attention, which the check compares with, has its softmax in float32 in a float64
    model as well; its SDPA has not, and gives the engine's text.
    """
    engine = make_engine(model_that_amplifies_rounding(attention.NAME))
    parity = check_parity(
        ModelRunner(engine.runner.loaded, num_pages=3, page_size=4, limits=StepLimits(1, 4))
    )
    assert parity > 10 * PARITY_TOLERANCE[torch.float64]
    prompt = (5, 6, 7, 9, 30, 11)
    wanted = reference_greedy(model_that_amplifies_rounding("sdpa"), list(prompt), 40)
    (completion,) = engine.generate([Request("a", prompt, 40, ignore_eos=True)])
    assert list(completion.token_ids) == wanted


def test_a_window_that_is_missing_is_found_in_a_model_that_amplifies_rounding_too(monkeypatch):
    monkeypatch.setattr(
        modeling_starcoder2, "create_sliding_window_causal_mask", modeling_starcoder2.create_causal_mask
    )
    with pytest.raises(
        ValueError, match="Starcoder2ForCausalLM cannot run on this engine: its logits differ"
    ):
        make_engine(model_that_amplifies_rounding(attention.NAME))


@pytest.mark.parametrize("noise", [0.0, 1e-3, 10.0, float("nan")])
def test_no_noise_of_a_model_hides_an_attention_that_is_wrong(noise, monkeypatch):
    own = modeling_llama.eager_attention_forward
    monkeypatch.setattr(probe, "_own_noise", lambda loaded: noise)
    monkeypatch.setattr(
        modeling_llama,
        "eager_attention_forward",
        lambda module, query, key, value, mask, **given: own(module, query, key, value, 0 * mask, **given),
    )
    with pytest.raises(ValueError, match="LlamaForCausalLM cannot run on this engine: its logits differ"):
        make_engine(tiny_model("llama"))


@pytest.mark.parametrize("what", ["alibi", "chunked"])
def test_attention_that_differs_unseen_by_the_probe_is_refused_by_the_parity_check(what, monkeypatch):
    """The model's own attention is changed: a bias by distance, or chunks of four positions that do not see
    each other.
    """
    own = modeling_llama.eager_attention_forward

    def altered(module, query, key, value, mask, **given):
        distance = torch.arange(query.shape[2])[:, None] - torch.arange(key.shape[2])
        same_chunk = torch.arange(query.shape[2])[:, None] // 4 == torch.arange(key.shape[2]) // 4
        bias = -0.5 * distance if what == "alibi" else torch.where(same_chunk, 0.0, -torch.inf)
        return own(module, query, key, value, mask + bias, **given)

    monkeypatch.setattr(modeling_llama, "eager_attention_forward", altered)
    with pytest.raises(
        ValueError,
        match=r"LlamaForCausalLM .* logits differ by .* of the largest from the model's own attention "
        r"\(limit 1e-04\)",
    ):
        make_engine(tiny_model("llama"))


@pytest.mark.parametrize("dtype", ["float64", "float32", "bfloat16", "float16"])
def test_the_parity_check_passes_in_every_dtype(dtype):
    loaded = inspect_model(tiny_model("llama", dtype=getattr(torch, dtype), initializer_range=0.05))
    parity = check_parity(ModelRunner(loaded, num_pages=3, page_size=4, limits=StepLimits(1, 4)))
    assert 0 <= parity <= {"float64": 1e-5, "float32": 1e-4, "bfloat16": 3e-2, "float16": 5e-3}[dtype]


@pytest.mark.parametrize("page_size", [1, 2, 3, 300])
def test_pages_of_any_size_will_do(page_size):
    case = greedy_cases("llama")[0]
    engine = make_engine(tiny_model("llama"), max_running=1, page_size=page_size)
    assert engine.generate([case.request()])[0].token_ids == case.token_ids


@pytest.mark.parametrize("max_context", [2, 7])
def test_a_context_shorter_than_the_parity_check_runs_too(max_context):
    case = greedy_cases("llama")[0]
    engine = make_engine(tiny_model("llama"), max_context=max_context, max_running=1)
    assert engine.generate([case.request(max_tokens=9)])[0].token_ids == case.token_ids[: max_context - 1]


def test_a_missing_folder_is_named(tmp_path):
    message = (
        f"model.path '{tmp_path}/nowhere' does not exist; give a folder in Hugging Face format or a hub name"
    )
    assert refusal(tmp_path / "nowhere") == message


@pytest.mark.parametrize(
    ("spoil", "why"),
    [
        (lambda f: (f / "config.json").unlink(), "Should have a `model_type` key in its config.json"),
        (lambda f: (f / "config.json").write_text("{nope"), "not a valid JSON file"),
        (lambda f: (f / "config.json").write_text("[]"), "Unrecognized model"),
        (lambda f: change_config(f, model_type="wombat"), "model type `wombat`"),
        (lambda f: change_config(f, num_attention_heads="four"), "expected int, got str"),
        (lambda f: (f / "model.safetensors").unlink(), "no file named model.safetensors"),
        (lambda f: (f / "model.safetensors").write_bytes(b""), "header too small"),
        (lambda f: (f / "model.safetensors").write_bytes(b"\0" * 100), "invalid JSON in header"),
        (
            lambda f: (f / "model.safetensors").write_bytes((f / "model.safetensors").read_bytes()[:50_000]),
            "file not fully covered",
        ),
        (
            lambda f: change_config(f, intermediate_size=64),
            "9 weights that its config.json asks for are missing or of another shape",
        ),
        (lambda f: change_config(f, num_hidden_layers=4), "first model.layers.3"),
    ],
    ids=[
        "no-config",
        "bad-json",
        "list",
        "unknown-type",
        "bad-value",
        "no-weights",
        "empty",
        "zeros",
        "torn",
        "misshapen",
        "missing-layer",
    ],
)
def test_a_broken_folder_is_refused_with_what_is_broken(folder, spoil, why):
    spoil(folder)
    message = refusal(folder)
    assert f"model.path '{folder}' cannot be loaded: " in message
    assert why in message


def test_one_missing_weight_is_not_replaced_by_random_numbers(folder):
    weights = load_file(folder / "model.safetensors")
    del weights["model.layers.1.mlp.up_proj.weight"]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    assert (
        "1 weights that its config.json asks for are missing or of another shape, first "
        "model.layers.1.mlp.up_proj.weight" in refusal(folder)
    )


def test_tied_embeddings_are_not_missing(tmp_path):
    tiny_model("llama", "sdpa", tie_word_embeddings=True).save_pretrained(tmp_path)
    assert "lm_head.weight" not in load_file(tmp_path / "model.safetensors")
    assert load_model(ModelConfig(path=str(tmp_path))).vocab_size == 97


def test_a_context_longer_than_the_models_is_refused(folder):
    assert (
        refusal(folder, max_context=257)
        == "model.max_context is 257, but the model was made for 256 positions; lower it"
    )
    assert load_model(ModelConfig(path=str(folder), max_context=256)).max_context == 256


@pytest.mark.parametrize("device", ["cuda", "cuda:3"])
def test_cuda_where_there_is_none_is_refused_before_anything_is_read(tmp_path, device, monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    message = refusal(tmp_path / "nowhere", device=device)
    assert (
        message
        == f"model.device is {device!r}, but this machine has 0 CUDA devices; use model.device: auto or cpu"
    )


@pytest.mark.parametrize(
    ("name", "value"),
    [("device", "gpu"), ("device", "meta"), ("dtype", "int8"), ("page_size", 0), ("max_running", -1)],
)
def test_an_impossible_setting_is_refused_by_the_config(name, value):
    with pytest.raises(ValueError, match=f"model.{name} is "):
        ModelConfig(**{name: value})


def test_a_cache_smaller_than_one_sequence_is_refused_with_both_figures():
    with pytest.raises(
        ValueError,
        match="the K/V cache holds 252 tokens, less than one sequence of 256; lower model.max_context",
    ):
        make_engine(tiny_model("llama"), cache_tokens=252)
    assert make_engine(tiny_model("llama"), cache_tokens=253).scheduler.pool.num_pages == 64


def test_loading_says_what_it_found_once(caplog):
    with caplog.at_level(logging.INFO, logger="engine.build"):
        make_engine(tiny_model("llama"), max_running=2, cache_tokens=512)
    (record,) = caplog.records
    assert record.getMessage().startswith("128 pages of 4 tokens, 2 sequences at once, parity ")


def test_settings_and_families_load_no_torch():
    code = (
        "import engine.config, engine.model.families, engine.request, drafting.config, sys; "
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_folder_may_be_gone_once_loaded(folder):
    loaded = load_model(ModelConfig(path=str(folder), dtype="float64"))
    shutil.rmtree(folder)
    case = greedy_cases("llama")[2]
    assert engine_for(loaded, ModelConfig(), None).generate([case.request()])[0].token_ids == case.token_ids
