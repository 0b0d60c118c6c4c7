"""What the model said once is offered again; a greedy row learns to prefer it, and a row whose seed is known
adds the noise of its own draw to it.
"""

import math
from typing import Any

import numpy as np
import pytest

from drafting.adaptive.adaptive_proposer import AdaptiveProposer
from drafting.adaptive.calibration import Calibration
from drafting.adaptive.features import NUM_MODES, NUM_TABLES
from drafting.adaptive.foresight import HOPELESS
from drafting.gumbel import gumbel, row_keys
from drafting.likely import Likely, UInt32, pack
from drafting.sampling import Sampling
from drafting.tables import Tables
from drafting.tree import Int32

GREEDY = Sampling()
ONE = np.array([0, 1])  # the offsets of one sequence that gets one token


def ids(*tokens: int) -> Int32:
    return np.array(tokens, np.int32)


def proposer(max_nodes: int = 16, bigram: Likely | None = None) -> AdaptiveProposer:
    return AdaptiveProposer(max_nodes=max_nodes, corpus_tokens=5000, tables=Tables.of(bigram))


def shares(**by_token: float) -> UInt32:
    """What the model says at one place: shares(t9=0.7, t4=0.2)."""
    tokens = [int(name[1:]) for name in by_token]
    return pack(*Likely(np.array([tokens], np.int32), np.log(np.array([[*by_token.values()]], np.float32))))


def noise(seed: int, position: int, token: int) -> float:
    """What the draw adds to a token at an output position."""
    return gumbel(row_keys([seed], np.array([position]))[0], token)


def tell(drafter: AdaptiveProposer, text: Int32, token: int, said: UInt32 | None) -> None:
    """A finished row: a text that a token followed, where the model said this."""
    state = drafter.start(text)
    drafter.extend([state], ids(token), ONE, said)
    drafter.finish(state)


def candidates(
    drafter: AdaptiveProposer, text: Int32, sampling: Sampling | None, num_prompt: int
) -> dict[int, Any]:
    """The candidates for a row's next token."""
    state = drafter.start(text, "", sampling, num_prompt)
    trees = drafter.propose([state], ids(1))
    drafter.drop(state)
    assert trees.weighed is not None
    found = trees.weighed[0][: trees.weighed[2][1]]
    return {int(c["token"]): c.copy() for c in found if c["parent"] == 0}


def share(candidate: Any) -> float:
    """What the model probably gives a candidate of a greedy row."""
    return math.exp(candidate["score"])


def first(drafter: AdaptiveProposer, text: Int32, sampling: Sampling | None = None) -> list[int]:
    """The nodes after the last token of a prompt, likeliest first."""
    state = drafter.start(text, "", sampling, len(text))
    trees = drafter.propose([state], ids(1))
    drafter.drop(state)
    return trees.token_ids.tolist()


def test_what_the_model_said_is_offered_besides_what_happened_to_follow() -> None:
    drafter = proposer()
    tell(drafter, ids(1, 2, 3), 4, shares(t9=0.7, t4=0.2))
    found = candidates(drafter, ids(1, 2, 3), GREEDY, 3)
    assert {token: round(share(c), 2) for token, c in found.items()} == {4: 0.2, 9: 0.7}
    tell(drafter, ids(5, 6, 7), 4, None)
    assert {*candidates(drafter, ids(5, 6, 7), GREEDY, 3)} == {4}


def test_a_longer_match_says_eight_times_as_much_and_one_shorter_by_two_nothing() -> None:
    drafter = proposer()
    tell(drafter, ids(9, 2, 3), 4, shares(t5=0.9))
    tell(drafter, ids(1, 2, 3), 4, shares(t6=0.9))
    found = candidates(drafter, ids(1, 2, 3), GREEDY, 3)
    assert (round(share(found[6]), 2), round(share(found[5]), 2)) == (0.8, 0.1)
    tell(drafter, ids(7, 1, 2, 3), 4, shares(t8=0.9))
    assert {*candidates(drafter, ids(7, 1, 2, 3), GREEDY, 3)} == {4, 6, 8}, "5 matches two tokens of four"


def test_what_the_bigram_table_knows_counts_like_a_match_of_one_token() -> None:
    rows = Likely(np.full((10, 1), 5, np.int32), np.full((10, 1), -0.5, np.float32))
    drafter = proposer(bigram=rows)
    tell(drafter, ids(2, 3), 4, shares(t6=0.9))
    found = candidates(drafter, ids(2, 3), GREEDY, 2)
    # The place matches two tokens: it weighs 64, and the table 8.
    assert share(found[5]) == pytest.approx(math.exp(-0.5) * 8 / 72, rel=0.01)
    assert share(found[6]) == pytest.approx(0.9 * 64 / 72, rel=0.01)
    assert (int(found[5]["rank"]), int(found[6]["rank"])) == (0, -1)


def taught(sampling: Sampling | None, with_likely: bool = True) -> AdaptiveProposer:
    """A proposer of a job whose model gives 0.7 to a token that did not follow the first time."""
    drafter = proposer()
    for n in range(100, 1100, 10):
        said = shares(**{f"t{n + 4}": 0.7, f"t{n + 3}": 0.2}) if with_likely else None
        tell(drafter, ids(n, n + 1, n + 2), n + 3, said)
        state = drafter.start(ids(n, n + 1, n + 2), "", sampling, 3)
        trees = drafter.propose([state], ids(1))
        drafter.learn([state], trees, ids(n + 4), ONE)
        drafter.finish(state)
    return drafter


def test_a_greedy_row_learns_to_prefer_what_the_model_said_to_what_happened_to_follow() -> None:
    drafter = taught(GREEDY)
    tell(drafter, ids(1, 2, 3), 4, shares(t9=0.7, t4=0.2))
    assert first(drafter, ids(1, 2, 3), GREEDY) == [9, 4]
    tell(drafter, ids(5, 6, 7), 8, None)
    assert first(drafter, ids(5, 6, 7), GREEDY) == [8], "where it said nothing, what followed is all there is"


def test_a_row_whose_seed_is_unknown_is_drafted_as_a_greedy_one_and_adds_no_noise() -> None:
    drafters = [taught(None), taught(GREEDY)]
    for drafter in drafters:
        tell(drafter, ids(1, 2, 3), 4, shares(t9=0.7, t4=0.2))
    found = [
        candidates(drafter, ids(1, 2, 3), how, 3)
        for drafter, how in zip(drafters, (None, GREEDY), strict=True)
    ]
    assert found[0] == found[1]
    assert (drafters[0].calibration.scores == drafters[1].calibration.scores).all()
    assert float(found[0][9]["score"]) == pytest.approx(math.log(0.7), abs=0.003)
    assert not drafters[0].calibration.seen[NUM_TABLES:].any(), "the tables of rows with noise learn nothing"


def test_rows_of_which_only_text_is_known_are_drafted_as_by_a_proposer_that_keeps_nothing() -> None:
    rng = np.random.default_rng(0)
    text_only = AdaptiveProposer(max_nodes=16, corpus_tokens=500, tables=Tables(), num_likely=0)
    drafters = [text_only, AdaptiveProposer(max_nodes=16, corpus_tokens=500, tables=Tables())]
    for _ in range(8):
        text = rng.integers(0, 6, 60).astype(np.int32)
        states = [drafter.start(text[:10], "g") for drafter in drafters]
        for t in range(10, 60):
            trees = [
                drafter.propose([state], ids(9)) for drafter, state in zip(drafters, states, strict=True)
            ]
            assert trees[0].token_ids.tolist() == trees[1].token_ids.tolist()
            assert trees[0].survival.tolist() == trees[1].survival.tolist()
            for drafter, state, tree in zip(drafters, states, trees, strict=True):
                drafter.learn([state], tree, text[t : t + 1], ONE)
        for drafter, state in zip(drafters, states, strict=True):
            drafter.finish(state)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
@pytest.mark.parametrize("seed", [0, 1, 2**63, -1])
def test_a_score_is_the_share_by_the_temperature_and_the_noise_of_the_rows_own_draw(
    temperature: float, seed: int
) -> None:
    drafter = proposer()
    tell(drafter, ids(1, 2, 3), 4, shares(t9=0.5, t4=0.3))
    found = candidates(drafter, ids(1, 2, 3), Sampling(temperature, seed=seed), 3)
    for token, share in ((9, 0.5), (4, 0.3)):
        wanted = math.log(share) / temperature + noise(seed, 0, token)
        assert float(found[token]["score"]) == pytest.approx(wanted, abs=0.005 / temperature)
    behind = float(found[9]["score"] - found[4]["score"])
    loser = found[4 if behind > 0 else 9]
    assert (loser["probability"] == 0) == (abs(behind) >= HOPELESS)


@pytest.mark.parametrize(("num_output", "num_prompt"), [(0, 3), (1, 2), (2, 1), (3, 0)])
def test_the_noise_is_that_of_the_output_position_also_where_output_was_there_already(
    num_output: int, num_prompt: int
) -> None:
    """After a preemption a row begins with the output that it has."""
    drafter = proposer()
    tell(drafter, ids(1, 2, 3), 4, shares(t9=0.5, t4=0.3))
    found = candidates(drafter, ids(1, 2, 3), Sampling(1.0, seed=7), num_prompt)
    wanted = math.log(0.5) + noise(7, num_output, 9)
    assert float(found[9]["score"]) == pytest.approx(wanted, abs=0.005)


def test_the_noise_of_a_row_that_goes_on_moves_with_its_output() -> None:
    drafter = proposer()
    tell(drafter, ids(1, 2, 3), 4, shares(t9=0.5, t4=0.3))
    state = drafter.start(ids(8), "", Sampling(1.0, seed=7), 1)
    drafter.extend([state], ids(1, 2, 3), np.array([0, 3]))
    trees = drafter.propose([state], ids(1))
    assert trees.weighed is not None
    found = {int(c["token"]): float(c["score"]) for c in trees.weighed[0][: trees.weighed[2][1]]}
    assert found[9] == pytest.approx(math.log(0.5) + noise(7, 3, 9), abs=0.005)


def test_a_step_of_a_row_whose_seed_is_known_teaches_only_the_tables_of_such_rows() -> None:
    drafter = proposer()
    tell(drafter, ids(1, 2, 3), 4, shares(t9=0.5, t4=0.3))
    state = drafter.start(ids(1, 2, 3), "", Sampling(1.0, seed=7), 3)
    trees = drafter.propose([state], ids(1))
    drafter.learn([state], trees, ids(9), ONE, shares(t9=0.5, t4=0.3))
    seen = drafter.calibration.seen
    assert not seen[:NUM_TABLES].any()
    assert seen[NUM_TABLES : 2 * NUM_TABLES].sum() == 2 * NUM_TABLES, "both candidates, in every table"
    assert seen[2 * NUM_TABLES :].any()
    assert len(seen) == NUM_MODES * NUM_TABLES + 2


def test_what_the_model_gives_a_candidate_is_learned_from_what_it_says_not_from_what_was_drawn() -> None:
    """The draw takes 4 in every step, but the model gives it 0.3: its share goes up no further than that."""
    drafter = proposer()
    for _ in range(300):
        tell(drafter, ids(1, 2, 3), 4, shares(t9=0.5, t4=0.3))
        state = drafter.start(ids(1, 2, 3), "", Sampling(1.0, seed=7), 3)
        trees = drafter.propose([state], ids(1))
        drafter.learn([state], trees, ids(4), ONE, shares(t9=0.5, t4=0.3))
        drafter.drop(state)
    found = candidates(drafter, ids(1, 2, 3), Sampling(1.0, seed=7), 3)
    assert float(found[4]["plain"]) == pytest.approx(0.3, abs=0.05)
    assert float(found[9]["plain"]) == pytest.approx(0.5, abs=0.05)
    assert float(found[4]["probability"]) > 0.8, "but this row's noise was seen to prefer it"


def test_a_fresh_calibration_knows_nothing_of_noise_but_the_leads() -> None:
    weights = Calibration().weights
    assert not weights[NUM_TABLES : NUM_MODES * NUM_TABLES].any()
    assert (np.diff(weights[NUM_MODES * NUM_TABLES, :56:4]) > 0).all(), "a larger lead is likelier"


@pytest.mark.parametrize("settings", [{"top_p": 0.9}, {"top_k": 2}, {"min_p": 0.1}])
def test_filters_at_the_lowest_temperatures_leave_the_likeliest_token(settings: dict[str, Any]) -> None:
    # 0.5 and less to the power of 1e6 are 0: what counts is how much less they are than the largest.
    drafter = proposer()
    tell(drafter, ids(1, 2, 3), 4, shares(t9=0.5, t4=0.2, t5=0.1))
    found = candidates(drafter, ids(1, 2, 3), Sampling(1e-6, seed=3, **settings), 3)
    assert max(found, key=lambda token: found[token]["score"]) == 9
    assert found[9]["probability"] > 0
