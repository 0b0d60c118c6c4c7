"""Whether the machines can hold what a job starts: CPUs, GPUs, and the memory of workers that decode on CPUs.

Asked before any worker starts, for a batch job's pool and for the endpoint's replicas alike. GPU workers look
at their own GPU when they load (engine/model/loading.py). Knows files and figures, no torch.
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from actors.config import PoolConfig
from engine.config import ModelConfig
from engine.model.hub import local_folder
from engine.model.memory_available import available_memory
from engine.model.memory_needed import GB, check_fits, remedies

PREPARE_CPUS = 0.25  # of a task that reads and tokenizes rows


@dataclass(frozen=True)
class Demand:
    """What a job starts. subject: in words; number_setting, gpus_setting: what the user can lower."""

    subject: str
    num_workers: int
    cpus: float
    gpus: float
    number_setting: str
    gpus_setting: str

    @staticmethod
    def of_pool(pool: PoolConfig) -> "Demand":
        """A batch job's workers, and one task that reads for them."""
        return Demand(
            subject="the pool needs",
            num_workers=pool.num_workers,
            cpus=pool.num_workers * pool.cpus_per_worker + PREPARE_CPUS,
            gpus=pool.num_workers * pool.gpus_per_worker,
            number_setting="pool.num_workers",
            gpus_setting="pool.gpus_per_worker",
        )


def check_resources(demand: Demand, present: Mapping[str, float], promised: Mapping[str, float]) -> None:
    """Raises ValueError when there are too few CPUs or GPUs.

    present: what the machines have now; promised: what an autoscaler may add up to.
    """
    gpu_remedy = f" or {demand.gpus_setting} (0 = decode on CPUs)"
    for kind, wanted, remedy in (("CPU", demand.cpus, ""), ("GPU", demand.gpus, gpu_remedy)):
        found = max(present.get(kind, 0), promised.get(kind, 0))
        if wanted > found:
            remedy = f"lower {demand.number_setting}{remedy}, or add machines"
            raise ValueError(f"{demand.subject} {wanted:g} {kind}s, but this cluster has {found:g}; {remedy}")


def check_memory_here(model: ModelConfig, demand: Demand) -> None:
    """Raises ValueError, where Ray is to be local, when this machine has too little memory."""
    if not os.environ.get("RAY_ADDRESS"):
        check_memory(model, demand, [available_memory()])


def check_cluster(model: ModelConfig, demand: Demand) -> None:
    """Raises ValueError when the Ray that was joined or started cannot hold what is demanded.

    The memory of machines that an autoscaler may add is unknown until they start.
    """
    import ray

    present = ray.cluster_resources()
    promised = ray._private.state.state.get_max_resources_from_cluster_config() or {}
    check_resources(demand, present, promised)
    if os.environ.get("RAY_ADDRESS") and promised.get("CPU", 0) <= present.get("CPU", 0):
        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        # Ray sets a part of a machine's memory aside for its object store, which these jobs hardly fill.
        kinds = ("memory", "object_store_memory")
        check_memory(model, demand, [int(sum(node.get(kind, 0) for kind in kinds)) for node in nodes])


def check_memory(model: ModelConfig, demand: Demand, free: Sequence[int]) -> None:
    """Raises ValueError when the machines, with `free` bytes each, cannot hold the workers."""
    if not model.check_memory or demand.gpus or model.device.startswith("cuda"):
        return
    folder = local_folder(model.path, model.revision)
    dtype = "float32" if model.dtype == "auto" else model.dtype
    where = "on this machine" if len(free) == 1 else "on the largest machine"
    need = check_fits(folder, model, dtype, True, max(free, default=0), where)
    room = sum(each // need.total for each in free) if need else demand.num_workers
    if need and room < demand.num_workers:
        number = demand.num_workers
        remedy = remedies(folder, model, dtype, True, sum(free) // number)
        raise ValueError(
            f"{number} workers need {number * need.total / GB:.1f} GB, each {need}, but "
            f"{sum(free) / GB:.1f} GB are free: lower {demand.number_setting} to {room}, or {remedy}"
        )
