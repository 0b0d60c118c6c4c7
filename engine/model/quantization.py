"""Quantised models through transformers' own quantisers: rounded while they are loaded, or as the
checkpoint's config.json says.

int8: a scale per output row, weights only (torchao). nf4: 4 bits, a scale per 64 weights (bitsandbytes). Both
run on CPUs too.
"""

from importlib.util import find_spec
from typing import Any

import torch

EXTRA = "in the project's folder: pip install -c constraints.txt -e '.[quantization]'"
PACKAGES = {"int8": ("torchao", "accelerate"), "nf4": ("bitsandbytes", "accelerate")}


def load_arguments(
    quantization: str | None, settings: Any, dtype: torch.dtype, device: torch.device
) -> dict[str, Any]:
    """What from_pretrained must be told to load a model quantised, {} for one that is not; settings: the
    model's own config.

    Raises ValueError for a model that is quantised already, and where a package is missing.
    """
    own = getattr(settings, "quantization_config", None)
    if quantization is None:  # a quantiser puts weights in place itself: they cannot be moved afterwards
        return {"device_map": {"": device}} if own else {}
    if own:
        method = own.get("quant_method", "some method") if isinstance(own, dict) else own.quant_method
        raise ValueError(
            f"model.quantization is {quantization!r}, but the model is quantised already ({method}); "
            "leave the setting out"
        )
    if missing := [name for name in PACKAGES[quantization] if find_spec(name) is None]:
        raise ValueError(f"model.quantization {quantization!r} needs {' and '.join(missing)}; {EXTRA}")
    return {"device_map": {"": device}, "quantization_config": _quantizer(quantization, dtype)}


def _quantizer(quantization: str, dtype: torch.dtype) -> Any:
    from transformers import BitsAndBytesConfig, TorchAoConfig

    if quantization == "nf4":
        make: Any = BitsAndBytesConfig
        return make(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=dtype)
    from torchao.quantization import Int8WeightOnlyConfig

    return TorchAoConfig(Int8WeightOnlyConfig())
