"""Settings of the online endpoint, as the user writes them.

Standard library only: the driver imports this before Ray.
"""

from dataclasses import dataclass

from engine.config import SAMPLING_FIELDS, SERVED_FIELDS, GenerationConfig
from engine.settings import at_least, check, setting

ABOVE_0 = "a number above 0"
NOT_NEGATIVE = "a number of at least 0"


def _is_above_0(value: float) -> bool:
    return 0 < value < float("inf")


@dataclass(frozen=True)
class ServeConfig:
    """Where the endpoint listens, how many replicas it has, and how much work each takes."""

    host: str = "127.0.0.1"
    """The address to listen on: loopback unless asked otherwise, because there is no authentication."""
    port: int = setting(8000, "1 to 65535", lambda value: 1 <= value <= 65535)
    """The port to listen on."""
    model_name: str | None = None
    """What clients call the model; null means the last part of model.path."""
    min_replicas: int = setting(1, "at least 1", at_least(1))
    """Replicas that always run."""
    max_replicas: int = setting(1, "at least 1", at_least(1))
    """Replicas that the autoscaler may start."""
    target_ongoing_requests: float = setting(16.0, ABOVE_0, _is_above_0)
    """Requests per replica that the autoscaler aims at."""
    max_ongoing_requests: int = setting(64, "at least 1", at_least(1))
    """Requests sent to one replica at once; its engine queues those that do not run yet."""
    max_queued_requests: int = setting(256, "at least 1", at_least(1))
    """Requests that wait for a replica; one more gets status 503."""
    retry_after_s: float = setting(5.0, NOT_NEGATIVE, at_least(0))
    """Seconds after which a client with status 503 should try again."""
    upscale_delay_s: float = setting(30.0, NOT_NEGATIVE, at_least(0))
    """How long a high load must last before a replica is added."""
    downscale_delay_s: float = setting(600.0, NOT_NEGATIVE, at_least(0))
    """How long a low load must last before a replica is removed."""
    cpus_per_replica: float = setting(1.0, ABOVE_0, _is_above_0)
    """CPUs that Ray reserves for a replica."""
    gpus_per_replica: float = setting(0.0, NOT_NEGATIVE, at_least(0))
    """GPUs that Ray reserves for a replica; 0 decodes on CPUs."""
    health_check_period_s: float = setting(5.0, ABOVE_0, _is_above_0)
    """Seconds between health checks, which find a replica whose engine died."""
    stop_timeout_s: float = setting(20.0, NOT_NEGATIVE, at_least(0))
    """How long running requests may go on when a replica stops."""

    def __post_init__(self) -> None:
        check(ServeConfig, vars(self), "serve.")
        self._check_pair("max_replicas", "min_replicas")
        self._check_pair("max_ongoing_requests", "target_ongoing_requests")

    def _check_pair(self, larger: str, smaller: str) -> None:
        high = getattr(self, larger)
        low = getattr(self, smaller)
        if high < low:
            remedy = "raise the first or lower the second"
            raise ValueError(f"serve.{larger} is {high}, below serve.{smaller} ({low}); {remedy}")


def check_served(generation: GenerationConfig) -> None:
    """Raises ValueError for a setting that the endpoint would not keep."""
    for name in SAMPLING_FIELDS:
        value = getattr(generation, name)
        if name not in SERVED_FIELDS and value != getattr(GenerationConfig(), name):
            raise ValueError(
                f"generation.{name} is {value!r}, which the endpoint does not support yet; leave it out"
            )
