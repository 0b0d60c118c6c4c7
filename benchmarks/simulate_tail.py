"""How long do workers idle at the end of a job? Recorded lengths, through the real plan and order, on a
simulated pool.

    python -m benchmarks.simulate_tail --transcripts FILE [FILE ...] --num_rows 20000 --workers 8 --running 64

A worker decodes so many rows at once, a token each per step, and every step takes as long as any other. A row
of the input is its prompt's tokens in characters. idle = slots without a row, of all slots until the last row
is done, in percent.
"""

import argparse
import itertools
import json
import random
import tempfile
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from heapq import heappop, heappush, heapreplace
from pathlib import Path
from typing import NamedTuple

from actors.config import PoolConfig
from drafting.replay.transcripts import read_transcripts
from pipeline.config import ORDERS, InputConfig
from pipeline.order import in_order
from pipeline.plan import Plan, make_plan

Row = tuple[int, int]  # tokens of the prompt, tokens of the output
Block = list[list[int]]  # shards handed out together, each as the output lengths of its rows
BLOCK_SHARDS = 16
NO_LIMIT = 10**9


class Holds(NamedTuple):
    """What a worker holds at most: blocks, and of their shards those that it has begun, with so many rows
    that are not done.
    """

    blocks: int
    shards: int
    rows: int


class Event(NamedTuple):
    """A row ends. shard_left: of its shard's rows, those that are not done."""

    time: int
    block: int
    shard_left: list[int]


@dataclass
class Worker:
    """free: when each slot is free next.

    waiting: shards taken and not begun, with the number of their block.
    """

    free: list[int]
    waiting: deque[tuple[int, list[int]]] = field(default_factory=deque)
    open: dict[int, int] = field(default_factory=dict)  # rows of each block that are not done
    shards: int = 0  # begun and not done
    rows: int = 0  # begun and not done

    def take(self, number: int, block: Block) -> None:
        """A block arrives."""
        self.open[number] = sum(map(len, block))
        self.waiting.extend((number, shard) for shard in block)

    def begin(self, now: int, holds: Holds) -> Iterator[Event]:
        """Begins shards as far as it may; the end of each row."""
        while self.waiting and self.shards < holds.shards and self.rows < holds.rows:
            number, lengths = self.waiting.popleft()
            self.shards += 1
            self.rows += len(lengths)
            left = [len(lengths)]
            for length in lengths:
                end = max(now, self.free[0]) + length
                heapreplace(self.free, end)
                yield Event(end, number, left)


def simulate(blocks: Sequence[Block], workers: int, running: int, holds: Holds) -> dict[str, float]:
    """Idle slots in percent, and by how much the last worker ends after the first."""
    pool = [Worker([0] * running) for _ in range(workers)]
    left = deque(enumerate(blocks))
    events: list[tuple[int, int, int, Event]] = []
    count = itertools.count()

    def feed(index: int, now: int) -> None:
        for event in pool[index].begin(now, holds):
            heappush(events, (event.time, index, next(count), event))

    for _ in range(holds.blocks):
        for worker in pool:
            if left:
                worker.take(*left.popleft())
    for index in range(workers):
        feed(index, 0)
    while events:
        now, index, _, event = heappop(events)
        worker = pool[index]
        worker.rows -= 1
        event.shard_left[0] -= 1
        worker.shards -= not event.shard_left[0]
        worker.open[event.block] -= 1
        if not worker.open[event.block] and left:
            worker.take(*left.popleft())
        feed(index, now)
    assert not left
    ends = [max(worker.free) for worker in pool]
    tokens = sum(length for block in blocks for shard in block for length in shard)
    return {
        "idle": 100 * (1 - tokens / (workers * running * max(ends))),
        "spread": 100 * (1 - min(ends) / max(ends)),
    }


def shards_of(plan: Plan, order: str, rows: Sequence[Row]) -> list[list[int]]:
    """The output lengths of each shard, as it is handed out."""
    pieces = in_order(plan.pieces, order)
    places = zip(pieces["first_row"].to_pylist(), pieces["num_rows"].to_pylist(), strict=True)
    return [[output for _, output in rows[first : first + count]] for first, count in places]


def contenders(rows: Sequence[Row], workers: int, running: int) -> dict[str, dict[str, float]]:
    """Three ways of handing out, and the orders that differ for one file."""
    pool = PoolConfig(num_workers=workers)
    found: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rows.jsonl"
        path.write_text("".join(json.dumps({"prompt": "x" * prompt}) + "\n" for prompt, _ in rows))
        plan = make_plan(InputConfig(path=str(path)), workers)
        twice = max(2, -(-2 * running // plan.rows_per_shard))
        for order in ORDERS[:2]:
            shards = shards_of(plan, order, rows)
            size = max(1, min(BLOCK_SHARDS, len(shards) // (4 * workers * twice)))
            blocks = [shards[first : first + size] for first in range(0, len(shards), size)]
            singles = [[shard] for shard in shards]
            largest = pool.shards_per_worker(plan.rows_per_shard, running)
            for name, handed_out, holds in (
                (
                    f"blocks of {size}, {twice} shards at once",
                    blocks,
                    Holds(2 * (-(-twice // size) + 1), twice, NO_LIMIT),
                ),
                (f"single shards, {twice} at once", singles, Holds(twice + 1, twice, NO_LIMIT)),
                (
                    "single shards, by unfinished rows",
                    singles,
                    Holds(largest + 1, largest, pool.rows_per_worker(running)),
                ),
            ):
                found[f"{order}: {name}"] = simulate(handed_out, workers, running, holds)
    return found


def main() -> None:
    """Prints a line for each contender: rows drawn at random; if prompts were as long as outputs; those
    sorted, the short ones first.
    """
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0], allow_abbrev=False)
    parser.add_argument("--transcripts", nargs="+", type=Path, required=True, metavar="FILE")
    parser.add_argument("--num_rows", type=int, default=20000)
    parser.add_argument("--workers", type=int, default=8)
    parser.add_argument("--running", type=int, default=64, help="rows that a worker decodes at once")
    args = parser.parse_args()
    recorded = [
        (len(t.prompt_ids), len(t.output_ids)) for path in args.transcripts for t in read_transcripts(path)
    ]
    rows = random.Random(0).choices(recorded, k=args.num_rows)
    result = {
        "as recorded": contenders(rows, args.workers, args.running),
        "prompts as long as outputs": contenders(
            [(output, output) for _, output in rows], args.workers, args.running
        ),
        "those, short rows first": contenders(
            sorted(((o, o) for _, o in rows), key=lambda row: row[1]), args.workers, args.running
        ),
    }
    for name, runs in result.items():
        for contender, run in runs.items():
            print(
                f"{name:<27}{contender:<50} idle {run['idle']:5.2f} %  last worker {run['spread']:5.2f} % "
                "after the first"
            )
    print(json.dumps({"num_rows": args.num_rows, "workers": args.workers, "running": args.running, **result}))


if __name__ == "__main__":
    main()
