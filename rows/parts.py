"""Parts: one Parquet file per finished shard, with its counts in the footer.

A part that exists is a shard that is done.
"""

import json
import re
from collections import Counter
from dataclasses import asdict, dataclass, field

import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import fs

from rows.engine_counts import Counts, add_counts
from rows.storage import locate, write_file

SUMMARY_KEY = b"summary"


@dataclass(frozen=True)
class Summary:
    """Counts of one part, or of many added up. first_error: of any row, as an example.

    num_prompt_tokens: a row's prompt once. Each sample that was decoded had its prompt's tokens from the
    prefix cache (num_cached_tokens) or ran them through the model (num_prefilled_tokens). engine: what the
    worker's engine did, for any row, since the worker wrote its last part; see EngineStats.counts.
    """

    num_parts: int = 0
    num_rows: int = 0
    num_errors: int = 0
    num_prompt_tokens: int = 0
    num_cached_tokens: int = 0
    num_prefilled_tokens: int = 0
    num_generated_tokens: int = 0
    num_steps: int = 0
    verified: dict[str, int] = field(default_factory=dict)
    accepted: dict[str, int] = field(default_factory=dict)
    first_error: str | None = None
    engine: Counts = field(default_factory=dict)

    def __add__(self, other: "Summary") -> "Summary":
        counts = {
            name: value + getattr(other, name)
            for name, value in vars(self).items()
            if name.startswith("num_")
        }
        verified = Counter(self.verified) + Counter(other.verified)
        accepted = Counter(self.accepted) + Counter(other.accepted)
        error = self.first_error or other.first_error
        engine = add_counts(self.engine, other.engine)
        return Summary(
            **counts, verified=dict(verified), accepted=dict(accepted), first_error=error, engine=engine
        )

    def to_json(self) -> str:
        """As kept in a part's footer and sent to the driver."""
        return json.dumps(asdict(self))

    @staticmethod
    def from_json(text: str | bytes) -> "Summary":
        """The reverse of to_json."""
        return Summary(**json.loads(text))


def part_name(shard: int) -> str:
    """File name of a shard's part."""
    return f"part-{shard:08d}.parquet"


def list_parts(output: str) -> set[int]:
    """The shards whose parts exist."""
    filesystem, root = locate(output)
    infos = filesystem.get_file_info(fs.FileSelector(root, allow_not_found=True))
    found = (re.fullmatch(r"part-(\d{8,})\.parquet", info.base_name) for info in infos)
    return {int(match[1]) for match in found if match}


def write_part(output: str, shard: int, table: pa.Table, summary: Summary) -> None:
    """Commits a shard: after this call its rows are on disk, or nothing is."""
    sink = pa.BufferOutputStream()
    pq.write_table(table.replace_schema_metadata({SUMMARY_KEY: summary.to_json()}), sink, compression="zstd")
    write_file(output, part_name(shard), sink.getvalue())


def read_summary(output: str, shard: int) -> Summary | None:
    """The counts of a part from its footer, None when the part does not exist."""
    filesystem, root = locate(output)
    path = f"{root}/{part_name(shard)}"
    if filesystem.get_file_info(path).type != fs.FileType.File:
        return None
    return Summary.from_json(pq.read_metadata(path, filesystem=filesystem).metadata[SUMMARY_KEY])
