"""Replays of texts that a known Markov chain drew by the project's own rule.

The seeds of the rows, and what the model said, each give more tokens per call.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from drafting.adaptive.adaptive_proposer import AdaptiveProposer
from drafting.bigram import empty_table
from drafting.gumbel import gumbel, row_keys
from drafting.likely import Likely
from drafting.replay.replayed_job import NO_LIMIT, Job
from drafting.replay.transcripts import Transcript
from drafting.sampling import Sampling
from drafting.speculation import Speculation, VerifyAll
from drafting.tables import Tables

VOCABULARY = 60
NUM_LIKELY = 8
OUTPUT = 60  # tokens of a row


class Markov:
    """A model whose distribution depends on the last two tokens; log-probabilities by pair [V, V, V]."""

    def __init__(self, seed: int) -> None:
        rng = np.random.default_rng(seed)
        logits = rng.normal(0.0, 2.0, (VOCABULARY, VOCABULARY))[None] + rng.normal(
            0.0, 0.5, (VOCABULARY, VOCABULARY, VOCABULARY)
        )
        self.logprobs = logits - np.log(np.exp(logits).sum(-1, keepdims=True))

    def transcript(self, number: int, temperature: float) -> Transcript:
        """A row from the prompt 0 1, drawn as engine/targets.py draws; its seed is its number."""
        text = [0, 1]
        said = []
        keys = row_keys([number] * OUTPUT, np.arange(OUTPUT))
        for key in keys:
            logprobs = self.logprobs[text[-2], text[-1]]
            scores = logprobs.copy()
            if temperature > 0:
                scores = scores / temperature + [gumbel(key, token) for token in range(VOCABULARY)]
            said.append(np.argsort(-logprobs)[:NUM_LIKELY])
            text.append(int(scores.argmax()))
        ids = np.array(said, np.int32)
        pairs = zip(text, text[1:], said, strict=False)
        likely = Likely(ids, np.array([self.logprobs[a, b, own] for a, b, own in pairs], np.float32))
        return Transcript(
            f"{number}",
            "",
            np.array(text[:2], np.int32),
            np.array(text[2:], np.int32),
            likely,
            Sampling(temperature, seed=number),
        )


def rows(temperature: float, count: int = 40) -> list[Transcript]:
    model = Markov(seed=0)
    return [model.transcript(number, temperature) for number in range(count)]


def tokens_per_call(
    transcripts: Sequence[Transcript], num_likely: int = NUM_LIKELY, max_nodes: int = 4
) -> float:
    proposer = AdaptiveProposer(
        max_nodes=max_nodes,
        corpus_tokens=10**5,
        tables=Tables(bigram=empty_table(VOCABULARY, NUM_LIKELY)),
        num_likely=num_likely,
    )
    speculation = Speculation(proposer, VerifyAll())
    job = Job(None, 4, NO_LIMIT, speculation, proposer.read_successors)
    counts = job.run(transcripts).counts
    assert counts.tokens == sum(len(transcript.output_ids) for transcript in transcripts)
    return counts.tokens / counts.calls


def test_seeds_give_more_tokens_per_call_and_with_what_the_model_said_still_more() -> None:
    known = rows(temperature=1.0)
    text_only = tokens_per_call([replace(row, likely=None, sampling=None) for row in known])
    seeds_only = tokens_per_call([replace(row, likely=None) for row in known])
    assert text_only * 1.1 < seeds_only < tokens_per_call(known) / 1.3


def test_wrong_seeds_are_found_out_and_cost_little() -> None:
    known = rows(temperature=1.0)
    wrong = [replace(row, sampling=Sampling(1.0, seed=1000 + n)) for n, row in enumerate(known)]
    text_only = [replace(row, likely=None, sampling=None) for row in known]
    assert tokens_per_call(wrong) > 0.95 * tokens_per_call(text_only)


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_text_alone_gives_what_it_gives_a_proposer_that_keeps_nothing_of_the_model(
    temperature: float,
) -> None:
    text_only = [replace(row, likely=None, sampling=None) for row in rows(temperature, 12)]
    figure = tokens_per_call(text_only)
    assert figure == tokens_per_call(text_only, num_likely=0)
    assert figure == pytest.approx(4.0 if temperature == 0 else 1.3043478), "as before there was any of it"
    greedy = [replace(row, sampling=Sampling(seed=5)) for row in text_only]
    assert tokens_per_call(greedy) == figure, "a seed without temperature says nothing"


def test_a_prediction_of_a_recording_is_drafted_from() -> None:
    plain = [replace(row, likely=None, sampling=None) for row in rows(1.0, 12)]
    expecting = [replace(row, prediction_ids=tuple(row.output_ids.tolist())) for row in plain]
    assert tokens_per_call(expecting) > 2 * tokens_per_call(plain)
