"""A model hub on this machine: enough of the Hugging Face hub's API for snapshot_download, with every request
counted.

    with FakeHub({"org/model": folder}) as hub:
        subprocess.run(..., env=os.environ | hub.environment(cache))

A repository is a folder; its commit is a hash of its files, `main` and `v1` name it. `token` makes all
private, `gated` those of which the files ask for a token; `break_after` ends the first answers to each weight
file after so many bytes.
"""

import hashlib
import json
import threading
import time
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit


class FakeHub:
    """Serves folders as repositories until its `with` ends; requests: how often each (method, path within the
    server) was asked for.
    """

    def __init__(
        self,
        repositories: dict[str, Path],
        token: str | None = None,
        gated: bool = False,
        break_after: int = 0,
        seconds_per_file: float = 0,
    ) -> None:
        self.repositories = repositories
        self.token = token
        self.gated = gated
        self.break_after = break_after
        self.num_breaks = 1 if break_after else 0
        self.seconds_per_file = seconds_per_file
        self.requests: Counter[tuple[str, str]] = Counter()
        self.lock = threading.Lock()
        handler = type("Handler", (_Handler,), {"hub": self})
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.server.daemon_threads = True

    def __enter__(self) -> "FakeHub":
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *error: Any) -> None:
        self.server.shutdown()
        self.server.server_close()

    def environment(self, cache: Path, token: str | None = None) -> dict[str, str]:
        """What a process needs to see this hub and nothing else; cache: its node's."""
        where = {
            "HF_ENDPOINT": f"http://127.0.0.1:{self.server.server_address[1]}",
            "HF_HOME": str(cache),
            "HF_HUB_OFFLINE": "0",
        }
        return where | {
            "HF_HUB_DISABLE_PROGRESS_BARS": "1",
            "HF_HUB_ETAG_TIMEOUT": "30",
            "HF_TOKEN": token or "",
        }

    def commit(self, name: str) -> str:
        """40 hex digits of a repository's content."""
        digest = hashlib.sha1()
        for file in files_of(self.repositories[name]):
            digest.update(file.encode() + (self.repositories[name] / file).read_bytes())
        return digest.hexdigest()

    def downloads(self, name: str, how: str = "GET") -> dict[str, int]:
        """How often each file of a repository was asked for: its body, or (HEAD) what there is to
        know of it.
        """
        before = f"/{name}/resolve/{self.commit(name)}/"
        return {
            path.removeprefix(before): count
            for (method, path), count in self.requests.items()
            if method == how and before in path
        }


def files_of(folder: Path) -> list[str]:
    """Paths below a folder."""
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


class _Handler(BaseHTTPRequestHandler):
    hub: FakeHub
    protocol_version = "HTTP/1.1"

    def log_message(self, *arguments: Any) -> None:
        pass

    def do_HEAD(self) -> None:
        self.answer()

    def do_GET(self) -> None:
        self.answer()

    def answer(self) -> None:
        path = urlsplit(self.path).path
        with self.hub.lock:
            self.hub.requests[self.command, path] += 1
        is_api = path.startswith("/api/models/")
        repository = "/".join(path.removeprefix("/api/models").split("/")[1:3])
        known = self.headers.get("Authorization") == f"Bearer {self.hub.token}"
        if repository not in self.hub.repositories or (self.hub.token and not known and not self.hub.gated):
            return self.reply(401, b"{}", {"X-Error-Code": "RepoNotFound"})
        rest = path.split(repository, 1)[1].strip("/").split("/")
        commit = self.hub.commit(repository)
        if len(rest) > 1 and rest[1] not in (commit, "main", "v1"):
            return self.reply(404, b"{}", {"X-Error-Code": "RevisionNotFound"})
        if is_api:
            return self.describe(self.hub.repositories[repository], repository, commit, rest)
        if self.hub.token and not known:
            return self.reply(401, b"{}", {"X-Error-Code": "GatedRepo", "X-Repo-Commit": commit})
        return self.send_file(self.hub.repositories[repository], "/".join(rest[2:]), commit)

    def describe(self, folder: Path, repository: str, commit: str, rest: list[str]) -> None:
        """The files with their sizes, or the repository with its commit."""
        if rest[0] == "tree":
            files = [
                {"type": "file", "path": f, "size": (folder / f).stat().st_size, "oid": etag(folder / f)}
                for f in files_of(folder)
            ]
            return self.reply(200, json.dumps(files).encode())
        info = {
            "id": repository,
            "sha": commit,
            "siblings": [{"rfilename": file} for file in files_of(folder)],
        }
        return self.reply(200, json.dumps(info).encode())

    def send_file(self, folder: Path, name: str, commit: str) -> None:
        if name not in files_of(folder):
            return self.reply(404, b"", {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": commit})
        data = (folder / name).read_bytes()
        status = 200
        headers = {"ETag": f'"{etag(folder / name)}"', "X-Repo-Commit": commit, "Accept-Ranges": "bytes"}
        if asked := self.headers.get("Range"):
            first = int(asked.removeprefix("bytes=").split("-")[0])
            status = 206
            headers["Content-Range"] = f"bytes {first}-{len(data) - 1}/{len(data)}"
            data = data[first:]
        times = self.hub.requests["GET", urlsplit(self.path).path]
        breaks = (
            name.endswith((".safetensors", ".bin")) and self.command == "GET" and times <= self.hub.num_breaks
        )
        return self.reply(status, data, headers, self.hub.break_after if breaks else None)

    def reply(
        self, status: int, body: bytes, headers: dict[str, str] | None = None, break_after: int | None = None
    ) -> None:
        self.send_response(status)
        for name, value in {
            "Content-Length": str(len(body)),
            "Content-Type": "application/json",
            **(headers or {}),
        }.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            half = len(body) // 2 if "/resolve/" in self.path else 0
            self.wfile.write(body[:half][:break_after])
            self.wfile.flush()
            time.sleep(self.hub.seconds_per_file if half else 0)
            self.wfile.write(body[half:break_after])
        self.close_connection = self.close_connection or break_after is not None


def etag(file: Path) -> str:
    """What git would call the file's content, or near enough."""
    return hashlib.sha1(file.read_bytes()).hexdigest()
