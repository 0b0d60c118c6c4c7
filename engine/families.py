"""The model families that the equality tests cover. Standard library only: the driver checks a job's model before Ray starts."""

SUPPORTED = ("llama", "mistral", "qwen2", "gpt2")


def check_supported(model_type: str) -> None:
    """Raises ValueError, naming the families that run, for a `model_type` (of config.json) that is not one of them."""
    if model_type not in SUPPORTED:
        raise ValueError(f"model type {model_type!r} is not supported; supported are {', '.join(SUPPORTED)}")
