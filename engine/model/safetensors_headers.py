"""The headers of safetensors files: names, types, shapes and places of tensors, without reading a weight.

Standard library only: the driver reads them.
"""

import json
from pathlib import Path
from typing import Any

REMEDY = "copy or download the model again"


def read_header(path: Path) -> dict[str, dict[str, Any]]:
    """The tensors of a file by name: dtype, shape, data_offsets. Raises ValueError for a broken header."""
    return _read(path)[0]


def tensor_places(path: Path) -> list[tuple[int, int]]:
    """Where the tensors of a file lie, as offsets [first, end) in the file, in the order of their names."""
    tensors, header_size = _read(path)
    offsets = [tensors[name]["data_offsets"] for name in sorted(tensors)]
    return [(8 + header_size + first, 8 + header_size + end) for first, end in offsets]


def check_whole(path: Path) -> None:
    """Raises ValueError for a file that a broken download or copy has cut short."""
    tensors, header_size = _read(path)
    try:
        wanted = 8 + header_size + max(tensor["data_offsets"][1] for tensor in tensors.values())
    except (ValueError, KeyError, TypeError) as error:
        raise _broken(path) from error
    size = path.stat().st_size
    if size != wanted:
        raise ValueError(f"{path} is not a whole safetensors file: {size} bytes of {wanted}; {REMEDY}")


def _read(path: Path) -> tuple[dict[str, dict[str, Any]], int]:
    try:
        with path.open("rb") as file:
            header_size = int.from_bytes(file.read(8), "little")
            header = json.loads(file.read(min(header_size, path.stat().st_size)))
        return {name: tensor for name, tensor in header.items() if name != "__metadata__"}, header_size
    except (ValueError, AttributeError) as error:
        raise _broken(path) from error


def _broken(path: Path) -> ValueError:
    return ValueError(f"{path} is not a whole safetensors file: its header cannot be read; {REMEDY}")
