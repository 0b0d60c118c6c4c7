"""A proposer for the engine's random test: trees of random shape, partly along the text that must come.

They reach what real drafts seldom do: deep accepted paths, equal siblings, branches next to the right one.
"""

import random
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from drafting.likely import UInt32
from drafting.tree import CandidateTrees, DraftTrees, certain

Node = tuple[int, int, int]  # token, parent, source


class KnownTexts:
    """Knows the texts of all requests, prompts included; what is known of a sequence is the list of its
    tokens.
    """

    source_names: tuple[str, ...] = ("one", "two")

    def __init__(
        self, texts: Sequence[Sequence[int]], vocab_size: int, max_depth: int, max_nodes: int, seed: int
    ) -> None:
        self.max_depth = max_depth
        self.max_nodes = max_nodes
        self._texts = [list(text) for text in texts]
        self._vocab_size = vocab_size
        self._rng = random.Random(seed)

    def start(self, token_ids: NDArray[np.int32], *args: Any, **kwargs: Any) -> list[int]:
        """The tokens that a sequence begins with."""
        return token_ids.tolist()

    def extend(
        self,
        states: Sequence[list[int]],
        token_ids: NDArray[np.int32],
        offsets: NDArray[np.int64],
        likely: UInt32 | None = None,
    ) -> None:
        """Takes in newly committed tokens."""
        for state, (first, end) in zip(states, pairwise(offsets.tolist()), strict=True):
            state += token_ids[first:end].tolist()

    def propose(
        self, states: Sequence[list[int]], max_depths: NDArray[np.int32], min_survival: float = 0.0
    ) -> CandidateTrees:
        """A random tree for each sequence, no deeper than max_depths says."""
        depths = np.minimum(max_depths, self.max_depth).tolist()
        return certain(_packed([self._tree(*known) for known in zip(states, depths, strict=True)]))

    def learn(
        self,
        states: Sequence[list[int]],
        candidates: CandidateTrees,
        token_ids: NDArray[np.int32],
        offsets: NDArray[np.int64],
        likely: UInt32 | None = None,
    ) -> None:
        """Takes in the tokens that a step gave."""
        self.extend(states, token_ids, offsets)

    def wants_likely(self) -> int:
        """Nothing depends on what the model says."""
        return 0

    def wants_successors(self) -> int:
        """There is no table."""
        return 0

    def reward(self, sources: NDArray[np.uint8]) -> None:
        """Nothing depends on what was accepted."""

    def recycle(self, token_ids: NDArray[np.int32], likely: UInt32) -> None:
        """There is no table."""

    def finish(self, state: Any) -> None:
        """Nothing is shared."""

    def drop(self, state: Any) -> None:
        """Nothing is shared."""

    def _tree(self, state: list[int], max_depth: int) -> list[Node]:
        """A parent is any node before its child; two children of one parent may hold the same token."""
        text = next((text for text in self._texts if text[: len(state)] == state), state)
        following = text[len(state) :]
        rng = self._rng
        accuracy = rng.choice((0.5, 0.8, 1.0))
        newest_first = rng.random() < 0.7
        nodes: list[Node] = []
        depths = [0]
        for _ in range(rng.randint(0, self.max_nodes)):
            parent = len(nodes) if newest_first else rng.randrange(len(depths))
            depth = depths[parent]
            if depth < max_depth:
                is_right = depth < len(following) and rng.random() < accuracy
                token = following[depth] if is_right else rng.randrange(self._vocab_size)
                nodes.append((token, parent, rng.randrange(2)))
                depths.append(depth + 1)
        return nodes


def _packed(trees: list[list[Node]]) -> DraftTrees:
    depths: list[int] = []
    for nodes in trees:
        own = [0]
        for _, parent, _ in nodes:
            own.append(own[parent] + 1)
        depths += own[1:]
    flat = np.array([node for nodes in trees for node in nodes], np.int32).reshape(-1, 3)
    return DraftTrees(
        flat[:, 0].copy(),
        flat[:, 1].copy(),
        np.array(depths, np.int32),
        flat[:, 2].astype(np.uint8),
        np.zeros(len(flat), np.uint8),
        np.cumsum([0, *map(len, trees)]).astype(np.int64),
    )
