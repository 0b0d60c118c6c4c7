"""The draw: blocks that are ruled out by bounds give the token that scoring every token gives."""

import numpy as np
import pytest
import torch

from drafting.gumbel import gumbel, row_keys
from engine import draw as draw_module
from engine.draw import BLOCK, _set_bounds, draw, draw_with_torch, gumbel_with_torch, upper_bits_with_torch

INF = float("inf")
TEMPERATURES = [5e-324, 1e-300, 1e-45, 1e-6, 0.1, 0.5, 0.8, 1.0, 1.5, 3.0, 100.0, 1e30, 1e60, 1e308]


def drawn(logits: torch.Tensor, temperatures: list[float], keys: np.ndarray) -> list[int]:
    """By `draw`, a temperature and a key for each row."""
    likeliest = logits.numpy().argmax(-1)
    return draw(logits, np.arange(len(logits)), likeliest, np.array(temperatures), keys).tolist()


def scored(logits: torch.Tensor, temperatures: list[float], keys: np.ndarray) -> list[int]:
    """By the definition, in Python's numbers."""
    found = []
    for row, temperature, key in zip(logits.double().numpy(), temperatures, keys, strict=True):
        below = row - row.max()
        scores = [float(b) / temperature + gumbel(key, token) for token, b in enumerate(below)]
        found.append(int(np.argmax(scores)))
    return found


def random_logits(shape: str, rows: int, vocabulary: int, seed: int) -> torch.Tensor:
    rng = np.random.default_rng(seed)
    normal = rng.standard_normal((rows, vocabulary))
    logits = {
        "normal": 3 * normal,
        "flat": np.zeros((rows, vocabulary)),
        "peaked": 30 * normal,
        "tied": rng.integers(-2, 3, (rows, vocabulary)).astype(float),
        "huge": 1e37 * normal,
        "extreme": 3.4e38 * np.clip(normal, -1, 1),
        "far from 0": 1e6 + np.round(normal, 1),
        "tiny": 1e-42 * normal,
        "rising": np.linspace(-20, 20, vocabulary) + normal,
        "falling": np.linspace(20, -20, vocabulary) + normal,
        "mostly removed": np.where(rng.random((rows, vocabulary)) < 0.02, normal, -INF),
    }[shape]
    logits[:, rng.integers(vocabulary)] = 0.0  # one at least that is not removed
    return torch.from_numpy(logits.astype(np.float32))


SHAPES = [
    "normal", "flat", "peaked", "tied", "huge", "extreme", "far from 0", "tiny", "rising", "falling",
    "mostly removed",
]  # fmt: skip


@pytest.mark.parametrize("vocabulary", [1, 2, 97, BLOCK - 1, BLOCK, BLOCK + 1, 4096 + 17])
@pytest.mark.parametrize("shape", SHAPES)
def test_blocks_are_ruled_out_only_where_no_token_can_win(shape, vocabulary):
    logits = random_logits(shape, len(TEMPERATURES), vocabulary, vocabulary)
    for seed in range(3):
        keys = row_keys([seed] * len(logits), np.arange(len(logits)))
        wanted = scored(logits, TEMPERATURES, keys)
        assert drawn(logits, TEMPERATURES, keys) == wanted
        assert draw_with_torch(logits, np.array(TEMPERATURES), keys).tolist() == wanted


@pytest.mark.parametrize("temperature", [0.3, 1.0, 2.5])
def test_a_large_vocabulary_is_drawn_alike_with_and_without_bounds(temperature):
    logits = random_logits("normal", 20, 50_003, 1)
    keys = row_keys(list(range(20)), np.full(20, 7))
    wanted = draw_with_torch(logits, np.full(20, temperature), keys).tolist()
    assert drawn(logits, [temperature] * 20, keys) == wanted
    assert len(set(wanted)) > 3


def test_no_score_is_above_its_bound_and_bounds_are_close():
    """In float32, times log2 e. A bound is at most 0.2 above the score where x is small."""
    logits = random_logits("normal", 1, BLOCK, 3)[0].numpy()
    highest = logits.max()
    bounds = np.empty(BLOCK, np.float32)
    room = np.empty(BLOCK, np.float32)
    for seed in range(200):
        key = row_keys([seed], np.array([0]))[0]
        first = seed * 1000
        given = (logits, first, highest, np.float32(np.log2(np.e) / 0.8), key)
        assert _set_bounds(*given, np.float32(-1000), bounds, room)
        noise = np.array([gumbel(key, first + token) for token in range(BLOCK)])
        scores = ((logits - highest) / 0.8 + noise) * np.log2(np.e)
        assert (scores <= bounds + 0.001).all()
        assert (bounds - scores)[noise > 3].max() < 0.2
        largest = bounds.max()
        assert _set_bounds(*given, largest, bounds, room)
        assert not _set_bounds(*given, largest + np.float32(0.001), bounds, room)


def test_tokens_that_the_filters_removed_never_win():
    logits = random_logits("flat", 500, 300, 5)
    logits[:, ::2] = -INF
    keys = row_keys(list(range(500)), np.zeros(500, np.int64))
    for temperature in (1e-300, 1.0, 1e30, 1e308):
        found = drawn(logits, [temperature] * 500, keys)
        assert {token % 2 for token in found} == {1}
        assert found == draw_with_torch(logits, np.full(500, temperature), keys).tolist()
    only = torch.full((3, 300), -INF)
    only[:, 299] = -3e38
    assert drawn(only, [1e-300, 1.0, 1e308], keys[:3]) == [299] * 3


def test_of_equal_scores_the_lowest_id_wins(monkeypatch):
    """With numbers that are all alike: in Python, as machine code holds the numbers that it was made with."""
    monkeypatch.setattr(draw_module, "gumbel", lambda key, token: 1.0)
    monkeypatch.setattr(draw_module, "_set_bounds", bounds_of_any_score)
    draw_one = getattr(draw_module._draw_one, "py_func", draw_module._draw_one)
    logits = np.zeros(3000, np.float32)
    logits[[3, 1259, 2599]] = 2.0
    for likeliest in (3, 1259, 2599):
        assert draw_one(logits, likeliest, 1.0, np.uint64(0), np.empty((2, BLOCK), np.float32)) == 3
    monkeypatch.setattr(
        draw_module, "gumbel_with_torch", lambda keys, num_tokens, device: torch.ones(len(keys), num_tokens)
    )
    assert draw_with_torch(torch.from_numpy(logits)[None], np.ones(1), np.zeros(1, np.uint64)).tolist() == [3]


def bounds_of_any_score(logits, first, highest, steepness, key, least, bounds, halves) -> bool:
    bounds[: len(logits)] = INF
    return True


def test_only_the_rows_named_are_drawn_each_from_its_own_logits():
    logits = random_logits("normal", 6, 700, 8)
    rows = np.array([4, 1, 4])
    keys = row_keys([1, 2, 3], np.array([0, 0, 0]))
    temperatures = np.array([0.5, 1.0, 2.0])
    likeliest = logits.numpy().argmax(-1)[rows]
    found = draw(logits, rows, likeliest, temperatures, keys).tolist()
    assert found == scored(logits[rows], temperatures.tolist(), keys)


def test_the_numbers_of_torch_are_those_of_drafting():
    """The bits are equal; logarithms of two libraries may differ in the last one."""
    keys = row_keys([0, 1, -1, 2**63, 12345, 7], np.array([0, 1, 2, 3, 1000, 10**6]))
    wanted = np.array([[gumbel(key, token) for token in range(5000)] for key in keys])
    found = gumbel_with_torch(keys, 5000, torch.device("cpu")).numpy()
    np.testing.assert_allclose(found, wanted, rtol=0, atol=4e-15)
    key = torch.from_numpy(keys.view(np.int64))[:, None]
    assert hex(int(upper_bits_with_torch(key, torch.tensor([151_935]))[0, 0])) == "0x630e1b9d"
