"""Tiny random models of every supported family, made in memory with fixed seeds, and transformers' own greedy
text for them.
"""

from typing import Any

import torch
from transformers import AutoModelForCausalLM
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from tests.tiny_families import TINY

BASE = {
    "vocab_size": 97, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 256, "initializer_range": 0.3, "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0, "tie_word_embeddings": False,
}  # fmt: skip
FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("llama", {}),
    "mistral": ("mistral", {"sliding_window": None}),
    "mistral-window": ("mistral", {"sliding_window": 24}),
    "qwen2": ("qwen2", {}),
    "gpt2": ("gpt2", {"n_embd": 64, "n_layer": 3, "n_head": 4, "n_positions": 256}),
}


def tiny_model(
    family: str, attention: str = "ngram_tree", dtype: torch.dtype = torch.float64, **overrides: Any
) -> Any:
    """A random model in eval mode; the same weights for the same family, whatever the attention."""
    import engine.attention  # noqa: F401  (registers ngram_tree)

    model_type, settings = FAMILIES[family]
    torch.manual_seed(7)
    config = CONFIG_MAPPING[model_type](**{**BASE, **settings, **overrides})
    return AutoModelForCausalLM.from_config(config, attn_implementation=attention).to(dtype).eval()


def tiny_family(model_type: str, attention: str = "ngram_tree", dtype: torch.dtype = torch.float64) -> Any:
    """As tiny_model, of any supported family; a family of images and text gets the sizes in its
    text model.
    """
    import engine.attention  # noqa: F401  (registers ngram_tree)

    torch.manual_seed(7)
    settings = TINY[model_type]
    if "text_config" in settings:
        config = CONFIG_MAPPING[model_type](
            **{**settings, "text_config": {**BASE, **settings["text_config"]}, "initializer_range": 0.3}
        )
    else:
        config = CONFIG_MAPPING[model_type](**{**BASE, **settings})
    return (
        AutoModelForCausalLM.from_config(
            config, attn_implementation=attention, experts_implementation="eager"
        )
        .to(dtype)
        .eval()
    )


def reference_greedy(
    model: Any, prompt_ids: list[int], max_tokens: int, eos_ids: list[int] | None = None
) -> list[int]:
    """What transformers' generate gives for one prompt; asserts that no step was a near-tie (top-2 gap above
    1e-4).
    """
    output = model.generate(
        torch.tensor([prompt_ids]), attention_mask=torch.ones(1, len(prompt_ids), dtype=torch.long),
        max_new_tokens=max_tokens,
        do_sample=False, eos_token_id=eos_ids, pad_token_id=0, output_logits=True,
        return_dict_in_generate=True,
    )  # fmt: skip
    for logits in output.logits:
        best, second = logits[0].float().topk(2).values.tolist()
        assert best - second > 1e-4, f"near-tie in the reference: {best} and {second}; choose another seed"
    return output.sequences[0, len(prompt_ids) :].tolist()
