"""The model bigram: for every token its likeliest successors, and drafts made by chaining them.

A table is int32 [V, R]: R successors by rank, NO_TOKEN where fewer are known. It may come from a model or
from text. Mode adaptive has it packed, with log-probabilities (drafting/likely.py), and writes it anew as the
model speaks.
"""

import numpy as np
from numpy.typing import NDArray

from drafting.compiled import compiled
from drafting.likely import LEVELS_PER_NAT, LOGPROB_BITS, MAX_ID, UNKNOWN, UInt32, pack, token_of
from drafting.tree import Int32

NO_TOKEN = -1


def empty_table(vocab_size: int, num_successors: int) -> Int32:
    """A table that knows nothing yet."""
    return np.full((vocab_size, num_successors), NO_TOKEN, np.int32)


@compiled
def learn_successors(table_VR: Int32, token_ids: Int32) -> None:
    """Takes in text: the latest successor comes first. After [5 6 5 7], 5 has [7 6]."""
    for i in range(len(token_ids) - 1):
        successors = table_VR[token_ids[i]]
        token = token_ids[i + 1]
        for rank in range(len(successors)):
            successors[rank], token = token, successors[rank]
            if token == token_ids[i + 1] or token == NO_TOKEN:
                break


# Log-probabilities of the successors by rank where only their order is known: 0.4, 0.16, 0.1, 0.08 ...
BY_RANK = np.log(0.4 / np.arange(1, 65) ** 1.3).astype(np.float32)


def packed_table(table_VR: Int32, logprobs_VR: NDArray[np.float32] | None) -> UInt32:
    """A table with log-probabilities, packed (drafting/likely.py); None = only the order is known."""
    if logprobs_VR is None:
        ranks = np.minimum(np.arange(table_VR.shape[1]), len(BY_RANK) - 1)
        logprobs_VR = np.broadcast_to(BY_RANK[ranks], table_VR.shape)
    return pack(table_VR, np.ascontiguousarray(logprobs_VR, np.float32))


@compiled
def learn_packed(table_VR: UInt32, token_ids: Int32) -> None:
    """Takes in text as learn_successors does, into a packed table."""
    for i in range(len(token_ids) - 1):
        successors = table_VR[token_ids[i]]
        token = token_ids[i + 1]
        for rank in range(len(successors) if token <= MAX_ID else 0):
            earlier = NO_TOKEN if successors[rank] == UNKNOWN else token_of(successors[rank])
            level = np.uint32(-BY_RANK[min(rank, len(BY_RANK) - 1)] * LEVELS_PER_NAT)
            successors[rank] = np.uint32(token << LOGPROB_BITS) | level
            if earlier < 0 or earlier == token_ids[i + 1]:
                break
            token = earlier


@compiled
def recycle_successors(table_VR: UInt32, token_ids: Int32, likely_TM: UInt32) -> None:
    """Takes in what a model said after these tokens, packed; of equal tokens the last counts."""
    size = min(table_VR.shape[1], likely_TM.shape[1])
    for i in range(len(token_ids)):
        if token_ids[i] < len(table_VR):
            table_VR[token_ids[i], :size] = likely_TM[i, :size]
            table_VR[token_ids[i], size:] = UNKNOWN


@compiled
def fill_bigram_drafts(
    table_VR: Int32, last_ids_B: Int32, max_depths_B: Int32, drafts_BKW: Int32, lengths_BK: Int32
) -> None:
    """Writes drafts: draft r is the r-th successor of the last token, then first successors."""
    vocab_size, num_successors = table_VR.shape
    for b in range(len(last_ids_B)):
        if last_ids_B[b] >= vocab_size:
            continue
        depth = min(max_depths_B[b], drafts_BKW.shape[2])
        for rank in range(min(num_successors, drafts_BKW.shape[1])):
            token = table_VR[last_ids_B[b], rank]
            size = 0
            while size < depth and token >= 0:
                drafts_BKW[b, rank, size] = token
                size += 1
                token = table_VR[token, 0] if token < vocab_size else NO_TOKEN
            lengths_BK[b, rank] = size
