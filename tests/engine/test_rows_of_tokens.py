"""Which row of logits gave each token of a step: after the root, after the nodes of the path, and no row for
what an output did not take.
"""

import numpy as np

from drafting.tree import DraftTrees
from engine.logprobs import rows_of_tokens
from engine.targets import NOT_FINITE
from engine.verify import verify
from tests.engine.harness import packed

# Sequence 0 has the paths 7 8 and 7 5, sequence 1 no node, sequence 2 the node 9. Rows of logits: 0 after the
# root of sequence 0, 1 2 3 after its nodes 7 8 5; 4 after the root of sequence 1; 5 and 6 for sequence 2.
TREES = packed([[(7, 0, 0), (8, 1, 0), (5, 1, 0)], [], [(9, 0, 0)]])


def rows(targets: list[int], *tokens: tuple[int, ...]) -> list[int]:
    return rows_of_tokens(TREES, verify(TREES, np.array(targets)), tokens).tolist()


def test_a_path_is_given_by_the_rows_along_it_and_the_bonus_by_the_row_after_it() -> None:
    # After the root of sequence 0 comes 7, after 7 comes 5, after 5 comes 4. Row 2, after 8, gave nothing.
    assert rows([7, 5, 1, 4, 3, 9, 6], (7, 5, 4), (3,), (9, 6)) == [0, 1, 3, 4, 5, 6]


def test_wrong_nodes_have_no_row() -> None:
    assert rows([2, 5, 1, 4, 3, 8, 6], (2,), (3,), (8,)) == [0, 4, 5]


def test_an_output_that_ends_inside_a_path_takes_its_first_rows() -> None:
    assert rows([7, 5, 1, 4, 3, 9, 6], (7, 5), (3,), (9,)) == [0, 1, 4, 5]
    assert rows([7, 5, 1, 4, 3, 9, 6], (7,), (3,), (9, 6)) == [0, 4, 5, 6]


def test_a_row_that_fails_takes_none_or_only_what_came_before() -> None:
    assert rows([NOT_FINITE, 5, 1, 4, 3, 9, NOT_FINITE], (), (3,), (9,)) == [4, 5]
    assert rows([7, NOT_FINITE, 1, 4, NOT_FINITE, 9, 6], (7,), (), (9, 6)) == [0, 5, 6]


def test_in_a_step_without_nodes_each_sequence_that_got_a_token_has_its_row() -> None:
    trees = DraftTrees.empty(4)
    verified = verify(trees, np.array([5, NOT_FINITE, 6, 7]))
    assert rows_of_tokens(trees, verified, [(5,), (), (6,), (7,)]).tolist() == [0, 2, 3]
    none = rows_of_tokens(trees, verified, [(), (), (), ()])
    assert np.ones((4, 8))[none].shape == (0, 8), "where all of them fail, no row is taken"
