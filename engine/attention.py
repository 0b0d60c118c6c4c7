"""Attention of the packed rows over the paged cache, as a function that unmodified transformers models call
("ngram_tree").

Owns the K/V pages and the SDPA path (CPU and CUDA). Knows nothing of sequences: it executes a StepPlan's
groups. Interface and pitfalls of transformers' AttentionInterface: docs/architecture.md, "The model".

Letters: T rows, Hq query and Hkv key heads (N either), G = Hq / Hkv, D head size, B, Q, P, S, L as in
engine/step_plan.py.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor
from transformers import AttentionInterface

from drafting.compiled import compiled
from engine.model.explicit_attention import explicit_attention
from engine.step_plan import Group, StepPlan

NAME = "ngram_tree"  # must not contain "sdpa", "flash" or "paged|": transformers dispatches on those


class KVCache:
    """K and V of committed tokens in pages, and of a step's draft nodes in the staging pages behind them.

    keys, values: per layer [1, Hkv, num_pages * S, D]. A head's pages lie behind each other, so (head, page)
    blocks are gathered as [B, Hkv, L, D] in one copy, and a sequence whose pages follow each other is read in
    place. Zeroed at first: a masked slot must never hold a NaN.
    """

    def __init__(
        self,
        layer_shapes: list[tuple[int, int, int]],
        num_pages: int,
        page_size: int,
        dtype: torch.dtype,
        device: torch.device,
    ) -> None:
        self.page_size = page_size
        self.num_pages = num_pages
        self.num_heads = [heads for heads, _, _ in layer_shapes]
        self.head_counts = tuple(sorted({*self.num_heads}))
        self._num_slots = num_pages * page_size
        # Sides of like shape lie in one tensor [sides, Hkv, slots, D], so that accepted nodes move in all
        # layers at once.
        shapes = [
            (heads, size) for heads, key_size, value_size in layer_shapes for size in (key_size, value_size)
        ]
        self._stacks = {
            (heads, size): torch.zeros(count, heads, self._num_slots, size, dtype=dtype, device=device)
            for (heads, size), count in Counter(shapes).items()
        }
        unused = {shape: iter(torch.split(stack, 1)) for shape, stack in self._stacks.items()}
        sides = [next(unused[shape]) for shape in shapes]
        self.keys = tuple(sides[::2])
        self.values = tuple(sides[1::2])
        # The same memory by (head, slot), to write, and by (head, page), to gather.
        self.key_rows, self.value_rows = (
            tuple(x.view(-1, x.shape[3]) for x in side) for side in (self.keys, self.values)
        )
        self.key_blocks, self.value_blocks = (
            tuple(x.view(-1, page_size * x.shape[3]) for x in side) for side in (self.keys, self.values)
        )
        # Room for gathered K and V, used by one group after the other: memory that is new each time costs
        # more than the copy, where engine/model/allocator.py does not keep it (blocks beyond 32 MB, other C
        # libraries).
        self._gathered = [torch.empty(0, dtype=dtype, device=device) for _ in range(2)]

    @staticmethod
    def bytes_per_token(layer_shapes: list[tuple[int, int, int]], dtype: torch.dtype) -> int:
        """Memory of one token's K and V in all layers."""
        return (
            sum(heads * (key_size + value_size) for heads, key_size, value_size in layer_shapes)
            * dtype.itemsize
        )

    def copy_slots(self, source: NDArray[np.int64], target: NDArray[np.int64]) -> None:
        """Copies the K/V of slots source [N] to slots target [N] in every layer: the accepted nodes' way into
        their pages.
        """
        for (heads, size), stack in self._stacks.items():
            source_rows, target_rows = (
                torch.from_numpy(self.head_slots(slots, len(stack) * heads)).to(stack.device)
                for slots in (source, target)
            )
            rows = stack.view(-1, size)
            rows.index_copy_(0, target_rows, rows.index_select(0, source_rows))

    def gather(self, layer: int, blocks: Tensor) -> tuple[Tensor, Tensor]:
        """K and V of (head, page) blocks [N], as [N, S * D]; the next call overwrites them."""
        found = []
        for side, source in enumerate((self.key_blocks[layer], self.value_blocks[layer])):
            size = len(blocks) * source.shape[1]
            if self._gathered[side].numel() < size:
                self._gathered[side] = source.new_empty(size)
            found.append(
                torch.index_select(source, 0, blocks, out=self._gathered[side][:size].view(len(blocks), -1))
            )
        return found[0], found[1]

    def head_slots(self, slots: NDArray[np.int64], num_heads: int) -> NDArray[np.int64]:
        """(head, slot) rows of each slot: [N] -> [N * Hkv]."""
        return _by_head(slots, num_heads, self._num_slots)

    def head_pages(self, pages: NDArray[np.int64], num_heads: int) -> NDArray[np.int64]:
        """(head, page) blocks in gathering order: pages [B, P] -> [B * Hkv * P]."""
        return _blocks_by_head(pages, num_heads, self.num_pages)


@compiled  # numpy takes five calls for each of these
def _by_head(slots: NDArray[np.int64], num_heads: int, stride: int) -> NDArray[np.int64]:
    found = np.empty(len(slots) * num_heads, np.int64)
    for i in range(len(slots)):
        for head in range(num_heads):
            found[i * num_heads + head] = slots[i] + head * stride
    return found


@compiled
def _blocks_by_head(pages: NDArray[np.int64], num_heads: int, stride: int) -> NDArray[np.int64]:
    batch, count = pages.shape
    found = np.empty(batch * num_heads * count, np.int64)
    for b in range(batch):
        for head in range(num_heads):
            for p in range(count):
                found[(b * num_heads + head) * count + p] = pages[b, p] + head * stride
    return found


class GroupTensors(NamedTuple):
    """A Group on the device.

    rows [B * Q], or None when they are [first, first + B * Q) in order; blocks by Hkv; masks additive, by
    (window, Hkv): [B, 1, G * Q, L], or [B, 1, 1, L] when Q is 1. visible: slots read in place, as (first,
    count).
    """

    batch: int
    width: int
    first: int
    rows: Tensor | None
    blocks: dict[int, Tensor]
    masks: dict[tuple[int | None, int], Tensor]
    visible: tuple[int, int] | None
    causal: bool


class StepTensors(NamedTuple):
    """What the attention function needs of a step, made once and used by every layer.

    slots: by Hkv, [T * Hkv].
    """

    cache: KVCache
    slots: dict[int, Tensor]
    groups: list[GroupTensors]


def to_device(
    plan: StepPlan, cache: KVCache, num_query_heads: int, dtype: torch.dtype, device: torch.device
) -> StepTensors:
    """Moves a plan to the device, with indices per head count and masks in the model's dtype."""
    slots = {
        heads: torch.from_numpy(cache.head_slots(plan.write_slots, heads)).to(device)
        for heads in cache.head_counts
    }
    return StepTensors(
        cache,
        slots,
        [_group_to_device(group, cache, num_query_heads, dtype, device) for group in plan.groups],
    )


def _group_to_device(
    group: Group, cache: KVCache, num_query_heads: int, dtype: torch.dtype, device: torch.device
) -> GroupTensors:
    batch, width = group.rows.shape
    rows = None if group.in_order else torch.from_numpy(group.rows.ravel()).to(device)
    blocks = {}
    masks = {}
    if group.masks:
        blocks = {
            heads: torch.from_numpy(cache.head_pages(group.pages, heads)).to(device)
            for heads in cache.head_counts
        }
    for window, mask in group.masks.items():
        additive = torch.from_numpy(mask[:, None]).to(device, dtype)
        for heads in cache.head_counts:
            masks[window, heads] = (
                additive if width == 1 else additive.repeat(1, 1, num_query_heads // heads, 1)
            )
    return GroupTensors(batch, width, int(group.rows[0, 0]), rows, blocks, masks, group.visible, group.causal)


Kernel = Callable[..., Tensor]
_current: ContextVar[StepTensors | None] = ContextVar("current step", default=None)


@contextmanager
def current(step: StepTensors) -> Iterator[None]:
    """The step while it lasts, for models whose layers drop keyword arguments on the way to attention
    (StableLM).
    """
    token = _current.set(step)
    try:
        yield
    finally:
        _current.reset(token)


def tree_attention(
    module: torch.nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None,
    scaling: float | None = None, dropout: float = 0.0, ngram_step: StepTensors | None = None,
    sliding_window: int | None = None,
    softcap: float | None = None, s_aux: Tensor | None = None, **_: Any,
) -> tuple[Tensor, None]:  # fmt: skip
    """query [1, Hq, T, D], key and value [1, Hkv, T, D] after RoPE -> [1, T, Hq, Dv]; writes the rows' K/V,
    then attends group by group.

    softcap: of the scores (Gemma 2). s_aux [Hq]: attention sinks (gpt-oss).
    """
    step = ngram_step if ngram_step is not None else _current.get()
    assert step is not None, "the model runs outside of ModelRunner.forward"
    cache = step.cache
    layer = int(module.layer_idx)  # type: ignore[arg-type]
    slots = step.slots[key.shape[1]]
    cache.key_rows[layer].index_copy_(0, slots, key.transpose(1, 2).reshape(-1, key.shape[3]))
    cache.value_rows[layer].index_copy_(0, slots, value.transpose(1, 2).reshape(-1, value.shape[3]))
    query_TND = query[0].transpose(0, 1)
    plain = softcap is None and s_aux is None
    kernel = (
        F.scaled_dot_product_attention if plain else partial(explicit_attention, softcap=softcap, sinks=s_aux)
    )
    attend = partial(_attend, cache=cache, layer=layer, window=sliding_window, scaling=scaling, kernel=kernel)
    only = step.groups[0]
    if len(step.groups) == 1 and only.rows is None and not only.causal:
        return attend(query_TND, only)[None].contiguous(), None  # some models view it as rows
    out = query.new_empty(query.shape[2], query.shape[1], value.shape[-1])
    for group in step.groups:
        place = slice(group.first, group.first + group.batch * group.width)
        if group.causal:
            own_Q, own_K, own_V = (x[:, :, place] for x in (query, key, value))
            out[place] = _attend_causal(own_Q, own_K, own_V, scaling, kernel)
        elif group.rows is None:
            out[place] = attend(query_TND[place], group)
        else:
            out.index_copy_(0, group.rows, attend(query_TND.index_select(0, group.rows), group))
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
    group: GroupTensors,
    *,
    cache: KVCache,
    layer: int,
    window: int | None,
    scaling: float | None,
    kernel: Kernel,
) -> Tensor:
    """query [B * Q, Hq, D] -> [B * Q, Hq, Dv]; keys and values come from the pages of the group's "
    "sequences."""
    num_kv_heads = cache.num_heads[layer]
    if group.visible:
        keys, values = (x[layer].narrow(2, *group.visible) for x in (cache.keys, cache.values))
        return _attend_folded(query, group.batch, keys, values, None, scaling, kernel)
    blocks = group.blocks[num_kv_heads]
    mask = group.masks[window, num_kv_heads]
    keys, values = (
        x.view(group.batch, num_kv_heads, -1, x.shape[1] // cache.page_size)
        for x in cache.gather(layer, blocks)
    )
    return _attend_folded(query, group.batch, keys, values, mask, scaling, kernel)


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

    The G query heads of one KV head are folded into its rows: K/V is never repeated.
    """
    width = query.shape[0] // batch
    heads = query.shape[1]
    num_kv_heads = keys.shape[1]
    folds = heads // num_kv_heads
    if mask is not None:
        mask = mask.expand(-1, -1, folds * width, -1)
    if width == 1:
        attended = kernel(
            query.view(batch, num_kv_heads, folds, -1), keys, values, attn_mask=mask, scale=scaling
        )
        return attended.reshape(batch, heads, -1)
    folded = (
        query.view(batch, width, num_kv_heads, folds, -1)
        .permute(0, 2, 3, 1, 4)
        .reshape(batch, num_kv_heads, folds * width, -1)
    )
    attended = kernel(folded, keys, values, attn_mask=mask, scale=scaling)
    unfolded = attended.view(batch, num_kv_heads, folds, width, -1).permute(0, 3, 1, 2, 4)
    return unfolded.reshape(batch * width, heads, -1)


AttentionInterface.register(NAME, tree_attention)
