"""A local server that answers as the Hugging Face hub does for one data set."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from flask import Flask, Response, jsonify, request
from werkzeug.serving import make_server

COMMIT = "a" * 40
FILES = {
    "data/a.jsonl": b'{"prompt": "from the hub"}\n{"prompt": "two"}\n',
    "data/b.txt": b"three\n",
    "README.md": b"no data",
}


def make_app() -> Flask:
    """The routes that HfFileSystem asks."""
    app = Flask("hub")

    @app.get("/api/datasets/owner/name")
    def about() -> Response:
        return jsonify(
            id="owner/name",
            sha=COMMIT,
            private=False,
            siblings=[{"rfilename": name} for name in FILES],
            tags=[],
        )

    @app.get("/api/datasets/owner/name/tree/<revision>")
    @app.get("/api/datasets/owner/name/tree/<revision>/<path:folder>")
    def tree(revision: str, folder: str = "") -> tuple[Response, int, dict[str, str]]:
        start = f"{folder}/" if folder else ""
        inside = [name for name in FILES if name.startswith(start)]
        folders = {
            start + name[len(start) :].partition("/")[0] for name in inside if "/" in name[len(start) :]
        }
        listed = [{"type": "directory", "oid": "c" * 40, "size": 0, "path": path} for path in sorted(folders)]
        direct = [
            name for name in inside if request.args["recursive"] == "true" or "/" not in name[len(start) :]
        ]
        listed += [
            {"type": "file", "oid": "b" * 40, "size": len(FILES[name]), "path": name} for name in direct
        ]
        return (
            (jsonify(listed), 200, {})
            if listed
            else (jsonify(error="no such entry"), 404, {"X-Error-Code": "EntryNotFound"})
        )

    @app.get("/datasets/owner/name/resolve/<revision>/<path:name>")
    def content(revision: str, name: str) -> Response:
        answer = Response(FILES[name], mimetype="application/octet-stream")
        return answer.make_conditional(request, accept_ranges=True, complete_length=len(FILES[name]))

    return app


@contextmanager
def serve() -> Iterator[str]:
    """The server's address while it runs."""
    server = make_server("127.0.0.1", 0, make_app(), threaded=True)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
