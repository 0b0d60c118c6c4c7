"""Settings of speculation, as the user writes them.

Standard library only: the driver imports this without numba.
"""

from dataclasses import dataclass, field

MODES = ("off", "mixed", "adaptive")
SOURCES = ("context", "bigram", "unigram")
MAX_TREE_NODES = 64  # nodes of an adaptive tree at most


@dataclass(frozen=True)
class MixedConfig:
    """The paper's fixed strategy, for speculation.mode: mixed."""

    num_drafts: int = 1
    """Drafts per sequence and step (the paper's k)."""
    draft_len: int = 4
    """Tokens of each draft (the paper's w)."""
    query_len: int = 1
    """The last tokens that must match an earlier place (the paper's q)."""
    sources: list[str] = field(default_factory=lambda: ["context", "bigram"])
    """Where drafts come from, asked in this order until num_drafts are found: context, bigram, unigram."""

    def __post_init__(self) -> None:
        for name in ("num_drafts", "draft_len", "query_len"):
            _check_at_least_1(f"mixed.{name}", getattr(self, name))
        if not self.sources:
            raise ValueError(
                "speculation.mixed.sources is empty; name at least one, or set speculation.mode: off"
            )
        for source in self.sources:
            if source not in SOURCES:
                raise ValueError(
                    f"speculation.mixed.sources names {source!r}; known are {', '.join(SOURCES)}"
                )
        if len(set(self.sources)) < len(self.sources):
            raise ValueError(f"speculation.mixed.sources names a source twice: {self.sources}")


@dataclass(frozen=True)
class SpeculationConfig:
    """How tokens are drafted."""

    mode: str = "adaptive"
    """adaptive: in every step the drafts of all sources that are worth their time; mixed: the paper's fixed
    strategy; off: plain decoding."""
    mixed: MixedConfig = field(default_factory=MixedConfig)
    """Settings of mode mixed alone."""
    max_nodes_per_sequence: int | None = None
    """Nodes verified per sequence and step at most. Null means 64, or num_drafts x draft_len in mode mixed.
    """
    corpus_tokens: int = 1 << 20
    """Mode adaptive drafts from this many tokens of finished rows, the newest; 0 means from running rows
    alone. A row counts one token more than it has, rounded up to a multiple of 4.
    """
    corpus_path: str | list[str] | None = None
    """Texts like those that the job will write, for mode adaptive to draft from: a file, folder, glob or URI,
    or a list of them, of plain texts, JSON lines, transcripts, or the parts of an earlier run. At most
    corpus_tokens tokens are used, those of the newest files.
    """
    corpus_column: str | None = None
    """The column of the corpus's JSON lines and Parquet that holds its texts or their token ids. Null takes
    the first of generated_ids, generated_text, output and text that is there.
    """

    def __post_init__(self) -> None:
        if self.mode not in MODES:
            raise ValueError(f"speculation.mode is {self.mode!r}; it must be one of {', '.join(MODES)}")
        _check_at_least_1("max_nodes_per_sequence", self.max_nodes_per_sequence)
        if self.mode == "adaptive" and self.mixed != MixedConfig():
            raise ValueError(
                f"speculation.mixed is {self.mixed}, but speculation.mode is adaptive; "
                "set speculation.mode: mixed, or leave these settings out"
            )
        if self.corpus_tokens < 0:
            raise ValueError(f"speculation.corpus_tokens is {self.corpus_tokens}; it must be 0 or more")
        self._check_corpus()

    def _check_corpus(self) -> None:
        if self.corpus_path is None:
            if self.corpus_column is not None:
                found = f"speculation.corpus_column is {self.corpus_column!r}"
                raise ValueError(
                    f"{found}, but there is no speculation.corpus_path; set it, or leave this out"
                )
            return
        found = f"speculation.corpus_path is {self.corpus_path!r}"
        if not self.corpus_path or not all(self.corpus_paths):
            raise ValueError(f"{found}; name a file, folder, glob or URI, or leave it out")
        if self.mode != "adaptive":
            raise ValueError(
                f"{found}, but speculation.mode is {self.mode}; only mode adaptive drafts from a corpus: "
                "set speculation.mode: adaptive, or leave corpus_path out"
            )
        if not self.corpus_tokens:
            remedy = "raise it, or leave corpus_path out"
            raise ValueError(f"{found}, but speculation.corpus_tokens is 0; {remedy}")

    @property
    def corpus_paths(self) -> list[str]:
        """The paths of the corpus as a list."""
        return [self.corpus_path] if isinstance(self.corpus_path, str) else list(self.corpus_path or [])

    @property
    def max_nodes(self) -> int:
        """The nodes that the tree of one sequence has at most."""
        most = MAX_TREE_NODES if self.mode == "adaptive" else self.mixed.num_drafts * self.mixed.draft_len
        return most if self.max_nodes_per_sequence is None else min(most, self.max_nodes_per_sequence)


def _check_at_least_1(name: str, value: int | None) -> None:
    if value is not None and value < 1:
        remedy = "speculation.mode: off turns speculation off"
        raise ValueError(f"speculation.{name} is {value}; it must be at least 1 ({remedy})")
