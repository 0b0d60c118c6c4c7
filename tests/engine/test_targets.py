"""Target tokens from logits: ties, the worked example and the filters, each against figures worked out by
hand. test_draw.py has the draw itself, test_draw_statistics.py what it is like over many draws.
"""

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

from drafting.gumbel import gumbel, row_keys
from drafting.sampling import Sampling
from engine.targets import TargetSampling, kept, target_tokens

# Probabilities of tokens 0 .. 4.
FIVE = torch.tensor([[0.1, 0.4, 0.2, 0.25, 0.05]], dtype=torch.float64).log()


def targets(logits: torch.Tensor, sampling: Sampling, positions: list[int]) -> list[int]:
    return target_tokens(logits, TargetSampling([sampling] * len(positions), np.array(positions))).tolist()


def kept_tokens(logits: torch.Tensor, **settings: float) -> list[int]:
    """The tokens that filters leave, at temperature 1 unless told."""
    return kept(logits, [Sampling(**{"temperature": 1.0, **settings})])[0].nonzero()[:, 0].tolist()


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


# Seed 0: log probabilities -2.303, -0.916, -1.609, -1.386, -2.996, plus the Gumbel numbers of each position.
SCORES = [
    [-0.5710, -0.5585, 0.8674, -1.5734, -3.6372],  # 1.7316, 0.3578, 2.4769, -0.1871, -0.6415
    [-1.8372, -2.1687, -1.4234, -0.0712, -0.5646],  # 0.4653, -1.2524, 0.1861, 1.3151, 2.4311
    [-2.2826, -1.7213, -2.1787, -2.9137, -1.9833],  # 0.0200, -0.8050, -0.5693, -1.5274, 1.0124
    [-2.1348, 0.6488, -1.0901, -1.9928, 0.6633],  # 0.1678, 1.5651, 0.5193, -0.6065, 3.6591
    [-0.0106, -1.1543, -2.5215, -1.5524, -1.6428],  # 2.2920, -0.2381, -0.9121, -0.1661, 1.3529
]
POSITIONS = [0, 1, 2, 9, 12]


def test_the_example_is_what_the_numbers_make_of_it():
    keys = row_keys([0] * 5, np.array(POSITIONS))
    noise = [[gumbel(key, token) for token in range(5)] for key in keys]
    np.testing.assert_allclose(FIVE.numpy() + noise, SCORES, rtol=0, atol=6e-5)


@pytest.mark.parametrize(
    ("settings", "tokens"),
    [
        ({}, [2, 3, 1, 4, 0]),  # the largest of each line above; not the likeliest, 1
        ({"top_k": 2}, [1, 3, 1, 1, 1]),  # the larger of 1 and 3
        ({"top_k": 3}, [2, 3, 1, 1, 1]),
        ({"top_p": 0.9}, [2, 3, 1, 1, 0]),  # all but 4
        ({"min_p": 0.3}, [2, 3, 1, 1, 1]),  # 0.1 / 0.4 is less
        ({"temperature": 5e-324}, [1, 1, 1, 1, 1]),
        # By the numbers alone: 1.7316, 0.3578, 2.4769 at first.
        ({"temperature": 1e300}, [2, 4, 4, 4, 0]),
        ({"temperature": 1e6, "top_k": 3}, [2, 3, 2, 1, 3]),
    ],
)
def test_the_token_with_the_largest_sum_is_drawn_of_those_that_the_filters_leave(settings, tokens):
    sampling = Sampling(**{"temperature": 1.0, "seed": 0, **settings})
    assert targets(FIVE.float().expand(5, -1), sampling, POSITIONS) == tokens


def test_temperature_divides_the_logits():
    """At 0.5 probabilities are squared; at position 9: -4.437, -0.267, -2.700, -3.379, -2.332."""
    assert targets(FIVE.float(), Sampling(1.0, seed=0), [9]) == [4]
    assert targets(FIVE.float(), Sampling(0.5, seed=0), [9]) == [1]
    assert targets(FIVE.float() * 2, Sampling(2.0, seed=0), [9]) == [4]


def test_a_constant_added_to_all_logits_changes_nothing():
    logits = torch.randint(-64, 64, (200, 300), generator=torch.Generator().manual_seed(2)) / 16
    positions = list(range(200))
    alike = targets(logits, Sampling(0.7, seed=4), positions)
    assert targets(logits + 1024, Sampling(0.7, seed=4), positions) == alike


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
    assert kept_tokens(FIVE, **settings) == tokens


def test_of_tokens_equally_likely_the_lowest_ids_are_kept():
    flat = torch.zeros(1, 6)
    assert kept_tokens(flat, top_k=2) == [0, 1]
    assert kept_tokens(flat, top_p=0.5) == [0, 1, 2]
    assert kept_tokens(flat, min_p=0.9) == [0, 1, 2, 3, 4, 5]


@pytest.mark.parametrize("top_k", [0, 1, 7, 50])
@pytest.mark.parametrize("top_p", [1.0, 0.9, 0.3])
@pytest.mark.parametrize("min_p", [0.0, 0.1])
@pytest.mark.parametrize("temperature", [0.4, 1.0, 1.7])
def test_filters_keep_what_those_of_transformers_keep(temperature, top_k, top_p, min_p):
    logits = torch.randn(20, 300, dtype=torch.float64, generator=torch.Generator().manual_seed(3)) * 3
    warpers = LogitsProcessorList([TemperatureLogitsWarper(temperature)])
    if top_k:
        warpers.append(TopKLogitsWarper(top_k))
    if top_p < 1:
        warpers.append(TopPLogitsWarper(top_p))
    if min_p:
        warpers.append(MinPLogitsWarper(min_p))
    theirs = warpers(None, logits).isfinite()
    assert torch.equal(kept(logits, [Sampling(temperature, top_p, top_k, min_p)] * 20), theirs)


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
    left = kept(logits[drawn], [sampling[i] for i in drawn])
    for row, i in enumerate(drawn):
        assert torch.equal(left[row], kept(logits[i : i + 1], [sampling[i]])[0])


def test_no_rows_give_no_tokens():
    assert targets(torch.zeros(0, 5), Sampling(), []) == []
