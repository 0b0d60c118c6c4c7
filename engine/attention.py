"""Attention of the packed tokens over the paged cache, as a function that unmodified transformers models
call.

Owns the SDPA path (CPU and CUDA). Knows nothing of sequences: it executes the attention calls of a StepPlan.
Interface and pitfalls of transformers' AttentionInterface: docs/architecture.md, "The model".

Letters: T packed tokens, Hq query and Hkv key heads, G = Hq / Hkv, D head size; B, Q, P, L as in
engine/step_plan.py.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import partial
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import AttentionInterface

from engine.kv_cache import KVCache
from engine.model.explicit_attention import explicit_attention
from engine.step_plan import AttentionCall, StepPlan

NAME = "ngram_tree"  # must not contain "sdpa", "flash" or "paged|": transformers dispatches on those


class CallTensors(NamedTuple):
    """An AttentionCall on the device.

    tokens [B * Q], or None when they are [first, first + B * Q) in order. head_pages: by Hkv. masks:
    additive, by (window, Hkv), [B, 1, G * Q, L], or [B, 1, 1, L] when Q is 1. visible: slots read in place,
    as (first, count).
    """

    batch: int
    width: int
    first: int
    tokens: Tensor | None
    head_pages: dict[int, Tensor]
    masks: dict[tuple[int | None, int], Tensor]
    visible: tuple[int, int] | None
    causal: bool


class StepTensors(NamedTuple):
    """What the attention function needs of a step, made once and used by every layer.

    slots: by Hkv, [T * Hkv].
    """

    cache: KVCache
    slots: dict[int, Tensor]
    calls: list[CallTensors]


def to_device(
    plan: StepPlan, cache: KVCache, num_query_heads: int, dtype: torch.dtype, device: torch.device
) -> StepTensors:
    """Moves a plan to the device, with indices per head count and masks in the model's dtype."""
    slots = {
        heads: torch.from_numpy(cache.head_slots(plan.packed.write_slots, heads)).to(device)
        for heads in cache.head_counts
    }
    calls = [_call_to_device(call, cache, num_query_heads, dtype, device) for call in plan.calls]
    return StepTensors(cache, slots, calls)


def _call_to_device(
    call: AttentionCall, cache: KVCache, num_query_heads: int, dtype: torch.dtype, device: torch.device
) -> CallTensors:
    batch, width = call.tokens.shape
    head_pages = {}
    masks = {}
    if call.masks:
        head_pages = {
            heads: torch.from_numpy(cache.head_pages(call.pages, heads)).to(device)
            for heads in cache.head_counts
        }
    for window, mask in call.masks.items():
        additive = torch.from_numpy(mask[:, None]).to(device, dtype)
        for heads in cache.head_counts:
            folds = num_query_heads // heads
            masks[window, heads] = additive if width == 1 else additive.repeat(1, 1, folds, 1)
    return CallTensors(
        batch=batch,
        width=width,
        first=int(call.tokens[0, 0]),
        tokens=None if call.in_order else torch.from_numpy(call.tokens.ravel()).to(device),
        head_pages=head_pages,
        masks=masks,
        visible=call.visible,
        causal=call.causal,
    )


Kernel = Callable[..., Tensor]
_current: ContextVar[StepTensors | None] = ContextVar("current step", default=None)


@contextmanager
def current(step: StepTensors) -> Iterator[None]:
    """Makes a step known to models whose layers drop keyword arguments on the way to attention (StableLM)."""
    token = _current.set(step)
    try:
        yield
    finally:
        _current.reset(token)


def tree_attention(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    ngram_step: StepTensors | None = None,
    sliding_window: int | None = None,
    softcap: float | None = None,
    s_aux: Tensor | None = None,
    **_: Any,
) -> tuple[Tensor, None]:
    """query [1, Hq, T, D], key and value [1, Hkv, T, D] after RoPE -> [1, T, Hq, Dv].

    Writes the K/V of the packed tokens, then attends call by call. softcap: of the scores (Gemma 2). s_aux
    [Hq]: attention sinks (gpt-oss).
    """
    step = ngram_step if ngram_step is not None else _current.get()
    assert step is not None, "the model runs outside of ModelRunner.forward"
    layer = int(module.layer_idx)  # type: ignore[arg-type]
    step.cache.write(layer, step.slots[key.shape[1]], key, value)
    query_TND = query[0].transpose(0, 1)
    is_plain = softcap is None and s_aux is None
    kernel = F.scaled_dot_product_attention
    if not is_plain:
        kernel = partial(explicit_attention, softcap=softcap, sinks=s_aux)
    attend = partial(
        _attend, cache=step.cache, layer=layer, window=sliding_window, scaling=scaling, kernel=kernel
    )
    only = step.calls[0]
    if len(step.calls) == 1 and only.tokens is None and not only.causal:
        return attend(query_TND, only)[None].contiguous(), None  # some models view it as rows
    out = query.new_empty(query.shape[2], query.shape[1], value.shape[-1])
    for call in step.calls:
        place = slice(call.first, call.first + call.batch * call.width)
        if call.causal:
            own_query, own_key, own_value = (x[:, :, place] for x in (query, key, value))
            out[place] = _attend_causal(own_query, own_key, own_value, scaling, kernel)
        elif call.tokens is None:
            out[place] = attend(query_TND[place], call)
        else:
            out.index_copy_(0, call.tokens, attend(query_TND.index_select(0, call.tokens), call))
    return out[None], None


def _attend_causal(
    query: Tensor, key: Tensor, value: Tensor, scaling: float | None, kernel: Kernel
) -> Tensor:
    """query [1, Hq, Q, D], key and value [1, Hkv, Q, D] of one fresh prompt -> [Q, Hq, Dv]."""
    if kernel is F.scaled_dot_product_attention:
        return kernel(query, key, value, is_causal=True, scale=scaling, enable_gqa=True)[0].transpose(0, 1)
    width = query.shape[2]
    mask = torch.full((1, 1, width, width), float("-inf"), dtype=query.dtype, device=query.device).triu_(1)
    mask = mask.repeat(1, 1, query.shape[1] // key.shape[1], 1)
    return _attend_folded(query[0].transpose(0, 1), 1, key, value, mask, scaling, kernel)


def _attend(
    query: Tensor,
    call: CallTensors,
    *,
    cache: KVCache,
    layer: int,
    window: int | None,
    scaling: float | None,
    kernel: Kernel,
) -> Tensor:
    """query [B * Q, Hq, D] -> [B * Q, Hq, Dv]; K and V come from the pages of the call's sequences."""
    num_kv_heads = cache.num_heads[layer]
    if call.visible:
        keys, values = (x[layer].narrow(2, *call.visible) for x in (cache.keys, cache.values))
        return _attend_folded(query, call.batch, keys, values, None, scaling, kernel)
    gathered = cache.gather(layer, call.head_pages[num_kv_heads])
    keys, values = (x.view(call.batch, num_kv_heads, -1, x.shape[1] // cache.page_size) for x in gathered)
    mask = call.masks[window, num_kv_heads]
    return _attend_folded(query, call.batch, keys, values, mask, scaling, kernel)


def _attend_folded(
    query: Tensor,
    batch: int,
    keys: Tensor,
    values: Tensor,
    mask: Tensor | None,
    scaling: float | None,
    kernel: Kernel,
) -> Tensor:
    """query [B * Q, Hq, D] -> [B * Q, Hq, Dv].

    The G query heads of one KV head are folded into the query dimension, so that K/V is never repeated.
    """
    width = query.shape[0] // batch
    heads = query.shape[1]
    num_kv_heads = keys.shape[1]
    folds = heads // num_kv_heads
    if mask is not None:
        mask = mask.expand(-1, -1, folds * width, -1)
    if width == 1:
        folded = query.view(batch, num_kv_heads, folds, -1)
        return kernel(folded, keys, values, attn_mask=mask, scale=scaling).reshape(batch, heads, -1)
    by_head = query.view(batch, width, num_kv_heads, folds, -1).permute(0, 2, 3, 1, 4)
    folded = by_head.reshape(batch, num_kv_heads, folds * width, -1)
    attended = kernel(folded, keys, values, attn_mask=mask, scale=scaling)
    unfolded = attended.view(batch, num_kv_heads, folds, width, -1).permute(0, 3, 1, 2, 4)
    return unfolded.reshape(batch * width, heads, -1)


AttentionInterface.register(NAME, tree_attention)
