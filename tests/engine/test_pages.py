"""The page pool: every page has one holder or none."""

import random
import subprocess
import sys

import pytest

from engine.pages import PagePool


def test_pages_come_lowest_first_and_the_last_given_back_is_the_next_taken():
    pool = PagePool(5, page_size=4)
    assert pool.take(3) == [0, 1, 2]
    pool.give_back([0, 1])
    assert pool.take(2) == [0, 1]
    assert pool.num_free == 2


@pytest.mark.parametrize(("num_tokens", "pages"), [(0, 0), (1, 1), (4, 1), (5, 2), (8, 2), (9, 3)])
def test_the_last_page_may_be_partly_filled(num_tokens, pages):
    assert PagePool(9, page_size=4).pages_for(num_tokens) == pages


def test_taking_more_pages_than_are_free_is_our_own_bug():
    with pytest.raises(AssertionError, match="3 pages wanted, 2 free"):
        PagePool(2, page_size=4).take(3)


def test_a_page_held_twice_is_found():
    pool = PagePool(4, page_size=4)
    mine = pool.take(2)
    with pytest.raises(AssertionError, match="held twice"):
        pool.check_integrity([mine[:1], mine[:1]])


def test_a_lost_page_is_found():
    pool = PagePool(4, page_size=4)
    pool.take(2)
    with pytest.raises(AssertionError, match=r"free 2 \+ held 1 != 4"):
        pool.check_integrity([[0]])


def test_a_page_given_back_twice_is_found():
    pool = PagePool(4, page_size=4)
    mine = pool.take(2)
    pool.give_back(mine)
    pool.give_back(mine)
    with pytest.raises(AssertionError):
        pool.check_integrity([])


@pytest.mark.parametrize("seed", range(5))
def test_random_taking_and_giving_back_loses_no_page(seed):
    rng, pool, held = random.Random(seed), PagePool(17, page_size=2), []
    for _ in range(300):
        if rng.random() < 0.5 and pool.num_free:
            held.append(pool.take(rng.randint(1, pool.num_free)))
        elif held:
            pool.give_back(held.pop(rng.randrange(len(held))))
        pool.check_integrity(held)
        assert pool.num_free == 17 - sum(map(len, held))


def test_scheduler_sequence_and_pages_load_no_torch():
    code = "import engine.scheduler, sys; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
