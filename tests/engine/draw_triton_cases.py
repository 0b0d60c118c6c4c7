"""What the Triton kernel must do, on the device that the environment's DRAW_DEVICE names; on cpu it needs
TRITON_INTERPRET=1 before triton is imported. test_draw_triton.py runs this file in a process of its own.
"""

import os

import numpy as np
import pytest
import torch
import triton
import triton.language as tl

from drafting.gumbel import HALF, LOW_BITS, gumbel, lower_bits, row_keys, upper_bits
from engine import draw_triton
from engine.draw import draw, draw_with_torch
from engine.draw_triton import _bounds, _gumbel, _splitmix64, _upper_bits, draw_with_triton
from tests.engine.test_draw import SHAPES, TEMPERATURES, random_logits

DEVICE = os.environ["DRAW_DEVICE"]
INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
KEYS = row_keys([0, 1, -1, 2**63, 12345, 7], np.array([0, 1, 2, 3, 1000, 10**6]))
INF = float("inf")


@triton.jit
def write_numbers(keys, upper, lower, noise, bounds, first, SIZE: tl.constexpr):
    key = tl.load(keys + tl.program_id(0)).to(tl.uint64, bitcast=True)
    ids = first + tl.arange(0, SIZE)
    place = tl.program_id(0) * SIZE + tl.arange(0, SIZE)
    tl.store(upper + place, _upper_bits(key, ids).to(tl.int64))
    tl.store(lower + place, (_splitmix64(key + ids.to(tl.uint64)) >> 32).to(tl.int64))
    tl.store(noise + place, _gumbel(key, ids))
    zeros = (ids * 0).to(tl.float32)
    tl.store(bounds + place, _bounds(zeros, 0.0, 1.0, key, ids))


@pytest.mark.parametrize("first", [0, 151_000, 2**20])
def test_the_bits_are_those_of_drafting_and_the_numbers_too(first):
    size = 1024
    keys = torch.from_numpy(KEYS.view(np.int64)).to(DEVICE)
    upper, lower = (torch.empty(len(KEYS), size, dtype=torch.int64, device=DEVICE) for _ in range(2))
    noise = torch.empty(len(KEYS), size, dtype=torch.float64, device=DEVICE)
    bounds = torch.empty(len(KEYS), size, dtype=torch.float32, device=DEVICE)
    write_numbers[(len(KEYS),)](keys, upper, lower, noise, bounds, first, SIZE=size)
    ids = range(first, first + size)
    halves = [(np.uint32(key & LOW_BITS), np.uint32(key >> HALF)) for key in KEYS]
    assert upper.tolist() == [[int(upper_bits(*own, token)) for token in ids] for own in halves]
    assert lower.tolist() == [[int(lower_bits(key, token)) for token in ids] for key in KEYS]
    wanted = np.array([[gumbel(key, token) for token in ids] for key in KEYS])
    np.testing.assert_allclose(noise.cpu().numpy(), wanted, rtol=0, atol=1e-14)
    excess = bounds.cpu().numpy() - wanted * np.log2(np.e)
    assert excess.min() > -0.001
    assert excess[wanted > 3].max() < 0.2


@pytest.mark.parametrize("vocabulary", [1, 97, 1025, 4096 + 17])
@pytest.mark.parametrize("shape", SHAPES)
def test_the_kernel_draws_what_scoring_every_token_draws(shape, vocabulary, monkeypatch):
    logits = random_logits(shape, len(TEMPERATURES), vocabulary, vocabulary)
    keys = row_keys([3] * len(logits), np.arange(len(logits)))
    temperatures = np.array(TEMPERATURES)
    wanted = draw_with_torch(logits, temperatures, keys).tolist()
    likeliest = logits.numpy().argmax(-1)
    for programs in (1, 3 * len(logits)):  # one program for each row, or three at most
        monkeypatch.setattr(draw_triton, "PROGRAMS", programs)
        found = draw_with_triton(logits.to(DEVICE), np.arange(len(logits)), likeliest, temperatures, keys)
        assert found.tolist() == wanted, programs


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_logits_are_read_as_they_come_and_only_of_the_rows_named(dtype):
    logits = random_logits("normal", 6, 3000, 8).to(dtype)
    rows = np.array([4, 1, 4])
    keys = row_keys([1, 2, 3], np.array([0, 0, 0]))
    temperatures = np.array([0.5, 1.0, 2.0])
    likeliest = logits.float().numpy().argmax(-1)[rows]
    found = draw_with_triton(logits.to(DEVICE), rows, likeliest, temperatures, keys)
    assert found.tolist() == draw_with_torch(logits[rows].float(), temperatures, keys).tolist()


def test_tokens_that_the_filters_removed_never_win():
    logits = torch.full((4, 3000), -INF)
    logits[:, 2999] = -3e38
    logits[:2, 1::2] = 0.0
    likeliest = logits.numpy().argmax(-1)
    for temperature in (1e-300, 1.0, 1e30, 1e308):
        found = draw_with_triton(
            logits.to(DEVICE), np.arange(4), likeliest, np.full(4, temperature), KEYS[:4]
        )
        assert found[2:].tolist() == [2999, 2999]
        assert (found[:2] % 2 == 1).all()


@pytest.mark.skipif(INTERPRETED, reason="a GPU only: in Python it takes too long")
def test_the_draw_of_a_gpu_is_by_the_kernel_also_of_a_large_vocabulary(monkeypatch):
    calls = []
    monkeypatch.setattr(
        draw_triton, "draw_with_triton", lambda *given: calls.append(given) or draw_with_triton(*given)
    )
    logits = random_logits("normal", 64, 151_936, 1)
    keys = row_keys(list(range(64)), np.full(64, 7))
    likeliest = logits.numpy().argmax(-1)
    for temperature in (0.3, 1.0, 2.5):
        temperatures = np.full(64, temperature)
        found = draw(logits.to(DEVICE), np.arange(64), likeliest, temperatures, keys)
        assert found.tolist() == draw_with_torch(logits, temperatures, keys).tolist()
    assert len(calls) == 4  # one to try it
