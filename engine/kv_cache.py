"""The K/V cache on the device: committed tokens in pages, and a step's draft nodes in staging pages after
them.

Knows slots and pages, not sequences: who owns which page is engine/page_pool.py's.

Letters: Hkv key heads, D head size, S slots per page, N slots or (head, page) pairs.
"""

from collections import Counter

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from drafting.compiled import compiled

Ints = NDArray[np.int64]


class KVCache:
    """keys, values: per layer [1, Hkv, num_pages * S, D].

    The pages of a head follow each other. So (head, page) pairs are gathered as [B, Hkv, L, D] in one copy,
    and a sequence whose pages follow each other is read in place.

    A masked slot must never hold another sequence's numbers: if they are NaN or infinite, they come through
    the mask. So a page is cleared before a sequence begins to fill it.
    """

    def __init__(
        self,
        layer_shapes: list[tuple[int, int, int]],
        num_pages: int,
        page_size: int,
        dtype: torch.dtype,
        device: torch.device,
    ) -> None:
        """layer_shapes: of each layer (Hkv, size of a key, size of a value)."""
        self.page_size = page_size
        self.num_pages = num_pages
        self.num_heads = [heads for heads, _, _ in layer_shapes]
        self.head_counts = tuple(sorted({*self.num_heads}))
        self._num_slots = num_pages * page_size
        # Keys and values of like shape lie in one tensor [sides, Hkv, slots, D], so that accepted nodes move
        # in all layers at once.
        shapes = [(heads, size) for heads, *sizes in layer_shapes for size in sizes]
        self._stacks = {
            (heads, size): torch.zeros(count, heads, self._num_slots, size, dtype=dtype, device=device)
            for (heads, size), count in Counter(shapes).items()
        }
        unused = {shape: iter(torch.split(stack, 1)) for shape, stack in self._stacks.items()}
        sides = [next(unused[shape]) for shape in shapes]
        self.keys = tuple(sides[::2])
        self.values = tuple(sides[1::2])
        # The same memory by (head, slot), to write, and by (head, page), to gather.
        self._key_slots = [side.view(-1, side.shape[3]) for side in self.keys]
        self._value_slots = [side.view(-1, side.shape[3]) for side in self.values]
        self._key_pages = [side.view(-1, page_size * side.shape[3]) for side in self.keys]
        self._value_pages = [side.view(-1, page_size * side.shape[3]) for side in self.values]
        # Buffers for gathered K and V, which every attention call reuses. Fresh memory costs more than the
        # copy where engine/model/allocator.py does not keep it: beyond 32 MB, or without glibc.
        self._gathered = [torch.empty(0, dtype=dtype, device=device) for _ in range(2)]

    @staticmethod
    def bytes_per_token(layer_shapes: list[tuple[int, int, int]], dtype: torch.dtype) -> int:
        """Memory of one token's K and V in all layers."""
        numbers = sum(heads * (key_size + value_size) for heads, key_size, value_size in layer_shapes)
        return numbers * dtype.itemsize

    def write(self, layer: int, slots: Tensor, key: Tensor, value: Tensor) -> None:
        """Writes key and value [1, Hkv, T, D] to the (head, slot) pairs [T * Hkv]."""
        self._key_slots[layer].index_copy_(0, slots, key.transpose(1, 2).reshape(-1, key.shape[3]))
        self._value_slots[layer].index_copy_(0, slots, value.transpose(1, 2).reshape(-1, value.shape[3]))

    def copy_slots(self, source: Ints, target: Ints) -> None:
        """Copies K/V from slots source [N] to slots target [N] in every layer, as accepted nodes need it."""
        for (heads, size), stack in self._stacks.items():
            num_heads = len(stack) * heads
            from_slots = torch.from_numpy(self.head_slots(source, num_heads)).to(stack.device)
            to_slots = torch.from_numpy(self.head_slots(target, num_heads)).to(stack.device)
            slots = stack.view(-1, size)
            slots.index_copy_(0, to_slots, slots.index_select(0, from_slots))

    @torch.inference_mode()
    def clear(self, pages: Ints) -> None:
        """Fills pages [N] with zeros, in every layer."""
        indices = torch.from_numpy(pages).to(self.keys[0].device)
        for (heads, _), stack in self._stacks.items():
            stack.view(len(stack) * heads, self.num_pages, -1).index_fill_(1, indices, 0)

    @torch.inference_mode()
    def are_finite(self, slots: Ints) -> NDArray[np.bool_]:
        """Whether the last layer's keys in slots [N] are finite, bool [N].

        What is NaN or infinite in one layer makes the keys of all later layers NaN.
        """
        keys = self.keys[-1][0].index_select(1, torch.from_numpy(slots).to(self.keys[-1].device))
        found: NDArray[np.bool_] = keys.isfinite().all(-1).all(0).cpu().numpy()
        return found

    def gather(self, layer: int, head_pages: Tensor) -> tuple[Tensor, Tensor]:
        """K and V of (head, page) pairs [N], as [N, S * D]; the next call overwrites them."""
        return (
            self._gather(0, self._key_pages[layer], head_pages),
            self._gather(1, self._value_pages[layer], head_pages),
        )

    def _gather(self, side: int, source: Tensor, head_pages: Tensor) -> Tensor:
        size = len(head_pages) * source.shape[1]
        if self._gathered[side].numel() < size:
            self._gathered[side] = source.new_empty(size)
        room = self._gathered[side][:size].view(len(head_pages), -1)
        return torch.index_select(source, 0, head_pages, out=room)

    def head_slots(self, slots: Ints, num_heads: int) -> Ints:
        """The (head, slot) pairs of slots [N], as indices [N * Hkv]."""
        return _by_head(slots, num_heads, self._num_slots)

    def head_pages(self, pages: Ints, num_heads: int) -> Ints:
        """The (head, page) pairs of pages [B, P], as indices [B * Hkv * P] in gathering order."""
        return _pages_by_head(pages, num_heads, self.num_pages)


@compiled  # numpy takes five calls for it
def _by_head(slots: Ints, num_heads: int, stride: int) -> Ints:
    found = np.empty(len(slots) * num_heads, np.int64)
    for i in range(len(slots)):
        for head in range(num_heads):
            found[i * num_heads + head] = slots[i] + head * stride
    return found


@compiled
def _pages_by_head(pages: Ints, num_heads: int, stride: int) -> Ints:
    batch, count = pages.shape
    found = np.empty(batch * num_heads * count, np.int64)
    for b in range(batch):
        for head in range(num_heads):
            for p in range(count):
                found[(b * num_heads + head) * count + p] = pages[b, p] + head * stride
    return found
