"""The page pool: who holds a page, which pages can be found again, and which is evicted first."""

import random
import subprocess
import sys

import pytest

from engine.page_pool import PagePool


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


@pytest.mark.parametrize("held", [[[0], [0]], [[0]], [[0, 1], [1]], [[0, 2]]])
def test_a_page_with_more_or_fewer_holders_than_counted_is_found(held):
    pool = PagePool(4, page_size=4)
    pool.take(2)
    pool.check_integrity([[0], [1]])
    with pytest.raises(AssertionError, match="holders are wrong"):
        pool.check_integrity(held)


def test_a_page_given_back_twice_is_our_own_bug():
    pool = PagePool(4, page_size=4)
    mine = pool.take(2)
    pool.give_back(mine)
    with pytest.raises(AssertionError, match="nobody holds it"):
        pool.give_back(mine)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda pool: pool._free.popitem(), "of 4 pages"), (lambda pool: pool._idle.clear(), "of 4 pages"),
        (lambda pool: pool._free.update({1: None}), "of 4 pages"),
        (lambda pool: pool._published.clear(), "another page"),
        (
            lambda pool: (pool._keys.__setitem__(2, b"a"), pool._published.update({b"a": 2})),
            "two pages have one key",
        ),
        (lambda pool: pool._idle.update({0: 9}), "out of order"),
        (lambda pool: pool._idle.update({1: 9}), "9, 2"),
        (lambda pool: pool._keys.__setitem__(3, b"z"), "another page"),
    ],
)  # fmt: skip
def test_integrity_finds_a_lost_page_a_wrong_key_and_a_wrong_time(damage, message):
    pool = PagePool(4, page_size=4)
    mine = pool.take(3)
    pool.publish(0, b"a")
    pool.publish(1, b"b")
    pool.give_back(mine[:2])
    pool.check_integrity([[2]])
    damage(pool)
    with pytest.raises(AssertionError, match=message):
        pool.check_integrity([[2]])


def published(pool: PagePool, keys: str) -> list[int]:
    """Takes a page for each key, publishes it, and gives all of them back."""
    page_ids = pool.take(len(keys))
    for page, key in zip(page_ids, keys, strict=True):
        pool.publish(page, key.encode())
    pool.give_back(page_ids)
    return page_ids


def found(pool: PagePool, keys: str) -> list[int]:
    return pool.find([key.encode() for key in keys])


def test_a_published_page_is_found_until_it_is_evicted_and_counts_as_free_meanwhile():
    pool = PagePool(3, page_size=4)
    assert published(pool, "ab") == [0, 1]
    assert (pool.num_free, found(pool, "abc"), found(pool, "b"), found(pool, "cab")) == (3, [0, 1], [1], [])
    assert pool.take(2) == [2, 0]  # the free page first, then the longest unused
    assert (pool.num_free, found(pool, "ab"), found(pool, "b")) == (1, [], [1])


def test_of_a_sequence_that_comes_back_the_last_page_is_evicted_first():
    pool = PagePool(3, page_size=4)
    page_ids = pool.take(3)
    for page in page_ids:
        pool.publish(page, b"abc"[page : page + 1])
    pool.give_back(page_ids, last_first=True)
    assert pool.take(1) == [2]
    assert found(pool, "abc") == [0, 1]


def test_one_sequence_after_the_other_goes_round_the_pool_in_pages_that_follow_each_other():
    """None of the six is found again.

    Each fills three pages and leaves its fourth to the next; only the one at the end is torn.
    """
    pool = PagePool(13, page_size=4)
    taken = []
    for number in range(6):
        page_ids = pool.take(2)
        page_ids += pool.take(1, after=page_ids[-1])
        page_ids += pool.take(1, after=page_ids[-1])
        taken.append(page_ids)
        for page in page_ids[:3]:
            pool.publish(page, b"%d %d" % (number, page))
        pool.give_back(page_ids)
    assert taken == [[0, 1, 2, 3], [3, 4, 5, 6], [6, 7, 8, 9], [9, 10, 11, 12], [12, 0, 1, 2], [2, 3, 4, 5]]


def test_a_page_that_is_held_again_is_not_evicted_and_has_a_holder_more():
    pool = PagePool(3, page_size=4)
    published(pool, "ab")
    pool.hold([0])
    pool.hold([0])
    assert pool.num_free == 2
    assert sorted(pool.take(2)) == [1, 2]
    assert found(pool, "ab") == [0]
    pool.give_back([0])
    assert pool.num_free == 0
    pool.check_integrity([[0], [1], [2]])
    pool.give_back([0])
    assert pool.num_free == 1


def test_pages_that_are_found_but_unheld_are_not_both_held_and_taken():
    pool = PagePool(4, page_size=4)
    published(pool, "abc")
    pool.hold([1])
    assert pool.num_free_without([0, 1, 2]) == 1


def test_the_longest_unused_page_is_evicted_first_and_being_held_counts_as_use():
    pool = PagePool(4, page_size=4)
    for key in "abcd":
        published(pool, key)
    pool.hold(found(pool, "a"))
    pool.give_back(found(pool, "a"))
    pool.take(1)
    assert [found(pool, key) for key in "abcd"] == [[0], [], [2], [3]]


def test_a_second_page_with_the_same_key_is_not_published_and_is_plainly_free_afterwards():
    pool = PagePool(4, page_size=4)
    first = pool.take(1)
    second = pool.take(1)
    pool.publish(first[0], b"a")
    pool.publish(second[0], b"a")
    assert (found(pool, "a"), pool.key_of(1)) == ([0], None)
    pool.give_back(first)
    pool.give_back(second)
    pool.check_integrity([])
    assert pool.take(1) == [1]


def test_pages_follow_each_other_where_the_next_is_free_or_has_long_been_unused():
    pool = PagePool(8, page_size=4)
    first = published(pool, "abcd")
    second = published(pool, "efgh")
    assert (first, second) == ([0, 1, 2, 3], [4, 5, 6, 7])
    assert pool.take(1, after=1) == [2]  # older than half of them
    assert pool.take(1, after=5) == [0]  # page 6 was used lately: the longest unused is taken instead
    pool.give_back([2])
    assert pool.take(2, after=1) == [2, 3]


@pytest.mark.parametrize("seed", range(5))
def test_random_use_loses_no_page_and_evicts_in_order(seed):
    """The oracle keeps for each idle page when it was given back, and looks at all of them."""
    rng = random.Random(seed)
    pool = PagePool(17, page_size=2)
    clock = 0
    held: list[list[int]] = []
    idle: dict[int, int] = {}
    names: dict[int, bytes] = {}
    for turn in range(500):
        action = rng.random()
        if action < 0.4 and pool.num_free:
            num_plain = pool.num_free - len(idle)
            held.append(pool.take(rng.randint(1, min(4, pool.num_free))))
            for page, before in zip(held[-1], [None, *held[-1]], strict=False):
                if page not in idle:
                    num_plain -= 1
                elif before is None or page != before + 1 or 2 * idle[page] > min(idle.values()) + clock:
                    assert (num_plain, page) == (0, min(idle, key=idle.__getitem__))
                idle.pop(page, None)
                names.pop(page, None)
        elif action < 0.6 and held:
            page = rng.choice(rng.choice(held))
            if page not in names:
                names[page] = str(turn).encode()
                pool.publish(page, names[page])
        elif action < 0.75 and names:
            wanted = rng.choice(sorted(names))
            assert pool.find([names[wanted], b"unknown"]) == [wanted]
            pool.hold([wanted])
            held.append([wanted])
            idle.pop(wanted, None)
        elif held:
            gone = held.pop(rng.randrange(len(held)))
            last_first = rng.random() < 0.5
            pool.give_back(gone, last_first)
            for page in reversed(gone) if last_first else gone:
                if page in names and not any(page in pages for pages in held):
                    clock += 1
                    idle[page] = clock
        pool.check_integrity(held)
        assert pool.num_free == 17 - len({page for pages in held for page in pages})


def test_scheduler_sequence_and_pages_load_no_torch():
    code = "import engine.scheduler, sys; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
