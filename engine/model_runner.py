"""The only caller of the model: turns a StepPlan into logits, and keeps the accepted nodes' K/V.

Knows pages and packed tokens; does not know requests, sampling or where drafts come from.
"""

from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from drafting.tree import DraftTrees
from engine import attention
from engine.cache_size import StepLimits
from engine.kv_cache import KVCache
from engine.model.loading import LoadedModel
from engine.request import Request
from engine.scheduler import Chunk
from engine.sequence import Sequence
from engine.step_plan import Planner, StepPlan
from engine.verify import Verified


class ModelRunner:
    """A model and its cache: num_pages committed pages, and staging pages for the nodes that limits allow."""

    def __init__(self, loaded: LoadedModel, num_pages: int, page_size: int, limits: StepLimits) -> None:
        self.loaded = loaded
        self.page_size = page_size
        self.num_pages = num_pages
        staging_pages = limits.staging_pages(page_size)
        self.cache = KVCache(
            loaded.layer_shapes, num_pages + staging_pages, page_size, loaded.dtype, loaded.device
        )
        self._planner = Planner(page_size, num_pages)

    def plan(self, chunks: list[Chunk], trees: DraftTrees) -> StepPlan:
        """The packed tokens of a step.

        trees: one for each chunk that is the last of its sequence, in their order.
        """
        if len(trees.offsets) <= len(chunks):
            places = np.cumsum([0, *(chunk.last for chunk in chunks)])  # the other chunks get empty trees
            trees = replace(trees, offsets=trees.offsets[places])
        return self._planner.plan(chunks, trees, self.loaded.windows)

    def inputs(self, plan: StepPlan) -> dict[str, Any]:
        """A plan on the device, as the keyword arguments of the model's forward."""
        loaded = self.loaded
        inputs = {
            "input_ids": torch.from_numpy(plan.packed.token_ids[None]).to(loaded.device),
            "position_ids": torch.from_numpy(plan.packed.positions[None]).to(loaded.device),
            "ngram_step": attention.to_device(
                plan, self.cache, loaded.num_query_heads, loaded.dtype, loaded.device
            ),
        }
        # Where all logits are needed, the model gives them without gathering them first.
        if len(plan.packed.logits_indices) < len(plan.packed.token_ids):
            inputs["logits_to_keep"] = torch.from_numpy(plan.packed.logits_indices).to(loaded.device)
        return inputs

    @torch.inference_mode()
    def forward(self, inputs: dict[str, Any]) -> Tensor:
        """One forward pass over a plan; returns the logits [R, V] of its logits_indices, in the model's
        dtype.
        """
        with attention.current(inputs["ngram_step"]):
            logits: Tensor = self.loaded.model(**inputs, use_cache=False).logits[0]
        return logits

    def clear_pages(self, page_ids: list[int]) -> None:
        """Clears the pages that a sequence is about to fill; see KVCache."""
        if page_ids:
            self.cache.clear(np.array(page_ids, np.int64))

    def clear_staging(self) -> None:
        """Clears all staging pages, where the K/V of a node may be infinite or NaN; see KVCache."""
        self.cache.clear(np.arange(self.num_pages, self.cache.num_pages))

    def overflowed(self, chunks: list[Chunk]) -> list[Sequence]:
        """The sequences of which a chunk that just ran holds K/V that is not finite.

        Chunks of one token are left out: their logits show it. In a longer chunk it spoils the tokens
        before it as well, because NaN comes through a mask, and other sequences may have the same beginning.
        """
        several = [chunk for chunk in chunks if chunk.num_tokens > 1]
        if not several:
            return []
        slots = [self._slots(c.sequence, c.sequence.num_cached, c.num_tokens) for c in several]
        finite = self.cache.are_finite(np.concatenate(slots))
        ends = np.cumsum([*map(len, slots)])[:-1]
        return [c.sequence for c, own in zip(several, np.split(finite, ends), strict=True) if not own.all()]

    def _slots(self, sequence: Sequence, first: int, count: int) -> list[int]:
        """The slots of tokens first .. first + count - 1 of a sequence."""
        places = (divmod(position, self.page_size) for position in range(first, first + count))
        return [sequence.page_ids[page] * self.page_size + offset for page, offset in places]

    def keep_accepted(self, plan: StepPlan, sequences: list[Sequence], verified: Verified) -> None:
        """Moves the K/V of accepted nodes to the slots after the last token of their sequence."""
        if not len(verified.nodes):
            return
        slots: list[int] = []
        for sequence, (first, end) in zip(sequences, pairwise(verified.offsets.tolist()), strict=True):
            slots += self._slots(sequence, sequence.num_tokens, end - first)
        self.keep(plan.packed.staged_slots[verified.nodes], np.array(slots, np.int64))

    @torch.inference_mode()
    def keep(self, staged_slots: NDArray[np.int64], committed_slots: NDArray[np.int64]) -> None:
        """Copies accepted nodes' K/V from their staging slots [N] to their final slots [N]."""
        if len(staged_slots):
            self.cache.copy_slots(staged_slots, committed_slots)

    def score_tree(self, token_ids: list[int], tree: DraftTrees) -> Tensor:
        """Logits [1 + nodes, V] of the last token and of a tree's nodes, for the parity check."""
        sequence = Sequence(
            Request("parity", tuple(token_ids), max_tokens=tree.num_nodes(0) + 1), frozenset(), 2**30
        )
        sequence.page_ids = list(range(-(-len(token_ids) // self.page_size)))
        first = len(token_ids) - 3
        self.forward(self.inputs(self.plan([Chunk(sequence, first, last=False)], DraftTrees.empty(0))))
        sequence.num_cached = first
        return self.forward(self.inputs(self.plan([Chunk(sequence, 3, last=True)], tree)))
