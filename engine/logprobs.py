"""Log-probabilities of the tokens that a step gave, for the sequences that ask.

They depend on the logits at each position alone, so they are what plain decoding gives, as the tokens are.

Letters: A tokens of the sequences that ask, V vocabulary, K likeliest tokens.
"""

from collections.abc import Sequence as Many

import numpy as np
import torch
from torch import Tensor

from drafting.tree import DraftTrees
from engine.request import Logprobs
from engine.verify import Ints, Verified


def path_logprobs(
    logits: Tensor, trees: DraftTrees, verified: Verified, wanted: list[int | None]
) -> list[Logprobs | None]:
    """For each sequence, the log-probabilities of its accepted nodes and of its bonus token.

    wanted: how many of the likeliest tokens to name, None = no log-probabilities. logits [N + B, V]: for each
    sequence the logits after its root, then after each of its nodes. On a path of nodes 3 and 5, the logits
    after the root give the token of node 3, those after node 3 the token of node 5, and those after node 5
    the bonus.
    """
    if not any(asked is not None for asked in wanted):
        return [None] * len(wanted)
    return _path_logprobs(logits, trees, verified, wanted)


@torch.inference_mode()
def _path_logprobs(
    logits: Tensor, trees: DraftTrees, verified: Verified, wanted: list[int | None]
) -> list[Logprobs | None]:
    found: list[Logprobs | None] = [None] * len(wanted)
    num_best = max(asked for asked in wanted if asked is not None)
    rows, token_ids, ends = _paths(trees, verified)
    asking = np.repeat([asked is not None for asked in wanted], np.diff(ends))
    chosen_ids = torch.from_numpy(token_ids[asking]).to(logits.device)
    own = logits[torch.from_numpy(rows[asking]).to(logits.device)].float()
    logprobs = own.log_softmax(-1)
    best = likeliest(own, num_best)
    arrays = [logprobs.gather(1, chosen_ids[:, None])[:, 0], best.int(), logprobs.gather(1, best)]
    chosen, top_ids, top = (array.cpu().numpy() for array in arrays)
    first = 0
    for index, (asked, length) in enumerate(zip(wanted, np.diff(ends).tolist(), strict=True)):
        if asked is not None:
            end = first + length
            found[index] = Logprobs(chosen[first:end], top_ids[first:end, :asked], top[first:end, :asked])
            first = end
    return found


def _paths(trees: DraftTrees, verified: Verified) -> tuple[Ints, Ints, Ints]:
    """For the paths of all sequences: the row of logits that gave each token, the tokens, and the bounds of
    each sequence's tokens [B + 1].
    """
    num_sequences = len(verified.bonus)
    num_nodes = len(verified.nodes)
    ends = verified.offsets + np.arange(num_sequences + 1)
    owners = np.repeat(np.arange(num_sequences), np.diff(verified.offsets))
    places = np.arange(num_nodes) + owners
    rows = np.empty(ends[-1], np.int64)
    token_ids = np.empty(ends[-1], np.int64)
    rows[ends[:-1]] = trees.offsets[:-1] + np.arange(num_sequences)
    rows[places + 1] = verified.nodes + owners + 1
    token_ids[places] = trees.token_ids[verified.nodes]
    token_ids[ends[1:] - 1] = np.maximum(verified.bonus, 0)  # a row that fails gets no bonus
    return rows, token_ids, ends


def rows_of_tokens(trees: DraftTrees, verified: Verified, tokens: Many[tuple[int, ...]]) -> Ints:
    """The row of logits that gave each token.

    An output may end inside of a path, and then takes less of it.
    """
    if not len(trees.token_ids):
        return np.array([row for row, some in enumerate(tokens) if some], np.int64)
    rows, _, ends = _paths(trees, verified)
    places = np.arange(len(rows)) - np.repeat(ends[:-1], np.diff(ends))
    taken = np.repeat([len(some) for some in tokens], np.diff(ends))
    return rows[places < taken]


def likeliest(logits: Tensor, count: int) -> Tensor:
    """Ids of the highest float32 logits [A, V], best first, int64 [A, min(count, V)]; of equal ones the
    lowest id first.
    """
    size = logits.shape[1]
    if count == 0:
        return torch.empty((len(logits), 0), dtype=torch.int64, device=logits.device)
    if count >= size:
        return logits.sort(dim=-1, descending=True, stable=True).indices
    # topk takes equal values in any order: the greedy token might come second, or, cut off by its equals, not
    # at all.
    values, ids = logits.topk(count + 1, dim=-1)
    cut_off = values[:, count - 1] == values[:, count]
    ids = ids[:, :count].sort(-1).values
    ids = ids.gather(1, logits.gather(1, ids).sort(dim=-1, descending=True, stable=True).indices)
    if cut_off.any():
        ids[cut_off] = _ranked(logits[cut_off], count)
    return ids


def _ranked(logits: Tensor, count: int) -> Tensor:
    """Ids of the highest logits, exact where values are equal, but ten times slower than topk.

    It compares integers that hold value and id.
    """
    bits = (logits + 0.0).view(torch.int32)  # the sum makes -0.0 equal to 0.0
    # The order of floats is the order of these integers.
    ordered = torch.where(bits < 0, bits ^ 0x7FFFFFFF, bits).long() << 32
    return (ordered - torch.arange(logits.shape[1], device=logits.device)).topk(count, dim=-1).indices
