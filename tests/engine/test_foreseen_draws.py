"""A drafter that knows what the model says, and a row's seed, foresees the very tokens that the engine
draws.
"""

from dataclasses import replace

import numpy as np
import pytest
import torch

from drafting.adaptive.adaptive_proposer import AdaptiveProposer
from drafting.likely import LOGPROBS, level_of, pack
from drafting.sampling import Sampling
from drafting.tables import Tables
from engine.targets import TargetSampling, target_tokens

VOCABULARY = 20
WORDS = np.arange(10, 18, dtype=np.int32)  # what can follow; 0 to 9 are prompts
SAMPLED = [
    Sampling(0.3), Sampling(1.0), Sampling(2.0), Sampling(1.0, top_k=3), Sampling(0.7, top_k=1),
    Sampling(1.0, top_p=0.6), Sampling(1.5, top_p=0.9), Sampling(1.0, min_p=0.3), Sampling(0.5, min_p=0.05),
    Sampling(1.2, top_p=0.9, top_k=5, min_p=0.1),
]  # fmt: skip


class Chain:
    """A model whose next token depends on the last one alone: eight words, each with another distribution."""

    def __init__(self, seed: int) -> None:
        logits = np.random.default_rng(seed).normal(0.0, 1.0, (VOCABULARY, len(WORDS)))
        logprobs = (logits - np.log(np.exp(logits).sum(1, keepdims=True))).astype(np.float32)
        order = np.argsort(-logprobs, axis=1)
        self.likely = pack(WORDS[order], np.take_along_axis(logprobs, order, 1))
        # What is left of them after packing is what the model says, so that nothing depends on rounding.
        levels = [[level_of(entry) for entry in row] for row in self.likely]
        self.logits = torch.full((VOCABULARY, VOCABULARY), -torch.inf)
        self.logits.scatter_(1, torch.from_numpy(WORDS[order]).long(), torch.from_numpy(LOGPROBS[levels]))

    def draw(self, last: int, sampling: Sampling, position: int) -> int:
        """The engine's token after `last`, at an output position."""
        rows = TargetSampling([sampling], np.array([position]))
        return int(target_tokens(self.logits[[last]], rows)[0])

    def tell(self, drafter: AdaptiveProposer, text: list[int]) -> None:
        """A finished row, with what the model said at all of its tokens but the first."""
        state = drafter.start(np.array(text[:1], np.int32))
        rest = np.array(text[1:], np.int32)
        drafter.extend([state], rest, np.array([0, len(rest)]), self.likely[text[:-1]])
        drafter.finish(state)


def foreseen(
    drafter: AdaptiveProposer, text: list[int], sampling: Sampling, num_prompt: int, depth: int
) -> dict[tuple[int, ...], int]:
    """By path from the root, the token with the highest score among those that may follow."""
    state = drafter.start(np.array(text, np.int32), "", sampling, num_prompt)
    trees = drafter.propose([state], np.array([depth], np.int32))
    drafter.drop(state)
    assert trees.weighed is not None
    candidates = trees.weighed[0][: trees.weighed[2][1]]
    paths: dict[int, tuple[int, ...]] = {0: ()}
    for candidate in sorted(candidates, key=lambda candidate: candidate["node"]):
        if candidate["node"] > 0:
            paths[int(candidate["node"])] = (*paths[int(candidate["parent"])], int(candidate["token"]))
    best: dict[tuple[int, ...], tuple[float, int]] = {}
    for candidate in candidates:
        path = paths[int(candidate["parent"])]
        best[path] = max(best.get(path, (-np.inf, -1)), (float(candidate["score"]), int(candidate["token"])))
    return {path: token for path, (_, token) in best.items()}


@pytest.mark.parametrize("settings", SAMPLED, ids=str)
def test_the_token_that_will_be_drawn_is_foreseen_at_every_output_position(settings: Sampling) -> None:
    model = Chain(seed=3)
    drafter = AdaptiveProposer(max_nodes=8, corpus_tokens=1000, tables=Tables())
    model.tell(drafter, [1, 2, 3, 10])
    found = []
    wanted = []
    for seed in range(25):
        sampling = replace(settings, seed=seed)
        num_prompt = 3 - seed % 3  # the other tokens are output: there was a preemption
        found.append(foreseen(drafter, [1, 2, 3], sampling, num_prompt, depth=1)[()])
        wanted.append(model.draw(3, sampling, seed % 3))
    assert found == wanted
    assert len({*wanted}) > 1 or settings.top_k == 1 or settings.temperature == 0.3


@pytest.mark.parametrize("settings", SAMPLED, ids=str)
def test_a_deeper_token_is_foreseen_with_the_noise_of_its_own_position(settings: Sampling) -> None:
    model = Chain(seed=2)
    drafter = AdaptiveProposer(max_nodes=64, corpus_tokens=1000, tables=Tables())
    for word in WORDS.tolist():
        model.tell(drafter, [1, 2, 3, word, 11, 12])
    num_told = 0
    for seed in range(25):
        sampling = replace(settings, seed=seed)
        best = foreseen(drafter, [1, 2, 3], sampling, 2, depth=2)
        path: tuple[int, ...] = ()
        for depth in range(2):
            last = path[-1] if path else 3
            drawn = model.draw(last, sampling, 1 + depth)  # the 3 was output position 0
            assert best[path] == drawn, f"seed {seed}, after {path}"
            num_told += 1
            path = (*path, drawn)
    assert num_told == 50


def test_after_some_steps_the_foreseen_token_is_the_first_node_of_the_tree() -> None:
    model = Chain(seed=3)
    drafter = AdaptiveProposer(max_nodes=8, corpus_tokens=1000, tables=Tables())
    model.tell(drafter, [1, 2, 3, 10])
    right = []
    for seed in range(300):
        sampling = Sampling(1.0, seed=seed)
        state = drafter.start(np.array([1, 2, 3], np.int32), "", sampling, 3)
        trees = drafter.propose([state], np.array([1], np.int32))
        drawn = model.draw(3, sampling, 0)
        right.append(trees.token_ids[:1].tolist() == [drawn])
        drafter.learn([state], trees, np.array([drawn], np.int32), np.array([0, 1]), model.likely[[3]])
        drafter.drop(state)
    assert np.mean(right[100:]) > 0.97
    likeliest = int(model.logits[3].argmax())
    drawn = [model.draw(3, Sampling(1.0, seed=seed), 0) for seed in range(100, 300)]
    assert np.mean([token == likeliest for token in drawn]) < 0.7, "without the seed no more could be right"
