"""The tables that drafts come from besides the sequence itself, and their files.

One .npz per table, so that a torn one is found by its checksums. Knows neither models nor locks:
engine/draft_tables.py does.
"""

import os
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from drafting.likely import Likely
from drafting.tree import Int32


@dataclass(frozen=True)
class Tables:
    """bigram int32 [V, R]: successors by rank; bigram_logprobs float32 [V, R]: their log-probabilities;
    unigram int32 [R]: likeliest tokens; None = no such table.
    """

    bigram: Int32 | None = None
    unigram: Int32 | None = None
    bigram_logprobs: NDArray[np.float32] | None = None

    @staticmethod
    def of(bigram: Likely | None, unigram: Int32 | None = None) -> "Tables":
        """The tables with the log-probabilities that were computed with them."""
        return Tables(unigram=unigram) if bigram is None else Tables(bigram.ids, unigram, bigram.logprobs)


def save_table(folder: Path, name: str, table: Likely | Int32, made_from: str) -> Path:
    """Writes one table so that a reader finds a whole file or none; made_from: what it was computed from."""
    path = folder / f"{name}.npz"
    torn = folder / f".{name}.{os.getpid()}.tmp"
    arrays = table._asdict() if isinstance(table, Likely) else {"ids": table}
    with open(torn, "wb") as file:
        np.savez(file, **arrays, made_from=np.array(made_from))
    os.replace(torn, path)
    return path


def load_likely(folder: Path, name: str, made_from: str | None = None) -> Likely | None:
    """A table with log-probabilities; None as load_table says, or where the file has none."""
    ids = load_table(folder, name, made_from)
    if ids is None:
        return None
    try:
        with np.load(folder / f"{name}.npz", allow_pickle=False) as file:
            logprobs = file["logprobs"]
    except (OSError, EOFError, KeyError, ValueError, zipfile.BadZipFile):
        return None
    return Likely(ids, logprobs) if logprobs.shape == ids.shape else None


def load_table(folder: Path, name: str, made_from: str | None = None) -> Int32 | None:
    """A table; None where there is none, it is torn, or it was not made from what the caller says."""
    try:
        with np.load(folder / f"{name}.npz", allow_pickle=False) as file:
            ids = file["ids"]
            origin = str(file["made_from"])
    except (OSError, EOFError, KeyError, ValueError, zipfile.BadZipFile):
        return None
    fits = ids.dtype == np.int32 and made_from in (None, origin)
    return ids if fits else None


def load_tables(folder: Path) -> Tables:
    """The tables that lie in a folder."""
    unigram = load_table(folder, "unigram")
    bigram = load_likely(folder, "bigram")
    return Tables(load_table(folder, "bigram"), unigram) if bigram is None else Tables.of(bigram, unigram)
