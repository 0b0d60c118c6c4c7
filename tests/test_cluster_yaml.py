"""cluster.yaml is accepted by Ray's own schema and checks, offline, and those checks do refuse mistakes."""

import copy
import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import ray.autoscaler
import yaml
from ray.autoscaler._private.util import prepare_config, validate_config

ROOT = Path(__file__).parent.parent
SCHEMA = json.loads((Path(ray.autoscaler.__file__).parent / "ray-schema.json").read_text())


@pytest.fixture
def cluster() -> dict[str, Any]:
    return yaml.safe_load((ROOT / "cluster.yaml").read_text())


def test_rays_schema_and_semantic_checks_accept_the_file(cluster: dict[str, Any]) -> None:
    jsonschema.validate(cluster, SCHEMA)
    validate_config(prepare_config(copy.deepcopy(cluster)))


def test_the_head_has_no_gpu_and_gpu_workers_start_from_zero(cluster: dict[str, Any]) -> None:
    head = cluster["available_node_types"]["head"]
    worker = cluster["available_node_types"]["gpu_worker"]
    assert (head["resources"], worker["resources"]) == ({"CPU": 8}, {"CPU": 8, "GPU": 1})
    assert (worker["min_workers"], worker["max_workers"]) == (0, 8)
    assert head["node_config"]["ImageId"] == worker["node_config"]["ImageId"]


def test_the_nodes_install_this_project_and_start_ray_with_the_token(cluster: dict[str, Any]) -> None:
    assert cluster["file_mounts"] == {
        "/home/ubuntu/project": ".",
        "/home/ubuntu/.ray/auth_token": "~/.ray/auth_token",
    }
    commands = cluster["setup_commands"]
    assert "cd ~/project && ~/venv/bin/pip install -c constraints.txt ." in commands
    assert any("RAY_AUTH_MODE=token" in command for command in commands)
    assert (ROOT / "constraints.txt").is_file()


def test_a_misspelt_key_is_refused(cluster: dict[str, Any]) -> None:
    cluster["max_worker"] = cluster.pop("max_workers")
    with pytest.raises(jsonschema.ValidationError, match="'max_worker' was unexpected"):
        jsonschema.validate(cluster, SCHEMA)


def test_an_unknown_head_node_type_is_refused(cluster: dict[str, Any]) -> None:
    cluster["head_node_type"] = "haed"
    jsonschema.validate(cluster, SCHEMA)  # the schema alone lets it pass
    with pytest.raises(ValueError, match="`head_node_type` must be one of"):
        validate_config(prepare_config(cluster))


def test_more_workers_at_least_than_at_most_are_refused(cluster: dict[str, Any]) -> None:
    cluster["available_node_types"]["gpu_worker"]["min_workers"] = 9
    with pytest.raises(ValueError, match="max_workers` is smaller than the sum of `min_workers`"):
        validate_config(prepare_config(cluster))
