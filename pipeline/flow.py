"""The stream: one Ray Data chain from shard numbers to summaries.

Shard numbers are cheap, so they are what is streamed first; text is read by the prepare tasks, and rows leave for good
in the workers, which write the parts. Only counts come back.
"""

from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import ray

from actors.config import PoolConfig
from actors.parts import Summary
from actors.worker import BatchWorker, WorkerJob
from pipeline.prepare import PrepareJob, prepare_shards
from pipeline.session import PREPARE_CPUS

MAX_GROUP = 16  # shards per block: one each costs 68 ms through the stages, 16 together 4.5 ms each


def run_flow(shards: pa.Table, prepare: PrepareJob, worker: WorkerJob, pool: PoolConfig) -> Iterator[tuple[Summary, float]]:
    """Runs these shards of the plan; yields each part's summary and the time at which its worker was ready."""
    size = max(1, min(MAX_GROUP, shards.num_rows // (4 * pool.num_workers * worker.max_shards)))
    groups = group_shards(shards["unit"].to_pylist(), size)
    arguments = {"shards": ray.put(shards), "groups": ray.put(groups), "job": prepare}
    compute = ray.data.ActorPoolStrategy(size=pool.num_workers, max_concurrent_calls_per_actor=-(-worker.max_shards // size) + 1)
    summaries = (
        ray.data.range(len(groups), override_num_blocks=len(groups))
        .map_batches(_prepare, fn_kwargs=arguments, batch_size=None, num_cpus=PREPARE_CPUS)
        .map_batches(
            BatchWorker,
            fn_constructor_args=(worker,),
            batch_size=size,
            compute=compute,
            num_cpus=pool.cpus_per_worker,
            num_gpus=pool.gpus_per_worker or None,
        )
    )
    for batch in summaries.iter_batches(batch_size=None):
        for summary, ready in zip(batch["summary"], batch["ready"], strict=True):
            yield Summary.from_json(summary), float(ready)


def group_shards(units: list[int], size: int) -> list[tuple[int, int]]:
    """Runs of about size shards for one prepare task each, as (first, end); a unit is never divided.

    Units [0 1 1 1 2 3] with size 2 give (0, 4), (4, 6).
    """
    groups, first = [], 0
    for index in range(1, len(units) + 1):
        if index == len(units) or (index - first >= size and units[index] != units[index - 1]):
            groups.append((first, index))
            first = index
    return groups


def _prepare(batch: dict[str, Any], shards: Any, groups: Any, job: PrepareJob) -> Iterator[dict[str, list[Any]]]:
    table, bounds = ray.get(shards), ray.get(groups)
    for group in batch["id"]:
        first, end = bounds[int(group)]
        yield from prepare_shards(table.slice(first, end - first).to_pylist(), job)
