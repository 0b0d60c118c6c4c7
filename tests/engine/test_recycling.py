"""What the model said at a place, taken from its logits: ids and log-probabilities as torch finds them."""

import numpy as np
import pytest
import torch

from drafting.likely import LOGPROB_BITS, NUM_LEVELS, UNKNOWN, pack
from engine.recycling import BLOCK, likeliest_successors, likeliest_with_torch

INF = float("inf")
# Packing rounds to a 256th, by half of that at most; powers are computed to 6e-4.
TOLERANCE = 1 / 512 + 7e-4


def ids_of(packed: np.ndarray) -> list[list[int]]:
    return (packed >> LOGPROB_BITS).astype(np.int64).tolist()


def logprobs_of(packed: np.ndarray) -> np.ndarray:
    return -(packed & (NUM_LEVELS - 1)).astype(np.float64) / 256


@pytest.mark.parametrize("vocab_size", [1, 7, 8, 97, BLOCK - 1, BLOCK, BLOCK + 1, 1000, 32_003])
@pytest.mark.parametrize("scale", [0.1, 1.0, 4.0])
def test_the_likeliest_tokens_and_their_log_probabilities_are_those_of_torch(vocab_size, scale):
    logits = scale * torch.randn(5, vocab_size, generator=torch.Generator().manual_seed(vocab_size))
    wanted, ids = logits.log_softmax(-1).topk(min(8, vocab_size))
    found = likeliest_successors(logits, 8)
    assert found.dtype == np.uint32
    assert ids_of(found) == ids.tolist()
    np.testing.assert_allclose(logprobs_of(found), wanted.clamp(min=-4095 / 256).numpy(), atol=TOLERANCE)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
def test_logits_of_any_precision_are_taken(dtype):
    logits = torch.tensor([[1.0, 3.0, 2.0]], dtype=dtype)
    found = likeliest_successors(logits, 2)
    assert ids_of(found) == [[1, 2]]
    # e^1 + e^2 + e^3 = e^3.4076
    np.testing.assert_allclose(logprobs_of(found), [[-0.4076, -1.4076]], atol=TOLERANCE)


def test_a_vocabulary_of_fewer_tokens_than_are_asked_for_gives_all_of_them():
    assert ids_of(likeliest_successors(torch.tensor([[1.0, 3.0, 2.0]]), 8)) == [[1, 2, 0]]


def test_logits_far_from_zero_do_not_overflow():
    logits = torch.tensor([[1e4, 1e4 - 1, -1e4], [-1e4, -1e4 - 1, -3e4]])
    found = likeliest_successors(logits, 2)
    assert ids_of(found) == [[0, 1], [0, 1]]
    np.testing.assert_allclose(logprobs_of(found), [[-0.3133, -1.3133]] * 2, atol=TOLERANCE)


def test_tokens_that_cannot_come_are_not_named():
    found = likeliest_successors(torch.tensor([[-INF, 2.0, -INF, 1.0]]), 4)
    assert ids_of(found[:, :2]) == [[1, 3]]
    np.testing.assert_allclose(logprobs_of(found[:, :2]), [[-0.3133, -1.3133]], atol=TOLERANCE)
    assert (found[:, 2:] == UNKNOWN).all()


@pytest.mark.parametrize(
    "row", [[float("nan")] * 300, [-INF] * 300, [0.0] * 299 + [INF], [0.0, float("nan")] * 150]
)
def test_a_row_that_is_not_finite_harms_no_other(row):
    healthy = torch.randn(300, generator=torch.Generator().manual_seed(3))
    alone = likeliest_successors(healthy[None], 8)
    found = likeliest_successors(torch.stack([healthy, torch.tensor(row), healthy]), 8)
    assert found[[0, 2]].tolist() == [alone[0].tolist()] * 2
    known = found[1][found[1] != UNKNOWN]
    assert (known >> LOGPROB_BITS < 300).all()


def test_the_way_of_other_devices_names_the_same_tokens():
    logits = torch.randn(5, 300, generator=torch.Generator().manual_seed(4))
    logits[0, 7:] = -INF
    theirs = pack(*likeliest_with_torch(logits, 8))
    ours = likeliest_successors(logits, 8)
    assert ids_of(theirs) == ids_of(ours)
    assert ((theirs == UNKNOWN) == (ours == UNKNOWN)).all()
    np.testing.assert_allclose(logprobs_of(theirs), logprobs_of(ours), atol=2 * TOLERANCE)


def test_no_rows_give_no_rows():
    assert likeliest_successors(torch.empty(0, 9), 4).shape == (0, 4)
