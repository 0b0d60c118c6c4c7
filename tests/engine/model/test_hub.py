"""Models from a hub, a fake one on this machine: what is asked for and how often, broken downloads, tokens,
and clear refusals.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fake_hub import FakeHub, files_of
from tests.time_limits import PROCESS_S

FETCH = """
import sys
from engine.model.hub import MODEL_WEIGHTS, local_folder
try:
    print(local_folder("org/model", sys.argv[1] or None, MODEL_WEIGHTS if sys.argv[2] else ()))
except ValueError as error:
    print(error)
"""
SMALL = {"config.json", "tokenizer.json", "chat_template.jinja", "modeling_own.py"}
WEIGHTS = {"model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"}


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """Files of every kind that repositories hold, each with bytes of its own."""
    folder = tmp_path / "repository"
    others = {
        "pytorch_model.bin",
        "consolidated.safetensors",
        "onnx/model.onnx",
        "original/model.safetensors",
        "picture.png",
    }
    for number, name in enumerate(sorted(SMALL | WEIGHTS | others)):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(bytes([number]) * 100_000)
    return folder


@pytest.fixture
def hub(repository: Path) -> Iterator[FakeHub]:
    with FakeHub({"org/model": repository}) as hub:
        yield hub


def start(
    hub: FakeHub, cache: Path, revision: str = "", weights: bool = True, token: str | None = None, **more: str
) -> subprocess.Popen[str]:
    """A process that asks for the model, as a worker does (or a prepare task, which needs no weights)."""
    command = [sys.executable, "-c", FETCH, revision, "x" if weights else ""]
    env = os.environ | hub.environment(cache, token) | more
    return subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def answer(process: subprocess.Popen[str]) -> str:
    """The folder it got, or its error."""
    output, errors = process.communicate(timeout=PROCESS_S)
    assert process.returncode == 0, errors
    return output.strip()


def same_bytes(folder: str, repository: Path, names: set[str]) -> bool:
    return set(files_of(Path(folder))) == names and all(
        (Path(folder) / n).read_bytes() == (repository / n).read_bytes() for n in names
    )


def test_a_models_own_files_are_fetched_and_no_second_copy_of_its_weights(
    hub: FakeHub, repository: Path, tmp_path: Path
) -> None:
    folder = answer(start(hub, tmp_path / "cache"))
    assert same_bytes(folder, repository, SMALL | WEIGHTS)
    assert hub.downloads("org/model") == dict.fromkeys(SMALL | WEIGHTS, 1)


@pytest.mark.slow
def test_without_safetensors_the_other_format_is_fetched(
    hub: FakeHub, repository: Path, tmp_path: Path
) -> None:
    for name in WEIGHTS:
        (repository / name).unlink()
    assert same_bytes(answer(start(hub, tmp_path / "cache")), repository, SMALL | {"pytorch_model.bin"})


@pytest.mark.slow
def test_processes_that_start_at_one_moment_fetch_each_file_once(
    hub: FakeHub, repository: Path, tmp_path: Path
) -> None:
    hub.seconds_per_file = 0.3
    workers = [start(hub, tmp_path / "cache") for _ in range(4)] + [
        start(hub, tmp_path / "cache", weights=False)
    ]
    folders = {answer(worker) for worker in workers}
    assert len(folders) == 1
    assert same_bytes(folders.pop(), repository, SMALL | WEIGHTS)
    assert hub.downloads("org/model") == dict.fromkeys(SMALL | WEIGHTS, 1)
    questions = hub.downloads("org/model", "HEAD")
    assert {name: questions[name] for name in WEIGHTS} == dict.fromkeys(WEIGHTS, 1), (
        "a crowd that only asks is a crowd too"
    )


@pytest.mark.slow
def test_a_known_commit_that_is_here_is_not_asked_for_again(hub: FakeHub, tmp_path: Path) -> None:
    commit = hub.commit("org/model")
    folder = answer(start(hub, tmp_path / "cache", revision="v1"))
    assert Path(folder).name == commit
    hub.requests.clear()
    assert answer(start(hub, tmp_path / "cache", revision=commit)) == folder
    assert [path for _, path in hub.requests if "org/model" in path] == []
    assert answer(start(hub, tmp_path / "cache", revision=commit, HF_HUB_OFFLINE="1")) == folder


@pytest.mark.slow
def test_a_download_that_the_server_breaks_off_is_resumed(
    hub: FakeHub, repository: Path, tmp_path: Path
) -> None:
    hub.break_after = 20_000
    hub.num_breaks = 1
    assert same_bytes(answer(start(hub, tmp_path / "cache")), repository, SMALL | WEIGHTS)
    assert hub.downloads("org/model") == dict.fromkeys(SMALL, 1) | dict.fromkeys(WEIGHTS, 2)


@pytest.mark.slow
def test_a_process_killed_while_it_fetches_keeps_nobody_waiting(
    hub: FakeHub, repository: Path, tmp_path: Path
) -> None:
    assert answer(start(hub, tmp_path / "cache", weights=False))
    hub.seconds_per_file = 60
    doomed = start(hub, tmp_path / "cache")
    wait_for_download(hub)
    waiting = start(hub, tmp_path / "cache")
    time.sleep(1)
    assert waiting.poll() is None
    hub.seconds_per_file = 0
    os.kill(doomed.pid, signal.SIGKILL)
    started = time.monotonic()
    assert same_bytes(answer(waiting), repository, SMALL | WEIGHTS)
    assert time.monotonic() - started < 20
    doomed.communicate()


def wait_for_download(hub: FakeHub) -> None:
    deadline = time.monotonic() + 30
    while not WEIGHTS & set(hub.downloads("org/model")):
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("settings", "revision", "token", "error"),
    [
        (
            {"token": "secret", "gated": True},
            "",
            None,
            "it is gated and no token is set; ask for access on its page, and set HF_TOKEN",
        ),
        (
            {"token": "secret", "gated": True},
            "",
            "other",
            "it is gated and the account of this token has no access yet; ask for access",
        ),
        (
            {"token": "secret"},
            "",
            None,
            "there is no such model, or it is private; check the name or, for a private one, set HF_TOKEN",
        ),
        (
            {"token": "secret"},
            "",
            "other",
            "there is no such model, or it is private; check the name, and that this token may read it",
        ),
        ({}, "v9", None, "it has no such revision; name a branch, tag or commit of it"),
    ],
)
def test_what_the_hub_does_not_give_is_an_error_with_its_remedy(
    settings, revision, token, error, repository, tmp_path
) -> None:
    with FakeHub({"org/model": repository}, **settings) as hub:
        told = answer(start(hub, tmp_path / "cache", revision, token=token))
    assert told.startswith(f"model.path 'org/model' is no folder, and the hub does not give it: {error}")
    assert "\n" not in told


@pytest.mark.slow
@pytest.mark.parametrize("gated", [True, False])
def test_the_token_of_the_environment_opens_a_private_or_gated_model(
    gated: bool, repository: Path, tmp_path: Path
) -> None:
    with FakeHub({"org/model": repository}, token="secret", gated=gated) as hub:
        assert same_bytes(answer(start(hub, tmp_path / "cache", token="secret")), repository, SMALL | WEIGHTS)


@pytest.mark.slow
def test_without_the_hub_half_a_model_is_no_model(hub: FakeHub, tmp_path: Path) -> None:
    commit = hub.commit("org/model")
    answer(start(hub, tmp_path / "cache", revision=commit, weights=False))
    told = answer(start(hub, tmp_path / "cache", revision=commit, HF_HUB_OFFLINE="1"))
    assert told.endswith(
        "the hub cannot be reached and the model is not in its cache; "
        "check the network, HF_ENDPOINT and HF_HUB_OFFLINE"
    )
