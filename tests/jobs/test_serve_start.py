"""jobs/serve.py: what it refuses before it starts anything."""

import signal
import socket
from pathlib import Path

import pytest

from jobs.serve import demand_of, main, start_failure
from pipeline.resources import check_resources
from serving.config import ServeConfig


@pytest.fixture
def model_folder(tmp_path: Path) -> Path:
    """A folder that looks like a model as far as the driver checks."""
    (tmp_path / "config.json").write_text('{"model_type": "llama", "max_position_embeddings": 64}')
    (tmp_path / "pytorch_model.bin").write_bytes(b"weights")
    return tmp_path


def refusal(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *arguments: str) -> str:
    """The one line of a server that does not start for its settings."""
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    assert main(list(arguments)) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    return lines[0]


def test_a_model_that_is_not_there_is_refused_in_one_line(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    line = refusal(capsys, monkeypatch, "--model", "/no/such/model")
    assert (
        line
        == "error: model.path '/no/such/model' does not exist; give a folder in Hugging Face format or a "
        "hub name"
    )


def test_a_corpus_that_is_not_there_is_refused_in_one_line(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, model_folder: Path
) -> None:
    corpus = ["--speculation.corpus_path", f"{model_folder}/nope"]
    line = refusal(capsys, monkeypatch, "--model", str(model_folder), *corpus)
    assert line.startswith(f"error: speculation.corpus_path '{model_folder}/nope' does not exist")


def test_a_port_that_is_taken_is_refused_in_one_line(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, model_folder: Path
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        line = refusal(capsys, monkeypatch, "--model", str(model_folder), "--port", port)
    assert (
        line
        == f"error: cannot listen on 127.0.0.1 port {port}: Address already in use; choose another --port "
        f"or --host"
    )


def test_an_unknown_setting_is_refused_and_the_nearest_named(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    line = refusal(capsys, monkeypatch, "--model", "x", "--serve.max_replica", "2")
    assert line == "error: unknown setting --serve.max_replica; did you mean --serve.max_replicas?"


def test_settings_that_contradict_each_other_are_refused(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    line = refusal(capsys, monkeypatch, "--model", "x", "--serve.min_replicas", "2")
    assert (
        "serve.max_replicas is 1, below serve.min_replicas (2); raise the first or lower the second" in line
    )


def test_replicas_that_the_cluster_can_never_hold_are_refused() -> None:
    config = ServeConfig(min_replicas=2, max_replicas=2, gpus_per_replica=1)
    with pytest.raises(ValueError) as refused:
        check_resources(demand_of(config), {"CPU": 4.0}, {})
    problem, remedy = str(refused.value).split("; ")
    assert problem == "2 replicas need 2 GPUs, but this cluster has 0"
    assert (
        remedy == "lower serve.min_replicas or serve.gpus_per_replica (0 = decode on CPUs), or add machines"
    )
    check_resources(demand_of(config), {"CPU": 4.0}, {"GPU": 8.0})  # an autoscaler may add them


def test_the_reason_of_a_failed_start_is_an_earlier_one_when_the_last_replica_was_killed() -> None:
    first = (
        "A replica failed to start. Retrying 2 more times. Error:\nTraceback\n  File x\n"
        "ValueError: the cache is too small\n"
    )
    killed = (
        "The deployment failed to start 3 times in a row. Error:\n"
        "The actor is dead because it was killed by `ray.kill`.\n"
    )
    assert start_failure(["Deploying failed", "", first, killed]) == "ValueError: the cache is too small"
    assert start_failure(["Deploying failed", first]) == "ValueError: the cache is too small"
    assert (
        start_failure(["Deploying failed", killed])
        == "The actor is dead because it was killed by `ray.kill`."
    )
    assert start_failure(["Serve is gone"]) == "Serve is gone"
