"""The tiny random models of the engine's random test, each once for the engine and once with the attention of
transformers.

Owns their sizes and weights, which depend on the ModelChoice alone. Knows no requests.
"""

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from transformers import AutoModelForCausalLM
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from checks.fuzz.fuzz_case import ModelChoice
from drafting.tables import Tables
from engine import attention
from engine.draft_tables import bigram_of, unigram_of
from engine.model.loading import LoadedModel, inspect_model
from engine.model.rms_norm import fuse_norms
from tests.tiny_families import EAGER, TINY
from tests.tiny_models import BASE

MAX_CONTEXT = 80
VOCABULARY = int(BASE["vocab_size"])
NUM_SUCCESSORS = 12
SIZES = {
    "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
    "max_position_embeddings": MAX_CONTEXT, "eos_token_id": None,
}  # fmt: skip
# Families that name their sizes otherwise; an OPT model's embeddings are as wide as its layers here.
OWN_SIZES = {
    "gpt2": {"n_embd": 32, "n_layer": 2, "n_inner": 48, "n_positions": MAX_CONTEXT},
    "gpt_bigcode": {"n_embd": 32, "n_layer": 2, "n_inner": 48, "n_positions": MAX_CONTEXT},
    "opt": {"ffn_dim": 48, "word_embed_proj_dim": 32},
    "helium": {"head_dim": 8},
}
# Their last layers share K/V with one before them, which two layers are too few for.
DEEP = {"gemma3n_text": 3, "gemma4_text": 4, "gemma4": 4}
# Their layers decide by themselves how many K/V heads there are.
OWN_KV_HEADS = {"deepseek_v2", "deepseek_v3", "jetmoe", "minicpm3"}
# They compute scores or the choice of experts in float32 whatever their dtype, so that two correct forward
# passes of other shapes differ by up to 2e-6; those of the other families differ by up to 1e-13.
ROUNDED = {
    "deepseek_v2", "deepseek_v3", "dots1", "ernie4_5_moe", "gemma2", "glm4_moe", "minimax_m2", "solar_open",
    "vaultgemma",
}  # fmt: skip


@dataclass(frozen=True, eq=False)
class FuzzModel:
    """A model as the engine runs it, its draft tables, and the same weights with transformers' own
    attention.
    """

    loaded: LoadedModel
    tables: Tables
    reference: Any


@lru_cache(maxsize=256)
def fuzz_model(choice: ModelChoice) -> FuzzModel:
    """The model of a choice, without the parity check: the random test judges attention by itself."""
    own = _made(choice, attention.NAME)
    if choice.fused_norms:
        fuse_norms(own)
    loaded = inspect_model(own, MAX_CONTEXT)
    tables = Tables.of(bigram_of(own, NUM_SUCCESSORS), unigram_of(own, NUM_SUCCESSORS))
    return FuzzModel(loaded, tables, _made(choice, "eager" if choice.family in EAGER else "sdpa"))


def tiny_share(choice: ModelChoice) -> float:
    """Where this share of a logit or of a probability decides about a token, another token is right as
    well.
    """
    return 2e-5 if choice.family in ROUNDED or choice.fused_norms else 1e-9


def settings_of(choice: ModelChoice) -> dict[str, Any]:
    """The settings of a choice's configuration, in its text model's where it has one."""
    given = TINY[choice.family]
    text = {**BASE, **given.get("text_config", given), **SIZES, **OWN_SIZES.get(choice.family, {})}
    text["num_hidden_layers"] = DEEP.get(choice.family, SIZES["num_hidden_layers"])
    if "layer_types" in text:
        text["layer_types"] = text["layer_types"][: text["num_hidden_layers"]]
    if choice.kv_heads is not None and choice.family not in OWN_KV_HEADS:
        text["num_key_value_heads"] = choice.kv_heads
    if choice.window is not None and text.get("sliding_window"):
        text["sliding_window"] = choice.window
    if "text_config" in given:
        return {**given, "text_config": text, "initializer_range": text["initializer_range"]}
    return text


def _made(choice: ModelChoice, implementation: str) -> Any:
    torch.manual_seed(choice.seed)
    config = CONFIG_MAPPING[choice.family](**settings_of(choice))
    model = AutoModelForCausalLM.from_config(
        config, attn_implementation=implementation, experts_implementation="eager"
    )
    model = model.to(torch.float64).eval()
    with torch.no_grad():
        model.get_input_embeddings().weight.mul_(choice.embedding_scale)
    return model
