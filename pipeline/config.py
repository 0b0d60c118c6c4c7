"""Settings of the input and of the output, as the user writes them. Standard library only."""

from dataclasses import dataclass

from engine.settings import at_least, check, setting

FORMATS = ("auto", "jsonl", "json", "parquet", "csv", "text", "openai_batch")
ORDERS = ("as_is", "longest_first", "by_folder")


def _is_size(value: object) -> bool:
    return value == "auto" or (isinstance(value, int) and value >= 1)


@dataclass(frozen=True)
class InputConfig:
    """Which rows are read, and which of their columns mean something."""

    path: str | list[str]
    """A file, folder, glob or URI, or a list of them."""
    format: str = setting("auto", f"one of {', '.join(FORMATS)}", FORMATS.__contains__)
    """auto goes by each file's name; or jsonl, json (a list of objects, or JSON lines), parquet, csv, text,
    openai_batch (which is never guessed).
    """
    prompt_column: str = "prompt"
    """The column of the prompts."""
    messages_column: str | None = None
    """A column of chats (lists of role and content), which the model's template renders; used instead of the
    prompt.
    """
    tools_column: str | None = "tools"
    """A column with the tools of a chat, where the input has one: a list of functions as JSON schemas, or the
    same as JSON in a text.
    """
    sampling_column: str | None = "sampling"
    """A column with a struct of a row's own settings."""
    id_column: str | None = None
    """A column that must exist and is always carried to the output."""
    group_column: str | None = None
    """Rows with the same value in this column resemble each other: drafts for one come from the others first.
    """
    prediction_column: str | None = None
    """A column with the text that a row's output probably becomes, such as an older answer or the file to be
    edited; drafts are taken from it, no text depends on it. A null is none.
    """
    rows_per_shard: int | str = setting("auto", "'auto' or an integer of at least 1", _is_size)
    """Rows of a shard; auto is a 64th of each worker's rows, within 16 to 4096."""
    limit: int | None = setting(None, "at least 1", at_least(1))
    """Read the first rows only."""
    order: str = setting("as_is", f"one of {', '.join(ORDERS)}", ORDERS.__contains__)
    """The order in which shards are handed out: as_is, longest_first (by bytes per row), by_folder (folder by
    folder).
    """
    schema_rows: int = setting(1000, "at least 1", at_least(1))
    """Rows of each JSONL file that the columns and their types are learned from."""
    csv_columns: list[str] | None = None
    """Names of the columns of CSV files whose first row is data already."""

    def __post_init__(self) -> None:
        if not self.path or not all(self.paths):
            raise ValueError("input.path is empty; name a file, folder, glob or URI (--input)")
        if self.order == "by_group":
            raise ValueError(
                "input.order by_group is now by_folder; a group is what input.group_column names"
            )
        check(InputConfig, vars(self), "input.")

    @property
    def paths(self) -> list[str]:
        """The path or paths as a list."""
        return [self.path] if isinstance(self.path, str) else list(self.path)


@dataclass(frozen=True)
class OutputConfig:
    """Where the parts go, and what they hold."""

    path: str = ""
    """A folder or URI; jobs/offline.py needs one."""
    columns: list[str] | None = None
    """Input columns to carry to the output; null carries all."""
    prefix: str = ""
    """Put before the names of the added columns."""
    generated_ids: bool = False
    """Add the token ids of the output."""
    samples: bool = False
    """Add the column samples even if only rows' own settings ask for it. With generation.n above 1 it is
    added anyway.
    """
    logprobs: bool = False
    """Add the column logprobs even if only rows' own settings ask for it. With generation.logprobs it is
    added anyway.
    """
