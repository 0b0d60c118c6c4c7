"""The fingerprint of a model: a digest of its folder's files, its adapter and its quantisation.

A run is continued only if the fingerprint is unchanged, and draft tables are found by it. Standard library
only: the driver asks for it.
"""

import hashlib
from collections.abc import Iterator
from pathlib import Path

from engine.config import ModelConfig
from engine.model.hub import local_folder
from engine.model.safetensors_headers import check_whole

NUM_SAMPLES = 1024
SAMPLE_BYTES = 4096
WEIGHTS = ("*.safetensors", "*.bin")
DESCRIPTIONS = ("*.json", "*.jinja", "*.model")


def model_fingerprint(config: ModelConfig) -> str:
    """16 hex digits of everything that decides the logits of a model."""
    own = folder_fingerprint(local_folder(config.path, config.revision), "model.path")
    adapter = None
    if config.adapter:
        folder = local_folder(config.adapter, config.adapter_revision, setting="model.adapter")
        adapter = folder_fingerprint(folder, "model.adapter")
    text = describe(own, adapter, config.quantization)
    return own if text == own else hashlib.sha256(text.encode()).hexdigest()[:16]


def describe(own: str, adapter: str | None, quantization: str | None) -> str:
    """The fingerprint of a model in words, as run.json records it."""
    with_adapter = f"{own} with adapter {adapter}" if adapter else own
    return f"{with_adapter} in {quantization}" if quantization else with_adapter


def folder_fingerprint(folder: Path, setting: str) -> str:
    """16 hex digits of a folder's files: descriptions whole, weights by size and evenly spread samples.

    Raises ValueError, which names the setting, for a folder without weights or with a file that was cut
    short.
    """
    weights = sorted(path for pattern in WEIGHTS for path in folder.glob(pattern))
    if not weights:
        remedy = "give a folder in Hugging Face format"
        raise ValueError(f"{setting} {str(folder)!r} has no weights ({' or '.join(WEIGHTS)}); {remedy}")
    for path in weights:
        if path.suffix == ".safetensors":
            check_whole(path)
    descriptions = (path for pattern in DESCRIPTIONS for path in folder.glob(pattern))
    digest = hashlib.sha256()
    for path in sorted({*descriptions, *weights}):
        digest.update(f"{path.name} {path.stat().st_size}\0".encode())
        for sample in _samples(path):
            digest.update(sample)
    return digest.hexdigest()[:16]


def _samples(path: Path) -> Iterator[bytes]:
    size = path.stat().st_size
    with path.open("rb") as file:
        if size <= NUM_SAMPLES * SAMPLE_BYTES:
            yield file.read()
            return
        for index in range(NUM_SAMPLES):
            file.seek(index * (size - SAMPLE_BYTES) // (NUM_SAMPLES - 1))
            yield file.read(SAMPLE_BYTES)
