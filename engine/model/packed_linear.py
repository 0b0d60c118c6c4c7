"""Linear layers for a CPU: weights laid out once as oneDNN wants them, instead of at every call.

A step multiplies a few rows by every weight. PyTorch's own float32 path repacks the weight each time and
takes 1.2 to 1.5 times as long at 2 to 128 rows (docs/lab-notes.md, 2026-11-22). Layers that read the same
rows become one: a call costs 10 us before it multiplies anything. Knows nothing of models beyond the names of
their nn.Linear modules.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

PACKED_DTYPES = (torch.float32, torch.bfloat16)
ROWS_HINT = 16  # rows that the layout is chosen for; others run with the same layout
# oneDNN compiles and keeps code for every number of rows it meets, about 0.5 MB each: beyond 32 rows, round
# up.
MAX_EXACT_ROWS = 32
ROWS_STEP = 16

# Layers under one parent that modelling code calls on the same rows, in this order.
SIBLINGS = (("q_proj", "k_proj", "v_proj"), ("gate_proj", "up_proj"))


class PackedLinear(nn.Module):
    """Computes what the nn.Linear it is made from computes, up to rounding.

    weight: kept only where somebody reads it; elsewhere its shape and dtype, which some models look at.
    """

    def __init__(self, linear: nn.Linear, keep_weight: bool) -> None:
        super().__init__()
        self.in_features = linear.in_features
        self.out_features = linear.out_features
        self.packed = torch.ops.mkldnn._reorder_linear_weight(linear.weight.detach(), ROWS_HINT)
        self.weight = linear.weight if keep_weight else torch.empty_like(linear.weight, device="meta")
        self.bias = linear.bias

    def forward(self, rows: Tensor) -> Tensor:
        """rows [..., T, in_features] -> [..., T, out_features]."""
        num_rows = rows.shape[-2]
        missing = -num_rows % ROWS_STEP if num_rows > MAX_EXACT_ROWS else 0
        padded = F.pad(rows, (0, 0, 0, missing)) if missing else rows
        result: Tensor = torch.ops.mkldnn._linear_pointwise(padded, self.packed, self.bias, "none", [], "")
        return result[..., :num_rows, :] if missing else result


class SharedLinears:
    """Several linear layers that a model calls one after another on the same rows, computed at the first of
    these calls.
    """

    def __init__(self, linears: list[nn.Linear]) -> None:
        self.sizes = [linear.out_features for linear in linears]
        joined = nn.Linear(
            linears[0].in_features, sum(self.sizes), bias=linears[0].bias is not None, device="meta"
        )
        joined.weight = nn.Parameter(torch.cat([linear.weight for linear in linears]), requires_grad=False)
        if joined.bias is not None:
            joined.bias = nn.Parameter(torch.cat([linear.bias for linear in linears]), requires_grad=False)
        self.layer = PackedLinear(joined, keep_weight=False)
        self._rows: Tensor | None = None
        self._results: tuple[Tensor, ...] = ()

    def result(self, index: int, rows: Tensor) -> Tensor:
        """What the layer of this index gives; other rows than at the last call are computed anew."""
        if rows is not self._rows:
            self._rows = rows
            self._results = self.layer(rows).split(self.sizes, -1)
        result = self._results[index]
        if index == len(self.sizes) - 1:  # nothing of a step is kept
            self._rows = None
            self._results = ()
        return result


class SharedLinear(nn.Module):
    """One of the layers of a SharedLinears. weight: its shape and dtype only, as PackedLinear's."""

    def __init__(self, shared: SharedLinears, index: int, linear: nn.Linear) -> None:
        super().__init__()
        self.shared = shared
        self.index = index
        self.weight = torch.empty_like(linear.weight, device="meta")

    def forward(self, rows: Tensor) -> Tensor:
        """rows [..., T, in_features] -> [..., T, out_features], a view."""
        return self.shared.result(self.index, rows)


def pack_linears(
    model: nn.Module, output_layer: nn.Module | None, siblings: tuple[tuple[str, ...], ...] = SIBLINGS
) -> int:
    """Replaces every plain nn.Linear of a CPU model, one by one so that no weight lies in memory twice;
    returns how many.

    The output layer keeps its weight as well: it is often the input embedding too, and the draft tables read
    it. Does nothing for a dtype without a packed form (float64, float16), or where PyTorch was built without
    oneDNN.
    """
    if not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        return 0
    num_linears = sum(_is_packable(module) for module in model.modules())
    for parent in list(model.modules()):
        for names in siblings:
            _share(parent, names)
    linears = [(name, module) for name, module in model.named_modules() if _is_packable(module)]
    while linears:
        name, module = linears.pop()
        model.set_submodule(name, PackedLinear(module, keep_weight=module is output_layer))
    return num_linears


def _is_packable(module: nn.Module) -> bool:
    # A quantised weight is a tensor class of its own that says it is float32.
    is_plain = type(module) is nn.Linear and type(module.weight) is nn.Parameter
    return is_plain and module.weight.dtype in PACKED_DTYPES


def _share(parent: nn.Module, names: tuple[str, ...]) -> None:
    """Makes one layer of a module's children of these names, if it has them all and they are alike."""
    children = [getattr(parent, name, None) for name in names]
    linears = [child for child in children if isinstance(child, nn.Linear) and _is_packable(child)]
    kinds = {(linear.in_features, linear.weight.dtype, linear.bias is None) for linear in linears}
    if len(linears) == len(names) and len(kinds) == 1:
        shared = SharedLinears(linears)
        for index, (name, linear) in enumerate(zip(names, linears, strict=True)):
            setattr(parent, name, SharedLinear(shared, index, linear))
