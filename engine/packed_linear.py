"""Linear layers for a CPU: weights laid out once as oneDNN wants them, instead of at every call.

A step multiplies a few rows by every weight. PyTorch's own float32 path repacks the weight each time and takes 1.2 to 1.5
times as long at 2 to 128 rows (docs/lab-notes.md, 2026-11-22). Knows nothing of models beyond their nn.Linear modules.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

PACKED_DTYPES = (torch.float32, torch.bfloat16)
ROWS_HINT = 16  # rows that the layout is chosen for; others run with the same layout
# oneDNN compiles and keeps code for every number of rows it meets, about 0.5 MB each: beyond 32 rows, round up.
MAX_EXACT_ROWS, ROWS_STEP = 32, 16


class PackedLinear(nn.Module):
    """Computes what the nn.Linear it is made from computes, up to rounding.

    weight: kept only where somebody reads it; elsewhere its shape and dtype, which some models look at.
    """

    def __init__(self, linear: nn.Linear, keep_weight: bool) -> None:
        super().__init__()
        self.in_features, self.out_features = linear.in_features, linear.out_features
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


def pack_linears(model: nn.Module, output_layer: nn.Module | None) -> int:
    """Replaces every plain nn.Linear of a CPU model, one by one so that no weight lies in memory twice; returns how many.

    The output layer keeps its weight as well: it is often the input embedding too, and the draft tables read it.
    Does nothing for a dtype without a packed form (float64, float16), or where PyTorch was built without oneDNN.
    """
    linears = [(name, module) for name, module in model.named_modules() if type(module) is nn.Linear]
    # A quantised weight is a tensor class of its own that says it is float32.
    linears = [(name, module) for name, module in linears if type(module.weight) is nn.Parameter and module.weight.dtype in PACKED_DTYPES]
    if not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        return 0
    while linears:
        name, module = linears.pop()
        model.set_submodule(name, PackedLinear(module, keep_weight=module is output_layer))
    return len([module for module in model.modules() if isinstance(module, PackedLinear)])
