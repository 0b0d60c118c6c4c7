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

    @property
    def max_nodes(self) -> int:
        """The nodes that the tree of one sequence has at most."""
        most = MAX_TREE_NODES if self.mode == "adaptive" else self.mixed.num_drafts * self.mixed.draft_len
        return most if self.max_nodes_per_sequence is None else min(most, self.max_nodes_per_sequence)


def _check_at_least_1(name: str, value: int | None) -> None:
    if value is not None and value < 1:
        remedy = "speculation.mode: off turns speculation off"
        raise ValueError(f"speculation.{name} is {value}; it must be at least 1 ({remedy})")
