"""The stream: one Ray Data chain from the plan's shards to summaries.

What enters it are a few numbers per piece of a shard; text is read by the prepare tasks, and rows leave for
good in the workers, which write the parts. Only counts come back.
"""

import re
from collections.abc import Iterator

import pyarrow as pa
import ray

from actors.config import PoolConfig
from actors.worker import BatchWorker, WorkerJob
from pipeline.prepare import PrepareJob, prepare_shards
from pipeline.ray_session import PREPARE_CPUS, JobFailed
from rows.parts import Summary
from rows.storage import RUN_FOLDER, write_file

FAILURE = f"{RUN_FOLDER}/failure.txt"
MAX_GROUP = 16  # shards per prepare task


def run_flow(
    pieces: pa.Table, prepare: PrepareJob, worker: WorkerJob, pool: PoolConfig
) -> Iterator[tuple[Summary, float]]:
    """Runs the shards of these pieces of the plan; yields each part's summary and the time at which its
    worker began its first shard.
    """
    numbers = pieces["shard"].to_pylist()
    units = pieces["unit"].to_pylist()
    size = max(1, min(MAX_GROUP, len(set(numbers)) // (4 * pool.num_workers * worker.max_shards)))
    groups = group_shards(numbers, units, size)
    # A worker takes one shard at a time and no more than it holds: whatever waits in it cannot go to one that
    # idles
    calls = worker.max_shards + 1
    compute = ray.data.ActorPoolStrategy(
        size=pool.num_workers, max_concurrent_calls_per_actor=calls, max_tasks_in_flight_per_actor=calls
    )
    summaries = (
        ray.data.from_blocks([pieces.slice(first, end - first) for first, end in groups])
        .map_batches(
            prepare_shards,
            fn_kwargs={"job": prepare},
            batch_size=None,
            batch_format="pyarrow",
            compute=ray.data.TaskPoolStrategy(
                size=pool.num_workers
            ),  # one reader feeds a worker many times over
            num_cpus=PREPARE_CPUS,
        )
        .map_batches(
            BatchWorker,
            fn_constructor_args=(worker,),
            batch_size=1,
            compute=compute,
            num_cpus=pool.cpus_per_worker,
            num_gpus=pool.gpus_per_worker or None,
        )
    )
    try:
        for batch in summaries.iter_batches(batch_size=None):
            for summary, began in zip(batch["summary"], batch["began"], strict=True):
                yield Summary.from_json(summary), float(began)
    except ray.exceptions.RayError as error:
        story = str(error)
        write_file(worker.output, FAILURE, story.encode())
        raise JobFailed(f"{root_cause(story)} (the whole story is in {worker.output}/{FAILURE})") from error


def group_shards(shards: list[int], units: list[int], size: int) -> list[tuple[int, int]]:
    """Runs of pieces, as (first, end), that hold about size shards for one prepare task each; a unit is never
    divided.

    Pieces of shards [0 1 2 3 4 5] in units [0 1 1 1 2 3] with size 2 give (0, 4), (4, 6).
    """
    groups = []
    first = 0
    held = {shards[0]}
    for index in range(1, len(units) + 1):
        if index == len(units) or (len(held) >= size and units[index] != units[index - 1]):
            groups.append((first, index))
            first = index
            held = set()
        if index < len(units):
            held.add(shards[index])
    return groups


def root_cause(story: str) -> str:
    """In one line what a Ray error began with: ours are ValueErrors, which say all; others are named.

    Only the text of another process's error reaches the driver: its traceback, then Ray's own errors about
    it.
    """
    raised = re.findall(
        r"^([A-Za-z_][\w.]*(?:Error|Exception|Dead|Interrupt|Exit)): (.*)$", story, re.MULTILINE
    )
    own = [(name, text) for name, text in raised if not name.startswith("ray.")]
    if not own:
        return story.strip().splitlines()[-1]
    name, text = own[-1]
    return text if name == "ValueError" else f"{name.rsplit('.', 1)[-1]}: {text}"
