"""The Ray session of a job: joins a cluster when there is one, else starts a local Ray, quietly and with its
own secret.

Knows no rows. Import it only to run: it brings in ray.
"""

import atexit
import logging
import math
import os
import secrets
import tempfile
from pathlib import Path
from typing import Any

from actors.config import PoolConfig

PROJECT_ROOT = Path(__file__).resolve().parent.parent


def in_submitted_job() -> bool:
    """Whether `ray job submit` started this process; its working folder is then a copy inside
    Ray's session.
    """
    return "RAY_JOB_CONFIG_JSON_ENV_VAR" in os.environ


def connect(pool: PoolConfig) -> None:
    """Starts or joins Ray for the pool, and sets what Ray Data needs."""
    start_ray(math.ceil(pool.num_workers * pool.cpus_per_worker) + 1)
    import ray

    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    # Each prepared shard is a block of its own, so that the shards of one task spread over all workers.
    context.target_max_block_size = 1024
    logging.getLogger("ray.data").setLevel(logging.CRITICAL)  # run_flow tells a failure in one line


def start_ray(min_cpus: int) -> None:
    """Joins the cluster that RAY_ADDRESS names, else starts a local Ray that counts at least min_cpus; a
    session that is on stays.
    """
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    joins = bool(os.environ.get("RAY_ADDRESS"))
    if not joins:
        _own_token()
    import ray

    if ray.is_initialized():
        return
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    if not joins:
        # Ray hands its workers the script's folder and the current one, neither of which need hold the
        # packages
        os.environ["PYTHONPATH"] = os.pathsep.join(
            [str(PROJECT_ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
        )
        ray.init(
            address="local", num_cpus=max(os.cpu_count() or 1, min_cpus), include_dashboard=False, **quiet
        )
    elif in_submitted_job():
        ray.init(**quiet)
    else:  # the cluster's machines may not have this code
        ray.init(
            runtime_env={
                "working_dir": str(PROJECT_ROOT),
                "excludes": ["/demo/model/checkpoint.*", "/tests"],
            },
            **quiet,
        )


def _own_token() -> None:
    """Gives a local Ray a secret of its own: Ray would write one into the home folder, which may be read-only
    or shared.
    """
    if any(name in os.environ for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH")):
        return
    descriptor, path = tempfile.mkstemp(prefix="ray-token-")
    os.write(descriptor, secrets.token_hex(16).encode())
    os.close(descriptor)
    atexit.register(os.unlink, path)
    os.environ.update(RAY_AUTH_MODE="token", RAY_AUTH_TOKEN_PATH=path)


class JobFailed(RuntimeError):
    """The job cannot go on; what is committed stays, and the same command continues it."""
