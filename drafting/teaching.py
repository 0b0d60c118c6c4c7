"""Gives a proposer the texts of a reference corpus, before any sequence starts."""

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from drafting.tree import Int32


@runtime_checkable
class Teachable(Protocol):
    """A proposer that drafts from texts it was taught."""

    def teach(self, token_ids: Int32) -> None:
        """Takes in one text of the reference corpus, which stays for good."""


def teach(proposer: object, corpus: Sequence[Int32], vocab_size: int) -> None:
    """Teaches the texts in their order; raises ValueError for a proposer that takes none, and for a token id
    that the model does not have.
    """
    if not corpus:
        return
    if not isinstance(proposer, Teachable):
        found = f"{type(proposer).__name__} drafts from no corpus"
        raise ValueError(f"{found}; set speculation.mode: adaptive, or leave speculation.corpus_path out")
    for token_ids in corpus:
        outside = token_ids[(token_ids < 0) | (token_ids >= vocab_size)]
        if len(outside):
            limit = f"ids of this model go from 0 to {vocab_size - 1}"
            remedy = "name a column of texts as speculation.corpus_column"
            raise ValueError(f"speculation.corpus_path holds token id {outside[0]}; {limit}: {remedy}")
        proposer.teach(token_ids)
