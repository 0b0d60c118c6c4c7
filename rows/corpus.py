"""The reference corpus (speculation.corpus_path): texts like those that a job will write, as token ids.

The driver checks it before anything starts; each worker reads it once. Knows neither the drafter nor the
engine.
"""

import logging
import os
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from drafting.config import SpeculationConfig
from rows.corpus_files import COLUMNS, KINDS, CorpusFile, Text, kind_of, read_texts
from rows.find_files import find_files
from rows.storage import is_uri

logger = logging.getLogger(__name__)
SETTING = "speculation.corpus_path"
NUM_READERS = 16  # files opened at once: an object store answers late
Encode = Callable[[Sequence[str]], list[list[int]]]


def check_corpus(config: SpeculationConfig) -> SpeculationConfig:
    """The settings as workers in other folders understand them; raises ValueError for a path, file or column
    that is missing, for a file whose beginning cannot be read, and where no file holds a text.
    """
    if not config.corpus_path:
        return config
    config = replace(config, corpus_path=[_absolute(path) for path in config.corpus_paths])
    files = corpus_files(config)
    columns = _columns(config)
    with ThreadPoolExecutor(NUM_READERS) as pool:
        beginnings = list(pool.map(lambda file: list(islice(read_texts(file, columns), 1)), files))
    if not any(beginnings):
        raise ValueError(f"{_shown(config)} holds no text; give it at least one, or leave it out")
    return config


def corpus_files(config: SpeculationConfig) -> list[CorpusFile]:
    """The corpus's files, each once, those that changed last at the end."""
    files: dict[str, CorpusFile] = {}
    for path in config.corpus_paths:
        found = find_files(SETTING, path)
        for info in found.infos:
            kind = kind_of(info.path) or ("" if found.is_folder else "text")
            if kind:
                place = found.path_of(info)
                files[place] = CorpusFile(place, kind, info.size, (info.mtime_ns or 0) / 1e9)
    if not files:
        known = ", ".join(KINDS)
        raise ValueError(f"{_shown(config)} holds no files to read; known in a folder are names in {known}")
    return sorted(files.values(), key=lambda file: file.time)


def read_corpus(config: SpeculationConfig, encode: Encode | None) -> list[NDArray[np.int32]]:
    """The texts as token ids, those of the newest files last, corpus_tokens tokens in all at most.

    encode: makes ids of texts; None = the corpus must hold ids. Where there are more tokens, those of the
    newest files are taken, and one log line says what is left out. Raises ValueError for a file that cannot
    be read.
    """
    if not config.corpus_path:
        return []
    files = corpus_files(config)
    taken: list[list[NDArray[np.int32]]] = []
    room = config.corpus_tokens
    while files:
        file = files.pop()
        found, is_whole = _take(read_texts(file, _columns(config)), file, encode, room)
        taken.insert(0, found)
        num_tokens = sum(map(len, found))
        room -= num_tokens
        if not is_whole:
            older = f"{len(files):,} older files ({sum(file.size for file in files):,} bytes)"
            rest = f"all of {file.path} ({file.size:,} bytes) after its first {num_tokens:,} tokens"
            remedy = f"raise speculation.corpus_tokens ({config.corpus_tokens:,})"
            logger.warning("%s: left out are %s, and %s; %s", SETTING, rest, older, remedy)
            break
    return [token_ids for found in taken for token_ids in found]


def _take(
    texts: Iterable[Text], file: CorpusFile, encode: Encode | None, room: int
) -> tuple[list[NDArray[np.int32]], bool]:
    """The ids of texts, `room` tokens at most, and whether those are all tokens of the file."""
    taken = []
    for text in texts:
        if isinstance(text, str):
            if encode is None:
                raise ValueError(f"{file.path} holds text; give --tokenizer DIR, or token ids")
            text = np.array(encode([text])[0], np.int32)
        if room:
            taken.append(text[:room])
        if len(text) > room:
            return taken, False
        room -= len(text)
    return taken, True


def _columns(config: SpeculationConfig) -> Sequence[str]:
    return [config.corpus_column] if config.corpus_column else COLUMNS


def _absolute(path: str) -> str:
    return path if is_uri(path) else os.path.abspath(path)


def _shown(config: SpeculationConfig) -> str:
    paths = config.corpus_paths
    return f"{SETTING} {(paths[0] if len(paths) == 1 else paths)!r}"
