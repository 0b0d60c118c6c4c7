"""The model unigram: the tokens nearest to the middle of the output embeddings, whatever came before.

Kept for the paper's ablation.

With V the input and U the output embeddings, <a, b> = sum over x of (a . v_x)(b . v_x) and p(x) falls with
the length of u_x - mean(U) in that product. The paper's listing ranks by -<mean(U), u_x> instead, which is
not that distance.
"""

import numpy as np
from numpy.typing import NDArray

from drafting.tree import Int32

ROWS_AT_ONCE = 4096


def nearest_to_mean(
    input_embeddings_VD: NDArray[np.floating], output_embeddings_VD: NDArray[np.floating], num_tokens: int
) -> Int32:
    """The ids of the num_tokens likeliest tokens, likeliest first, the lower id on ties."""
    gram_DD = input_embeddings_VD.T.astype(np.float64) @ input_embeddings_VD
    mean_D = output_embeddings_VD.mean(axis=0, dtype=np.float64)
    distances = np.empty(len(output_embeddings_VD))
    for first in range(0, len(distances), ROWS_AT_ONCE):
        offsets_RD = output_embeddings_VD[first : first + ROWS_AT_ONCE] - mean_D
        distances[first : first + ROWS_AT_ONCE] = np.einsum("rd,rd->r", offsets_RD @ gram_DD, offsets_RD)
    return np.argsort(distances, kind="stable")[:num_tokens].astype(np.int32)


def fill_unigram_drafts(ids_R: Int32, max_depths_B: Int32, drafts_BKW: Int32, lengths_BK: Int32) -> None:
    """Writes one-token drafts, which are equal for all sequences that may have any."""
    num_ids = min(len(ids_R), drafts_BKW.shape[1])
    drafts_BKW[:, :num_ids, 0] = ids_R[:num_ids]
    lengths_BK[:, :num_ids] = np.minimum(max_depths_B, 1)[:, None]
