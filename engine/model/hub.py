"""From a hub name to a folder on this machine: each file is fetched once, by whoever asks first; the others
wait for it.

A folder is taken as it is. Loads neither torch nor transformers, and huggingface_hub on first use only: the
driver, the prepare tasks and the workers all come here. The token is huggingface_hub's affair: HF_TOKEN, or
what `hf auth login` left.
"""

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

logger = logging.getLogger(__name__)
# Everything but weights: settings, tokenizer, chat template, the model's own code.
SMALL_FILES = ["*.json", "*.jinja", "*.model", "*.txt", "*.tiktoken", "*.py"]
# Patterns of weight files: the first that has files in a repository is used. It is not *.safetensors, since
# some repositories carry their weights a second time in another layout.
MODEL_WEIGHTS = ("model*.safetensors", "pytorch_model*.bin")
ADAPTER_WEIGHTS = ("adapter_model.safetensors", "adapter_model.bin")


def local_folder(
    path: str, revision: str | None = None, weights: Sequence[str] = (), setting: str = "model.path"
) -> Path:
    """The folder of a model on this machine, with its small files and, of the patterns in weights, the first
    that has files.

    Raises ValueError, naming setting, when there is no such folder and the hub does not give it.
    """
    if Path(path).is_dir():
        return Path(path)
    if path.count("/") > 1 or path.startswith((".", "/", "~")):
        raise ValueError(
            f"{setting} {path!r} does not exist; give a folder in Hugging Face format or a hub name"
        )
    try:
        with _alone(path, "weights" if weights else "small"):
            return _fetch(path, revision, weights)
    except Exception as error:  # of huggingface_hub, its HTTP client and the disk: each has kinds of its own
        raise ValueError(
            f"{setting} {path!r} is no folder, and the hub does not give it: {_reason(error)}"
        ) from error


def _fetch(name: str, revision: str | None, weights: Sequence[str]) -> Path:
    """What is missing is downloaded; files of a known commit that are here already are not asked
    for again.
    """
    from huggingface_hub import snapshot_download

    folder = Path(snapshot_download(name, revision=revision, allow_patterns=SMALL_FILES))
    for pattern in weights:
        snapshot_download(name, revision=folder.name, allow_patterns=[pattern], ignore_patterns=["*/*"])
        if any(folder.glob(pattern)):
            break
    return folder


@contextmanager
def _alone(name: str, what: str) -> Iterator[None]:
    """Holds this machine's lock on a repository: the system lets go of it when its holder dies."""
    from filelock import FileLock, Timeout
    from huggingface_hub import constants

    path = Path(constants.HF_HUB_CACHE) / ".locks" / f"models--{name.replace('/', '--')}" / f"{what}.lock"
    lock = FileLock(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=0)
    except Timeout:
        logger.info("another process is fetching %s; waiting for it", name)
        lock.acquire()
    except OSError:
        # A cache that cannot be written, as in an image that carries its models: there is nothing to fetch.
        logger.debug("no lock at %s", path)
    try:
        yield
    finally:
        lock.release()


def _reason(error: Exception) -> str:
    """What to do about it, in one line."""
    from huggingface_hub import errors, get_token

    if isinstance(error, errors.GatedRepoError):
        who = "the account of this token has no access yet" if get_token() else "no token is set"
        return (
            f"it is gated and {who}; ask for access on its page, and set HF_TOKEN, wherever it is loaded, "
            "to a token of that account"
        )
    if isinstance(error, errors.RevisionNotFoundError):
        return "it has no such revision; name a branch, tag or commit of it"
    if isinstance(error, errors.RepositoryNotFoundError):
        how = ", and that this token may read it" if get_token() else " or, for a private one, set HF_TOKEN"
        return f"there is no such model, or it is private; check the name{how}"
    if isinstance(error, (errors.LocalEntryNotFoundError, errors.OfflineModeIsEnabled)):
        return (
            "the hub cannot be reached and the model is not in its cache; "
            "check the network, HF_ENDPOINT and HF_HUB_OFFLINE"
        )
    return (" ".join(str(error).split()) or type(error).__name__)[:300]
