"""What became of candidates, counted by hand on one small step."""

import numpy as np

from drafting.outcomes import DEPTHS, MATCHES, CandidateCounts
from drafting.tree import DraftTrees, prune

# One sequence's nodes as (parent, depth, source, match): a chain of three found in the context, and two
# siblings from a table.
NODES = [(0, 1, 0, 2), (1, 2, 0, 3), (2, 3, 0, 4), (0, 1, 1, 0), (0, 1, 1, 0)]


def tree(nodes: list[tuple[int, int, int, int]]) -> DraftTrees:
    parents, depths = np.array([node[:2] for node in nodes], np.int32).T
    sources, matches = np.array([node[2:] for node in nodes], np.uint8).T
    return DraftTrees(
        np.arange(len(nodes), dtype=np.int32), parents, depths, sources, matches, np.array([0, len(nodes)])
    )


def test_a_node_counts_in_each_stage_that_it_reached() -> None:
    counts = CandidateCounts(("context", "bigram"))
    candidates = tree(NODES)
    verified = prune(candidates, np.array([True, True, True, False, True]))
    counts.add(candidates, verified, np.array([0, 1]))
    counts.add(candidates, DraftTrees.empty(1), np.zeros(0, np.int64))
    assert list(counts.entries()) == [
        ("context", "1", "2", [2, 1, 1]),
        ("context", "2", "3-4", [2, 1, 1]),
        ("context", "3", "3-4", [2, 1, 0]),
        ("bigram", "1", "none", [4, 1, 0]),
    ]
    assert [counts.by_source(stage) for stage in ("proposed", "verified", "accepted")] == [
        {"context": 6, "bigram": 4},
        {"context": 3, "bigram": 1},
        {"context": 2},
    ]


def test_the_names_of_depths_and_matches_hold_the_numbers_that_they_say() -> None:
    counts = CandidateCounts(("context",))
    numbers = [1, 2, 3, 4, 5, 8, 9, 16, 17, 200]
    candidates = tree([(0, number, 0, number) for number in numbers])
    counts.add(candidates, candidates, np.zeros(0, np.int64))
    found = {(depth, match): proposed for _, depth, match, (proposed, _, _) in counts.entries()}
    assert found == {
        ("1", "1"): 1, ("2", "2"): 1, ("3", "3-4"): 1, ("4", "3-4"): 1, ("5-8", "5-8"): 2, ("9+", "9-16"): 2,
        ("9+", "17+"): 2,
    }  # fmt: skip
    assert (len(DEPTHS), len(MATCHES)) == counts.table.shape[2:]
