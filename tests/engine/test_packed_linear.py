"""Linear layers for a CPU give what nn.Linear gives, and leave no second copy of a weight behind."""

import pytest
import torch
from torch import nn

from engine.packed_linear import PackedLinear, pack_linears


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("rows", [1, 3, 16, 32, 33, 64, 65])
@pytest.mark.parametrize("bias", [True, False])
def test_a_packed_layer_gives_what_the_layer_gave_up_to_rounding(dtype: torch.dtype, rows: int, bias: bool) -> None:
    torch.manual_seed(0)
    linear = nn.Linear(48, 80, bias=bias, dtype=dtype)
    inputs = torch.randn(1, rows, 48, dtype=dtype)
    wanted = linear(inputs)
    tolerance = 1e-5 if dtype is torch.float32 else 2e-2
    torch.testing.assert_close(PackedLinear(linear, keep_weight=False)(inputs), wanted, rtol=tolerance, atol=tolerance)


def test_every_linear_layer_is_replaced_and_only_the_output_layer_keeps_its_weight() -> None:
    model = nn.Sequential(nn.Linear(8, 8), nn.Sequential(nn.GELU(), nn.Linear(8, 16, bias=False)), nn.Linear(16, 4))
    assert pack_linears(model, output_layer=model[2]) == 3
    assert not [module for module in model.modules() if type(module) is nn.Linear]
    assert {model[0].weight.device.type, model[1][1].weight.device.type} == {"meta"}
    assert model[2].weight.shape == (4, 16)


def test_a_weight_tied_to_the_input_embedding_stays_the_same_tensor() -> None:
    embedding, output = nn.Embedding(10, 6), nn.Linear(6, 10, bias=False)
    output.weight = embedding.weight
    model = nn.Sequential(embedding, output)
    pack_linears(model, output_layer=output)
    assert model[1].weight is embedding.weight


def test_float64_models_are_left_as_they_are() -> None:
    model = nn.Sequential(nn.Linear(8, 8, dtype=torch.float64))
    assert pack_linears(model, output_layer=None) == 0
    assert type(model[0]) is nn.Linear
