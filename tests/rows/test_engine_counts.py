"""Counts that grow, handed out piece by piece: no piece is lost and none comes twice."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor

from rows.engine_counts import EngineCounts, NewCounts, add_counts


def test_each_piece_holds_what_is_new_and_no_zeros() -> None:
    states: list[EngineCounts] = [
        {"steps": {"all": 3}, "seconds": {"plan": 0.1}},
        {"steps": {"all": 3}, "seconds": {"plan": 0.4, "verify": 0.25}, "accepted": {"context 1 2": 7}},
        {"steps": {"all": 3}, "seconds": {"plan": 0.4, "verify": 0.25}, "accepted": {"context 1 2": 7}},
    ]
    new = NewCounts(iter(states).__next__)
    assert [new.take() for _ in states] == [
        states[0],
        {"seconds": {"plan": 0.3, "verify": 0.25}, "accepted": {"context 1 2": 7}},
        {},
    ]


def test_pieces_taken_at_once_by_many_threads_add_up() -> None:
    counted = [0]
    lock = threading.Lock()

    def read() -> EngineCounts:
        with lock:
            counted[0] += 1
            counts: EngineCounts = {"steps": {"all": counted[0]}}
        time.sleep(0.001)  # another thread would come in between
        return counts

    new = NewCounts(read)
    with ThreadPoolExecutor(8) as pool:
        pieces = list(pool.map(lambda _: new.take(), range(40)))
    assert pieces == [{"steps": {"all": 1}}] * 40
    assert add_counts(pieces[0], pieces[1]) == {"steps": {"all": 2}}
