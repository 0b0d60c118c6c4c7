"""The output of a run, on a local disk or an object store: parts, and the files of its run folder.

Opened once; a worker that gets it opens it again on its own machine. A part that exists is a shard that is
done. Does not know how rows are made, nor what the records of a run mean.
"""

import fcntl
import json
import os
import re
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import fs

from rows.parts import SUMMARY_KEY, PartSummary, part_name
from rows.storage import is_uri, locate

RUN_FOLDER = "_run"  # readers of Parquet folders skip names that begin with an underscore
SCRATCH = f"{RUN_FOLDER}/tmp"
FAULT_NAME = "fault-"


class OutputFolder:
    """A folder or URI. Names of files are paths below it."""

    def __init__(self, path: str) -> None:
        """Raises ValueError for a URI that cannot be opened. path: as the user wrote it; errors show it."""
        self.path = path
        self.filesystem, self.root = locate(path)

    def __reduce__(self) -> tuple[Any, ...]:
        # A relative path means this process's folder, which is not the folder of the process that unpickles.
        return OutputFolder, (self.path if is_uri(self.path) else os.path.abspath(self.path),)

    @property
    def is_local(self) -> bool:
        """Whether the folder is on a local disk, which has locks and renames."""
        return isinstance(self.filesystem, fs.LocalFileSystem)

    # Files

    def write(self, name: str, data: bytes | pa.Buffer) -> None:
        """Writes a file whole or not at all: by temporary name, fsync and rename, or by one put."""
        if not self.is_local:
            with self.filesystem.open_output_stream(f"{self.root}/{name}", compression=None) as stream:
                stream.write(data)
            return
        for folder in (SCRATCH, os.path.dirname(name)):
            os.makedirs(f"{self.root}/{folder}", exist_ok=True)
        temporary = f"{self.root}/{SCRATCH}/{os.path.basename(name)}.{uuid.uuid4().hex}"
        with open(temporary, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, f"{self.root}/{name}")
        descriptor = os.open(os.path.dirname(f"{self.root}/{name}"), os.O_RDONLY)
        try:
            os.fsync(descriptor)  # the rename itself
        finally:
            os.close(descriptor)

    def write_json(self, name: str, content: Mapping[str, Any]) -> None:
        """Writes a small JSON file."""
        self.write(name, json.dumps(content, indent=2).encode() + b"\n")

    def read(self, name: str) -> bytes | None:
        """The bytes of a file, None when there is no such file."""
        if self.filesystem.get_file_info(f"{self.root}/{name}").type != fs.FileType.File:
            return None
        with self.filesystem.open_input_stream(f"{self.root}/{name}", compression=None) as stream:
            return stream.read()

    def _list(self, folder: str = "") -> list[fs.FileInfo]:
        path = f"{self.root}/{folder}" if folder else self.root
        return self.filesystem.get_file_info(fs.FileSelector(path, allow_not_found=True))

    # Parts

    def list_parts(self) -> set[int]:
        """The shards whose parts exist."""
        found = (re.fullmatch(r"part-(\d{8,})\.parquet", info.base_name) for info in self._list())
        return {int(match[1]) for match in found if match}

    def write_part(self, shard: int, table: pa.Table, summary: PartSummary) -> None:
        """Writes a shard's part: after this call its rows are in the output, or nothing is."""
        sink = pa.BufferOutputStream()
        with_summary = table.replace_schema_metadata({SUMMARY_KEY: summary.to_json()})
        pq.write_table(with_summary, sink, compression="zstd")
        self.write(part_name(shard), sink.getvalue())

    def read_summary(self, shard: int) -> PartSummary | None:
        """The counts of a part from its footer, None when the part does not exist."""
        path = f"{self.root}/{part_name(shard)}"
        if self.filesystem.get_file_info(path).type != fs.FileType.File:
            return None
        metadata = pq.read_metadata(path, filesystem=self.filesystem).metadata
        return PartSummary.from_json(metadata[SUMMARY_KEY])

    # Faults of the engine

    def add_fault(self, report: str) -> None:
        """Puts an engine fault on record."""
        self.write(f"{RUN_FOLDER}/{FAULT_NAME}{uuid.uuid4().hex}.txt", report.encode())

    def list_faults(self) -> list[str]:
        """The names of the faults on record, oldest first."""
        faults = [info for info in self._list(RUN_FOLDER) if info.base_name.startswith(FAULT_NAME)]
        faults.sort(key=lambda info: info.mtime_ns)
        return [f"{RUN_FOLDER}/{info.base_name}" for info in faults]

    def check_faults(self, max_faults: int) -> None:
        """Raises ValueError when the engine has failed so often that another start would only fail again."""
        faults = self.list_faults()
        if len(faults) >= max_faults:
            lines = (self.read(faults[-1]) or b"").decode().strip().splitlines()
            last = lines[-1] if lines else faults[-1]
            raise ValueError(
                f"the engine failed {len(faults)} times (pool.max_engine_faults); the last time: {last}"
            )

    # One driver at a time

    @contextmanager
    def hold(self) -> Iterator[None]:
        """Makes the run folder and keeps a second driver off it until this process ends, however it ends."""
        if not self.is_local:  # an object store has no locks; two drivers only do the same work twice
            yield
            return
        try:
            os.makedirs(f"{self.root}/{SCRATCH}", exist_ok=True)
            descriptor = os.open(f"{self.root}/{RUN_FOLDER}/lock", os.O_CREAT | os.O_RDWR)
        except OSError as error:
            remedy = "name a folder that can be written"
            raise ValueError(
                f"output.path {self.path!r} cannot be made: {error.strerror}; {remedy}"
            ) from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            yield
        except BlockingIOError as error:
            remedy = "wait for its end, or name another folder"
            raise ValueError(f"another process is writing {self.path}; {remedy}") from error
        finally:
            os.close(descriptor)

    def clear_leftovers(self) -> None:
        """Removes the temporary files and faults of an earlier start."""
        for info in self._list(SCRATCH):
            self.filesystem.delete_file(info.path)
        for fault in self.list_faults():
            self.filesystem.delete_file(f"{self.root}/{fault}")
