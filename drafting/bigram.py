"""The model bigram: for every token its likeliest successors, and drafts made by chaining them.

A table is int32 [V, R]: R successors by rank, NO_TOKEN where fewer are known. It may come from a model or
from text.
"""

import numpy as np

from drafting.compiled import compiled
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


@compiled
def recycle_successors(table_VR: Int32, token_ids: Int32, successors_TK: Int32) -> None:
    """Takes in what a model finds likeliest after these tokens; of equal tokens the last counts."""
    size = min(table_VR.shape[1], successors_TK.shape[1])
    for i in range(len(token_ids)):
        if token_ids[i] < len(table_VR):
            table_VR[token_ids[i], :size] = successors_TK[i, :size]
            table_VR[token_ids[i], size:] = NO_TOKEN


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
