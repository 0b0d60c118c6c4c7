"""Counting by powers of two keeps the tokens that sorting keeps, whatever the row looks like."""

import numpy as np
import pytest
import torch

from engine.top_k_top_p import kept_by_rank, kept_by_sorting

LIMITS = [(0, 0.9), (0, 0.5), (0, 1e-6), (1, 1.0), (3, 1.0), (40, 0.8), (0, 0.999999), (1000, 0.95)]


def probabilities(shape: str, vocabulary: int = 500) -> torch.Tensor:
    rng = np.random.default_rng(0)
    logits = {
        "peaked": 4 * rng.standard_normal((8, vocabulary)),
        "flat": 0.01 * rng.standard_normal((8, vocabulary)),
        "tied": rng.integers(0, 4, (8, vocabulary)).astype(float),
        "all equal": np.zeros((8, vocabulary)),
        "mostly nothing": np.where(rng.random((8, vocabulary)) < 0.01, 0.0, -2000.0),
        "very unlikely": -40.0 * rng.random((8, vocabulary)),
    }[shape]
    return torch.from_numpy(np.exp(logits - logits.max(-1, keepdims=True)))


@pytest.mark.parametrize("shape", ["peaked", "flat", "tied", "all equal", "mostly nothing", "very unlikely"])
def test_the_tokens_kept_are_those_of_a_stable_sort(shape):
    rows = probabilities(shape)
    top_k, top_p = (
        torch.tensor(column, dtype=torch.float64)[:, None] for column in zip(*LIMITS, strict=True)
    )
    assert torch.equal(kept_by_rank(rows, top_k, top_p), kept_by_sorting(rows, top_k, top_p))


def test_of_equal_tokens_the_lowest_ids_are_kept_and_one_of_probability_0_never():
    row = torch.tensor([[0.5, 1.0, 0.0, 0.5, 1.0]], dtype=torch.float64)
    top_k = torch.tensor([[3.0]], dtype=torch.float64)
    off = torch.tensor([[1.0]], dtype=torch.float64)
    assert kept_by_rank(row, top_k, off).tolist() == [[True, True, False, False, True]]
    assert kept_by_rank(row, 0 * top_k, off).tolist() == [[True, True, False, True, True]]
    # Of 3 in all, 0.7 is 2.1: 1 and 1 come before the third token, which passes it.
    assert kept_by_rank(row, 0 * top_k, 0.7 * off).tolist() == [[True, True, False, False, True]]
