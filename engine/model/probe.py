"""What a loaded model does with attention, found by running it: shapes and windows, and whether ours gives
its own logits.

The second line of defence behind engine/model/families.py. Raises ValueError with what failed and the remedy.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import AttentionInterface

from drafting.tree import DraftTrees
from engine import attention

# Largest |difference of logits| / largest |logit| between our attention and the model's own. Many families
# compute norms and rotary angles in float32 whatever their dtype, hence no finer limit for float64.
PARITY_TOLERANCE = {torch.float64: 1e-4, torch.float32: 1e-3, torch.bfloat16: 5e-2, torch.float16: 1e-2}
# A model may amplify rounding: large weights of whole numbers give large scores with exact ties, and the last
# bit decides who is attended to. Such a model differs from itself when its inputs are rounded otherwise
# (_own_noise), so two correct attentions differ as well. Above the limit this is measured, and a model may
# differ by this many times its own noise, but never by MOST: an attention that is wrong changes the logits of
# such a model by about as much as they are large.
NOISE_FACTOR = 4
MOST = 0.3
NUM_ROUNDINGS = 4
# Keyword arguments by which some models say more about who sees whom than our attention knows.
UNKNOWN_TO_US = ("position_bias", "indices", "block_indices", "sinks")
SHORT_WINDOW = 5
Windows = tuple[int | None, ...]


class _Recorder:
    """Stands in for the attention function and notes how each layer calls it."""

    def __init__(self) -> None:
        self.calls: list[tuple[int, tuple[int, int, int], int | None]] = []

    def __call__(
        self, module: Any, query: Any, key: Any, value: Any, attention_mask: Any = None, **given: Any
    ) -> tuple[Any, None]:
        if attention_mask is not None:
            raise ValueError("its layers make attention masks of their own")
        for name in UNKNOWN_TO_US:
            if given.get(name) is not None:
                raise ValueError(f"its attention needs {name!r}, which this engine does not compute")
        self.calls.append(
            (module.layer_idx, (key.shape[1], key.shape[3], value.shape[3]), given.get("sliding_window"))
        )
        return query.new_zeros(query.shape[0], query.shape[2], query.shape[1], value.shape[3]), None


@torch.inference_mode()
def probe(model: Any) -> tuple[list[tuple[int, int, int]], Windows]:
    """Shapes (Hkv, D, Dv) per layer and the windows that occur, from one forward pass in which every layer
    must call our function once.
    """
    name = type(model).__name__
    recorder = _Recorder()
    AttentionInterface.register(attention.NAME, recorder)
    try:
        ids = torch.zeros(1, 2, dtype=torch.long, device=model.device)
        model(input_ids=ids, position_ids=torch.arange(2, device=model.device)[None], use_cache=False)
    except Exception as error:  # modelling code that is not made for this may raise anything
        raise ValueError(
            f"{name} cannot run on this engine: {error}; use another model, or transformers' own generate"
        ) from error
    finally:
        AttentionInterface.register(attention.NAME, attention.tree_attention)
    layers = [layer for layer, _, _ in recorder.calls]
    wanted = model.config.get_text_config().num_hidden_layers
    if layers != list(range(wanted)):
        raise ValueError(
            f"{name} cannot run on this engine: {len(layers)} of its {wanted} layers called the attention "
            "function; use another model"
        )
    windows = dict.fromkeys(window for _, _, window in recorder.calls)
    return [shapes for _, shapes, _ in recorder.calls], tuple(windows)


@torch.inference_mode()
def check_parity(runner: Any) -> float:
    """Compares prefill, a second chunk and a two-branch tree with the model's own attention; returns the
    relative difference.

    Raises ValueError above PARITY_TOLERANCE, unless the model amplifies rounding as much. Catches what the
    probe cannot see: ALiBi, chunked masks, a cap or a sink that is wrong. Windows are longer than the ten
    positions that are compared, so it compares with short ones as well.
    """
    loaded = runner.loaded
    difference = _checked_difference(runner)
    with _short_windows(loaded.model) as windows:
        if windows:
            runner.loaded = replace(loaded, windows=windows)
            difference = max(difference, _checked_difference(runner))
            runner.loaded = loaded
    return difference


def _checked_difference(runner: Any) -> float:
    loaded = runner.loaded
    difference = _difference(runner)
    # Quantised layers may round their inputs too, to bfloat16 or coarser.
    limit = PARITY_TOLERANCE[torch.bfloat16 if getattr(loaded.model, "is_quantized", False) else loaded.dtype]
    if not difference <= limit:
        limit = max(limit, min(MOST, NOISE_FACTOR * _own_noise(loaded)))
    if not difference <= limit:
        raise ValueError(
            f"{type(loaded.model).__name__} cannot run on this engine: its logits differ by {difference:.1e} "
            f"of the largest from the model's own attention (limit {limit:.0e}); use another model, or "
            "transformers' own generate"
        )
    return difference


def _difference(runner: Any) -> float:
    tokens = _tokens(runner.loaded)
    tree = DraftTrees(
        np.array([tokens[8], tokens[9], tokens[10], tokens[11]], np.int32), np.array([0, 1, 0, 3], np.int32),
        np.array([1, 2, 1, 2], np.int32), np.zeros(4, np.uint8), np.zeros(4, np.uint8), np.array([0, 4]),
    )  # fmt: skip
    ours = runner.score_tree(tokens[:8], tree)  # rows: token 7, then the four nodes
    return _relative(ours.double(), _own_logits(runner.loaded))


def _own_noise(loaded: Any) -> float:
    """How much a model's own logits differ when the numbers of its input embeddings are changed in their last
    bit; float64 counts as float32, in which many families compute their softmax.
    """
    ulp = max(torch.finfo(loaded.dtype).eps, torch.finfo(torch.float32).eps)
    random = torch.Generator().manual_seed(0)

    def rounded(module: Any, inputs: Any, rows: Any) -> Any:
        signs = torch.randint(-1, 2, rows.shape, generator=random)
        return rows * (1 + ulp * signs.to(rows))

    wanted = _own_logits(loaded)
    hook = loaded.model.get_input_embeddings().register_forward_hook(rounded)
    try:
        return max(_relative(_own_logits(loaded), wanted) for _ in range(NUM_ROUNDINGS))
    finally:
        hook.remove()


def _own_logits(loaded: Any) -> Tensor:
    """Logits of token 7 and of the four nodes by the model's own attention, which gets each branch as a
    text.
    """
    tokens = _tokens(loaded)
    branches = [tokens[:10], tokens[:8] + tokens[10:]]
    loaded.model.set_attn_implementation("eager")
    try:
        own = [
            loaded.model(input_ids=torch.tensor([ids], device=loaded.device), use_cache=False).logits[0, 7:]
            for ids in branches
        ]
    finally:
        loaded.model.set_attn_implementation(attention.NAME)
    logits = torch.cat([own[0], own[1][1:]]).double()
    if not logits.isfinite().all():
        name = str(loaded.dtype).removeprefix("torch.")
        raise ValueError(
            f"{type(loaded.model).__name__} gives logits that are not finite in {name}; use model.dtype "
            "bfloat16 or float32, and if it is one of these, get the weights again"
        )
    return logits


def _tokens(loaded: Any) -> list[int]:
    return [1 + (7 * i) % (loaded.vocab_size - 1) for i in range(12)]


def _relative(logits: Tensor, wanted: Tensor) -> float:
    return float((logits - wanted).abs().max() / wanted.abs().max())


@contextmanager
def _short_windows(model: Any) -> Iterator[Windows]:
    """While it lasts, a model's windows are of SHORT_WINDOW tokens, in its own masks and in its layers;
    yields those that occur now.
    """
    known = (model.config.get_text_config(), *model.modules())
    holders = [holder for holder in known if getattr(holder, "sliding_window", None)]
    before = [holder.sliding_window for holder in holders]
    for holder in holders:
        holder.sliding_window = SHORT_WINDOW
    try:
        yield probe(model)[1] if holders else ()
    finally:
        for holder, window in zip(holders, before, strict=True):
            holder.sliding_window = window
