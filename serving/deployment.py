"""The Ray Serve application: replicas of actors/replica.py with the HTTP app in them, autoscaled by the
requests under way.
"""

from functools import partial
from pathlib import PurePath

from ray import serve
from ray.serve.config import AutoscalingConfig, BackpressureConfig

from actors.replica import Replica
from drafting.config import SpeculationConfig
from engine.config import GenerationConfig, ModelConfig
from serving.app import build_app
from serving.config import ServeConfig


def served_name(config: ServeConfig, model: ModelConfig) -> str:
    """What clients call the model."""
    return config.model_name or PurePath(model.path).name


def application(
    config: ServeConfig, model: ModelConfig, generation: GenerationConfig, speculation: SpeculationConfig
) -> serve.Application:
    """What `serve.run` takes.

    A replica is its own ingress: one hop less, and the autoscaler counts what its engine really has.
    """
    deployment = serve.deployment(
        autoscaling_config=AutoscalingConfig(
            min_replicas=config.min_replicas,
            max_replicas=config.max_replicas,
            target_ongoing_requests=config.target_ongoing_requests,
            upscale_delay_s=config.upscale_delay_s,
            downscale_delay_s=config.downscale_delay_s,
        ),
        ray_actor_options={"num_cpus": config.cpus_per_replica, "num_gpus": config.gpus_per_replica},
        max_ongoing_requests=config.max_ongoing_requests,
        max_queued_requests=config.max_queued_requests,
        backpressure_config=BackpressureConfig(status_code=503, retry_after_s=config.retry_after_s),
        health_check_period_s=config.health_check_period_s,
        graceful_shutdown_timeout_s=config.stop_timeout_s,
        # A model that does not load will not load the second time either.
        max_constructor_retry_count=1,
    )(Replica)
    return deployment.bind(
        model, speculation, partial(build_app, model_name=served_name(config, model), generation=generation)
    )
