"""What the driver must know of a model before anything is started: that it can be read, that it is supported, which one it is.

Reads files only; loads neither torch nor transformers. A hub name is pinned to a commit, so that all workers load the same.
"""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from engine.config import ModelConfig
from engine.families import check_supported
from engine.hub import local_folder

SAMPLES, SAMPLE_BYTES = 1024, 4096
WEIGHTS = ("*.safetensors", "*.bin")


@dataclass(frozen=True)
class ResolvedModel:
    """config: with an absolute folder or a pinned commit. fingerprint: of the files, or the commit. max_context: None = unknown."""

    config: ModelConfig
    fingerprint: str
    max_context: int | None
    has_chat_template: bool


def resolve_model(config: ModelConfig) -> ResolvedModel:
    """Finds a model's folder or its commit on the hub and checks its config.json; raises ValueError with what is wrong."""
    if not config.path:
        raise ValueError("model.path is empty; name a folder or a hub name (--model)")
    folder, fingerprint = local_folder(config.path, config.revision), None
    if Path(config.path).is_dir():
        config = replace(config, path=str(folder.resolve()))
    else:
        fingerprint = folder.name  # the commit that the revision names now
        config = replace(config, revision=fingerprint)
    settings = _read_config(folder, config.path)
    own = settings.get("max_position_embeddings") or settings.get("n_positions")
    if own and config.max_context and config.max_context > own:
        raise ValueError(f"model.max_context is {config.max_context}, but the model was made for {own} positions; lower it")
    return ResolvedModel(config, fingerprint or _fingerprint(folder), config.max_context or own, _has_chat_template(folder))


def _read_config(folder: Path, path: str) -> dict[str, Any]:
    try:
        settings = json.loads((folder / "config.json").read_text())
        model_type = settings["model_type"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        reason = f"it lacks {error}" if isinstance(error, KeyError) else getattr(error, "strerror", None) or error
        raise ValueError(f"model.path {path!r} has no readable config.json ({reason}); give a folder in Hugging Face format") from error
    try:
        check_supported(model_type)
    except ValueError as error:
        raise ValueError(f"model.path {path!r}: {error}") from error
    return settings


def _has_chat_template(folder: Path) -> bool:
    tokenizer = folder / "tokenizer_config.json"
    inside = tokenizer.is_file() and "chat_template" in json.loads(tokenizer.read_text())
    return inside or (folder / "chat_template.jinja").is_file() or (folder / "chat_template.json").is_file()


def _fingerprint(folder: Path) -> str:
    """Of a folder's configuration and tokenizer files whole, and of its weights by size and evenly spread samples."""
    weights = sorted(path for pattern in WEIGHTS for path in folder.glob(pattern))
    if not weights:
        raise ValueError(f"model.path {str(folder)!r} has no weights ({' or '.join(WEIGHTS)}); give a folder in Hugging Face format")
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
        wanted = 8 + header_size + max(tensor["data_offsets"][1] for name, tensor in header.items() if name != "__metadata__")
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is not a whole safetensors file: its header cannot be read; copy or download the model again") from error
    if size != wanted:
        raise ValueError(f"{path} is not a whole safetensors file: {size} bytes of {wanted}; copy or download the model again")


def _pieces(path: Path) -> Iterator[bytes]:
    size = path.stat().st_size
    with path.open("rb") as file:
        if size <= SAMPLES * SAMPLE_BYTES:
            yield file.read()
            return
        for index in range(SAMPLES):
            file.seek(index * (size - SAMPLE_BYTES) // (SAMPLES - 1))
            yield file.read(SAMPLE_BYTES)
