"""Loads a model's weights with our attention, and refuses at load what the engine cannot run correctly.

Owns dtype, device and context choices, the probe and the parity check. Raises ValueError with what failed and the remedy.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from transformers import AttentionInterface, AutoConfig, AutoModelForCausalLM, GenerationConfig

from drafting.tree import DraftTrees
from engine import attention
from engine.config import ModelConfig
from engine.families import check_supported
from engine.hub import MODEL_WEIGHTS, local_folder
from engine.packed_linear import pack_linears

# Largest |difference of logits| / largest |logit| between our attention and the model's own. Many families compute
# norms and rotary angles in float32 whatever their dtype, hence no finer limit for float64.
PARITY_TOLERANCE = {torch.float64: 1e-4, torch.float32: 1e-3, torch.bfloat16: 5e-2, torch.float16: 1e-2}


@dataclass(frozen=True)
class LoadedModel:
    """A model that passed the probe, and what was found out about it. layer_shapes: (Hkv, D, Dv) per layer."""

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
    """Loads weights, probes how the model calls attention; raises ValueError for a model that cannot be loaded or run."""
    torch.set_num_threads(config.threads)
    device = _device(config.device)
    default = torch.bfloat16 if device.type == "cuda" else torch.float32
    dtype = default if config.dtype == "auto" else getattr(torch, config.dtype)
    folder = local_folder(config.path, config.revision, MODEL_WEIGHTS)
    with _explained(config.path):
        hf_config = AutoConfig.from_pretrained(folder, trust_remote_code=config.trust_remote_code)
    check_supported(hf_config.model_type)
    with _explained(config.path):
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            folder,
            dtype=dtype,
            attn_implementation=attention.NAME,
            trust_remote_code=config.trust_remote_code,
            ignore_mismatched_sizes=True,
            output_loading_info=True,
        )
    model, report = loaded
    # transformers only warns about these, and fills them with random numbers.
    if wrong := sorted(report["missing_keys"]) or sorted(name for name, *_ in report["mismatched_keys"]):
        raise ValueError(
            f"model.path {config.path!r} cannot be loaded: {len(wrong)} weights that its config.json asks for are missing "
            f"or of another shape, first {wrong[0]}; get the whole model again"
        )
    model = model.to(device).eval()
    if device.type == "cpu":
        pack_linears(model, model.get_output_embeddings())
    return inspect_model(model, config.max_context)


def _device(name: str) -> torch.device:
    device = torch.device(name if name != "auto" else "cuda" if torch.cuda.is_available() else "cpu")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ValueError(
            f"model.device is {name!r}, but this machine has {torch.cuda.device_count()} CUDA devices; use model.device: auto or cpu"
        )
    return device


@contextmanager
def _explained(path: str) -> Iterator[None]:
    """Turns what goes wrong while reading a model into a ValueError: config, safetensors and pickle raise kinds of their own."""
    try:
        yield
    except Exception as error:
        why = " ".join(str(error).split())[:300] or type(error).__name__
        raise ValueError(f"model.path {path!r} cannot be loaded: {why}; give a hub name or a folder in Hugging Face format") from error


def inspect_model(model: Any, max_context: int | None = None) -> LoadedModel:
    """Runs the probe on a model that is on its device already (also the tests' way in, with models made in memory)."""
    text_config = model.config.get_text_config()
    layer_shapes, windows = _probe(model)
    own_context = getattr(text_config, "max_position_embeddings", None)
    if max_context and own_context and max_context > own_context:
        raise ValueError(f"model.max_context is {max_context}, but the model was made for {own_context} positions; lower it")
    return LoadedModel(
        model=model,
        dtype=model.dtype,
        device=model.device,
        vocab_size=text_config.vocab_size,
        max_context=max_context or own_context or 2048,
        eos_ids=_eos_ids(model.generation_config, text_config),
        num_query_heads=text_config.num_attention_heads,
        layer_shapes=layer_shapes,
        windows=windows,
    )


def _eos_ids(generation: GenerationConfig | None, text_config: Any) -> frozenset[int]:
    found = getattr(generation, "eos_token_id", None)
    found = getattr(text_config, "eos_token_id", None) if found is None else found
    return frozenset() if found is None else frozenset(found if isinstance(found, list) else [found])


class _Recorder:
    """Stands in for the attention function and notes how each layer calls it."""

    def __init__(self) -> None:
        self.calls: list[tuple[int, tuple[int, int, int], int | None]] = []

    def __call__(self, module: Any, query: Any, key: Any, value: Any, mask: Any, ngram_step: Any = None, **given: Any) -> tuple[Any, None]:
        if ngram_step is not self:
            raise ValueError("its layers drop keyword arguments on the way to attention")
        for name in ("softcap", "s_aux"):
            if given.get(name) is not None:
                raise ValueError(f"its attention needs {name!r}, which this engine does not compute")
        self.calls.append((module.layer_idx, (key.shape[1], key.shape[3], value.shape[3]), given.get("sliding_window")))
        return query.new_zeros(query.shape[0], query.shape[2], query.shape[1], value.shape[3]), None


@torch.inference_mode()
def _probe(model: Any) -> tuple[list[tuple[int, int, int]], tuple[int | None, ...]]:
    """Shapes and windows, from one forward pass in which every layer must call our function once, in order."""
    name, recorder = type(model).__name__, _Recorder()
    AttentionInterface.register(attention.NAME, recorder)
    try:
        ids = torch.zeros(1, 2, dtype=torch.long, device=model.device)
        model(input_ids=ids, position_ids=torch.arange(2, device=model.device)[None], use_cache=False, ngram_step=recorder)
    except Exception as error:  # modelling code that is not made for this may raise anything
        raise ValueError(f"{name} cannot run on this engine: {error}; use another model, or transformers' own generate") from error
    finally:
        AttentionInterface.register(attention.NAME, attention.tree_attention)
    layers = [layer for layer, _, _ in recorder.calls]
    wanted = model.config.get_text_config().num_hidden_layers
    if layers != list(range(wanted)):
        raise ValueError(
            f"{name} cannot run on this engine: {len(layers)} of its {wanted} layers called the attention function; use another model"
        )
    return [shapes for _, shapes, _ in recorder.calls], tuple({window: None for _, _, window in recorder.calls})


@torch.inference_mode()
def check_parity(runner: Any) -> float:
    """Compares prefill, a second chunk and a two-branch tree with the model's own attention; returns the relative difference.

    Raises ValueError above PARITY_TOLERANCE. Catches what the probe cannot see: ALiBi, chunked masks, an unknown cap.
    """
    loaded: LoadedModel = runner.loaded
    tokens = [1 + (7 * i) % (loaded.vocab_size - 1) for i in range(12)]
    branches = [tokens[:8] + [tokens[8], tokens[9]], tokens[:8] + [tokens[10], tokens[11]]]
    tree = DraftTrees(
        np.array([tokens[8], tokens[9], tokens[10], tokens[11]], np.int32), np.array([0, 1, 0, 3], np.int32),
        np.array([1, 2, 1, 2], np.int32), np.zeros(4, np.uint8), np.array([0, 4]),
    )  # fmt: skip
    ours = runner.score_tree(tokens[:8], tree)  # rows: token 7, then the four nodes
    model = loaded.model
    model.set_attn_implementation("eager")
    try:
        own = [model(input_ids=torch.tensor([ids], device=loaded.device), use_cache=False).logits[0, 7:] for ids in branches]
    finally:
        model.set_attn_implementation(attention.NAME)
    theirs = torch.cat([own[0], own[1][1:]]).double()
    difference = float((ours.double() - theirs).abs().max() / theirs.abs().max())
    if not difference <= PARITY_TOLERANCE[loaded.dtype]:
        raise ValueError(
            f"{type(model).__name__} cannot run on this engine: its logits differ by {difference:.1e} of the largest from the model's own "
            f"attention (limit {PARITY_TOLERANCE[loaded.dtype]:.0e}); use another model, or transformers' own generate"
        )
    return difference
