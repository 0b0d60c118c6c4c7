"""The likeliest successors of every verified token: a source of later drafts, never of a target token.

Token Recycling (Luo et al. 2024) keeps the top-k of logits that were computed anyway.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from drafting.compiled import compiled


def likeliest_successors(logits: Tensor, count: int) -> NDArray[np.int32]:
    """logits [R, V] -> ids of the `count` highest, best first, int32 [R, count]; of equal ones
    any may come.
    """
    count = min(count, logits.shape[1])
    if logits.device.type == "cpu":
        # torch.topk sorts more than is asked for: on a CPU a scan that keeps the best so far is several times
        # as fast.
        return _scan(logits.float().numpy(), count)
    ids: NDArray[np.int32] = logits.topk(count, dim=-1).indices.to(torch.int32).cpu().numpy()
    return ids


@compiled
def _scan(logits: NDArray[np.float32], count: int) -> NDArray[np.int32]:
    best = np.empty((len(logits), count), np.int32)
    values = np.empty(count, np.float32)
    for row in range(len(logits)):
        values[:] = -np.inf
        best[row] = 0
        for token in range(logits.shape[1]):
            value = logits[row, token]
            if value > values[count - 1]:
                place = count - 1
                while place > 0 and values[place - 1] < value:
                    values[place] = values[place - 1]
                    best[row, place] = best[row, place - 1]
                    place -= 1
                values[place] = value
                best[row, place] = token
    return best
