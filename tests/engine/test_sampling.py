"""Target tokens from logits: ties, uniform numbers, the inverse CDF and the filters, each against figures
worked out by hand.
"""

import math

import numpy as np
import pytest
import torch
from transformers.generation.logits_process import (
    LogitsProcessorList,
    MinPLogitsWarper,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from drafting.sampling import Sampling
from engine.sampling import TargetSampling, _draw, kept_probabilities, target_tokens, uniforms

# Probabilities 0.1, 0.4, 0.2, 0.25, 0.05 of tokens 0 .. 4; their cumulative shares: 0.1, 0.5, 0.7, 0.95, 1.
FIVE = torch.tensor([[0.1, 0.4, 0.2, 0.25, 0.05]], dtype=torch.float64).log()


def targets(logits: torch.Tensor, sampling: Sampling, positions: list[int]) -> list[int]:
    return target_tokens(logits, TargetSampling([sampling] * len(positions), np.array(positions))).tolist()


def kept(logits: torch.Tensor, **settings: float) -> list[int]:
    """The tokens that filters leave, at temperature 1 unless told."""
    return (
        kept_probabilities(logits, [Sampling(**{"temperature": 1.0, **settings})])[0].nonzero()[:, 0].tolist()
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_of_equal_logits_the_lowest_id_wins(dtype):
    logits = torch.tensor([[1, 3, 2, 3, 3], [5, 5, 5, 5, 5], [0, 0, 0, 0, 1]], dtype=dtype)
    assert targets(logits, Sampling(), [0, 0, 0]) == [1, 0, 4]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_lowest_of_many_tied_ids_wins_in_a_vocabulary_as_large_as_real_ones(dtype):
    logits = torch.randint(-50, 50, (8, 32_003), generator=torch.Generator().manual_seed(1)).to(dtype)
    logits[:, 777:] = logits[:, 777:].clamp(max=60)
    logits[:, [901, 902, 31_999]] = 61
    assert targets(logits, Sampling(), [0] * 8) == [901] * 8


def test_uniform_numbers_are_two_rounds_of_splitmix64():
    """By hand, in Python's integers; the first output of splitmix64 from 0 is the published
    0xe220a8397b1dcdaf.
    """
    mask = 2**64 - 1

    def splitmix64(state: int) -> int:
        z = (state + 0x9E3779B97F4A7C15) & mask
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & mask
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & mask
        return z ^ (z >> 31)

    assert splitmix64(0) == 0xE220A8397B1DCDAF
    seeds = [0, 0, 1, 2**64 - 1, -1, 12345]
    positions = [0, 1, 0, 7, 7, 1000]
    by_hand = [
        (splitmix64((splitmix64(s & mask) + p) & mask) >> 11) / 2**53
        for s, p in zip(seeds, positions, strict=True)
    ]
    assert uniforms(seeds, np.array(positions)).tolist() == by_hand


def test_uniform_numbers_never_change():
    """Literal: a job continued with a later version must go on with the same text."""
    found = uniforms([0, 0, 1, -1, 12345], np.array([0, 1, 0, 7, 1000])).tolist()
    assert found == [
        0.6524484863740322,
        0.1663964394676608,
        0.36818951565166946,
        0.10134950925237729,
        0.4069272093469283,
    ]


def test_uniform_numbers_are_uniform_and_those_of_neighbours_have_nothing_to_do_with_each_other():
    grid = uniforms([s for s in range(200) for _ in range(200)], np.tile(np.arange(200), 200)).reshape(
        200, 200
    )
    assert 0 <= grid.min() < 0.001
    assert 0.999 < grid.max() < 1
    counts = np.histogram(grid, 20, (0, 1))[0]
    assert (
        ((counts - 2000) ** 2) / 2000
    ).sum() < 43.8  # chi-square, 19 degrees of freedom, one in a thousand
    for one, other in ((grid[1:], grid[:-1]), (grid[:, 1:], grid[:, :-1]), (grid[1:, :-1], grid[:-1, 1:])):
        assert abs(np.corrcoef(one.ravel(), other.ravel())[0, 1]) < 0.02
    assert len(np.unique(grid)) == grid.size


@pytest.mark.parametrize(
    ("uniform", "token"),
    [
        (0.0, 0), (0.0999, 0), (0.1001, 1), (0.4999, 1), (0.5001, 2),
        (0.6999, 2), (0.7001, 3), (0.9499, 3), (0.9501, 4), (1 - 2**-53, 4),
    ],
)  # fmt: skip
def test_the_draw_walks_the_cumulative_shares_in_vocabulary_order(uniform, token):
    assert _draw(FIVE, [Sampling(temperature=1)], torch.tensor([uniform])).tolist() == [token]


@pytest.mark.parametrize(("uniform", "token"), [(0.0, 1), (0.61, 1), (0.62, 3), (1 - 2**-53, 3)])
def test_the_shares_of_what_a_filter_removed_go_to_the_kept_tokens(uniform, token):
    """top_k 2 keeps tokens 1 (0.4) and 3 (0.25): token 1 has 0.4 / 0.65 = 0.615 of the whole.

    Not 0, 2 or 4, even at the ends.
    """
    assert _draw(FIVE, [Sampling(temperature=1, top_k=2)], torch.tensor([uniform])).tolist() == [token]


def test_temperature_sharpens_and_flattens():
    squared = np.array([0.01, 0.16, 0.04, 0.0625, 0.0025])
    half = kept_probabilities(FIVE, [Sampling(temperature=0.5)])[0].numpy()
    np.testing.assert_allclose(half / half.sum(), squared / squared.sum(), rtol=1e-12)


def test_the_smallest_temperature_there_is_means_greedy():
    assert targets(FIVE.float(), Sampling(temperature=5e-324), [0]) == [1]
    assert targets(FIVE.float() * 1e30, Sampling(temperature=1e-300), [0]) == [1]


@pytest.mark.parametrize(
    ("settings", "tokens"),
    [
        ({}, [0, 1, 2, 3, 4]),
        ({"top_k": 1}, [1]),
        ({"top_k": 3}, [1, 2, 3]),
        ({"top_k": 99}, [0, 1, 2, 3, 4]),
        ({"top_p": 0.01}, [1]),  # one token at least
        ({"top_p": 0.39}, [1]),
        ({"top_p": 0.41}, [1, 3]),  # the token that crosses the border is kept
        ({"top_p": 0.64}, [1, 3]),
        ({"top_p": 0.66}, [1, 2, 3]),
        ({"top_p": 0.96}, [0, 1, 2, 3, 4]),
        ({"min_p": 0.99}, [1]),
        ({"min_p": 0.6}, [1, 3]),  # 0.25 / 0.4 = 0.625
        ({"min_p": 0.2}, [0, 1, 2, 3]),  # 0.1 / 0.4 = 0.25, 0.05 / 0.4 = 0.125
        # top_k first: of the two kept (0.4, 0.25) token 1 alone has 0.615. Not [1, 3], which top_p first
        # would keep.
        ({"top_k": 2, "top_p": 0.6}, [1]),
        ({"top_k": 3, "min_p": 0.6}, [1, 3]),
        ({"temperature": 0.5, "top_p": 0.55}, [1]),  # temperature first: 0.16 / 0.275 = 0.58
        ({"temperature": 100.0, "top_p": 0.55}, [1, 2, 3]),  # nearly flat: three fifths are needed
    ],
)  # fmt: skip
def test_filters_keep_what_they_keep_by_hand(settings, tokens):
    assert kept(FIVE, **settings) == tokens


def test_of_tokens_equally_likely_the_lowest_ids_are_kept():
    flat = torch.zeros(1, 6)
    assert kept(flat, top_k=2) == [0, 1]
    assert kept(flat, top_p=0.5) == [0, 1, 2]
    assert kept(flat, min_p=0.9) == [0, 1, 2, 3, 4, 5]


@pytest.mark.parametrize("top_k", [0, 1, 7, 50])
@pytest.mark.parametrize("top_p", [1.0, 0.9, 0.3])
@pytest.mark.parametrize("min_p", [0.0, 0.1])
@pytest.mark.parametrize("temperature", [0.4, 1.0, 1.7])
def test_filters_keep_what_those_of_transformers_keep_with_the_same_shares(temperature, top_k, top_p, min_p):
    logits = torch.randn(20, 300, dtype=torch.float64, generator=torch.Generator().manual_seed(3)) * 3
    warpers = LogitsProcessorList([TemperatureLogitsWarper(temperature)])
    if top_k:
        warpers.append(TopKLogitsWarper(top_k))
    if top_p < 1:
        warpers.append(TopPLogitsWarper(top_p))
    if min_p:
        warpers.append(MinPLogitsWarper(min_p))
    theirs = warpers(None, logits).softmax(-1)
    ours = kept_probabilities(logits, [Sampling(temperature, top_p, top_k, min_p)] * 20)
    assert torch.equal(ours > 0, theirs > 0)
    torch.testing.assert_close(ours / ours.sum(-1, keepdim=True), theirs)


@pytest.mark.parametrize("settings", [{}, {"top_p": 0.8}, {"top_k": 3}, {"min_p": 0.2}, {"temperature": 2.0}])
def test_draws_over_many_positions_have_the_distribution(settings):
    sampling = Sampling(**{"temperature": 1.0, "seed": 11, **settings})
    share = kept_probabilities(FIVE, [sampling])[0]
    share = (share / share.sum()).numpy()
    count = 20_000
    drawn = np.bincount(targets(FIVE.float().expand(count, -1), sampling, list(range(count))), minlength=5)
    assert drawn[share == 0].sum() == 0
    wanted = share[share > 0] * count
    chi_square = ((drawn[share > 0] - wanted) ** 2 / wanted).sum()
    assert (
        chi_square < 18.5
    )  # 4 degrees of freedom at most, one in a thousand; fixed seed: it passes always or never


def test_draws_over_many_seeds_have_the_distribution():
    count = 20_000
    rows = TargetSampling([Sampling(1.0, seed=seed) for seed in range(count)], np.zeros(count, np.int64))
    drawn = np.bincount(target_tokens(FIVE.float().expand(count, -1), rows), minlength=5)
    wanted = np.array([0.1, 0.4, 0.2, 0.25, 0.05]) * count
    assert ((drawn - wanted) ** 2 / wanted).sum() < 18.5


def test_a_row_does_not_depend_on_the_rows_beside_it():
    """To the last bit: greedy, filtered and unfiltered rows in one call, in any order, and each alone."""
    generator = torch.Generator().manual_seed(5)
    logits = torch.randn(40, 5000, generator=generator) * 8
    kinds = [
        Sampling(),
        Sampling(0.8, seed=3),
        Sampling(1.0, 0.5, seed=4),
        Sampling(1.0, 1.0, 20, seed=5),
        Sampling(0.7, 0.9, 40, 0.05, 6),
    ]
    sampling = [kinds[i % 5] for i in range(40)]
    positions = np.arange(40)
    together = target_tokens(logits, TargetSampling(sampling, positions))
    order = torch.randperm(40, generator=generator)
    shuffled = target_tokens(logits[order], TargetSampling([sampling[i] for i in order], positions[order]))
    alone = [targets(logits[i : i + 1], sampling[i], [i])[0] for i in range(40)]
    assert together.tolist() == alone
    assert shuffled.tolist() == [alone[i] for i in order]
    drawn = [i for i in range(40) if sampling[i].temperature]
    shares = kept_probabilities(logits[drawn], [sampling[i] for i in drawn])
    for row, i in enumerate(drawn):
        assert torch.equal(shares[row], kept_probabilities(logits[i : i + 1], [sampling[i]])[0])


def test_no_rows_give_no_tokens():
    assert targets(torch.zeros(0, 5), Sampling(), []) == []


def test_the_rarest_token_of_a_large_vocabulary_can_be_drawn():
    """A float32 sum would have no room for a share of 1e-9 at the end of 150,000 tokens."""
    logits = torch.full((1, 150_000), -30.0)
    logits[0, 0] = 0.0
    logits[0, -1] = math.log(1e-9)
    assert _draw(
        logits, [Sampling(temperature=1)], torch.tensor([1 - 1e-10], dtype=torch.float64)
    ).tolist() == [149_999]
