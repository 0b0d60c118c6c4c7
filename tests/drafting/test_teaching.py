"""Texts of a reference corpus reach the proposer in order; what it cannot take is refused in words."""

import numpy as np
import pytest

from drafting.config import MixedConfig, SpeculationConfig
from drafting.mixed_proposer import MixedProposer
from drafting.tables import Tables
from drafting.teaching import teach


class Pupil:
    """Remembers what it was taught."""

    def __init__(self) -> None:
        self.texts: list[list[int]] = []

    def teach(self, token_ids) -> None:
        self.texts.append(token_ids.tolist())


def corpus(*texts):
    return [np.array(text, np.int32) for text in texts]


def test_texts_are_taught_in_their_order() -> None:
    pupil = Pupil()
    teach(pupil, corpus([1, 2], [], [3]), vocab_size=4)
    assert pupil.texts == [[1, 2], [], [3]]


@pytest.mark.parametrize("token", [4, -1])
def test_an_id_that_the_model_does_not_have_is_refused(token: int) -> None:
    with pytest.raises(
        ValueError, match=rf"corpus_path holds token id {token}; ids of this model go from 0 to 3"
    ):
        teach(Pupil(), corpus([1, token]), vocab_size=4)


def test_a_proposer_that_takes_no_corpus_is_told_with_the_remedy() -> None:
    mixed = MixedProposer(MixedConfig(sources=["context"]), 4, Tables())
    teach(mixed, [], vocab_size=4)
    with pytest.raises(
        ValueError, match="MixedProposer drafts from no corpus; set speculation.mode: adaptive"
    ):
        teach(mixed, corpus([1]), vocab_size=4)


@pytest.mark.parametrize(
    ("settings", "error"),
    [
        ({"mode": "off"}, "speculation.corpus_path is 'a', but speculation.mode is off; only mode adaptive"),
        ({"mode": "mixed"}, "but speculation.mode is mixed; only mode adaptive drafts from a corpus: set"),
        (
            {"corpus_tokens": 0},
            "speculation.corpus_path is 'a', but speculation.corpus_tokens is 0; raise it",
        ),
        ({"corpus_path": ""}, "speculation.corpus_path is ''; name a file, folder, glob or URI"),
        ({"corpus_path": []}, r"speculation.corpus_path is \[\]; name a file"),
        ({"corpus_path": ["a", ""]}, r"speculation.corpus_path is \['a', ''\]; name a file"),
        (
            {"corpus_path": None, "corpus_column": "x"},
            "corpus_column is 'x', but there is no speculation.corp",
        ),
    ],
)
def test_settings_of_a_corpus_that_do_not_go_together_are_refused(settings, error) -> None:
    with pytest.raises(ValueError, match=error):
        SpeculationConfig(**{"corpus_path": "a", **settings})


def test_a_path_is_one_or_several() -> None:
    assert SpeculationConfig().corpus_paths == []
    assert SpeculationConfig(corpus_path="a").corpus_paths == ["a"]
    assert SpeculationConfig(corpus_path=["a", "b"]).corpus_paths == ["a", "b"]
