"""The paper's fill order, and what it gives when replayed over recorded outputs."""

from functools import partial
from typing import Any

import numpy as np
import pytest

from drafting.bigram import empty_table, learn_successors
from drafting.config import MixedConfig
from drafting.mixed_proposer import MixedProposer
from drafting.replay.replay_counts import ReplayCounts, figures_of
from drafting.replay.replayed_job import NO_LIMIT, Job
from drafting.replay.transcripts import Transcript
from drafting.speculation import Speculation, VerifyAll
from drafting.tables import Tables
from drafting.tree import CandidateTrees, DraftTrees, Int32, certain

TABLES = Tables(np.array([[1, 2, 3]] * 10, np.int32))


def proposer(max_nodes: int = 6, tables: Tables = TABLES, **settings: Any) -> MixedProposer:
    return MixedProposer(MixedConfig(**{"num_drafts": 3, "draft_len": 2, **settings}), max_nodes, tables)


def ids(*tokens: int) -> Int32:
    return np.array(tokens, np.int32)


def proposed(
    drafter: MixedProposer, *token_ids: int, depth: int = 9
) -> tuple[list[int], list[int], list[int]]:
    trees = drafter.propose([drafter.start(ids(*token_ids))], ids(depth))
    return trees.token_ids.tolist(), trees.parents.tolist(), trees.sources.tolist()


def test_context_comes_first_and_the_bigram_fills_the_rest() -> None:
    # Context [8 5]; then the bigram's [1 1] and [2 1], its third successor is one draft too many.
    assert proposed(proposer(), 5, 8, 5) == ([8, 5, 1, 1, 2, 1], [0, 1, 0, 3, 0, 5], [0, 0, 1, 1, 1, 1])


def test_a_draft_from_the_context_follows_query_len_tokens_and_one_from_a_table_none() -> None:
    drafter = proposer(query_len=2, sources=["bigram", "context"])
    trees = drafter.propose([drafter.start(ids(4, 5, 8, 4, 5))], ids(9))
    assert set(zip(trees.sources.tolist(), trees.matches.tolist(), strict=True)) == {(0, 0)}
    trees = (drafter := proposer(query_len=2)).propose([drafter.start(ids(4, 5, 8, 4, 5))], ids(9))
    assert set(zip(trees.sources.tolist(), trees.matches.tolist(), strict=True)) == {(0, 2), (1, 0)}


def test_sources_are_asked_in_the_order_given() -> None:
    assert proposed(proposer(sources=["bigram", "context"], num_drafts=1), 5, 8, 5) == (
        [1, 1],
        [0, 1],
        [0, 0],
    )
    assert proposed(proposer(sources=["context", "bigram"], num_drafts=1), 5, 8, 5) == (
        [8, 5],
        [0, 1],
        [0, 0],
    )


def test_the_unigram_list_fills_what_the_others_leave() -> None:
    tables = Tables(TABLES.bigram[:, :1], unigram=ids(4, 1))
    assert proposed(proposer(sources=["context", "bigram", "unigram"], tables=tables), 5, 6) == (
        [1, 1, 4],
        [0, 1, 0],
        [1, 1, 2],
    )


def test_a_source_without_a_table_gives_nothing() -> None:
    assert proposed(proposer(tables=Tables()), 5, 8, 5) == ([8, 5], [0, 1], [0, 0])


def test_trees_are_no_deeper_than_each_sequence_allows() -> None:
    drafter = proposer(sources=["context"])
    states = [drafter.start(ids(5, 8, 5)) for _ in range(3)]
    trees = drafter.propose(states, ids(0, 1, 9))
    assert (trees.token_ids.tolist(), trees.offsets.tolist()) == ([8, 8, 5], [0, 0, 1, 3])


def test_trees_are_no_larger_than_max_nodes() -> None:
    assert proposed(proposer(max_nodes=3), 5, 8, 5) == ([8, 5, 1], [0, 1, 0], [0, 0, 1])


def test_committed_tokens_are_drafted_from() -> None:
    drafter = proposer(sources=["context"])
    state = drafter.start(ids(5))
    assert drafter.propose([state], ids(9)).token_ids.tolist() == []
    drafter.extend([state], ids(7, 5), np.array([0, 2]))
    assert drafter.propose([state], ids(9)).token_ids.tolist() == [7, 5]


class ScriptedProposer:
    """Gives the drafts it was told, one chain a call."""

    source_names = ("script",)
    max_nodes = max_depth = 8

    def __init__(self, *drafts: list[int]) -> None:
        self.drafts = list(drafts)

    def start(self, *args: Any) -> int:
        return 0

    def propose(self, states: Any, max_depths: Int32, min_survival: float) -> CandidateTrees:
        draft = self.drafts.pop(0)
        order = np.arange(len(draft), dtype=np.int32)
        none = np.zeros(len(draft), np.uint8)
        return certain(DraftTrees(ids(*draft), order, order + 1, none, none, np.array([0, len(draft)])))

    def learn(self, *args: Any) -> None:
        pass

    def reward(self, sources: Any) -> None:
        pass

    def wants_likely(self) -> int:
        return 0

    def wants_successors(self) -> int:
        return 0

    def recycle(self, *args: Any) -> None:
        pass

    def finish(self, state: int) -> None:
        pass


def replay(rows: list[Transcript], drafter: Any, table: Int32 | None = None) -> dict[str, ReplayCounts]:
    """The counts by group when every node is verified."""
    read_text = None if table is None else partial(learn_successors, table)
    return Job(None, 1, NO_LIMIT, Speculation(drafter, VerifyAll()), read_text).run(rows).groups


def test_calls_tokens_and_nodes_are_counted_as_the_design_says() -> None:
    # Output 5 6 7 8 9: two nodes right and one wrong, none right, then a path that runs past the end: 3 + 1
    # + 1 tokens.
    script = ScriptedProposer([5, 6, 0], [0, 0], [9, 4, 4, 4])
    figures = figures_of(
        replay([Transcript("a", "g", ids(1), ids(5, 6, 7, 8, 9))], script), script.source_names
    )
    assert figures == {
        "tokens_per_call": 5 / 3,
        "nodes_per_call": 3.0,
        "calls": 3,
        "tokens": 5,
        "nodes": 9,
        "by_source": {"script": {"verified": 9, "accepted": 3}},
        "by_group": {"g": {"tokens_per_call": 5 / 3, "nodes_per_call": 3.0}},
    }


def test_the_first_output_token_is_drafted_from_the_prompt() -> None:
    drafter = proposer(sources=["context"])
    counts = replay([Transcript("a", "g", ids(5, 7, 7, 5), ids(7, 7, 9))], drafter)["g"]
    assert (counts.calls, counts.tokens, counts.accepted["context"]) == (1, 3, 2)


def test_groups_are_counted_apart_and_an_empty_output_takes_no_call() -> None:
    drafter = proposer(sources=["context"])
    rows = [
        Transcript("a", "x", ids(1), ids(2)),
        Transcript("b", "y", ids(1, 2, 1), ids(2, 1)),
        Transcript("c", "x", ids(1), ids()),
    ]
    figures = figures_of(replay(rows, drafter), drafter.source_names)
    assert figures["by_group"] == {
        "x": {"tokens_per_call": 1.0, "nodes_per_call": 0.0},
        "y": {"tokens_per_call": 2.0, "nodes_per_call": 2.0},
    }


def test_without_any_output_token_there_is_nothing_to_report() -> None:
    with pytest.raises(ValueError, match="no output token"):
        replay([Transcript("a", "x", ids(1), ids())], proposer())


def test_a_bigram_that_learns_from_text_knows_what_was_read_and_nothing_of_what_comes() -> None:
    table = empty_table(10, 2)
    drafter = proposer(sources=["bigram"], draft_len=1, num_drafts=1, tables=Tables(table))
    counts = replay(
        [Transcript("a", "g", ids(1, 2), ids(1, 2, 3, 2)), Transcript("b", "g", ids(3), ids(2))],
        drafter,
        table,
    )["g"]
    # Row a: 2 -> nothing known, gives 1; 1 -> 2 right, gives 2 and 3 for free; 3 -> nothing known, gives 2.
    # Row b: 3 -> 2 right.
    assert (counts.calls, counts.tokens, counts.accepted["bigram"], counts.nodes) == (4, 5, 2, 2)
    assert [table[token, 0] for token in (1, 2, 3)] == [2, 3, 2]
