"""Settings of a tiny model of every supported family, by model_type: what tests/tiny_models.py's BASE does
not say or says otherwise.
"""

from typing import Any

WINDOW = 24  # shorter than most of the tests' texts
SOME_LAYERS = {
    "layer_types": ["sliding_attention", "full_attention", "sliding_attention"],
    "sliding_window": WINDOW,
}
HEAD = {"head_dim": 16}
EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32}
LOCAL_EXPERTS = {"num_local_experts": 4, "num_experts_per_tok": 2}
ROUTED_EXPERTS = {
    "n_routed_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32, "n_shared_experts": 1,
    "first_k_dense_replace": 1,
    "n_group": 1, "topk_group": 1, "norm_topk_prob": True, "routed_scaling_factor": 1.0,
}  # fmt: skip
LATENT = {
    "q_lora_rank": 16, "kv_lora_rank": 16, "qk_rope_head_dim": 8, "qk_nope_head_dim": 8, "v_head_dim": 12,
    "num_key_value_heads": 4,
}  # fmt: skip
GPT2_SIZES = {"n_embd": 64, "n_layer": 3, "n_head": 4, "n_positions": 256, "n_inner": 96}
GEMMA = {"query_pre_attn_scalar": 16, **HEAD}
GEMMA4 = {
    **HEAD, "global_head_dim": 32, "num_hidden_layers": 4,
    "layer_types": ["sliding_attention", "full_attention"] * 2,
    "sliding_window": WINDOW, "num_kv_shared_layers": 2, "vocab_size_per_layer_input": 97,
    "hidden_size_per_layer_input": 8,
}  # fmt: skip
VISION = {
    "hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2,
    "image_size": 32, "patch_size": 16,
}  # fmt: skip
GEMMA4_VISION = {
    "hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2,
    "num_key_value_heads": 2, "head_dim": 16,
}  # fmt: skip

TINY: dict[str, dict[str, Any]] = {
    "llama": {},
    "mistral": {"sliding_window": WINDOW},
    "ministral": {**HEAD, **SOME_LAYERS},
    "ministral3": HEAD,
    "mixtral": {**LOCAL_EXPERTS, "sliding_window": WINDOW},
    "qwen2": {},
    "qwen2_moe": {**EXPERTS, "shared_expert_intermediate_size": 32},
    "qwen3": HEAD,
    "qwen3_moe": {**HEAD, **EXPERTS},
    "gemma": HEAD,
    "gemma2": {**GEMMA, "sliding_window": WINDOW, "attn_logit_softcapping": 5.0},
    "gemma3_text": {**GEMMA, **SOME_LAYERS},
    "gemma3": {"text_config": {**GEMMA, **SOME_LAYERS}, "vision_config": VISION, "mm_tokens_per_image": 4},
    "gemma3n_text": {
        **HEAD, **SOME_LAYERS, "num_kv_shared_layers": 1, "hidden_size_per_layer_input": 16,
        "vocab_size_per_layer_input": 97,
        "laurel_rank": 8,
    },
    "gemma4_text": GEMMA4,
    "gemma4": {"text_config": GEMMA4, "vision_config": GEMMA4_VISION, "audio_config": None},
    "vaultgemma": {**GEMMA, "sliding_window": WINDOW, "attn_logit_softcapping": 5.0},
    "phi": {},
    "phi3": {"sliding_window": WINDOW},
    "gpt2": GPT2_SIZES,
    "gpt_bigcode": GPT2_SIZES,
    "gpt_neox": {},
    "gpt_oss": {**HEAD, **LOCAL_EXPERTS, "sliding_window": WINDOW},
    "opt": {"ffn_dim": 96, "word_embed_proj_dim": 64},
    "olmo": {},
    "olmo2": {},
    "olmo3": SOME_LAYERS,
    "olmoe": {"num_experts": 4, "num_experts_per_tok": 2},
    # with 0.3 the reference has a near-tie
    "flex_olmo": {"num_experts": 4, "num_experts_per_tok": 2, "initializer_range": 0.31},
    "cohere": {},
    "cohere2": {**HEAD, **SOME_LAYERS, "logit_scale": 1.0},
    "granite": {},
    "granitemoe": LOCAL_EXPERTS,
    "granitemoeshared": {**LOCAL_EXPERTS, "shared_intermediate_size": 32},
    "starcoder2": {"sliding_window": WINDOW},
    "smollm3": {},
    "stablelm": {},
    "deepseek_v2": {**ROUTED_EXPERTS, **LATENT},
    "deepseek_v3": {**ROUTED_EXPERTS, **LATENT},
    "glm": HEAD,
    "glm4": HEAD,
    "glm4_moe": {**HEAD, **ROUTED_EXPERTS},
    "ernie4_5": HEAD,
    "ernie4_5_moe": {**HEAD, "moe_num_experts": 4, "moe_k": 2, "moe_intermediate_size": 32},
    "exaone4": SOME_LAYERS,
    "seed_oss": HEAD,
    "helium": HEAD,
    "nemotron": {},
    "arcee": {},
    "afmoe": {**HEAD, **EXPERTS, **SOME_LAYERS},
    "apertus": {},
    "hunyuan_v1_dense": HEAD,
    "hunyuan_v1_moe": {**HEAD, "num_experts": 4, "moe_topk": 2},
    "persimmon": {},
    "biogpt": {},
    "minicpm3": LATENT,
    "minimax_m2": {**HEAD, **LOCAL_EXPERTS},
    "dots1": {**HEAD, **ROUTED_EXPERTS},
    "solar_open": {**HEAD, **ROUTED_EXPERTS},
    "jetmoe": {**LOCAL_EXPERTS, "kv_channels": 16},
    "cwm": {**HEAD, **SOME_LAYERS},
    "nanochat": {},
}  # fmt: skip
# The reference is their eager attention: transformers' SDPA has neither soft caps nor sinks.
EAGER = ("gemma2", "gpt_oss", "vaultgemma")
