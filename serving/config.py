"""Settings of the online endpoint, as the user writes them.

Standard library only: the driver imports this before Ray.
"""

from dataclasses import dataclass

from engine.config import GenerationConfig

# Settings of the batch job that the endpoint does not take yet, neither from its configuration nor from a
# request.
BATCH_ONLY = ("stop", "include_stop", "n", "logprobs")


@dataclass(frozen=True)
class ServeConfig:
    """Where the endpoint listens, how many replicas stand behind it and how much work each takes.

    host, port: loopback unless asked otherwise, for there is no authentication. model_name: what clients call
    the model; None = the last part of model.path. target_ongoing_requests: requests per replica that the
    autoscaler aims at, between min_replicas and max_replicas. max_ongoing_requests: requests sent to one
    replica at once; its engine queues those that do not run yet. max_queued_requests: requests that wait for
    a replica; one more gets status 503 with Retry-After: retry_after_s. upscale_delay_s, downscale_delay_s:
    how long the load must last before a replica is added or removed. health_check_period_s: how soon a
    replica whose engine died is replaced. stop_timeout_s: how long running requests may go on when a replica
    stops.
    """

    host: str = "127.0.0.1"
    port: int = 8000
    model_name: str | None = None
    min_replicas: int = 1
    max_replicas: int = 1
    target_ongoing_requests: float = 16.0
    max_ongoing_requests: int = 64
    max_queued_requests: int = 256
    retry_after_s: float = 5.0
    upscale_delay_s: float = 30.0
    downscale_delay_s: float = 600.0
    cpus_per_replica: float = 1.0
    gpus_per_replica: float = 0.0
    health_check_period_s: float = 5.0
    stop_timeout_s: float = 20.0

    def __post_init__(self) -> None:
        if not 1 <= self.port <= 65535:
            raise ValueError(f"serve.port is {self.port}; it must be 1 to 65535")
        for name in ("min_replicas", "max_replicas", "max_ongoing_requests", "max_queued_requests"):
            self._check(name, getattr(self, name) >= 1, "at least 1")
        for name in ("target_ongoing_requests", "cpus_per_replica", "health_check_period_s"):
            self._check(name, 0 < getattr(self, name) < float("inf"), "a number above 0")
        for name in (
            "retry_after_s",
            "upscale_delay_s",
            "downscale_delay_s",
            "gpus_per_replica",
            "stop_timeout_s",
        ):
            self._check(name, 0 <= getattr(self, name) < float("inf"), "a number of at least 0")
        self._check_pair("max_replicas", "min_replicas")
        self._check_pair("max_ongoing_requests", "target_ongoing_requests")

    def _check(self, name: str, fits: bool, wanted: str) -> None:
        if not fits:
            raise ValueError(f"serve.{name} is {getattr(self, name)}; it must be {wanted}")

    def _check_pair(self, larger: str, smaller: str) -> None:
        high = getattr(self, larger)
        low = getattr(self, smaller)
        if high < low:
            raise ValueError(
                f"serve.{larger} is {high}, below serve.{smaller} ({low}); "
                "raise the first or lower the second"
            )


def check_served(generation: GenerationConfig) -> None:
    """Raises ValueError for a setting that the endpoint would not keep."""
    for name in BATCH_ONLY:
        value = getattr(generation, name)
        if value != getattr(GenerationConfig(), name):
            raise ValueError(
                f"generation.{name} is {value!r}, which the endpoint does not support yet; leave it out"
            )
