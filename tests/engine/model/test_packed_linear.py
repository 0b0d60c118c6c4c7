"""Linear layers for a CPU give what nn.Linear gives, and leave no second copy of a weight behind."""

import pytest
import torch
from torch import nn

from engine.model.packed_linear import PackedLinear, pack_linears


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("rows", [1, 3, 16, 32, 33, 64, 65])
@pytest.mark.parametrize("bias", [True, False])
def test_a_packed_layer_gives_what_the_layer_gave_up_to_rounding(
    dtype: torch.dtype, rows: int, bias: bool
) -> None:
    torch.manual_seed(0)
    linear = nn.Linear(48, 80, bias=bias, dtype=dtype)
    inputs = torch.randn(1, rows, 48, dtype=dtype)
    wanted = linear(inputs)
    tolerance = 1e-5 if dtype is torch.float32 else 2e-2
    torch.testing.assert_close(
        PackedLinear(linear, keep_weight=False)(inputs), wanted, rtol=tolerance, atol=tolerance
    )


def test_every_linear_layer_is_replaced_and_only_the_output_layer_keeps_its_weight() -> None:
    model = nn.Sequential(
        nn.Linear(8, 8), nn.Sequential(nn.GELU(), nn.Linear(8, 16, bias=False)), nn.Linear(16, 4)
    )
    assert pack_linears(model, output_layer=model[2]) == 3
    assert not [module for module in model.modules() if type(module) is nn.Linear]
    assert {model[0].weight.device.type, model[1][1].weight.device.type} == {"meta"}
    assert model[2].weight.shape == (4, 16)


def test_a_weight_tied_to_the_input_embedding_stays_the_same_tensor() -> None:
    embedding = nn.Embedding(10, 6)
    output = nn.Linear(6, 10, bias=False)
    output.weight = embedding.weight
    model = nn.Sequential(embedding, output)
    pack_linears(model, output_layer=output)
    assert model[1].weight is embedding.weight


def test_float64_models_are_left_as_they_are() -> None:
    model = nn.Sequential(nn.Linear(8, 8, dtype=torch.float64))
    assert pack_linears(model, output_layer=None) == 0
    assert type(model[0]) is nn.Linear


class Attention(nn.Module):
    """Three layers on the same rows, as modelling code calls them."""

    def __init__(self, biases: tuple[bool, bool, bool]) -> None:
        super().__init__()
        sizes = (32, 16, 8)
        names = ("q_proj", "k_proj", "v_proj")
        for name, size, bias in zip(names, sizes, biases, strict=True):
            setattr(self, name, nn.Linear(24, size, bias=bias))

    def forward(self, rows: torch.Tensor) -> list[torch.Tensor]:
        return [self.q_proj(rows), self.k_proj(rows), self.v_proj(rows)]


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("rows", [1, 5, 40])
def test_layers_that_read_the_same_rows_become_one_and_give_the_same(rows: int, bias: bool) -> None:
    torch.manual_seed(0)
    model = Attention((bias, bias, bias))
    first = torch.randn(1, rows, 24)
    second = torch.randn(1, rows, 24)
    wanted = model(first), model(second)
    assert pack_linears(model, output_layer=None) == 3
    assert model.q_proj.shared is model.k_proj.shared is model.v_proj.shared
    assert (model.k_proj.weight.shape, model.k_proj.weight.device.type) == ((16, 24), "meta")
    for rows_, results in zip((first, second), wanted, strict=True):
        for result, was in zip(model(rows_), results, strict=True):
            torch.testing.assert_close(result, was, rtol=1e-5, atol=1e-5)
    assert model.q_proj.shared._rows is None, "a step's rows stay in memory"


def test_a_model_that_calls_them_on_different_rows_or_in_another_order_gets_the_right_results() -> None:
    torch.manual_seed(0)
    model = Attention((False, False, False))
    first = torch.randn(1, 3, 24)
    second = torch.randn(1, 3, 24)
    wanted = [
        model.k_proj(first),
        model.q_proj(second),
        model.k_proj(second),
        model.v_proj(first),
        model.q_proj(first),
    ]
    pack_linears(model, output_layer=None)
    found = [
        model.k_proj(first),
        model.q_proj(second),
        model.k_proj(second),
        model.v_proj(first),
        model.q_proj(first),
    ]
    for result, was in zip(found, wanted, strict=True):
        torch.testing.assert_close(result, was, rtol=1e-5, atol=1e-5)


def test_layers_that_are_not_alike_stay_apart() -> None:
    model = Attention((True, False, False))
    assert pack_linears(model, output_layer=None) == 3
    assert {type(layer) for layer in (model.q_proj, model.k_proj, model.v_proj)} == {PackedLinear}
