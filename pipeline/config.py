"""Settings of the input and of the output, as the user writes them. Standard library only."""

from dataclasses import dataclass

FORMATS = ("auto", "jsonl", "parquet", "csv", "text", "openai_batch")
ORDERS = ("as_is", "longest_first", "by_group")


@dataclass(frozen=True)
class InputConfig:
    """Which rows are read, and which of their columns mean something.

    path: a file, folder, glob or URI, or a list of them. format: auto = by each file's name; openai_batch is
    never guessed. messages_column: a chat (list of role and content), rendered by the model's template; used
    instead of the prompt. sampling_column: a struct of a row's own settings. id_column: must exist, and is
    always carried to the output. group_column: rows with the same value resemble each other; guesses for one
    come from the others first. Null = no group. rows_per_shard: auto = a 64th of each worker's rows, within
    16 to 4096. limit: the first rows only. order: in which shards are handed out; longest_first = by bytes
    per row, by_group = folder by folder. schema_rows: rows of each JSONL file that the columns and their
    types are learned from. csv_columns: names of the columns of CSV files whose first row is data already.
    """

    path: str | list[str]
    format: str = "auto"
    prompt_column: str = "prompt"
    messages_column: str | None = None
    sampling_column: str | None = "sampling"
    id_column: str | None = None
    group_column: str | None = None
    rows_per_shard: int | str = "auto"
    limit: int | None = None
    order: str = "as_is"
    schema_rows: int = 1000
    csv_columns: list[str] | None = None

    def __post_init__(self) -> None:
        if not self.path or not all(self.paths):
            raise ValueError("input.path is empty; name a file, folder, glob or URI (--input)")
        if self.format not in FORMATS:
            raise ValueError(f"input.format is {self.format!r}; it must be one of {', '.join(FORMATS)}")
        if self.order not in ORDERS:
            raise ValueError(f"input.order is {self.order!r}; it must be one of {', '.join(ORDERS)}")
        if self.rows_per_shard != "auto" and (
            isinstance(self.rows_per_shard, str) or self.rows_per_shard < 1
        ):
            raise ValueError(
                f"input.rows_per_shard is {self.rows_per_shard!r}; "
                "it must be 'auto' or an integer of at least 1"
            )
        for name in ("limit", "schema_rows"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"input.{name} is {value}; it must be at least 1")

    @property
    def paths(self) -> list[str]:
        """The path or paths as a list."""
        return [self.path] if isinstance(self.path, str) else list(self.path)


@dataclass(frozen=True)
class OutputConfig:
    """Where the parts go and what they hold.

    columns: input columns to carry, None = all. prefix: put before the names of the added columns.
    generated_ids: also the token ids of the output. samples, logprobs: have these columns also when only
    rows' own settings ask for them; generation.n above 1 and generation.logprobs bring theirs.
    """

    path: str
    columns: list[str] | None = None
    prefix: str = ""
    generated_ids: bool = False
    samples: bool = False
    logprobs: bool = False

    def __post_init__(self) -> None:
        if not self.path:
            raise ValueError("output.path is empty; name a folder or URI (--output)")
