"""The offline job on a cluster that was not started for it: `ray job submit` to a head with its own ports,
token and folder.
"""

import contextlib
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import yaml

from tests.time_limits import PROCESS_S

pytestmark = pytest.mark.ray
ROOT = Path(__file__).parent.parent.parent
BIN = Path(sys.executable).parent
NUM_ROWS = 20


class Head:
    """A Ray head of its own; everything it starts stays in its process session, so that exactly that can be
    ended.
    """

    def __init__(self, folder: Path) -> None:
        token = folder / "token"
        token.touch(mode=0o600)
        token.write_text(secrets.token_hex(32))
        self.log = folder / "head.log"
        self.env = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
        self.env |= {
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN_PATH": str(token),
            "PATH": f"{BIN}:{os.environ['PATH']}",
        }
        self.env |= {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
        ports = free_ports(7)
        names = [
            "port",
            "dashboard-port",
            "dashboard-agent-listen-port",
            "dashboard-agent-grpc-port",
            "metrics-export-port",
        ]
        names += ["runtime-env-agent-port", "ray-client-server-port"]
        flags = [f"--{name}={port}" for name, port in zip(names, ports, strict=True)]
        self.address = f"http://127.0.0.1:{ports[1]}"
        command = [
            BIN / "ray",
            "start",
            "--head",
            "--block",
            "--num-cpus=2",
            "--disable-usage-stats",
            f"--temp-dir={folder}",
        ]
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                [*command, "--node-ip-address=127.0.0.1", "--dashboard-host=127.0.0.1", *flags],
                env=self.env, start_new_session=True, stdout=log, stderr=subprocess.STDOUT,
            )  # fmt: skip

    def wait_until_up(self) -> None:
        """Returns when the head takes jobs."""
        deadline = time.monotonic() + PROCESS_S
        while self.process.poll() is None and time.monotonic() < deadline:
            listed = self._run("job", "list", "--address", self.address)
            if listed.returncode == 0:
                return
            time.sleep(1)
        raise AssertionError(f"the head did not come up:\n{self.log.read_text()}")

    def submit(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Submits jobs/offline.py from the repository's root and waits for its end."""
        job = [
            "job",
            "submit",
            "--address",
            self.address,
            "--working-dir",
            ".",
            "--",
            "python",
            "jobs/offline.py",
        ]
        return self._run(*job, *arguments)

    def _run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [BIN / "ray", *arguments],
            cwd=ROOT,
            env=self.env,
            capture_output=True,
            text=True,
            timeout=PROCESS_S,
        )

    def stop(self) -> None:
        """Ends the head, then whatever it left: its agents outlive a head that had no time to end them."""
        self.process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(10)
        deadline = time.monotonic() + 30
        while left := session_members(self.process.pid):
            assert time.monotonic() < deadline, f"still running: {left}"
            for pid in left:
                with contextlib.suppress(ProcessLookupError):  # it may end by itself meanwhile
                    os.kill(pid, signal.SIGKILL)
            time.sleep(0.2)
        self.process.wait()


def free_ports(count: int) -> list[int]:
    """Distinct ports that nobody listens on."""
    sockets = [socket.socket() for _ in range(count)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


def session_members(session: int) -> list[int]:
    """Processes of a session that have not ended; the fields of /proc/PID/stat after the name: state, parent,
    group, session.
    """
    members = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, _, sid = stat.read_text().rpartition(")")[2].split()[:4]
        except (FileNotFoundError, ProcessLookupError):
            continue
        if int(sid) == session and state != "Z":
            members.append(int(stat.parent.name))
    return members


@pytest.fixture(scope="module")
def head() -> Iterator[Head]:
    # Not pytest's own folder: the path of a Unix socket in it must stay below 107 characters.
    folder = Path(tempfile.mkdtemp(prefix="ray-"))
    head = Head(folder)
    try:
        head.wait_until_up()
        yield head
    finally:
        head.stop()
        shutil.rmtree(folder)


@pytest.fixture
def config(tmp_path: Path) -> str:
    lines = (ROOT / "demo" / "prompts.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)[:NUM_ROWS]
    (tmp_path / "prompts.jsonl").write_text("".join(lines), encoding="utf-8")
    settings = {
        "input": {"path": str(tmp_path / "prompts.jsonl"), "rows_per_shard": 8},
        "model": {"path": str(ROOT / "demo" / "model")},
        "generation": {"max_tokens": 4, "ignore_eos": True},
        "speculation": {"mode": "mixed", "mixed": {"sources": ["context"]}},
    }
    (tmp_path / "job.yaml").write_text(yaml.safe_dump(settings))
    return str(tmp_path / "job.yaml")


def test_a_submitted_job_leaves_every_row_once_and_ends_with_0(
    head: Head, config: str, tmp_path: Path
) -> None:
    done = head.submit("--config", config, "--output", str(tmp_path / "out"))
    assert done.returncode == 0, done.stdout + done.stderr
    parts = sorted(path.name for path in (tmp_path / "out").glob("*.parquet"))
    assert parts == ["part-00000000.parquet", "part-00000001.parquet", "part-00000002.parquet"]
    rows = [row for part in parts for row in pq.read_table(tmp_path / "out" / part).to_pylist()]
    prompts = [
        json.loads(line) for line in (tmp_path / "prompts.jsonl").read_text(encoding="utf-8").splitlines()
    ]
    assert [row["id"] for row in rows] == [prompt["id"] for prompt in prompts]
    assert {row["error"] for row in rows} == {None}
    assert {row["num_generated_tokens"] for row in rows} == {4}


def test_a_job_whose_input_is_missing_ends_the_command_with_1_and_says_so(
    head: Head, config: str, tmp_path: Path
) -> None:
    done = head.submit(
        "--config", config, "--input", str(tmp_path / "absent.jsonl"), "--output", str(tmp_path / "out")
    )
    assert done.returncode == 1
    assert "absent.jsonl" in done.stdout
    assert "Traceback" not in done.stdout


def test_a_relative_output_is_refused_in_a_submitted_job(head: Head, config: str) -> None:
    done = head.submit("--config", config, "--output", "out/submitted")
    assert done.returncode == 1
    assert "out/submitted" in done.stdout and "absolute" in done.stdout
    assert "Traceback" not in done.stdout
