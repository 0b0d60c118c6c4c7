"""Measures what steps cost on this machine when a worker starts: the profile that the cost model begins with.

Runs made-up steps through the ModelRunner before the first request comes; what they write into the cache is
never read.
"""

import time
from collections.abc import Iterator

import numpy as np

from drafting.adaptive.cost_model import Profile, StepShape
from drafting.sampling import Sampling
from drafting.tree import DraftTrees
from engine.model.packed_linear import MAX_EXACT_ROWS, ROWS_STEP
from engine.model_runner import ModelRunner
from engine.request import Request
from engine.scheduler import Chunk
from engine.sequence import Sequence
from engine.stats import step_clock
from engine.targets import TargetSampling, target_tokens
from engine.verify import verify

MAX_SECONDS = 2.0
MAX_ROWS = 1024
REPEATS = 3


def profile_steps(
    runner: ModelRunner, max_running: int, max_nodes: int, max_context: int, max_seconds: float = MAX_SECONDS
) -> Profile:
    """Times decoding steps of several widths, as many as fit in max_seconds; a warm-up step is
    not counted.
    """
    shapes = []
    seconds = []
    started = time.perf_counter()
    for num_sequences, num_nodes, context in _shapes(
        max_running, max_nodes, min(max_context, runner.num_pages * runner.page_size)
    ):
        times = [_time_step(runner, num_sequences, num_nodes, context) for _ in range(1 + REPEATS)][1:]
        shapes.append(StepShape.decoding(num_sequences, context).with_nodes(num_sequences * num_nodes))
        seconds.append(min(times))
        if time.perf_counter() - started > max_seconds and len(shapes) > 3:
            break
    runner.clear_staging()
    packed = runner.loaded.device.type == "cpu"
    return Profile(shapes, seconds, (MAX_EXACT_ROWS, ROWS_STEP) if packed else None)


def _shapes(max_running: int, max_nodes: int, longest: int) -> Iterator[tuple[int, int, int]]:
    """(sequences, nodes of each, context): first one sequence with ever more nodes, then more sequences."""
    short = min(64, longest // 2)
    long = min(512, longest // 2)
    yield 1, 0, short
    yield 1, min(7, max_nodes), short
    yield 1, min(31, max_nodes), short
    counts = [count for count in (4, 16, 64, 256) if count < max_running] + [max_running] * (max_running > 1)
    for count in counts:
        for nodes in (0, 1, 4):
            if nodes <= max_nodes and count * nodes <= MAX_ROWS:
                yield count, nodes, short
    for nodes in (1, 3, 15, 63):
        if nodes <= max_nodes:
            yield 1, nodes, short
    for count in counts:
        yield count, 0, long
        yield count, min(2, max_nodes), long
    yield 1, min(7, max_nodes), long


def _time_step(runner: ModelRunner, num_sequences: int, num_nodes: int, context: int) -> float:
    chunks = [
        Chunk(_sequence(runner, index, context, num_nodes), 1, last=True) for index in range(num_sequences)
    ]
    node = np.tile(np.arange(num_nodes, dtype=np.int32), num_sequences)
    offsets = np.arange(num_sequences + 1, dtype=np.int64) * num_nodes
    trees = DraftTrees(
        1 + node % 7, node, node + 1, np.zeros(len(node), np.uint8), np.zeros(len(node), np.uint8), offsets
    )
    clock = step_clock(runner.loaded.device)
    started = clock()
    plan = runner.plan(chunks, trees)
    logits = runner.forward(runner.inputs(plan))
    targets = target_tokens(
        logits, TargetSampling([Sampling()] * len(logits), np.zeros(len(logits), np.int64))
    )
    verify(trees, targets)
    kept = plan.packed.staged_slots[:: max(1, num_nodes)]  # one node of each sequence is right
    runner.keep(kept, kept)
    return clock() - started


def _sequence(runner: ModelRunner, index: int, context: int, num_nodes: int) -> Sequence:
    """A sequence whose cached tokens lie in arbitrary pages, since what pages hold does not
    change the cost.
    """
    prompt = tuple(1 + (index + place) % 5 for place in range(context + 1))
    sequence = Sequence(
        Request(f"profile {index}", prompt, num_nodes + 2), frozenset(), context + num_nodes + 3
    )
    num_pages = -(-(context + 1) // runner.page_size)
    sequence.page_ids = [(index * num_pages + page) % runner.num_pages for page in range(num_pages)]
    sequence.num_cached = context
    return sequence
