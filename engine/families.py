"""The model families that the equality tests cover. Standard library only: the driver checks a job's model before Ray starts."""

from typing import Any

SUPPORTED = ("llama", "mistral", "qwen2", "gpt2")


def check_supported(model_type: str) -> None:
    """Raises ValueError, naming the families that run, for a `model_type` (of config.json) that is not one of them."""
    if model_type not in SUPPORTED:
        raise ValueError(f"model type {model_type!r} is not supported; supported are {', '.join(SUPPORTED)}")


def check_own_code(settings: dict[str, Any], trusted: bool) -> bool:
    """Whether a model (settings: its config.json) is run by code that comes with it; the probe and the parity check judge that.

    Raises ValueError for a model that has no other code and is not trusted.
    """
    code = settings.get("auto_map")
    code = code.get("AutoModelForCausalLM") if isinstance(code, dict) else None
    if code and not trusted and settings.get("model_type") not in SUPPORTED:
        file = str(code).split("--")[-1].split(".")[0]
        raise ValueError(
            f"it needs the code that comes with it ({file}.py), which is not run unasked; read it, then set model.trust_remote_code: true"
        )
    return bool(code) and trusted
