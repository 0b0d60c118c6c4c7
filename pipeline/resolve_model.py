"""What the driver must know of a model before anything starts: that it can be read, and which one it is.

Reads files only; loads neither torch nor transformers. A hub name, of the model or an adapter, is pinned to
a commit, so that all workers load the same.
"""

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from engine.config import ModelConfig
from engine.model.adapters import check_adapter
from engine.model.families import check_own_code, check_supported, context_of
from engine.model.fingerprint import describe, folder_fingerprint
from engine.model.hub import local_folder


@dataclass(frozen=True)
class ResolvedModel:
    """A model that was found and can be run.

    config: with absolute folders or pinned commits. fingerprint: of the files, or the commit, with adapter
    and quantisation. max_context: None = unknown.
    """

    config: ModelConfig
    fingerprint: str
    max_context: int | None
    has_chat_template: bool


def resolve_model(config: ModelConfig) -> ResolvedModel:
    """Finds a model's folder, or its commit on the hub, and checks its config.json; raises ValueError."""
    if not config.path:
        raise ValueError("model.path is empty; name a folder or a hub name (--model)")
    folder, path, commit = _locate(config.path, config.revision, "model.path")
    config = replace(config, path=path, revision=commit or config.revision)
    settings = _read_config(folder, config)
    context = context_of(settings, config.max_context)
    own = commit or folder_fingerprint(folder, "model.path")
    adapter = None
    if config.adapter:
        config, adapter = _resolve_adapter(config, settings)
    fingerprint = describe(own, adapter, config.quantization)
    return ResolvedModel(config, fingerprint, context, _has_chat_template(folder))


def _locate(path: str, revision: str | None, setting: str) -> tuple[Path, str, str | None]:
    """The folder, the path that workers are told, and the commit that a hub name's revision names now."""
    folder = local_folder(path, revision, setting=setting)
    return (folder, str(folder.resolve()), None) if Path(path).is_dir() else (folder, path, folder.name)


def _resolve_adapter(config: ModelConfig, settings: dict[str, Any]) -> tuple[ModelConfig, str]:
    """The settings with the adapter's place made definite, and its fingerprint."""
    assert config.adapter
    folder, path, commit = _locate(config.adapter, config.adapter_revision, "model.adapter")
    check_adapter(folder, config.adapter, bool(settings.get("quantization_config")))
    config = replace(config, adapter=path, adapter_revision=commit or config.adapter_revision)
    return config, commit or folder_fingerprint(folder, "model.adapter")


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
