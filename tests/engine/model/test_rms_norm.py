"""Fused RMS norms give what the models' own give, and are taken only where they do."""

import pytest
import torch
from torch import nn

from engine.model.rms_norm import FusedRMSNorm, fuse_norms
from tests.tiny_models import tiny_model


class ModelRMSNorm(nn.Module):
    """A norm as Llama has it, with what it multiplies by to choose."""

    def __init__(self, weight: torch.Tensor, plus: float = 0.0) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight)
        self.plus = plus
        self.variance_epsilon = 1e-6

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        scaled = rows.float() * torch.rsqrt(
            rows.float().pow(2).mean(-1, keepdim=True) + self.variance_epsilon
        )
        return (self.plus + self.weight) * scaled.to(rows.dtype)


def test_a_row_by_hand():
    norm = FusedRMSNorm(ModelRMSNorm(torch.tensor([1.0, 10.0])))
    # The mean of squares of (1, 7) is 25.
    torch.testing.assert_close(norm(torch.tensor([[1.0, 7.0]])), torch.tensor([[0.2, 14.0]]))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("shape", [(1, 1, 48), (1, 5, 48), (1, 5, 3, 48)])
def test_a_fused_norm_gives_what_the_norm_gave_up_to_rounding(dtype, shape):
    torch.manual_seed(0)
    norm = ModelRMSNorm(torch.randn(48, dtype=dtype))
    rows = torch.randn(shape, dtype=dtype).transpose(0, 1)  # not in one piece, as a model's queries are
    fused = FusedRMSNorm(norm)(rows)
    assert (fused.dtype, fused.shape) == (dtype, rows.shape)
    torch.testing.assert_close(fused, norm(rows), rtol=1e-5, atol=1e-6)


def test_the_norms_of_a_model_are_replaced_and_its_logits_stay():
    model = tiny_model("llama")
    ids = torch.arange(3, 12)[None]
    model.set_attn_implementation("sdpa")
    wanted = model(ids, use_cache=False).logits
    assert fuse_norms(model) == 2 * 3 + 1
    torch.testing.assert_close(model(ids, use_cache=False).logits, wanted, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    "norm",
    [
        ModelRMSNorm(torch.ones(8), plus=1.0),
        ModelRMSNorm(torch.ones(8, dtype=torch.bfloat16)),
        nn.LayerNorm(8),
    ],
    ids=["one plus weight, as Gemma's", "bfloat16, which numba does not know", "no RMS norm"],
)
def test_other_norms_are_left_alone(norm):
    assert fuse_norms(nn.Sequential(norm)) == 0
