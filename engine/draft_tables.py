"""The draft tables of a model: computed once from its weights, then shared by all workers and jobs.

The one place that makes tables from a model. drafting/tables.py owns their files.
"""

import json
import logging
import os
import tempfile
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from filelock import FileLock
from torch import Tensor

from drafting.likely import Likely
from drafting.tables import Tables, load_likely, load_table, save_table
from drafting.tree import Int32
from drafting.unigram import nearest_to_mean

logger = logging.getLogger(__name__)
NUM_SUCCESSORS = 25  # the paper's largest k
MAX_SECONDS = 60.0
LOCK_SECONDS = 600.0
LOGITS_AT_ONCE = 2**25  # 128 MiB of float32
LastLogits = Callable[[Tensor], Tensor]
Table = TypeVar("Table", Likely, Int32)


def load_or_build_tables(
    model: Any,
    fingerprint: str,
    cache: Path,
    sources: Collection[str],
    num_successors: int = NUM_SUCCESSORS,
    prefix_ids: tuple[int, ...] = (),
) -> Tables:
    """The tables that `sources` need, from cache / fingerprint; built there by the first worker that asks."""
    folder = cache / fingerprint
    bigram: Likely | None = None
    unigram: Int32 | None = None
    if "bigram" in sources:
        made_from = json.dumps(
            {"weights": fingerprint, "num_successors": num_successors, "prefix_ids": prefix_ids}
        )
        bigram = _load_or_build(
            folder, "bigram", made_from, lambda: bigram_of(model, num_successors, prefix_ids), load_likely
        )
    if "unigram" in sources:
        made_from = json.dumps({"weights": fingerprint, "num_tokens": num_successors})
        unigram = _load_or_build(
            folder, "unigram", made_from, lambda: unigram_of(model, num_successors), load_table
        )
    return Tables.of(bigram, unigram)


def _load_or_build(
    folder: Path,
    name: str,
    made_from: str,
    build: Callable[[], Table | None],
    load: Callable[[Path, str, str], Table | None],
) -> Table | None:
    """The table in the folder, or a new one.

    A file appears whole or not at all, so only building needs the lock.
    """
    table = load(folder, name, made_from)
    if table is None:
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / f".{name}.lock", timeout=LOCK_SECONDS):
            # Another worker may have built it while this one waited.
            table = load(folder, name, made_from)
            if table is None:
                table = build()
                if table is not None:
                    save_table(folder, name, table, made_from)
    return table


def bigram_of(model: Any, num_successors: int, prefix_ids: tuple[int, ...] = ()) -> Likely | None:
    """The bigram table of a transformers model; see build_bigram."""
    with own_attention(model) as last_logits:
        return build_bigram(
            last_logits, model.config.get_text_config().vocab_size, num_successors, prefix_ids
        )


def build_bigram(
    last_logits: LastLogits,
    vocab_size: int,
    num_successors: int,
    prefix_ids: tuple[int, ...] = (),
    max_seconds: float = MAX_SECONDS,
) -> Likely | None:
    """Successors [V, R] of every token x: the top of last_logits([prefix, x]), best first.

    Returns None, and logs it, when the table would take longer than max_seconds. Batches grow from 8 rows;
    only a batch of full size, or one that took a second, is used for the estimate, so that the cost of
    starting up does not distort it.
    """
    if any(not 0 <= token < vocab_size for token in prefix_ids):
        raise ValueError(f"prefix_ids is {list(prefix_ids)}; ids of this model go from 0 to {vocab_size - 1}")
    started = time.monotonic()
    rows = 8
    most_rows = max(16, min(4096, LOGITS_AT_ONCE // vocab_size))
    shape = (vocab_size, min(num_successors, vocab_size))
    table = Likely(np.empty(shape, np.int32), np.empty(shape, np.float32))
    first = 0
    while first < vocab_size:
        batch_started = time.monotonic()
        last = min(first + rows, vocab_size)
        ids_BT = torch.tensor([[*prefix_ids, token] for token in range(first, last)])
        logprobs, ids = last_logits(ids_BT)[:, :vocab_size].float().log_softmax(-1).topk(shape[1])
        table.ids[first:last] = ids.cpu().numpy()
        table.logprobs[first:last] = logprobs.cpu().numpy()
        now = time.monotonic()
        estimate = now - started + (now - batch_started) * (vocab_size - last) / (last - first)
        if estimate > max_seconds and first > 0 and (rows == most_rows or now - batch_started > 1):
            logger.warning(
                "no bigram table: it would take %.0f s, the limit is %.0f s; speculation goes on without it",
                estimate,
                max_seconds,
            )
            return None
        first = last
        rows = min(2 * rows, most_rows)
    return table


def unigram_of(model: Any, num_tokens: int) -> Int32:
    """The unigram list of a transformers model; see drafting/unigram.py."""
    embeddings = (model.get_input_embeddings().weight, model.get_output_embeddings().weight)
    own, output = (weight.detach().to("cpu", torch.float32).numpy() for weight in embeddings)
    return nearest_to_mean(own, output, num_tokens)


@contextmanager
def own_attention(model: Any) -> Iterator[LastLogits]:
    """While it lasts, a function ids [B, T] -> logits [B, V] of the last position, by the model's own
    attention code.
    """
    implementation = model.config._attn_implementation
    model.set_attn_implementation("eager")

    def last_logits(ids_BT: Tensor) -> Tensor:
        with torch.inference_mode():
            logits: Tensor = model(
                input_ids=ids_BT.to(model.device), use_cache=False, logits_to_keep=1
            ).logits[:, -1]
            return logits

    try:
        yield last_logits
    finally:
        model.set_attn_implementation(implementation)


def default_cache() -> Path:
    """Where tables are kept when no place was named: this user's cache, or the temp folder where there can be
    none.
    """
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "ngram-tables"
    try:
        cache.mkdir(parents=True, exist_ok=True)
    except OSError:  # a read-only home, as containers have it
        return Path(tempfile.gettempdir()) / f"ngram-tables-{os.getuid()}"
    return cache
