"""Counts the input's files before anything runs: how many rows each has, where they lie, and its columns."""

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor

from pipeline.config import InputConfig
from pipeline.files import InputFile, list_files
from pipeline.formats.base import ScannedFile
from pipeline.formats.registry import make_format
from rows.storage import first_line

NUM_READERS = 16  # files read at once: an object store answers late


def scan_files(config: InputConfig, stride: int) -> list[ScannedFile]:
    """Every file with rows to read, in order; raises ValueError naming a file that cannot be read."""
    files = list_files(config.paths, config.format)
    if config.limit is not None:
        return list(_scan_until(config.limit, files, config, stride))
    with ThreadPoolExecutor(NUM_READERS) as pool:
        return list(pool.map(lambda file: _scan(file, config, stride, None), files))


def _scan_until(
    limit: int, files: Iterable[InputFile], config: InputConfig, stride: int
) -> Iterator[ScannedFile]:
    for file in files:
        if limit == 0:
            return
        yield (found := _scan(file, config, stride, limit))
        limit -= found.num_rows


def _scan(file: InputFile, config: InputConfig, stride: int, limit: int | None) -> ScannedFile:
    try:
        return make_format(file.format, config).scan(file, stride, limit)
    except ValueError:
        raise
    except Exception as error:  # a file system of fsspec's raises what its library raises
        reason = getattr(error, "strerror", None) or first_line(error)
        raise ValueError(f"input.path: {file.path} cannot be read: {reason}") from error
