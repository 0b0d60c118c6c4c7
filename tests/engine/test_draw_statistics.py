"""The draw over many draws: each token as often as its probability says, and no draw tells of another.

Seeds are fixed, so a test passes always or never. Limits are such that right numbers would pass them with
other seeds too, but for one in a million for each figure: 4.9 standard deviations, or what chi-squared
exceeds with that probability.
"""

import math

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from drafting.compiled import compiled
from drafting.gumbel import gumbel, row_keys
from drafting.sampling import Sampling
from engine.targets import TargetSampling, kept, target_tokens
from rows.prompts import row_seed

FIVE = torch.tensor([[0.1, 0.4, 0.2, 0.25, 0.05]], dtype=torch.float64).log()
SIGMAS = 4.9


@compiled
def numbers(keys: NDArray[np.uint64], first: int, num_tokens: int) -> NDArray[np.float64]:
    """The Gumbel numbers of some tokens for each key, float64 [K, T]."""
    found = np.empty((len(keys), num_tokens))
    for i in range(len(keys)):
        for token in range(num_tokens):
            found[i, token] = gumbel(keys[i], first + token)
    return found


def excess(counts: NDArray[np.int64], wanted: NDArray[np.float64] | float) -> float:
    """Chi-squared of counts in standard deviations of a normal distribution (Wilson and Hilferty 1931)."""
    chi_squared = float(((counts - wanted) ** 2 / wanted).sum())
    degrees = counts.size - 1
    spread = 2 / (9 * degrees)
    return (math.cbrt(chi_squared / degrees) - (1 - spread)) / math.sqrt(spread)


def correlation(one: NDArray, other: NDArray) -> float:
    """In standard deviations of what independent numbers have."""
    return float(np.corrcoef(one.ravel(), other.ravel())[0, 1]) * math.sqrt(one.size)


def draws(logits: torch.Tensor, sampling: Sampling, positions: range) -> NDArray[np.int64]:
    """The tokens drawn of one row of logits at many positions."""
    rows = TargetSampling([sampling] * len(positions), np.array(positions))
    return target_tokens(logits.float().expand(len(positions), -1), rows)


def draws_of_seeds(logits: torch.Tensor, seeds: list[int]) -> NDArray[np.int64]:
    """The token at position 0 for each seed."""
    rows = TargetSampling([Sampling(1.0, seed=seed) for seed in seeds], np.zeros(len(seeds), np.int64))
    return target_tokens(logits.float().expand(len(seeds), -1), rows)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
@pytest.mark.parametrize("settings", [{}, {"top_p": 0.8}, {"top_k": 3}, {"min_p": 0.2}])
def test_each_token_is_drawn_as_often_as_its_probability_says(temperature, settings):
    sampling = Sampling(temperature, seed=11, **settings)
    left = kept(FIVE, [sampling])[0].numpy()
    shares = np.exp(FIVE[0].numpy() / temperature) * left
    drawn = np.bincount(draws(FIVE, sampling, range(40_000)), minlength=5)
    assert drawn[~left].sum() == 0
    assert excess(drawn[left], 40_000 * shares[left] / shares.sum()) < SIGMAS


def test_many_tokens_are_drawn_as_often_as_their_probabilities_say():
    """2500 of them, in three blocks."""
    logits = torch.randn(1, 2500, generator=torch.Generator().manual_seed(4), dtype=torch.float64).clamp(
        -1.5, 1.5
    )
    drawn = np.bincount(draws(logits, Sampling(1.0, seed=3), range(60_000)), minlength=2500)
    assert excess(drawn, 60_000 * logits.float().double().softmax(-1)[0].numpy()) < SIGMAS


@pytest.mark.parametrize("seeds", [range(40_000), [row_seed(7, "sample", n) for n in range(1, 40_001)]])
def test_draws_of_many_seeds_have_the_distribution(seeds):
    """Seeds that follow each other, and those of the samples of one row."""
    drawn = np.bincount(draws_of_seeds(FIVE, list(seeds)), minlength=5)
    assert excess(drawn, 40_000 * FIVE.exp()[0].numpy()) < SIGMAS


@pytest.mark.parametrize("lag", [1, 2, 3, 64, 4096])
def test_a_draw_does_not_tell_of_the_draw_at_another_position(lag):
    """Nor of that with another seed: a table of pairs, 25 cells, against the product of the probabilities."""
    pairs_wanted = np.outer(FIVE.exp()[0].numpy(), FIVE.exp()[0].numpy()).ravel()
    tokens = draws(FIVE, Sampling(1.0, seed=21), range(50_000 + lag))
    of_seeds = draws_of_seeds(FIVE, list(range(50_000 + lag)))
    for found in (tokens, of_seeds):
        # Pairs that share no draw: every other stretch of `lag` draws with the one after it.
        starts = np.array([n for n in range(50_000) if (n // lag) % 2 == 0])
        table = np.bincount(5 * found[starts] + found[starts + lag], minlength=25)
        assert excess(table, len(starts) * pairs_wanted) < SIGMAS


def test_the_samples_of_a_row_tell_nothing_of_each_other():
    pairs_wanted = np.outer(FIVE.exp()[0].numpy(), FIVE.exp()[0].numpy()).ravel()
    seeds = [row_seed(0, f"row {n}") for n in range(25_000)]
    siblings = [row_seed(seed, "sample", 1) for seed in seeds]
    others = [row_seed(seed, "sample", 2) for seed in seeds]
    one, two, three = (draws_of_seeds(FIVE, own) for own in (seeds, siblings, others))
    for a, b in ((one, two), (one, three), (two, three)):
        assert excess(np.bincount(5 * a + b, minlength=25), 25_000 * pairs_wanted) < SIGMAS


def test_numbers_of_seeds_and_positions_side_by_side_are_not_correlated():
    """Neither at one token nor at tokens side by side: 90,000 pairs of numbers or more for each figure."""
    keys = row_keys([seed for seed in range(30) for _ in range(30)], np.tile(np.arange(30), 30))
    grid = np.exp(-numbers(keys, 0, 128)).reshape(30, 30, 128)  # exponential: without the long tail
    pairs = {
        "seeds": (grid[1:], grid[:-1]),
        "positions": (grid[:, 1:], grid[:, :-1]),
        "tokens": (grid[..., 1:], grid[..., :-1]),
        "seeds and positions": (grid[1:, :-1], grid[:-1, 1:]),
        "seeds and tokens": (grid[1:, :, 1:], grid[:-1, :, :-1]),
        "seeds and tokens, other way": (grid[1:, :, :-1], grid[:-1, :, 1:]),
        "positions and tokens": (grid[:, 1:, 1:], grid[:, :-1, :-1]),
        "tokens 64 apart": (grid[..., 64:], grid[..., :-64]),
    }
    far = {name: round(correlation(*pair), 1) for name, pair in pairs.items()}
    assert {name: value for name, value in far.items() if abs(value) >= SIGMAS} == {}
    assert correlation(grid, grid) > 300  # what a failure would look like


@pytest.mark.parametrize("apart", [1, 2, 16, 256, 4096, 65_536])
def test_numbers_of_two_tokens_are_independent_over_many_keys(apart):
    """A table of 16 x 16 equally likely cells."""
    keys = row_keys([seed for seed in range(400) for _ in range(500)], np.tile(np.arange(500), 400))
    one, other = (np.exp(-np.exp(-numbers(keys, token, 1)[:, 0])) for token in (0, apart))
    table = np.bincount(16 * (16 * one).astype(int) + (16 * other).astype(int), minlength=256)
    assert excess(table, len(keys) / 256) < SIGMAS


def test_numbers_of_one_key_are_as_unlike_as_independent_ones():
    """Of 4096 tokens, how many have x below 1/256: mean 16, variance 15.94, over 4000 keys."""
    keys = row_keys([3] * 4000, np.arange(4000))
    large = -math.log(-math.log1p(-1 / 256))
    counts = np.array([(numbers(keys[n : n + 100], 0, 4096) > large).sum(-1) for n in range(0, 4000, 100)])
    assert abs(counts.mean() - 16) < SIGMAS * math.sqrt(15.94 / 4000)
    assert abs(counts.var() / 15.94 - 1) < SIGMAS * math.sqrt(2 / 4000)


@pytest.fixture(scope="module")
def ten_million() -> NDArray[np.float64]:
    """10,000 keys with 1000 tokens each."""
    keys = row_keys([seed for seed in range(100) for _ in range(100)], np.tile(np.arange(100), 100))
    return np.sort(numbers(keys, 0, 1000).ravel())


def test_numbers_have_the_gumbel_distribution(ten_million):
    """Kolmogorov and Smirnov: the largest distance of the distribution functions, times the square root of
    the count, is above 2.69 once in a million.
    """
    count = len(ten_million)
    wanted = np.exp(-np.exp(-ten_million))
    steps = np.arange(count + 1) / count
    distance = max((steps[1:] - wanted).max(), (wanted - steps[:-1]).max())
    assert distance * math.sqrt(count) < 2.69


@pytest.mark.parametrize("limit", [5.0, 8.0, 10.0, 12.0, 14.0])
def test_large_numbers_are_as_rare_as_they_must_be(ten_million, limit):
    """Above 10: 454 of ten million are expected; above 14: 8.3."""
    expected = -math.expm1(-math.exp(-limit)) * len(ten_million)
    found = len(ten_million) - np.searchsorted(ten_million, limit)
    assert abs(2 * math.sqrt(found) - 2 * math.sqrt(expected)) < SIGMAS  # of a Poisson number, roots have 1/2


def test_small_numbers_are_as_rare_as_they_must_be(ten_million):
    expected = math.exp(-math.exp(2.5)) * len(ten_million)  # 51
    assert abs(2 * math.sqrt(np.searchsorted(ten_million, -2.5)) - 2 * math.sqrt(expected)) < SIGMAS


@pytest.mark.parametrize(("share", "token"), [(1e-9, 149_999), (6e-11, 149_999), (5.8e-11, 0)])
def test_the_rarest_token_of_a_large_vocabulary_can_be_drawn(share, token):
    """At this position, found by a search, its number is 22.488 and that of token 0 is -1.074: it is drawn
    where its share is more than exp(-1.074 - 22.488) = 5.85e-11 of token 0's.
    """
    position = 4_881_319_581
    logits = torch.full((1, 150_000), -60.0)
    logits[0, 0] = 0.0
    logits[0, -1] = math.log(share)
    assert draws(logits, Sampling(1.0, seed=5), range(position, position + 1)).tolist() == [token]
