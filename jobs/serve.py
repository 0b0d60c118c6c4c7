"""Serves a model over HTTP, in the manner of the OpenAI API, until SIGINT or SIGTERM.

    python jobs/serve.py --config jobs/configs/serve-demo.yaml [--host H --port P]
    python jobs/serve.py --model <hub name or folder> --serve.max_replicas 4

Joins the cluster that RAY_ADDRESS names, else starts a local Ray of its own and takes it down at the end.
"""

import contextlib
import io
import json
import logging
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from ipaddress import ip_address
from math import ceil
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from drafting.config import SpeculationConfig
from engine.config import GenerationConfig, ModelConfig
from jobs.config import parse
from pipeline.ray_session import JobFailed, start_ray
from pipeline.resolve_model import resolve_model
from pipeline.resources import Demand, check_cluster, check_memory_here
from rows.corpus import check_corpus
from serving.config import ServeConfig, check_served

APPLICATION = "ngram-serve"


@dataclass(frozen=True)
class ServeJobConfig:
    """Serves a model over HTTP, in the manner of the OpenAI API."""

    model: ModelConfig
    serve: ServeConfig = field(default_factory=ServeConfig)
    generation: GenerationConfig = field(default_factory=GenerationConfig)
    speculation: SpeculationConfig = field(default_factory=SpeculationConfig)


def main(argv: list[str]) -> int:
    """Serves until stopped; 0 = stopped by a signal, 1 = the model or Serve did not start, 2 = the settings
    are wrong.
    """
    take_signals()
    try:
        run(parse(ServeJobConfig, argv))
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
    except JobFailed as error:
        print(f"failed: {error}", file=sys.stderr)
        return 1
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def run(config: ServeJobConfig) -> None:
    """Checks what can be checked, starts Ray, Serve and the replicas, and waits for a signal."""
    check_served(config.generation)
    speculation = check_corpus(config.speculation)
    model = resolve_model(config.model).config
    settings = replace(config.serve, model_name=config.serve.model_name or Path(config.model.path).name)
    joins = bool(os.environ.get("RAY_ADDRESS"))
    if not joins:
        check_address(settings.host, settings.port)
    check_memory_here(model, demand_of(settings))
    started = time.monotonic()
    with ray_session(settings, model), serve_session(settings):
        deploy(replace(config, model=model, serve=settings, speculation=speculation))
        print_ready(settings, time.monotonic() - started)
        while True:
            signal.pause()


def take_signals() -> None:
    """Lets SIGTERM end the server as Ctrl-C does, and SIGINT also where a shell has turned it off for a
    background process.
    """
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)


def check_address(host: str, port: int) -> None:
    """Raises ValueError when nothing can listen there."""
    try:
        socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET).close()
    except OSError as error:
        reason = str(error.strerror).partition(" (")[0]
        raise ValueError(
            f"cannot listen on {host} port {port}: {reason}; choose another --port or --host"
        ) from error


def demand_of(config: ServeConfig) -> Demand:
    """What the replicas need that always run (serve.min_replicas)."""
    return Demand(
        subject=f"{config.min_replicas} replicas need",
        num_workers=config.min_replicas,
        cpus=config.min_replicas * config.cpus_per_replica,
        gpus=config.min_replicas * config.gpus_per_replica,
        number_setting="serve.min_replicas",
        gpus_setting="serve.gpus_per_replica",
    )


@contextlib.contextmanager
def ray_session(config: ServeConfig, model: ModelConfig) -> Iterator[None]:
    """Ray, with room for the replicas; ends what it began."""
    try:
        start_ray(ceil(config.max_replicas * config.cpus_per_replica))
        take_signals()  # ray.init has put its own handler in place
        check_cluster(model, demand_of(config))
        yield
    finally:
        import ray  # not before start_ray: Ray reads its secret's place when it is imported

        ray.shutdown()


@contextlib.contextmanager
def serve_session(config: ServeConfig) -> Iterator[None]:
    """Serve's controller and HTTP proxy; at the end the application goes, and Serve too if it was not there
    before.
    """
    from ray import serve
    from ray.serve.context import _get_global_client

    logging.getLogger("ray.serve").setLevel(logging.ERROR)
    running = _get_global_client(raise_if_no_controller_running=False)
    if running and (running.http_config.host, running.http_config.port) != (config.host, config.port):
        theirs = f"{running.http_config.host} port {running.http_config.port}"
        raise ValueError(
            f"Serve runs on this cluster already, on {theirs}; "
            "give that --host and --port, or shut it down first"
        )
    try:
        serve.start(proxy_location="HeadOnly", http_options={"host": config.host, "port": config.port})
        yield
    finally:
        if running:
            serve.delete(APPLICATION)
        else:
            # Ray prints that the controller, told to end, has ended.
            with contextlib.redirect_stdout(io.StringIO()):
                serve.shutdown()


def deploy(config: ServeJobConfig) -> None:
    """Starts the replicas and waits until they answer; raises JobFailed with the line that says why they do
    not.
    """
    from ray import serve
    from ray.serve.exceptions import RayServeException

    from serving.deployment import application

    with deployment_messages() as messages:
        try:
            serve.run(
                application(config.serve, config.model, config.generation, config.speculation),
                name=APPLICATION,
            )
        except (RuntimeError, RayServeException) as error:
            raise JobFailed(f"the model did not start: {start_failure([str(error), *messages()])}") from error


@contextlib.contextmanager
def deployment_messages() -> Iterator[Callable[[], list[str]]]:
    """What Serve says of the deployment while it starts, each message once: the last one alone may not tell
    why it failed.
    """
    from ray import serve
    from ray.exceptions import RayError
    from ray.serve.exceptions import RayServeException

    seen: dict[str, None] = {}
    ended = threading.Event()

    def look() -> list[str]:
        found = serve.status().applications.get(APPLICATION)
        seen.update(
            dict.fromkeys(deployment.message for deployment in found.deployments.values()) if found else {}
        )
        return list(seen)

    def watch() -> None:
        while not ended.wait(0.5):
            # Serve may be going away; what was seen is enough.
            with contextlib.suppress(RuntimeError, RayError, RayServeException):
                look()

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield look
    finally:
        ended.set()
        watcher.join()


def start_failure(messages: list[str]) -> str:
    """The error in Serve's messages, each of which ends with the last line of a replica's traceback.

    On a busy machine Serve may kill a replica before it has read that replica's error. Then an earlier
    message holds the error.
    """
    last_lines = [
        lines[-1].strip()
        for text in messages
        if (lines := [line for line in text.splitlines() if line.strip()])
    ]
    telling = [line for line in last_lines[1:] if "actor" not in line.lower()]
    return (telling or last_lines)[-1]


def print_ready(config: ServeConfig, seconds: float) -> None:
    """Where it listens and how to try it."""
    url = (
        f"http://[{config.host}]:{config.port}"
        if ":" in config.host
        else f"http://{config.host}:{config.port}"
    )
    body = json.dumps({"model": config.model_name, "prompt": "def is_even(n):", "max_tokens": 32})
    print(f"ready after {seconds:.0f} s: model {config.model_name!r} at {url}/v1, stop with Ctrl-C\n")
    print(f"  curl {url}/v1/completions -H 'Content-Type: application/json' -d '{body}'\n", flush=True)
    with contextlib.suppress(ValueError):  # a host name
        if ip_address(config.host).is_loopback:
            return
    print(f"note: there is no authentication; whoever reaches {config.host} can use it", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
