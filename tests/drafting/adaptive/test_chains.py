"""The chains to where tokens occurred before stay whole where places are used again."""

import numpy as np

from drafting.adaptive.adaptive_proposer import AdaptiveProposer
from drafting.tables import Tables
from drafting.tree import Int32


def ids(*tokens: int) -> Int32:
    return np.array(tokens, np.int32)


def proposer(corpus_tokens: int = 1000) -> AdaptiveProposer:
    return AdaptiveProposer(max_nodes=8, corpus_tokens=corpus_tokens, tables=Tables())


def votes(drafter: AdaptiveProposer, *text: int) -> dict[int, int]:
    """How often each token is listed after a text."""
    state = drafter.start(ids(*text))
    drafter.propose([state], ids(1))
    root = drafter._scratch.nodes[0]
    places = drafter._scratch.pointers["place"][root["first"] : root["last"]]
    drafter.drop(state)
    tokens, counts = np.unique(drafter.arena.arrays.tokens[places], return_counts=True)
    return dict(zip(tokens.tolist(), counts.tolist(), strict=True))


def test_rows_that_were_given_up_hide_nothing_of_what_was_said_before() -> None:
    drafter = proposer()
    drafter.finish(drafter.start(ids(1, 2, 3)))
    for _ in range(3):  # each takes the places that the one before had
        drafter.drop(drafter.start(ids(1, 2, 4)))
    assert votes(drafter, 1, 2) == {3: 1}


def test_a_row_in_the_place_of_one_that_said_the_same_is_found_once() -> None:
    drafter = proposer()
    drafter.drop(drafter.start(ids(1, 2, 4)))
    drafter.start(ids(1, 2, 4))
    assert votes(drafter, 1, 2) == {4: 1}


def test_a_row_that_was_forgotten_and_comes_again_is_found_once() -> None:
    drafter = proposer(corpus_tokens=4)
    for _ in range(3):
        drafter.finish(drafter.start(ids(1, 2, 4)))
        drafter.clear()
    drafter.finish(drafter.start(ids(1, 2, 4)))
    assert votes(drafter, 1, 2) == {4: 1}
