"""What the driver must know of a model before anything is started: that it can be read, that it is supported,
which one it is.

Reads files only; loads neither torch nor transformers. A hub name, of the model or an adapter, is pinned to
a commit, so that all workers load the same.
"""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from engine.config import ModelConfig
from engine.model.families import check_own_code, check_supported, context_of
from engine.model.hub import local_folder

SAMPLES = 1024
SAMPLE_BYTES = 4096
WEIGHTS = ("*.safetensors", "*.bin")


@dataclass(frozen=True)
class ResolvedModel:
    """config: with absolute folders or pinned commits.

    fingerprint: of the files, or the commit, with adapter and quantisation.

    max_context: None = unknown.
    """

    config: ModelConfig
    fingerprint: str
    max_context: int | None
    has_chat_template: bool


def resolve_model(config: ModelConfig) -> ResolvedModel:
    """Finds a model's folder or its commit on the hub and checks its config.json; raises ValueError with what
    is wrong.
    """
    if not config.path:
        raise ValueError("model.path is empty; name a folder or a hub name (--model)")
    folder, path, commit = _locate(config.path, config.revision, "model.path")
    config = replace(config, path=path, revision=commit or config.revision)
    settings = _read_config(folder, config)
    context = context_of(settings, config.max_context)
    fingerprint = commit or _fingerprint(folder, "model.path")
    if config.adapter:
        config, adapter = _resolve_adapter(config, settings)
        fingerprint = f"{fingerprint} with adapter {adapter}"
    if config.quantization:
        fingerprint = f"{fingerprint} in {config.quantization}"
    return ResolvedModel(config, fingerprint, context, _has_chat_template(folder))


def _locate(path: str, revision: str | None, setting: str) -> tuple[Path, str, str | None]:
    """The folder, the path that workers are told, and the commit that a hub name's revision names now."""
    folder = local_folder(path, revision, setting=setting)
    return (folder, str(folder.resolve()), None) if Path(path).is_dir() else (folder, path, folder.name)


def _resolve_adapter(config: ModelConfig, settings: dict[str, Any]) -> tuple[ModelConfig, str]:
    """The settings with the adapter's place made definite, and its fingerprint."""
    assert config.adapter
    if settings.get("quantization_config"):
        raise ValueError(
            "model.adapter cannot be merged into a quantised checkpoint; use the model that it was made from"
        )
    folder, path, commit = _locate(config.adapter, config.adapter_revision, "model.adapter")
    if not (folder / "adapter_config.json").is_file():
        raise ValueError(
            f"model.adapter {config.adapter!r} has no adapter_config.json; "
            "give a LoRA adapter that peft has saved"
        )
    config = replace(config, adapter=path, adapter_revision=commit or config.adapter_revision)
    return config, commit or _fingerprint(folder, "model.adapter")


def _read_config(folder: Path, config: ModelConfig) -> dict[str, Any]:
    path = config.path
    try:
        settings = json.loads((folder / "config.json").read_text())
        model_type = settings["model_type"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        reason = (
            f"it lacks {error}" if isinstance(error, KeyError) else getattr(error, "strerror", None) or error
        )
        raise ValueError(
            f"model.path {path!r} has no readable config.json ({reason}); "
            "give a folder in Hugging Face format"
        ) from error
    try:
        if not check_own_code(settings, config.trust_remote_code):
            check_supported(model_type)
    except ValueError as error:
        raise ValueError(f"model.path {path!r}: {error}") from error
    return settings


def _has_chat_template(folder: Path) -> bool:
    tokenizer = folder / "tokenizer_config.json"
    inside = tokenizer.is_file() and "chat_template" in json.loads(tokenizer.read_text())
    return inside or (folder / "chat_template.jinja").is_file() or (folder / "chat_template.json").is_file()


def _fingerprint(folder: Path, setting: str) -> str:
    """Of a folder's configuration and tokenizer files whole, and of its weights by size and evenly spread
    samples.
    """
    weights = sorted(path for pattern in WEIGHTS for path in folder.glob(pattern))
    if not weights:
        raise ValueError(
            f"{setting} {str(folder)!r} has no weights ({' or '.join(WEIGHTS)}); "
            "give a folder in Hugging Face format"
        )
    for path in weights:
        _check_whole(path)
    digest = hashlib.sha256()
    for path in sorted({*folder.glob("*.json"), *folder.glob("*.jinja"), *folder.glob("*.model"), *weights}):
        digest.update(f"{path.name} {path.stat().st_size}\0".encode())
        for piece in _pieces(path):
            digest.update(piece)
    return digest.hexdigest()[:16]


def _check_whole(path: Path) -> None:
    """Raises ValueError for a safetensors file that a broken download or copy has cut short."""
    if path.suffix != ".safetensors":
        return
    size = path.stat().st_size
    try:
        with path.open("rb") as file:
            header_size = int.from_bytes(file.read(8), "little")
            header = json.loads(file.read(min(header_size, size)))
        wanted = (
            8
            + header_size
            + max(tensor["data_offsets"][1] for name, tensor in header.items() if name != "__metadata__")
        )
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"{path} is not a whole safetensors file: its header cannot be read; "
            "copy or download the model again"
        ) from error
    if size != wanted:
        raise ValueError(
            f"{path} is not a whole safetensors file: {size} bytes of {wanted}; "
            "copy or download the model again"
        )


def _pieces(path: Path) -> Iterator[bytes]:
    size = path.stat().st_size
    with path.open("rb") as file:
        if size <= SAMPLES * SAMPLE_BYTES:
            yield file.read()
            return
        for index in range(SAMPLES):
            file.seek(index * (size - SAMPLE_BYTES) // (SAMPLES - 1))
            yield file.read(SAMPLE_BYTES)
