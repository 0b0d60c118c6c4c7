"""A pool that its machines cannot hold is refused before it starts, with how many workers there
is room for.
"""

import os
from pathlib import Path
from typing import Any

import pytest

from actors.config import PoolConfig
from engine.config import ModelConfig
from pipeline import resources as memory
from pipeline.resources import Demand, check_memory, check_memory_here
from tests.engine.model.test_memory_needed import header_only

GB = 10**9


def refusal(free: list[int], num_workers: int, gpus: float = 0, **settings: Any) -> str | None:
    folder = settings.pop("folder")
    try:
        pool = PoolConfig(num_workers=num_workers, gpus_per_worker=gpus)
        check_memory(ModelConfig(path=str(folder), **settings), Demand.of_pool(pool), free)
    except ValueError as error:
        return str(error)
    return None


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A model of 19.6 GB in float32: 17.4 of weights and packed output layer, 2.1 of cache."""
    return header_only(tmp_path / "m")


def test_workers_share_their_machines_memory(folder: Path) -> None:
    assert refusal([40 * GB], 2, folder=folder) is None
    assert refusal([30 * GB], 2, folder=folder) == (
        "2 workers need 39.2 GB, each 19.6 GB (17.4 of weights, 2.1 of K/V cache for one sequence of 8192 "
        "tokens), but 30.0 GB are free: "
        "lower pool.num_workers to 1, or use model.dtype bfloat16 (9.8 GB), model.quantization int8 (7.3 "
        "GB), model.quantization "
        "nf4 (5.5 GB) or a machine with more memory (model.check_memory: false loads it all the same)"
    )


def test_no_worker_is_cut_in_two_between_machines(folder: Path) -> None:
    assert refusal([30 * GB, 30 * GB], 2, folder=folder) is None
    assert "lower pool.num_workers to 2, or use" in (refusal([30 * GB, 30 * GB], 3, folder=folder) or "")


def test_a_worker_that_no_machine_can_hold_is_refused_as_such(folder: Path) -> None:
    message = refusal([15 * GB, 15 * GB], 1, folder=folder) or ""
    assert message.startswith(f"model.path '{folder}' needs 19.6 GB (17.4 of weights")
    assert "but 15.0 GB are free on the largest machine; use model.dtype bfloat16 (9.8 GB)" in message


@pytest.mark.parametrize("settings", [{"gpus": 1}, {"device": "cuda"}, {"check_memory": False}])
def test_gpu_pools_and_those_that_are_not_to_be_checked_pass(settings: dict[str, Any], folder: Path) -> None:
    assert refusal([GB], 2, folder=folder, **settings) is None


def test_this_machine_counts_unless_a_cluster_is_joined(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pool = (ModelConfig(path=str(folder)), Demand.of_pool(PoolConfig()))
    monkeypatch.setattr(memory, "available_memory", lambda: 15 * GB)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    with pytest.raises(ValueError, match=r"needs 19\.6 GB .* but 15\.0 GB are free on this machine"):
        check_memory_here(*pool)
    monkeypatch.setitem(os.environ, "RAY_ADDRESS", "auto")
    check_memory_here(*pool)
