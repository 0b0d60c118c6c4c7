"""What the tests share: one Ray session with its own secret and folder, a tiny model folder, an S3 server.

Set before ray is imported.
"""

import atexit
import logging
import os
import secrets
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

_FOLDER = Path(tempfile.mkdtemp(prefix="tests-"))
atexit.register(shutil.rmtree, _FOLDER, ignore_errors=True)
(_FOLDER / "token").touch(mode=0o600)
(_FOLDER / "token").write_text(secrets.token_hex(16))
os.environ.pop("RAY_ADDRESS", None)
os.environ |= {
    "OMP_NUM_THREADS": "1",
    "HF_HUB_OFFLINE": "1",
    "HF_HOME": str(_FOLDER / "hub"),
    "XDG_CACHE_HOME": str(_FOLDER / "cache"),
    "RAY_AUTH_MODE": "token",
    "RAY_AUTH_TOKEN_PATH": str(_FOLDER / "token"),
    "RAY_TMPDIR": str(_FOLDER),
    "AWS_ACCESS_KEY_ID": "of-the-local-server",
    "AWS_SECRET_ACCESS_KEY": "of-the-local-server",
    "AWS_EC2_METADATA_DISABLED": "true",
}


@pytest.fixture(scope="session")
def ray_session() -> Iterator[None]:
    """A local Ray of this test run's own, for all tests that need one in their process."""
    import ray

    from actors.config import PoolConfig
    from pipeline.ray_session import connect

    connect(PoolConfig(num_workers=2))
    yield
    ray.shutdown()


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random float64 Llama with a tokenizer of single bytes, in Hugging Face format; the same weights every
    time.
    """
    from tests.serving.fakes import ByteCodec
    from tests.tiny_models import tiny_model

    folder = tmp_path_factory.mktemp("model")
    tiny_model("llama", "sdpa", vocab_size=257, eos_token_id=256, bos_token_id=256).save_pretrained(folder)
    ByteCodec().tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def s3() -> Iterator[Callable[[str], str]]:
    """A local S3 server with a bucket; gives the URI of a key."""
    from moto.server import ThreadedMotoServer
    from pyarrow import fs

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    fs.S3FileSystem(endpoint_override=f"{host}:{port}", scheme="http", allow_bucket_creation=True).create_dir(
        "bucket"
    )
    yield lambda key: f"s3://bucket/{key}?endpoint_override={host}:{port}&scheme=http"
    server.stop()
