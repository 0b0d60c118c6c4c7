"""The fingerprint of a model: a digest of its folder's files, its adapter and its quantisation.

A run is continued only if the fingerprint is unchanged, and draft tables are found by it. Standard library
only: the driver asks for it.
"""

import hashlib
import json
import zipfile
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

from engine.config import ModelConfig
from engine.model.hub import local_folder
from engine.model.safetensors_headers import check_whole, read_header, tensor_places

WHOLE_BYTES = 1 << 16
SAMPLE_BYTES = 4096
NUM_SAMPLES = 16  # of each tensor; fewer where a file has so many that MAX_READS would not do
MAX_READS = 1 << 14
NUM_PARTS = 64  # into which files of another kind are cut
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
    """16 hex digits of a folder's files: descriptions whole, weights by size and by samples of every tensor.

    Of each tensor its name, dtype and shape count; of its numbers all up to WHOLE_BYTES, and of a larger one
    up to NUM_SAMPLES evenly spread pieces. So a change of a whole matrix, as training and merging make it, is
    always seen, and one of a few rows may not be: 16 GB are told apart by reading about 20 MB. Of a `.bin`
    file every byte counts, through the checksums that its archive keeps; where it keeps none (saved before
    PyTorch 1.6, or without them), evenly spread pieces of the file. Raises ValueError, which names the
    setting, for a folder without weights or with a file that was cut short.
    """
    weights = sorted(path for pattern in WEIGHTS for path in folder.glob(pattern))
    if not weights:
        remedy = "give a folder in Hugging Face format"
        raise ValueError(f"{setting} {str(folder)!r} has no weights ({' or '.join(WEIGHTS)}); {remedy}")
    descriptions = (path for pattern in DESCRIPTIONS for path in folder.glob(pattern))
    digest = hashlib.sha256()
    for path in sorted({*descriptions, *weights}):
        digest.update(f"{path.name} {path.stat().st_size}\0".encode())
        for sample in _samples(path):
            digest.update(sample)
    return digest.hexdigest()[:16]


def _samples(path: Path) -> Iterator[bytes]:
    if path.suffix == ".safetensors":
        check_whole(path)
        tensors = sorted(read_header(path).items())
        yield json.dumps([(name, tensor["dtype"], tensor["shape"]) for name, tensor in tensors]).encode()
        yield from _samples_of_parts(path, tensor_places(path))
        return
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            for entry in archive.infolist():
                yield f"{entry.filename} {entry.file_size} {entry.CRC}\0".encode()
    size = path.stat().st_size
    bounds = [size * part // NUM_PARTS for part in range(NUM_PARTS + 1)]
    yield from _samples_of_parts(path, list(pairwise(bounds)))


def _samples_of_parts(path: Path, places: list[tuple[int, int]]) -> Iterator[bytes]:
    """Samples of each part [first, end) of a file."""
    num_samples = max(2, min(NUM_SAMPLES, MAX_READS // max(1, len(places))))
    with path.open("rb") as file:
        for first, end in places:
            if end - first <= WHOLE_BYTES:
                file.seek(first)
                yield file.read(end - first)
                continue
            for index in range(num_samples):
                file.seek(first + index * (end - first - SAMPLE_BYTES) // (num_samples - 1))
                yield file.read(SAMPLE_BYTES)
