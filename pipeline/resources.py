"""Whether the machines can hold a pool that decodes on CPUs, asked before any worker starts: they share their
machine's memory.

GPU workers look at their own GPU when they load (engine/model/loading.py). Knows files and figures, no torch.
"""

import os
from collections.abc import Mapping
from typing import Any

from engine.config import ModelConfig
from engine.model.free_memory import available_memory
from engine.model.hub import local_folder
from engine.model.memory import GB, check_fits, remedies


def check_here(model: ModelConfig, num_workers: int, gpus_each: float, setting: str) -> None:
    """For a local Ray: raises ValueError, with figures and remedies, when this machine cannot hold so many
    workers.
    """
    if not os.environ.get("RAY_ADDRESS"):
        check_memory(model, num_workers, gpus_each, setting, [available_memory()])


def check_cluster(model: ModelConfig, num_workers: int, gpus_each: float, setting: str) -> None:
    """The same for a cluster that was joined, by what Ray counts there; an autoscaler's machines are unknown
    until they start.
    """
    if not os.environ.get("RAY_ADDRESS"):
        return
    import ray

    from pipeline.ray_session import cluster_resources

    present, promised = cluster_resources()
    if promised.get("CPU", 0) <= present.get("CPU", 0):
        check_memory(
            model,
            num_workers,
            gpus_each,
            setting,
            [_memory(node["Resources"]) for node in ray.nodes() if node["Alive"]],
        )


def _memory(resources: Mapping[str, Any]) -> int:
    # Ray sets a part of a machine's memory aside for its object store, which a job such as this one hardly
    # fills.
    return int(resources.get("memory", 0) + resources.get("object_store_memory", 0))


def check_memory(
    model: ModelConfig, num_workers: int, gpus_each: float, setting: str, free: list[int]
) -> None:
    """Raises ValueError when machines with so many bytes free cannot hold the workers; setting: what says how
    many there are.
    """
    if not model.check_memory or gpus_each or model.device.startswith("cuda"):
        return
    folder = local_folder(model.path, model.revision)
    dtype = "float32" if model.dtype == "auto" else model.dtype
    most = max(free, default=0)
    need = check_fits(
        folder, model, dtype, True, most, "on this machine" if len(free) == 1 else "on the largest machine"
    )
    room = sum(each // need.total for each in free) if need else num_workers
    if need and room < num_workers:
        remedy = remedies(folder, model, dtype, True, sum(free) // num_workers)
        raise ValueError(
            f"{num_workers} workers need {num_workers * need.total / GB:.1f} GB, each {need}, but "
            f"{sum(free) / GB:.1f} GB are free: "
            f"lower {setting} to {room}, or {remedy}"
        )
