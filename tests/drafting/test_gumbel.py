"""The Gumbel numbers of a draw: literal, and worked out by hand from what they are made of."""

import math
import re
from decimal import Decimal, localcontext
from pathlib import Path

import numpy as np
import pytest

from drafting.gumbel import gumbel, lower_bits, row_key, row_keys, upper_bits

PAGE = Path(__file__).parents[2] / "docs" / "drafting.md"
MASK = 2**64 - 1
SEEDS = [0, 0, 1, 2**64 - 1, -1, 12345]
POSITIONS = [0, 1, 0, 7, 7, 1000]
TOKENS = [0, 1, 4096, 151_935]


def splitmix64(state: int) -> int:
    z = (state + 0x9E3779B97F4A7C15) & MASK
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & MASK
    return z ^ (z >> 31)


def halves(key: int) -> tuple[np.uint32, np.uint32]:
    return np.uint32(key % 2**32), np.uint32(key >> 32)


def bits_of(key: int, token: int) -> int:
    """The 64 bits of x."""
    return int(upper_bits(*halves(key), token)) << 32 | int(lower_bits(np.uint64(key), token))


def test_keys_are_two_rounds_of_splitmix64():
    """By hand, in Python's integers; the first output of splitmix64 from 0 is the published
    0xe220a8397b1dcdaf.
    """
    assert splitmix64(0) == 0xE220A8397B1DCDAF
    by_hand = [splitmix64((splitmix64(s & MASK) + p) & MASK) for s, p in zip(SEEDS, POSITIONS, strict=True)]
    assert row_keys(SEEDS, np.array(POSITIONS)).tolist() == by_hand
    assert [int(row_key(np.uint64(s & MASK), p)) for s, p in zip(SEEDS, POSITIONS, strict=True)] == by_hand


def test_upper_bits_are_three_keyed_rounds_of_multiplications():
    """By hand, for key 0x0000000200000005 and token 6: 5 xor 6 is 3; 3 has nothing above bit 17."""
    x = 3 * 0xED5AD4BB % 2**32
    x = x + 2
    x = (x ^ x >> 11) * 0xAC4C1B51 % 2**32
    x = (x ^ x >> 15) * 0x31848BAB % 2**32
    x = x ^ x >> 14
    assert int(upper_bits(np.uint32(5), np.uint32(2), 6)) == x


def test_of_one_key_no_two_tokens_have_the_same_upper_bits():
    """Every round can be undone."""
    low, high = halves(splitmix64(1))
    assert len({int(upper_bits(low, high, token)) for token in range(100_000)}) == 100_000


def test_lower_bits_are_half_of_splitmix64_of_key_plus_token():
    for key in (0, splitmix64(7), MASK):
        for token in TOKENS:
            assert int(lower_bits(np.uint64(key), token)) == splitmix64((key + token) & MASK) >> 32


def test_the_numbers_never_change():
    """Literal: a job continued with a later version must go on with the same text."""
    keys = row_keys(SEEDS, np.array(POSITIONS))
    assert [hex(key) for key in keys] == [
        "0xa706dd2f4d197e6f", "0x2a98f501af37e97f", "0x5e41ab087439611e",
        "0x19f20a9bb46150b6", "0x19f20a9bb46150b6", "0x682c61afff62e36e",
    ]  # fmt: skip
    assert [hex(bits_of(int(keys[0]), token)) for token in TOKENS] == [
        "0x29879a90238275bc", "0x80c667e8421daf30", "0x52514078f8fefdea", "0x630e1b9d1e9a2370",
    ]  # fmt: skip
    found = [[gumbel(key, token) for token in TOKENS] for key in keys]
    np.testing.assert_allclose(
        found,
        [
            [1.7315705895590554, 0.35778920338318176, 0.9468842485892544, 0.7148148122967422],
            [0.4653464723968794, -1.2524161664996478, -0.19412402905842904, -1.4847780334566385],
            [0.6702988027644545, 0.6272000141156561, -0.5609202106465746, 3.856082401296674],
            [0.8166756367648493, 0.16670032247762825, 0.8738188122961674, 0.23545189589477475],
            [0.8166756367648493, 0.16670032247762825, 0.8738188122961674, 0.23545189589477475],
            [0.1456484490538212, 2.2363181604565594, -0.8725729713870432, -0.2510015030039767],
        ],
        rtol=0,
        atol=1e-14,  # the logarithm of another machine's library
    )


@pytest.mark.parametrize("seed", range(5))
def test_the_number_is_minus_log_of_minus_log_of_1_minus_x(seed):
    """With 50 digits; x has 53 bits, so 1 - x has fewer where it is small."""
    key = splitmix64(seed)
    for token in range(200):
        with localcontext(prec=50):
            x = (Decimal(bits_of(key, token)) + Decimal("0.5")) / 2**64
            wanted = float(-((-((1 - x).ln())).ln()))
        error = 2e-15 + 2.0**-53 / float(1 - x)
        assert gumbel(np.uint64(key), token) == pytest.approx(wanted, rel=0, abs=error)


def token_with_upper_bits(low: int, high: int, wanted: int) -> int:
    """The one token id below 2^32 that has these upper bits."""
    first, second, third = (pow(m, -1, 2**32) for m in (0xED5AD4BB, 0xAC4C1B51, 0x31848BAB))

    def unshifted(x: int, by: int) -> int:
        found = x
        for _ in range(32 // by + 1):
            found = x ^ found >> by
        return found

    x = unshifted(wanted, 14)
    x = unshifted(x * third % 2**32, 15)
    x = unshifted(x * second % 2**32, 11)
    x = (x - high) % 2**32
    return unshifted(x * first % 2**32, 17) ^ low


def test_the_largest_and_the_smallest_numbers_are_finite_and_as_far_out_as_said():
    key = splitmix64(3)
    low, high = halves(key)
    rarest = token_with_upper_bits(int(low), int(high), 0)
    assert int(upper_bits(low, high, rarest)) == 0
    x = (int(lower_bits(np.uint64(key), rarest)) + 0.5) * 2.0**-64
    assert gumbel(np.uint64(key), rarest) == pytest.approx(-math.log(x), rel=0, abs=1e-9)
    assert gumbel(np.uint64(key), rarest) > 22.18  # 32 log 2
    smallest = token_with_upper_bits(int(low), int(high), 2**32 - 1)
    assert -3.61 < gumbel(np.uint64(key), smallest) < -3.09  # log(53 log 2) and log(32 log 2)


def test_the_example_of_the_docs_is_what_the_numbers_make_of_it():
    """Of docs/drafting.md, "The draw and its noise"; and the winners that its text names: 2, 2 and 1."""
    section = PAGE.read_text(encoding="utf-8").split("## The draw and its noise")[1].split("## ")[0]
    rows = [line.strip("| ").split(" | ") for line in re.findall(r"^\| \d.*$", section, re.MULTILINE)]
    key = row_keys([0], np.array([0]))[0]
    sums = []
    for token, row in enumerate(rows):
        p, q, r = (float(row[place]) for place in (1, 5, 7))
        number = gumbel(key, token)
        own = [math.log(share) + number for share in (p, q, r)]
        shown = [math.log(p), number, own[0], q, own[1], r, own[2]]
        digits = [3, 3, 3, 2, 3, 2, 3]
        wanted = [f"{value:.{places}f}" for value, places in zip(shown, digits, strict=True)]
        assert row == [f"{token}", f"{p:.2f}", *wanted]
        sums.append(own)
    assert np.argmax(sums, axis=0).tolist() == [2, 2, 1]
    assert np.sum([[float(row[place]) for place in (1, 5, 7)] for row in rows], axis=0) == pytest.approx(1)
