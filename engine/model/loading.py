"""Loads a model's weights with our attention, and refuses at load what the engine cannot run correctly.

Owns dtype, device and context choices; engine/model/probe.py finds out what a loaded model does. Raises
ValueError with what failed and the remedy.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, GenerationConfig

from engine import attention
from engine.config import ModelConfig
from engine.model.adapters import merge_adapter
from engine.model.allocator import keep_freed_memory
from engine.model.families import check_own_code, check_supported, context_of
from engine.model.hub import MODEL_WEIGHTS, local_folder
from engine.model.memory_available import available_memory, claim
from engine.model.memory_needed import check_fits, needed
from engine.model.packed_linear import pack_linears
from engine.model.probe import probe
from engine.model.quantization import EXTRA, load_arguments
from engine.model.rms_norm import fuse_norms


@dataclass(frozen=True)
class LoadedModel:
    """A model that passed the probe, and what was found out about it.

    layer_shapes: (Hkv, D, Dv) per layer.
    """

    model: Any
    dtype: torch.dtype
    device: torch.device
    vocab_size: int
    max_context: int
    eos_ids: frozenset[int]
    num_query_heads: int
    layer_shapes: list[tuple[int, int, int]]
    windows: tuple[int | None, ...]


def load_model(config: ModelConfig) -> LoadedModel:
    """Loads weights, probes how the model calls attention; raises ValueError for a model that cannot be
    loaded or run.
    """
    torch.set_num_threads(config.threads)
    device = _device(config.device)
    if device.type == "cpu":
        keep_freed_memory()
    default = torch.bfloat16 if device.type == "cuda" else torch.float32
    dtype = default if config.dtype == "auto" else getattr(torch, config.dtype)
    # Without weights: a family that cannot run is refused before they are fetched.
    folder = local_folder(config.path, config.revision)
    own_code = _has_own_code(folder, config)
    with _explained(config.path):
        settings = AutoConfig.from_pretrained(folder, trust_remote_code=config.trust_remote_code)
    if not own_code:
        check_supported(settings.model_type)
    quantized = load_arguments(config.quantization, settings, dtype, device)
    folder = local_folder(config.path, config.revision, MODEL_WEIGHTS)
    if config.check_memory:
        _check_memory(folder, config, dtype, device)
    model = _read_weights(folder, config, dtype=dtype, **quantized)
    if config.adapter:
        model = merge_adapter(model, config)
    model = (model if quantized else model.to(device)).eval()
    if device.type == "cpu":
        pack_linears(model, model.get_output_embeddings())
        fuse_norms(model)
    return inspect_model(model, config.max_context)


def _check_memory(folder: Path, config: ModelConfig, dtype: torch.dtype, device: torch.device) -> None:
    """Raises ValueError for a model that does not fit beside what runs on this machine and what other workers
    here have claimed.
    """
    name = str(dtype).removeprefix("torch.")
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        check_fits(folder, config, name, False, free, f"on {device}")
    elif need := needed(folder, config, name, on_cpu=True):
        free = claim(need.total, available_memory())
        check_fits(folder, config, name, True, free, "on this machine beside its other workers")


def _read_weights(folder: Path, config: ModelConfig, **how: Any) -> Any:
    with _explained(config.path):
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            folder,
            attn_implementation=attention.NAME,
            trust_remote_code=config.trust_remote_code,
            ignore_mismatched_sizes=True,
            output_loading_info=True,
            **how,
        )
    model, report = loaded
    # transformers only warns about these, and fills them with random numbers.
    if wrong := sorted(report["missing_keys"]) or sorted(name for name, *_ in report["mismatched_keys"]):
        raise ValueError(
            f"model.path {config.path!r} cannot be loaded: {len(wrong)} weights that its config.json asks "
            f"for are missing or of another shape, first {wrong[0]}; get the whole model again"
        )
    return model


def _has_own_code(folder: Path, config: ModelConfig) -> bool:
    try:
        settings = json.loads((folder / "config.json").read_text())
    except (OSError, ValueError):  # AutoConfig says what is wrong with it
        return False
    try:
        return isinstance(settings, dict) and check_own_code(settings, config.trust_remote_code)
    except ValueError as error:
        raise ValueError(f"model.path {config.path!r} cannot be loaded: {error}") from error


def _device(name: str) -> torch.device:
    device = torch.device(name if name != "auto" else "cuda" if torch.cuda.is_available() else "cpu")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ValueError(
            f"model.device is {name!r}, but this machine has {torch.cuda.device_count()} CUDA devices; "
            "use model.device: auto or cpu"
        )
    return device


@contextmanager
def _explained(path: str) -> Iterator[None]:
    """Turns what goes wrong while reading a model into a ValueError: config, safetensors and pickle raise
    kinds of their own.
    """
    try:
        yield
    except ImportError as error:
        why = " ".join(str(error).split())[:300]
        raise ValueError(
            f"model.path {path!r} needs a package that is not installed: {why} (what we test with: {EXTRA})"
        ) from error
    except Exception as error:
        why = " ".join(str(error).split())[:300] or type(error).__name__
        raise ValueError(
            f"model.path {path!r} cannot be loaded: {why}; give a hub name or a folder in Hugging Face format"
        ) from error


def inspect_model(model: Any, max_context: int | None = None) -> LoadedModel:
    """Runs the probe on a model that is on its device already (also the tests' way in, with models made in
    memory).
    """
    text_config = model.config.get_text_config()
    if model.dtype is torch.float64:
        # Mixtures of experts: grouped_mm, which transformers chooses, takes no float64.
        model.set_experts_implementation("eager")
    layer_shapes, windows = probe(model)
    context = context_of(text_config.to_dict(), max_context)
    return LoadedModel(
        model=model,
        dtype=model.dtype,
        device=model.device,
        vocab_size=text_config.vocab_size,
        max_context=context or 2048,
        eos_ids=_eos_ids(model.generation_config, text_config),
        num_query_heads=text_config.num_attention_heads,
        layer_shapes=layer_shapes,
        windows=windows,
    )


def _eos_ids(generation: GenerationConfig | None, text_config: Any) -> frozenset[int]:
    found = getattr(generation, "eos_token_id", None)
    found = getattr(text_config, "eos_token_id", None) if found is None else found
    return frozenset() if found is None else frozenset(found if isinstance(found, list) else [found])
