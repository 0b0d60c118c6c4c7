"""Settings of the worker pool, as the user writes them. Standard library only."""

from dataclasses import dataclass


@dataclass(frozen=True)
class PoolConfig:
    """How many workers decode, and what each of them takes.

    shards_in_flight: shards a worker holds at once, so that its running set stays full across shard borders;
    None = enough for six times the sequences that it decodes at once, since many shards only wait for their
    longest row. max_engine_faults: a job ends after so many faults inside the engine (a machine that goes
    away is not one: its worker simply starts again elsewhere).
    """

    num_workers: int = 1
    cpus_per_worker: float = 1
    gpus_per_worker: float = 0
    shards_in_flight: int | None = None
    max_engine_faults: int = 3

    def __post_init__(self) -> None:
        for name, least in (
            ("num_workers", 1),
            ("shards_in_flight", 1),
            ("max_engine_faults", 1),
            ("gpus_per_worker", 0),
        ):
            value = getattr(self, name)
            if value is not None and value < least:
                raise ValueError(f"pool.{name} is {value}; it must be at least {least}")
        if self.cpus_per_worker <= 0:
            raise ValueError(f"pool.cpus_per_worker is {self.cpus_per_worker}; it must be above 0")

    def rows_per_worker(self, max_running: int | None) -> int:
        """Unfinished rows with which a worker begins no other shard; max_running: sequences decoded at once,
        None = the default.
        """
        return 2 * (max_running or (256 if self.gpus_per_worker else 16))

    def shards_per_worker(self, rows_per_shard: int, max_running: int | None) -> int:
        """Shards that one worker holds at most."""
        return self.shards_in_flight or 3 * max(1, -(-self.rows_per_worker(max_running) // rows_per_shard))
