"""Which candidates are chosen: by price over all sequences, over stairs, in ties, and by a plain threshold."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from drafting.adaptive.budget import choose, choose_likely
from drafting.tree import Candidates

FREE = np.zeros(100)


def candidates(*trees: list[tuple[int, float]]) -> Candidates:
    """One tree per argument; a node is (parent, survival), and node i of a tree holds token 10 + i."""
    nodes = [node for tree in trees for node in tree]
    parents = np.array([parent for parent, _ in nodes], np.int32)
    tokens = np.array([10 + i for tree in trees for i in range(1, len(tree) + 1)], np.int32)
    offsets = np.cumsum([0, *map(len, trees)])
    survival = np.array([survival for _, survival in nodes], np.float32)
    none = np.zeros(len(nodes), np.uint8)
    return Candidates(tokens, parents, np.ones(len(nodes), np.int32), none, none, offsets, survival)


def test_the_best_nodes_of_all_sequences_are_chosen_while_they_are_worth_a_row() -> None:
    # A row costs 0.2 tokens. Node 12 of the first tree (0.1) is not worth it, so 13 becomes its second node; 12 stays in the second.
    found = candidates([(0, 0.9), (1, 0.1), (1, 0.3)], [(0, 0.4), (1, 0.25)])
    trees = choose(found, 0.1 * np.arange(6), price=2)[0]
    assert trees.token_ids.tolist() == [11, 13, 11, 12]
    assert trees.parents.tolist() == [0, 1, 0, 1]
    assert trees.offsets.tolist() == [0, 2, 4]


def test_nothing_is_chosen_when_the_fixed_charge_of_any_tree_is_more_than_all_guesses_give() -> None:
    trees = choose(candidates([(0, 0.5), (1, 0.4)]), np.array([0, 1.0, 1.0]), price=1)[0]
    assert len(trees.token_ids) == 0 and trees.offsets.tolist() == [0, 0]


def test_a_stair_is_climbed_only_for_what_lies_beyond_it() -> None:
    stairs = np.array([0, 0.1, 0.1, 0.9, 0.9, 0.9])
    # Three nodes would cost 0.8 more than two for 0.5 more; five give 1.3 more.
    assert len(choose(candidates([(0, 0.6)], [(0, 0.6)], [(0, 0.5)]), stairs, price=1)[0].token_ids) == 2
    assert (
        len(
            choose(candidates([(0, 0.6)], [(0, 0.6)], [(0, 0.5)], [(0, 0.5)], [(0, 0.3)]), stairs, price=1)[
                0
            ].token_ids
        )
        == 5
    )


def test_of_equal_survivals_parents_come_first() -> None:
    found = candidates([(0, 0.5), (1, 0.5), (2, 0.5)], [(0, 0.5)])
    assert choose(found, np.array([0.0, 0, 0]), price=1)[0].parents.tolist() == [0, 1]


def test_no_more_nodes_than_the_cost_curve_knows() -> None:
    assert choose(candidates([(0, 1.0), (1, 1.0)]), np.zeros(1), price=0)[0].offsets.tolist() == [0, 0]


def test_certain_guesses_are_all_taken_where_rows_are_free() -> None:
    found = candidates([(0, 1.0), (0, 1.0)], [], [(0, 1.0)])
    assert choose(found, FREE, price=0)[0].offsets.tolist() == [0, 2, 2, 3]


def test_a_row_price_keeps_what_survives_at_least_so_often() -> None:
    trees = choose_likely(candidates([(0, 0.5), (0, 0.25), (1, 0.125)]), 0.25)
    assert trees.token_ids.tolist() == [11, 12]


@given(
    st.lists(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), max_size=6), min_size=1, max_size=4),
    st.floats(0, 1),
)
def test_no_node_is_chosen_without_its_parent(
    trees: list[list[tuple[float, float]]], row_cost: float
) -> None:
    grown = []
    for tree in trees:
        nodes: list[tuple[int, float]] = []
        for where, share in tree:
            parent = int(where * len(nodes))
            nodes.append((parent, share * (nodes[parent - 1][1] if parent else 1)))
        grown.append(nodes)
    chosen = choose(candidates(*grown), row_cost * np.arange(25), price=1)[0]
    for first, last in zip(chosen.offsets[:-1], chosen.offsets[1:], strict=True):
        assert all(parent <= number for number, parent in enumerate(chosen.parents[first:last]))
