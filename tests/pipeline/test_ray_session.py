"""Resources, groups and failures of the stream, without a cluster."""

import pytest

from actors.config import PoolConfig
from pipeline.flow import root_cause, runs_of_shards
from pipeline.resources import Demand, check_resources


def test_a_pool_that_fits_now_or_after_the_cluster_has_grown_is_taken() -> None:
    check_resources(Demand.of_pool(PoolConfig(num_workers=2)), {"CPU": 3.0}, {})
    check_resources(
        Demand.of_pool(PoolConfig(num_workers=4, gpus_per_worker=1)), {"CPU": 2.0}, {"CPU": 64, "GPU": 4}
    )


def test_gpus_that_are_not_there_are_refused_with_both_numbers() -> None:
    with pytest.raises(
        ValueError,
        match=r"the pool needs 2 GPUs, but this cluster has 1; lower .* \(0 = decode on CPUs\), or add "
        r"machines",
    ):
        check_resources(
            Demand.of_pool(PoolConfig(num_workers=2, gpus_per_worker=1)), {"CPU": 8.0, "GPU": 1.0}, {}
        )


def test_a_pool_that_leaves_no_cpu_for_reading_is_refused() -> None:
    with pytest.raises(ValueError, match="the pool needs 2.25 CPUs, but this cluster has 2"):
        check_resources(Demand.of_pool(PoolConfig(num_workers=2)), {"CPU": 2.0}, {})


@pytest.mark.parametrize(
    ("shards", "units", "size", "groups"),
    [
        ([0, 1, 2, 3, 4, 5], [0, 1, 1, 1, 2, 3], 2, [(0, 4), (4, 6)]),
        ([0, 1, 2], [0, 1, 2], 1, [(0, 1), (1, 2), (2, 3)]),
        ([0, 1, 2], [5, 5, 5], 2, [(0, 3)]),
        ([0, 1, 2], [1, 2, 3], 16, [(0, 3)]),
        ([0, 0, 0, 1, 1, 2], [0, 0, 0, 1, 1, 2], 2, [(0, 5), (5, 6)]),
    ],
)
def test_a_group_holds_so_many_shards_and_never_divides_a_unit(
    shards: list[int], units: list[int], size: int, groups: list[tuple[int, int]]
) -> None:
    assert runs_of_shards(shards, units, size) == groups


@pytest.mark.parametrize(
    ("rows_per_shard", "pool", "shards"),
    [
        (16, PoolConfig(), 6),
        (4, PoolConfig(), 24),
        (64, PoolConfig(gpus_per_worker=1), 24),
        (4096, PoolConfig(gpus_per_worker=1), 3),
    ],
)
def test_a_worker_holds_shards_for_six_times_its_running_set(
    rows_per_shard: int, pool: PoolConfig, shards: int
) -> None:
    assert pool.shards_per_worker(rows_per_shard, None) == shards


def test_the_root_cause_is_the_last_error_that_is_not_rays() -> None:
    story = (
        "ray::MapWorker.submit() (pid=1)\n  File x\nKeyError: 'inner'\n\nThe above exception was ...\n"
        "ValueError: model.path 'x' cannot be loaded\n\n"
        "ray.exceptions.UserCodeException: UDF failed to process a data block.\nTo change retry ..."
    )
    assert root_cause(story) == "model.path 'x' cannot be loaded"
    assert root_cause("pyarrow.lib.ArrowInvalid: no\nOSError: [Errno 28] full") == "OSError: [Errno 28] full"
    assert root_cause("The actor died.\nIt was killed by OOM.\n") == "It was killed by OOM."
