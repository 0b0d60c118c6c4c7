"""jobs/serve.py as a process of its own: private home, Ray folder, token and port; what it leaves behind is
found and ended.
"""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import openai

from tests.time_limits import PROCESS_S

ROOT = Path(__file__).parent.parent.parent


class Server:
    """A started server; `stop` ends it as Ctrl-C would and checks that nothing of it is left."""

    def __init__(self, *arguments: str) -> None:
        self.folder = Path(
            tempfile.mkdtemp(prefix="srv-", dir="/tmp")
        )  # short: Ray makes sockets below, whose paths are limited
        self.port = free_port()
        self.log = self.folder / "log"
        self.environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
        self.environment |= dict.fromkeys(("HOME", "TMPDIR", "RAY_TMPDIR"), str(self.folder)) | {
            "OMP_NUM_THREADS": "1",
            "HF_HUB_OFFLINE": "1",
        }
        command = [
            sys.executable,
            "-W",
            "ignore",
            str(ROOT / "jobs" / "serve.py"),
            *arguments,
            "--port",
            str(self.port),
        ]
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                command, cwd=self.folder, env=self.environment, stdout=log, stderr=subprocess.STDOUT
            )

    @property
    def url(self) -> str:
        """Where the server listens."""
        return f"http://127.0.0.1:{self.port}"

    def client(self) -> openai.OpenAI:
        """The official client, without its own retries."""
        return openai.OpenAI(base_url=f"{self.url}/v1", api_key="none", max_retries=0, timeout=60)

    def async_client(self) -> openai.AsyncOpenAI:
        """The same for asyncio."""
        return openai.AsyncOpenAI(base_url=f"{self.url}/v1", api_key="none", max_retries=0, timeout=60)

    def run_job(self, *arguments: str) -> None:
        """Runs jobs/offline.py beside the server, in the same private surroundings but with a Ray
        of its own.
        """
        command = [sys.executable, "-W", "ignore", str(ROOT / "jobs" / "offline.py"), *arguments]
        run = subprocess.run(
            command, cwd=self.folder, env=self.environment, capture_output=True, text=True, timeout=PROCESS_S
        )
        assert run.returncode == 0, run.stderr

    def wait_until_ready(self) -> None:
        """Returns when the server says so."""
        deadline = time.monotonic() + PROCESS_S
        while "ready after" not in self.log.read_text():
            assert self.process.poll() is None and time.monotonic() < deadline, self.log.read_text()
            time.sleep(0.2)

    def stop(self) -> int:
        """Ends the server and returns its exit status; raises AssertionError when a process of it goes on."""
        try:
            self.process.send_signal(signal.SIGTERM)
            status = self.process.wait(60)
            left = self._members()
            for _ in range(50):
                if not left:
                    break
                time.sleep(0.2)
                left = self._members()
            assert not left, f"still running: {left}\n{self.log.read_text()}"
            return status
        finally:
            self._clean()

    def _clean(self) -> None:
        for pid in self._members():
            with contextlib.suppress(ProcessLookupError):  # it may end by itself meanwhile
                os.kill(pid, signal.SIGKILL)
        shutil.rmtree(self.folder, ignore_errors=True)

    def _members(self) -> list[int]:
        """Every process that has this server's folder in its environment."""
        mark = f"RAY_TMPDIR={self.folder}\0".encode()
        found = []
        for entry in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):  # it ended, or is not ours to read
                if mark in (entry / "environ").read_bytes() + b"\0":
                    found.append(int(entry.name))
        return found


def free_port() -> int:
    """A port that nothing listens on now."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])
