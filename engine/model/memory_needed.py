"""How much memory a model needs, known before weights are read: from their headers and config.json.

Standard library only: the driver asks before the pool starts, each worker before it loads. An estimate of the
least: the weights and the K/V of one sequence; activations and the rest of the cache come on top.
"""

import json
import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from engine.config import QUANTIZATIONS, ModelConfig
from engine.model.families import context_of
from engine.model.safetensors_headers import read_header

DTYPE_BYTES = {"float64": 8, "float32": 4, "bfloat16": 2, "float16": 2}
# With their scales: one per output row of int8, one float32 per 64 weights of nf4.
QUANTIZED_BYTES = {"int8": 1.0, "nf4": 0.5 + 4 / 64}
PACKED = ("float32", "bfloat16")
FLOATS = ("F64", "F32", "F16", "BF16")
NEVER_QUANTIZED = ("embed", "lm_head", "wte", "wpe")
GB = 1e9


@dataclass(frozen=True)
class Need:
    """Bytes. cache: of one sequence of max_context tokens."""

    weights: int
    cache: int
    max_context: int

    @property
    def total(self) -> int:
        """The bytes of weights and cache."""
        return self.weights + self.cache

    def __str__(self) -> str:
        return (
            f"{self.total / GB:.1f} GB ({self.weights / GB:.1f} of weights, "
            f"{self.cache / GB:.1f} of K/V cache for one sequence of {self.max_context} tokens)"
        )


def needed(folder: Path, config: ModelConfig, dtype: str, on_cpu: bool) -> Need | None:
    """What a model in a folder needs in dtype; None when its files do not say.

    Weights that are not here yet are taken from the index.
    """
    try:
        return _needed(folder, config, dtype, on_cpu)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None  # a broken model; loading it says what is broken


def _needed(folder: Path, config: ModelConfig, dtype: str, on_cpu: bool) -> Need | None:
    settings: dict[str, Any] = json.loads((folder / "config.json").read_text())
    settings = {**settings, **settings.get("text_config", {})}
    weights = _weight_bytes(folder, settings, DTYPE_BYTES[dtype], config.quantization)
    layers = _first(settings, "num_hidden_layers", "n_layer")
    heads = _first(settings, "num_attention_heads", "n_head")
    hidden = _first(settings, "hidden_size", "n_embd")
    if weights is None or not (layers and heads and hidden):
        return None
    if on_cpu and dtype in PACKED:  # packed_linear keeps the output layer's weight beside its packed form
        weights += (settings.get("vocab_size") or 0) * hidden * DTYPE_BYTES[dtype]
    max_context = context_of(settings, config.max_context) or 2048
    width = int(settings.get("num_key_value_heads") or heads) * int(
        settings.get("head_dim") or hidden // heads
    )
    return Need(weights, 2 * layers * width * DTYPE_BYTES[dtype] * max_context, max_context)


def _first(settings: dict[str, Any], *names: str) -> int | None:
    return next((settings[name] for name in names if settings.get(name)), None)


def _weight_bytes(
    folder: Path, settings: dict[str, Any], dtype_bytes: int, quantization: str | None
) -> int | None:
    files = _safetensors(folder)
    if files:
        tensors = [tensor for file in files for tensor in read_header(file).items()]
        return sum(_tensor_bytes(name, tensor, dtype_bytes, quantization) for name, tensor in tensors)
    stored = DTYPE_BYTES.get(settings.get("dtype") or settings.get("torch_dtype") or "float32")
    if not stored or settings.get("quantization_config"):
        return None
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        total = json.loads(index.read_text()).get("metadata", {}).get("total_size")
    else:
        total = sum(file.stat().st_size for file in folder.glob("pytorch_model*.bin"))
    each = QUANTIZED_BYTES[quantization] if quantization else dtype_bytes
    return int(total / stored * each) if total else None


def _safetensors(folder: Path) -> list[Path]:
    """The files that hold the weights, [] when some of them are not here."""
    index = folder / "model.safetensors.index.json"
    names = json.loads(index.read_text())["weight_map"].values() if index.is_file() else ["model.safetensors"]
    files = [folder / name for name in sorted(set(names))]
    return files if all(file.is_file() for file in files) else []


def _tensor_bytes(name: str, tensor: dict[str, Any], dtype_bytes: int, quantization: str | None) -> int:
    if tensor["dtype"] not in FLOATS:  # integers and 8-bit floats of a quantised checkpoint stay as they are
        first, end = tensor["data_offsets"]
        return int(end - first)
    shape: list[int] = tensor["shape"]
    if quantization and len(shape) == 2 and not any(part in name for part in NEVER_QUANTIZED):
        return math.ceil(math.prod(shape) * QUANTIZED_BYTES[quantization])
    return math.prod(shape) * dtype_bytes


def check_fits(
    folder: Path, config: ModelConfig, dtype: str, on_cpu: bool, free: int, where: str
) -> Need | None:
    """What a model needs; raises ValueError, with figures and remedies, when that is more than is free."""
    need = needed(folder, config, dtype, on_cpu)
    if need and need.total > free:
        remedy = remedies(folder, config, dtype, on_cpu, free)
        raise ValueError(
            f"model.path {config.path!r} needs {need}, but {free / GB:.1f} GB are free {where}; {remedy}"
        )
    return need


def remedies(folder: Path, config: ModelConfig, dtype: str, on_cpu: bool, free: int) -> str:
    """What would make a model fit into free bytes, in words."""
    changes = []
    if DTYPE_BYTES[dtype] > 2 and not config.quantization:
        changes = [("model.dtype bfloat16", config, "bfloat16")]
    if not (config.quantization or config.adapter):
        rounded = "float32" if dtype == "float64" else dtype
        changes += [
            (f"model.quantization {name}", replace(config, dtype=rounded, quantization=name), rounded)
            for name in QUANTIZATIONS
        ]
    found = [(text, needed(folder, changed, new, on_cpu)) for text, changed, new in changes]
    words = [f"{text} ({need.total / GB:.1f} GB)" for text, need in found if need and need.total <= free]
    need = needed(folder, config, dtype, on_cpu)
    if need and need.weights < free and need.cache > 0.1 * need.total:
        words.append("a lower model.max_context")
    words.append("a machine with more memory" if on_cpu else "a larger GPU")
    return (
        f"use {', '.join(words[:-1])}{' or ' if words[1:] else ''}{words[-1]} (model.check_memory: false "
        "loads it all the same)"
    )
