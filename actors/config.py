"""Settings of the worker pool, as the user writes them. Standard library only."""

from dataclasses import dataclass

from engine.config import default_max_running
from engine.settings import at_least, check, setting


@dataclass(frozen=True)
class PoolConfig:
    """How many workers decode, and what each of them takes."""

    num_workers: int = setting(1, "at least 1", at_least(1))
    """Workers, each with a model of its own."""
    cpus_per_worker: float = setting(1, "above 0", lambda value: value > 0)
    """CPUs that Ray reserves for a worker."""
    gpus_per_worker: float = setting(0, "at least 0", at_least(0))
    """GPUs that Ray reserves for a worker; 0 decodes on CPUs."""
    max_engine_faults: int = setting(3, "at least 1", at_least(1))
    """The job ends after this many faults inside the engine. A machine that goes away is not one: its worker
    starts again.
    """

    def __post_init__(self) -> None:
        check(PoolConfig, vars(self), "pool.")

    def rows_per_worker(self, max_running: int | None) -> int:
        """The number of unfinished rows from which on a worker begins no further shard.

        max_running: the setting model.max_running.
        """
        return 2 * (max_running or default_max_running(self.gpus_per_worker > 0))

    def shards_per_worker(self, rows_per_shard: int, max_running: int | None) -> int:
        """The shards that a worker holds at most.

        They are enough for six times the rows that it decodes at once, since many shards only wait for their
        longest row.
        """
        return 3 * max(1, -(-self.rows_per_worker(max_running) // rows_per_shard))
