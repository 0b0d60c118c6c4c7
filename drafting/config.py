"""Settings of speculation, as the user writes them.

Standard library only: the driver imports this without numba.
"""

from dataclasses import MISSING, dataclass, field, fields

MODES = ("off", "mixed", "adaptive")
FIXED = ("num_drafts", "draft_len", "query_len", "sources")  # settings of mixed alone
MAX_TREE_NODES = 64  # of an adaptive tree
SOURCES = ("context", "bigram", "unigram")


@dataclass(frozen=True)
class SpeculationConfig:
    """How many guesses are made for each sequence, and where they come from.

    mode: adaptive = all sources at once, and in every step the guesses that are worth their price, or none;
    off; or mixed = the paper's fixed strategy: num_drafts (its k) drafts of draft_len (its w) tokens that
    follow a match of the last query_len (its q) tokens; sources are asked in the order given until num_drafts
    are found. max_nodes_per_sequence: guessed tokens verified per sequence and step at most; None = 64, or
    num_drafts x draft_len. corpus_tokens: adaptive drafts from this many tokens of finished rows, the newest;
    0 = from running ones alone.
    """

    mode: str = "adaptive"
    num_drafts: int = 1
    draft_len: int = 4
    query_len: int = 1
    sources: list[str] = field(default_factory=lambda: ["context", "bigram"])
    max_nodes_per_sequence: int | None = None
    corpus_tokens: int = 1 << 20

    def __post_init__(self) -> None:
        if self.mode not in MODES:
            raise ValueError(f"speculation.mode is {self.mode!r}; it must be one of {', '.join(MODES)}")
        for name in ("num_drafts", "draft_len", "query_len", "max_nodes_per_sequence"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(
                    f"speculation.{name} is {value}; it must be at least 1 (speculation.mode: off turns it "
                    "off)"
                )
        for name in FIXED if self.mode == "adaptive" else ():
            if getattr(self, name) != _default(name):
                raise ValueError(
                    f"speculation.{name} is {getattr(self, name)}, a setting of mode mixed; "
                    "set speculation.mode: mixed, or leave it out"
                )
        if self.corpus_tokens < 0:
            raise ValueError(f"speculation.corpus_tokens is {self.corpus_tokens}; it must be 0 or more")
        if not self.sources:
            raise ValueError("speculation.sources is empty; name at least one, or set speculation.mode: off")
        for source in self.sources:
            if source not in SOURCES:
                raise ValueError(f"speculation.sources names {source!r}; known are {', '.join(SOURCES)}")
        if len(set(self.sources)) < len(self.sources):
            raise ValueError(f"speculation.sources names a source twice: {self.sources}")

    @property
    def max_nodes(self) -> int:
        """Nodes that one sequence's tree can have at most."""
        grid = MAX_TREE_NODES if self.mode == "adaptive" else self.num_drafts * self.draft_len
        return grid if self.max_nodes_per_sequence is None else min(grid, self.max_nodes_per_sequence)


def _default(name: str) -> object:
    field = next(field for field in fields(SpeculationConfig) if field.name == name)
    return field.default if field.default_factory is MISSING else field.default_factory()
