"""Log-probabilities of the tokens that a step gave: of the accepted path's rows only, and only for sequences that ask.

Each row's figures depend on its own logits alone, so they are what plain decoding gives, as the tokens are.

Letters: A rows on the paths of those sequences, V vocabulary, K likeliest tokens.
"""

import numpy as np
import torch
from torch import Tensor

from drafting.tree import DraftTrees
from engine.request import Logprobs
from engine.verify import Verified


@torch.inference_mode()
def path_logprobs(logits: Tensor, trees: DraftTrees, verified: Verified, wanted: list[int | None]) -> list[Logprobs | None]:
    """For each sequence its accepted nodes' and its bonus token's; wanted: the likeliest tokens to name, None = no logprobs.

    logits [N + B, V]: for each sequence the row of its root, then those of its nodes. The row before a token gives it:
    of a path of nodes 3 and 5 the root's row gives node 3's token, row 3 gives node 5's, row 5 the bonus token.
    """
    found: list[Logprobs | None] = [None] * len(wanted)
    asking = [index for index, num_best in enumerate(wanted) if num_best is not None]
    if not asking:
        return found
    rows, token_ids = [], []
    for index in asking:
        nodes = verified.nodes[verified.offsets[index] : verified.offsets[index + 1]]
        rows.append(np.concatenate([trees.offsets[index : index + 1] + index, nodes + index + 1]))
        token_ids.append(np.append(trees.token_ids[nodes], verified.bonus[index]))
    chosen_ids = torch.from_numpy(np.concatenate(token_ids)).to(logits.device)
    own = logits[torch.from_numpy(np.concatenate(rows)).to(logits.device)].float()
    logprobs = own.log_softmax(-1)
    best = likeliest(own, max(wanted[index] or 0 for index in asking))
    arrays = [logprobs.gather(1, chosen_ids[:, None])[:, 0], best.int(), logprobs.gather(1, best)]
    chosen, top_ids, top = (array.cpu().numpy() for array in arrays)
    first = 0
    for index, path in zip(asking, token_ids, strict=True):
        end, num_best = first + len(path), wanted[index]
        found[index] = Logprobs(chosen[first:end], top_ids[first:end, :num_best], top[first:end, :num_best])
        first = end
    return found


def likeliest(logits: Tensor, count: int) -> Tensor:
    """Ids of the highest float32 logits [A, V], best first, int64 [A, min(count, V)]; of equal ones the lowest id first.

    topk alone takes equal values in any order: the greedy token might come second, or not at all.
    """
    bits = (logits + 0.0).view(torch.int32)  # the sum makes -0.0 equal to 0.0
    ordered = torch.where(bits < 0, bits ^ 0x7FFFFFFF, bits)  # the order of floats is the order of these integers
    ranks = (ordered.long() << 32) - torch.arange(logits.shape[1], device=logits.device)
    return ranks.topk(min(count, logits.shape[1]), dim=-1).indices
