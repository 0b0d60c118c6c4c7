"""The counts of a part, which is the Parquet file of a finished shard and keeps them in its footer.

rows/output_folder.py writes and reads parts.
"""

import json
from collections import Counter
from dataclasses import asdict, dataclass, field

from rows.engine_counts import EngineCounts, add_counts

SUMMARY_KEY = b"summary"


@dataclass(frozen=True)
class PartSummary:
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
    engine: EngineCounts = field(default_factory=dict)

    def __add__(self, other: "PartSummary") -> "PartSummary":
        counts = {
            name: value + getattr(other, name)
            for name, value in vars(self).items()
            if name.startswith("num_")
        }
        verified = Counter(self.verified) + Counter(other.verified)
        accepted = Counter(self.accepted) + Counter(other.accepted)
        error = self.first_error or other.first_error
        engine = add_counts(self.engine, other.engine)
        return PartSummary(
            **counts, verified=dict(verified), accepted=dict(accepted), first_error=error, engine=engine
        )

    def to_json(self) -> str:
        """As kept in a part's footer and sent to the driver."""
        return json.dumps(asdict(self))

    @staticmethod
    def from_json(text: str | bytes) -> "PartSummary":
        """The reverse of to_json."""
        return PartSummary(**json.loads(text))


def part_name(shard: int) -> str:
    """File name of a shard's part."""
    return f"part-{shard:08d}.parquet"
