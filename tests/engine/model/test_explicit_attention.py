"""Soft caps and sinks: the arithmetic by hand, the same result as SDPA without them, and the same in blocks
of rows.
"""

import math

import pytest
import torch
import torch.nn.functional as F

from engine.model import explicit_attention as explicit


def qkv(rows: int = 6, columns: int = 9) -> tuple[torch.Tensor, ...]:
    """Two sequences, two KV heads with three query heads each."""
    torch.manual_seed(0)
    return tuple(torch.randn(2, 2, length, 4, dtype=torch.float64) for length in (rows, columns, columns))


def test_without_a_cap_and_sinks_it_is_sdpa():
    query, key, value = qkv()
    mask = torch.zeros(2, 1, 6, 9, dtype=torch.float64).masked_fill_(torch.rand(2, 1, 6, 9) < 0.3, -torch.inf)
    expected = F.scaled_dot_product_attention(query, key, value, attn_mask=mask, scale=0.3)
    torch.testing.assert_close(explicit.explicit_attention(query, key, value, mask, 0.3), expected)
    torch.testing.assert_close(
        explicit.explicit_attention(query, key, value), F.scaled_dot_product_attention(query, key, value)
    )


def test_a_cap_bends_the_scores_before_the_mask():
    """Scores 8 and -8 under a cap of 2 become 2 tanh(4) and -2 tanh(4); the third is masked, however high."""
    query = torch.tensor([[[[1.0]]]])
    key = torch.tensor([[[[8.0], [-8.0], [100.0]]]])
    value = torch.tensor([[[[1.0], [0.0], [5.0]]]])
    mask = torch.tensor([[[[0.0, 0.0, -torch.inf]]]])
    share = 1 / (1 + math.exp(-4 * math.tanh(4)))
    assert explicit.explicit_attention(query, key, value, mask, 1.0, softcap=2.0).item() == pytest.approx(
        share
    )


def test_a_sink_takes_its_heads_share_and_gives_no_value():
    """Two heads over one key with score 0: sinks of log 3 and of log 1 leave it a quarter and a half; two
    rows each.
    """
    query = torch.zeros(1, 1, 4, 1)
    key = torch.zeros(1, 1, 1, 1)
    value = torch.ones(1, 1, 1, 1)
    shares = explicit.explicit_attention(query, key, value, sinks=torch.tensor([math.log(3), 0.0]))
    torch.testing.assert_close(shares.ravel(), torch.tensor([0.25, 0.25, 0.5, 0.5]))


@pytest.mark.parametrize("max_scores", [1, 40, 80, 215])
def test_blocks_of_rows_change_nothing(max_scores, monkeypatch):
    query, key, value = qkv()
    mask = torch.zeros(1, 1, 6, 9, dtype=torch.float64).masked_fill_(torch.rand(1, 1, 6, 9) < 0.3, -torch.inf)
    sinks = torch.randn(6, dtype=torch.float64)
    whole = explicit.explicit_attention(query, key, value, mask, softcap=3.0, sinks=sinks)
    monkeypatch.setattr(explicit, "MAX_SCORES", max_scores)
    torch.testing.assert_close(
        explicit.explicit_attention(query, key, value, mask, softcap=3.0, sinks=sinks), whole
    )
