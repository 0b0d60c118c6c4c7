"""How Ray runs the pool of workers: their resources, the shards in flight, and what happens when one dies.

Retries. If a worker dies, Ray Data starts another and repeats the calls it had, without a limit, since a
machine may go away at any time. A repeated call returns the summary of a part that was already written. A
worker whose engine fails ends its own process (actors/engine_process.py) and puts the fault on record in the
output. A worker that starts reads the record first and raises when there are pool.max_engine_faults faults,
which ends the job.
"""

from typing import Any

import ray

from actors.config import PoolConfig
from actors.worker import BatchWorker, WorkerJob


def worker_options(job: WorkerJob, pool: PoolConfig) -> dict[str, Any]:
    """The arguments of the map_batches call that runs the workers."""
    # A worker is called with one shard at a time, and with no more than it holds: what waits in a worker
    # cannot go to another that idles.
    calls = job.max_shards + 1
    return {
        "fn": BatchWorker,
        "fn_constructor_args": (job,),
        "batch_size": 1,
        "compute": ray.data.ActorPoolStrategy(
            size=pool.num_workers, max_concurrent_calls_per_actor=calls, max_tasks_in_flight_per_actor=calls
        ),
        "num_cpus": pool.cpus_per_worker,
        "num_gpus": pool.gpus_per_worker or None,
    }
