"""Attention with its scores in memory, for what SDPA cannot do: soft caps (Gemma 2) and sinks (gpt-oss).

A stand-in for F.scaled_dot_product_attention. Costs only the layers that ask for it; knows nothing of pages
or sequences.

Letters: B sequences, N KV heads, R rows (query heads of one KV head folded into them), L key columns, D head
size.
"""

import torch
from torch import Tensor

# Scores held at once: a long prompt's chunk in a model of many heads would take gigabytes, so its rows go in
# blocks.
MAX_SCORES = 2**25


def explicit_attention(
    query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor | None = None, scale: float | None = None,
    softcap: float | None = None, sinks: Tensor | None = None,
) -> Tensor:  # fmt: skip
    """query [B, N, R, D], key and value [B, N, L, D], attn_mask additive [B or 1, 1, R, L] -> [B, N, R, Dv].

    softcap: scores become softcap * tanh(score / softcap) before the mask. sinks [Hq]: a score per head that
    takes its share of the softmax and gives no value. Scores are at least float32, whatever the dtype.
    """
    scale = query.shape[-1] ** -0.5 if scale is None else scale
    block = max(1, MAX_SCORES // (query.shape[0] * query.shape[1] * key.shape[2]))
    if sinks is not None:
        repeats = query.shape[1] * query.shape[2] // len(sinks)
        sinks = sinks.view(query.shape[1], -1).repeat_interleave(repeats, 1)  # [N, R]
    blocks = []
    for first in range(0, query.shape[2], block):
        rows = slice(first, first + block)
        mask = None if attn_mask is None else attn_mask[:, :, rows]
        own = None if sinks is None else sinks[:, rows]
        weights = _weights(query[:, :, rows] @ key.transpose(2, 3), mask, scale, softcap, own)
        blocks.append(weights.to(value.dtype) @ value)
    return blocks[0] if len(blocks) == 1 else torch.cat(blocks, 2)


def _weights(
    scores: Tensor, mask: Tensor | None, scale: float, softcap: float | None, sinks: Tensor | None
) -> Tensor:
    scores = scores.to(torch.promote_types(scores.dtype, torch.float32)) * scale
    if softcap is not None:
        scores = torch.tanh(scores / softcap) * softcap
    if mask is not None:
        scores = scores + mask
    if sinks is None:
        return scores.softmax(-1)
    column = sinks.to(scores.dtype)[None, :, :, None].expand(scores.shape[0], -1, -1, -1)
    return torch.cat([scores, column], -1).softmax(-1)[..., :-1]
