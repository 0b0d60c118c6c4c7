"""The stream: one Ray Data chain from the plan's shards to summaries.

What enters it are a few numbers per piece of a shard; text is read by the prepare tasks, and rows leave for
good in the workers, which write the parts. Only counts come back.
"""

import re
from collections.abc import Iterator

import pyarrow as pa
import ray

from actors.config import PoolConfig
from actors.worker import WorkerJob
from pipeline.prepare import PrepareJob, prepare_shards
from pipeline.ray_session import JobFailed
from pipeline.resources import PREPARE_CPUS
from pipeline.worker_pool import worker_options
from rows.output_folder import RUN_FOLDER
from rows.parts import PartSummary

FAILURE = f"{RUN_FOLDER}/failure.txt"
MAX_SHARDS_PER_TASK = 16  # shards per prepare task


def run_flow(
    pieces: pa.Table, prepare: PrepareJob, worker: WorkerJob, pool: PoolConfig
) -> Iterator[tuple[PartSummary, float]]:
    """Runs the shards of these pieces of the plan.

    Yields the summary of each part, and the time at which its worker began its first shard.
    """
    shards = pieces["shard"].to_pylist()
    wanted = len(set(shards)) // (4 * pool.num_workers * worker.max_shards)
    runs = runs_of_shards(shards, pieces["unit"].to_pylist(), max(1, min(MAX_SHARDS_PER_TASK, wanted)))
    summaries = (
        ray.data.from_blocks([pieces.slice(first, end - first) for first, end in runs])
        .map_batches(
            prepare_shards,
            fn_kwargs={"job": prepare},
            batch_size=None,
            batch_format="pyarrow",
            # One reader feeds a worker many times over.
            compute=ray.data.TaskPoolStrategy(size=pool.num_workers),
            num_cpus=PREPARE_CPUS,
        )
        .map_batches(**worker_options(worker, pool))
    )
    try:
        for batch in summaries.iter_batches(batch_size=None):
            for summary, began in zip(batch["summary"], batch["began"], strict=True):
                yield PartSummary.from_json(summary), float(began)
    except ray.exceptions.RayError as error:
        story = str(error)
        worker.output.write(FAILURE, story.encode())
        raise JobFailed(
            f"{root_cause(story)} (the whole story is in {worker.output.path}/{FAILURE})"
        ) from error


def runs_of_shards(shards: list[int], units: list[int], size: int) -> list[tuple[int, int]]:
    """Cuts pieces into runs, as (first, end), of about `size` shards, one for each prepare task.

    A unit is never divided. Pieces of shards [0 1 2 3 4 5] in units [0 1 1 1 2 3] with size 2 give (0, 4),
    (4, 6).
    """
    runs = []
    first = 0
    held = {shards[0]}
    for index in range(1, len(units) + 1):
        is_end = index == len(units)
        if is_end or (len(held) >= size and units[index] != units[index - 1]):
            runs.append((first, index))
            first = index
            held = set()
        if not is_end:
            held.add(shards[index])
    return runs


def root_cause(story: str) -> str:
    """The first cause of a Ray error, in one line.

    Our own errors are ValueErrors, whose text says all; any other is shown with the name of its type.
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
