"""What a proposer learns of steps that do not draft: each token once, in order, with what the model said."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from drafting.adaptive.adaptive_proposer import AdaptiveProposer
from drafting.adaptive.segments import place_after
from drafting.likely import UNKNOWN, UInt32
from drafting.sampling import Sampling
from drafting.speculation import Speculation, VerifyAll
from drafting.tables import Tables
from drafting.tree import Int32

NUM_LIKELY = 2


@dataclass
class Row:
    """A sequence of the engine, as far as drafting reads it."""

    text: list[int]
    num_prompt: int
    sampling: Sampling | None = None
    group: str = ""
    prediction_ids: tuple[int, ...] = ()
    draft_state: Any = None
    num_drafted: int = 0
    wanted: list[tuple[int, list[int]]] = field(default_factory=list)  # tokens, and what was said there

    def __post_init__(self) -> None:
        self.wanted = [(token, []) for token in self.text]

    @property
    def token_ids(self) -> Int32:
        return np.array(self.text, np.int32)

    @property
    def num_tokens(self) -> int:
        return len(self.text)

    def take(self, tokens: tuple[int, ...], said: list[list[int]]) -> None:
        self.text += tokens
        self.wanted += zip(tokens, said, strict=True)


class Steps:
    """Rows that get tokens in steps that draft or do not."""

    def __init__(self) -> None:
        self.proposer = AdaptiveProposer(
            max_nodes=4, corpus_tokens=1000, tables=Tables(), num_likely=NUM_LIKELY
        )
        self.speculation = Speculation(self.proposer, VerifyAll())
        self.next_entry = 5000

    def step(self, given: dict[str, tuple[int, ...]], rows: dict[str, Row], kind: str) -> None:
        """One step; kind: "drafts", "pause" (what the model said is kept), or "silent" (nothing is kept)."""
        some = [rows[name] for name in given]
        tokens = list(given.values())
        candidates = None
        if kind == "drafts":
            candidates = self.speculation.propose(some, np.full(len(some), 4, np.int32))
        likely: UInt32 = (
            np.arange(2 * sum(map(len, tokens)), dtype=np.uint32).reshape(-1, 2) + self.next_entry
        )
        self.next_entry += 1000
        said = iter([[]] * len(likely) if kind == "silent" else likely.tolist())
        for row, own in zip(some, tokens, strict=True):
            row.take(own, [next(said) for _ in own])
        if candidates is not None:
            self.speculation.learn(some, candidates, tokens, likely)
        elif kind == "pause":
            self.speculation.extend(some, tokens, likely)

    def known(self, row: Row) -> list[tuple[int, list[int]]]:
        """What the proposer holds of a row."""
        arrays = self.proposer.arena.arrays
        place = int(self.proposer.arena.histories["first"][row.draft_state])
        found = []
        while place >= 0 and arrays.tokens[place] >= 0:
            entries = arrays.likely_PM[place].tolist()
            known = entries.index(UNKNOWN) if UNKNOWN in entries else NUM_LIKELY
            found.append((int(arrays.tokens[place]), entries[:known]))
            place = place_after(arrays, place)
        return found


def test_a_row_that_starts_in_a_pause_has_its_prompt_and_then_its_tokens() -> None:
    steps = Steps()
    rows = {"a": Row([1, 2, 3], 3, Sampling(1.0, seed=9))}
    steps.step({"a": (7, 8)}, rows, "pause")
    assert steps.known(rows["a"]) == [(1, []), (2, []), (3, []), (7, [5000, 5001]), (8, [5002, 5003])]
    history = steps.proposer.arena.histories[rows["a"].draft_state]
    assert (history["num_prompt"], history["seed"], rows["a"].num_drafted) == (3, 9, 5)


def test_steps_that_draft_and_pauses_of_either_kind_leave_no_token_out_and_none_twice() -> None:
    steps = Steps()
    rows = {"a": Row([1, 2], 2), "b": Row([4, 5, 6], 2)}  # b has an output token from before a preemption
    steps.step({"a": (10,)}, rows, "drafts")
    steps.step({"a": (11, 12), "b": (20,)}, rows, "pause")
    steps.step({"a": (13,), "b": (21, 22)}, rows, "silent")
    steps.step({"b": (23,)}, rows, "pause")
    steps.step({"a": (14,), "b": (24,)}, rows, "silent")
    steps.step({"a": (15,), "b": (25, 26)}, rows, "drafts")
    steps.step({"a": (16, 17), "b": (27,)}, rows, "pause")
    for row in rows.values():
        assert steps.known(row) == row.wanted
    assert [token for token, said in rows["a"].wanted if said] == [10, 11, 12, 15, 16, 17]
    assert [token for token, said in rows["b"].wanted if said] == [20, 23, 25, 26, 27]


def test_a_row_that_fails_in_a_pause_adds_nothing_and_shifts_nothing() -> None:
    steps = Steps()
    rows = {name: Row([1, 2], 2) for name in "abc"}
    steps.step({"a": (10,), "b": (), "c": (30, 31)}, rows, "pause")
    steps.step({"a": (), "b": (20,), "c": ()}, rows, "drafts")
    for row in rows.values():
        assert steps.known(row) == row.wanted


def test_what_is_silent_at_the_end_is_known_when_the_row_has_ended() -> None:
    steps = Steps()
    row = Row([1, 2], 2)
    steps.step({"a": (10,)}, {"a": row}, "pause")
    steps.step({"a": (11, 12)}, {"a": row}, "silent")
    steps.speculation.finish(row)
    tokens = steps.proposer.arena.arrays.tokens
    assert tokens[tokens >= 0].tolist() == [1, 2, 10, 11, 12]
    assert row.draft_state is None
