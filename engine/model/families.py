"""The one list of model families: which run, whose text the tests compare with transformers', and why others
do not.

By `model_type` of config.json. Standard library only: the driver checks a job's model before anything is
started. docs/models.md shows this list with what the tests found (tests/engine/family_table.py).
"""

from collections.abc import Mapping
from typing import Any

SUPPORTED = {
    "llama": "Llama 1 to 3 and its kin (Vicuna, Yi, DeepSeek LLM, SmolLM2)",
    "mistral": "Mistral",
    "ministral": "Ministral",
    "ministral3": "Ministral 3",
    "mixtral": "Mixtral",
    "qwen2": "Qwen 1.5 to 2.5",
    "qwen2_moe": "Qwen 1.5 and 2, mixture of experts",
    "qwen3": "Qwen3",
    "qwen3_moe": "Qwen3, mixture of experts",
    "gemma": "Gemma",
    "gemma2": "Gemma 2",
    "gemma3_text": "Gemma 3, text only",
    "gemma3": "Gemma 3 with its image tower, text prompts only",
    "gemma3n_text": "Gemma 3n, text only",
    "gemma4_text": "Gemma 4, text only",
    "gemma4": "Gemma 4 with its towers, text prompts only",
    "vaultgemma": "VaultGemma",
    "phi": "Phi 1 to 2",
    "phi3": "Phi-3, Phi-3.5 and Phi-4",
    "gpt2": "GPT-2",
    "gpt_bigcode": "StarCoder, SantaCoder",
    "gpt_neox": "GPT-NeoX, Pythia",
    "gpt_oss": "gpt-oss",
    "opt": "OPT",
    "olmo": "OLMo",
    "olmo2": "OLMo 2",
    "olmo3": "OLMo 3",
    "olmoe": "OLMoE",
    "flex_olmo": "FlexOlmo",
    "cohere": "Command R",
    "cohere2": "Command R7B, Command A",
    "granite": "Granite 3",
    "granitemoe": "Granite 3, mixture of experts",
    "granitemoeshared": "Granite, shared experts",
    "starcoder2": "StarCoder2",
    "smollm3": "SmolLM3",
    "stablelm": "StableLM",
    "deepseek_v2": "DeepSeek V2",
    "deepseek_v3": "DeepSeek V3, R1",
    "glm": "GLM-4 9B",
    "glm4": "GLM-4 0414",
    "glm4_moe": "GLM-4.5",
    "ernie4_5": "ERNIE 4.5",
    "ernie4_5_moe": "ERNIE 4.5, mixture of experts",
    "exaone4": "EXAONE 4",
    "seed_oss": "Seed-OSS",
    "helium": "Helium",
    "nemotron": "Nemotron, Minitron",
    "arcee": "Arcee AFM",
    "afmoe": "Arcee Trinity",
    "apertus": "Apertus",
    "hunyuan_v1_dense": "Hunyuan",
    "hunyuan_v1_moe": "Hunyuan, mixture of experts",
    "persimmon": "Persimmon",
    "biogpt": "BioGPT",
    "minicpm3": "MiniCPM3",
    "minimax_m2": "MiniMax M2",
    "dots1": "dots.llm1",
    "solar_open": "Solar Open",
    "jetmoe": "JetMoe",
    "cwm": "Code World Model",
    "nanochat": "nanochat",
}

ELSE = "use a model of a family that runs (docs/models.md lists them), or transformers' own generate"
TEXT_MODEL = "use a release of its text model alone, or transformers' own generate"
# Reason, what to use instead, and the families that it holds for.
REFUSALS = (
    (
        "its layers keep a running state besides keys and values, which cannot take back a rejected draft",
        ELSE,
        (
            "bailing_hybrid", "bamba", "falcon_h1", "falcon_mamba", "granitemoehybrid", "jamba",
            "kimi_linear", "lfm2", "lfm2_moe", "mamba", "mamba2", "minimax", "nemotron_h", "olmo_hybrid",
            "qwen3_5", "qwen3_5_moe", "qwen3_5_moe_text", "qwen3_5_text", "qwen3_next", "recurrent_gemma",
            "rwkv", "xlstm", "zamba", "zamba2",
        ),
    ),
    (
        "its positions are a bias on the attention scores (ALiBi), which this engine does not compute", ELSE,
        ("bloom", "mpt"),
    ),
    (
        "its code computes attention itself and never calls this engine's", ELSE,
        ("codegen", "falcon", "gpt_neo", "gpt_neox_japanese", "gptj", "openai-gpt"),
    ),
    ("its attention is cut into chunks, which this engine does not compute", ELSE, ("llama4", "llama4_text")),
    (
        "its layers choose by content which tokens they attend to", ELSE,
        ("deepseek_v32", "deepseek_v4", "doge", "glm_moe_dsa"),
    ),
    ("its layers call attention twice, once for each half of their heads", ELSE, ("diffllama",)),
    ("its layers do not tell this engine's attention of their window", ELSE, ("phimoe",)),
    (
        "it is no decoder of text alone: an encoder comes with it", ELSE,
        (
            "albert", "bart", "bert", "blenderbot", "distilbert", "electra", "longt5", "marian", "mbart",
            "modernbert", "mt5", "pegasus", "roberta", "switch_transformers", "t5", "t5gemma", "umt5",
            "whisper", "xlm-roberta",
        ),
    ),
    (
        "it takes images or sound, and this engine does not run the text model inside it", TEXT_MODEL,
        (
            "aya_vision", "gemma3n", "glm4v", "glm4v_moe", "idefics2", "idefics3", "internvl", "llava",
            "llava_next", "llava_onevision", "mistral3", "mllama", "paligemma", "phi4_multimodal", "pixtral",
            "qwen2_5_omni", "qwen2_5_vl", "qwen2_audio", "qwen2_vl", "qwen3_omni_moe", "qwen3_vl",
            "qwen3_vl_moe", "smolvlm", "voxtral",
        ),
    ),
)  # fmt: skip


# By rope type. Beyond their first length these models change all rotary angles, also those of the other
# sequences in a step: a text would depend on its neighbours. So their context ends there. The first length of
# `dynamic` is max_position_embeddings.
CHANGING_ROPES = ("longrope", "su", "dynamic")
# These change no angle, whatever the length. Model cards say to add them to config.json and to leave
# max_position_embeddings as it was trained, so the context is the factor times the first length.
STRETCHED_ROPES = ("yarn", "linear")


def check_supported(model_type: str) -> None:
    """Raises ValueError for a `model_type` (of config.json) that does not run here, with the reason and what
    to use instead.
    """
    if model_type in SUPPORTED:
        return
    for reason, instead, model_types in REFUSALS:
        if model_type in model_types:
            raise ValueError(f"model type {model_type!r} is not supported: {reason}; {instead}")
    raise ValueError(
        f"model type {model_type!r} is not supported: nobody has compared its text with that of "
        f"transformers; {ELSE}"
    )


def check_own_code(settings: Mapping[str, Any], trusted: bool) -> bool:
    """Whether a model is run by code that comes with it; settings: its config.json.

    The probe and the parity check judge such code. Raises ValueError for a model that can run by its own code
    only, where that code is not trusted.
    """
    code = settings.get("auto_map")
    code = code.get("AutoModelForCausalLM") if isinstance(code, dict) else None
    if code and not trusted and not _is_known(settings.get("model_type")):
        file = str(code).split("--")[-1].split(".")[0]
        raise ValueError(
            f"it needs the code that comes with it ({file}.py), which is not run unasked; "
            "read it, then set model.trust_remote_code: true"
        )
    return bool(code) and trusted


def _is_known(model_type: object) -> bool:
    return model_type in SUPPORTED or any(model_type in model_types for _, _, model_types in REFUSALS)


def context_of(settings: Mapping[str, Any], asked: int | None) -> int | None:
    """Positions per sequence, by config.json and model.max_context; None = unknown.

    Raises ValueError for more than there are.
    """
    settings = {**settings, **(settings.get("text_config") or {})}
    made_for = settings.get("max_position_embeddings") or settings.get("n_positions")
    ropes = _ropes(settings)
    changing = [rope for rope in ropes if rope["rope_type"] in CHANGING_ROPES]
    if changing:
        firsts = [made_for, *(_first_length(settings, rope) for rope in changing)]
        changes = min((length for length in firsts if length), default=None)
        if changes and asked and asked > changes:
            raise ValueError(
                f"model.max_context is {asked}, but this model's rotary angles change for all rows beyond "
                f"{changes} positions (rope type {changing[0]['rope_type']}); lower it"
            )
        return asked or changes
    if made_for:
        made_for = max(made_for, *(_stretched_length(settings, rope, made_for) for rope in ropes))
    if made_for and asked and asked > made_for:
        raise ValueError(
            f"model.max_context is {asked}, but the model was made for {made_for} positions; lower it"
        )
    return asked or made_for


def _ropes(settings: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The rope settings of a model, each with its rope_type: several where they are by kind of layer.

    Older files have `rope_scaling` and `type`. Where both are, transformers takes `rope_scaling`.
    """
    given = settings.get("rope_scaling") or settings.get("rope_parameters") or {}
    by_layer = [rope for rope in given.values() if isinstance(rope, dict)]
    return [{**rope, "rope_type": rope.get("rope_type", rope.get("type"))} for rope in by_layer or [given]]


def _first_length(settings: Mapping[str, Any], rope: Mapping[str, Any]) -> int | None:
    """The length that a model was trained for before it was stretched; None = not said."""
    name = "original_max_position_embeddings"
    return settings.get(name) or rope.get(name)


def _stretched_length(settings: Mapping[str, Any], rope: Mapping[str, Any], made_for: int) -> int:
    """The factor times the first length, for a rope type that stretches it.

    Layers with a window need no stretching, so where ropes are by kind of layer the longest counts.
    """
    if rope["rope_type"] not in STRETCHED_ROPES or _says_stretched(settings):
        return made_for
    first = _first_length(settings, rope) if rope["rope_type"] == "yarn" else None
    return int((first or made_for) * (rope.get("factor") or 1))


def _says_stretched(settings: Mapping[str, Any]) -> bool:
    """Whether max_position_embeddings is the stretched length already, though its rope type is `linear`."""
    return str(settings.get("model_type")).startswith("gemma3")
