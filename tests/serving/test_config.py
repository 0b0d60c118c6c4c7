"""Impossible settings are refused with the value, the limit and the remedy; the application carries what the
settings say.
"""

import re

import pytest

from drafting.config import SpeculationConfig
from engine.config import GenerationConfig, ModelConfig
from serving.config import ServeConfig, check_served
from serving.deployment import application, served_name


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("port", 70000, "serve.port is 70000; it must be 1 to 65535"),
        ("min_replicas", 0, "serve.min_replicas is 0; it must be at least 1"),
        ("max_queued_requests", 0, "serve.max_queued_requests is 0; it must be at least 1"),
        ("target_ongoing_requests", 0.0, "serve.target_ongoing_requests is 0.0; it must be a number above 0"),
        ("cpus_per_replica", -1.0, "serve.cpus_per_replica is -1.0; it must be a number above 0"),
        ("gpus_per_replica", -0.5, "serve.gpus_per_replica is -0.5; it must be a number of at least 0"),
        ("upscale_delay_s", float("nan"), "serve.upscale_delay_s is nan; it must be a number of at least 0"),
        ("min_replicas", 3, "serve.max_replicas is 1, below serve.min_replicas (3); raise the first or"),
        (
            "max_ongoing_requests",
            8,
            "serve.max_ongoing_requests is 8, below serve.target_ongoing_requests (16.0); raise the first or",
        ),
    ],
)
def test_an_impossible_value_is_refused(field: str, value: float, message: str) -> None:
    with pytest.raises(ValueError) as refused:
        ServeConfig(**{field: value})  # type: ignore[arg-type]
    assert str(refused.value).startswith(message)


def test_the_endpoint_listens_on_loopback_unless_asked_otherwise() -> None:
    assert ServeConfig().host == "127.0.0.1"


def test_the_settings_reach_ray_serve() -> None:
    config = ServeConfig(
        min_replicas=2,
        max_replicas=5,
        target_ongoing_requests=7,
        max_ongoing_requests=9,
        max_queued_requests=11,
        gpus_per_replica=0.5,
    )
    app = application(config, ModelConfig(path="folder/tiny"), GenerationConfig(), SpeculationConfig())
    deployment = app._bound_deployment
    scaling = deployment._deployment_config.autoscaling_config
    assert (scaling.min_replicas, scaling.max_replicas, scaling.target_ongoing_requests) == (2, 5, 7)
    assert (deployment.max_ongoing_requests, deployment.max_queued_requests) == (9, 11)
    assert (deployment.backpressure_config.status_code, deployment.backpressure_config.retry_after_s) == (
        503,
        5.0,
    )
    assert deployment.ray_actor_options["num_gpus"] == 0.5


@pytest.mark.parametrize(
    ("path", "own", "name"),
    [("org/tiny-model", None, "tiny-model"), ("models/tiny/", None, "tiny"), ("org/tiny", "mine", "mine")],
)
def test_a_model_is_called_by_the_last_part_of_its_path_unless_it_has_a_name(
    path: str, own: str | None, name: str
) -> None:
    assert served_name(ServeConfig(model_name=own), ModelConfig(path=path)) == name


@pytest.mark.parametrize(
    ("setting", "value"), [("stop", ["x"]), ("include_stop", True), ("n", 2), ("logprobs", 0)]
)
def test_a_generation_setting_that_the_endpoint_would_not_keep_is_refused(
    setting: str, value: object
) -> None:
    with pytest.raises(
        ValueError,
        match=re.escape(f"generation.{setting} is {value!r}, which the endpoint does not support yet"),
    ):
        check_served(GenerationConfig(**{setting: value}))
    check_served(GenerationConfig(max_tokens=5, temperature=1))
