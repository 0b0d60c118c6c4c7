"""The fingerprint of a folder changes with every matrix of its model, however large the file is."""

import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.serialization import set_crc32_options

from engine.model.fingerprint import folder_fingerprint
from tests.tiny_models import tiny_model

LARGE = 1 << 20  # float32 numbers of a matrix: 4 MiB, of which 64 KiB are sampled


def tensors() -> dict[str, torch.Tensor]:
    """Five matrices of 4 MiB, and small ones between them that evenly spread samples of the file miss."""
    numbers = torch.Generator().manual_seed(0)
    large = {f"layers.{n}.large": torch.randn(1024, 1024, generator=numbers) for n in range(5)}
    small = {f"layers.{n}.norm": torch.randn(96, generator=numbers) for n in range(5)}
    return {**large, **small}


def tiny_weights() -> dict[str, torch.Tensor]:
    """The weights of a Llama of three layers, at most 24 KiB each."""
    weights = tiny_model("llama", "sdpa", torch.float32).state_dict()
    return {name: weight.clone() for name, weight in weights.items()}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    (folder / "config.json").write_text("{}")
    save_file(tensors(), folder / "model.safetensors")
    return folder


@pytest.mark.parametrize("name", sorted(tensors()))
def test_a_change_of_any_single_matrix_changes_it(name: str, folder: Path, tmp_path: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    other = shutil.copytree(folder, tmp_path / "model")
    assert folder_fingerprint(other, "model.path") == folder_fingerprint(folder, "model.path")
    save_file({**weights, name: weights[name] * 1.001}, other / "model.safetensors")
    assert folder_fingerprint(other, "model.path") != folder_fingerprint(folder, "model.path")


def test_two_matrices_that_change_places_change_it(folder: Path, tmp_path: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    other = shutil.copytree(folder, tmp_path / "model")
    swapped = {"layers.0.large": weights["layers.4.large"], "layers.4.large": weights["layers.0.large"]}
    save_file({**weights, **swapped}, other / "model.safetensors")
    assert folder_fingerprint(other, "model.path") != folder_fingerprint(folder, "model.path")


@pytest.mark.parametrize("place", [0, 12_345, LARGE - 1])
def test_a_change_of_a_single_number_in_a_bin_file_changes_it(place: int, tmp_path: Path) -> None:
    weights = tensors()
    found = []
    for number in (1.0, 2.0):
        weights["layers.2.large"].view(-1)[place] = number
        torch.save(weights, tmp_path / "pytorch_model.bin")
        found.append(folder_fingerprint(tmp_path, "model.path"))
    assert found[0] != found[1]


def test_a_bin_file_of_the_old_kind_is_sampled(tmp_path: Path) -> None:
    weights = tensors()
    found = []
    for factor in (1.0, 1.001):
        weights["layers.2.large"] *= factor
        torch.save(weights, tmp_path / "pytorch_model.bin", _use_new_zipfile_serialization=False)
        found.append(folder_fingerprint(tmp_path, "model.path"))
    assert found[0] != found[1]


def test_a_bin_file_without_checksums_is_sampled(tmp_path: Path) -> None:
    weights = tensors()
    found = []
    set_crc32_options(False)
    try:
        for factor in (1.0, 1.001):
            weights["layers.2.large"] *= factor
            torch.save(weights, tmp_path / "pytorch_model.bin")
            found.append(folder_fingerprint(tmp_path, "model.path"))
    finally:
        set_crc32_options(True)
    assert found[0] != found[1]


@pytest.mark.parametrize(
    "changed",
    [
        {"renamed": torch.ones(4, 6)},
        {"matrix": torch.ones(6, 4)},
        {"matrix": torch.ones(4, 6).view(torch.int32)},
    ],
    ids=["name", "shape", "dtype"],
)
def test_the_same_bytes_under_another_name_shape_or_dtype_change_it(changed, tmp_path: Path) -> None:
    found = []
    for weights in ({"matrix": torch.ones(4, 6)}, changed):
        save_file(weights, tmp_path / "model.safetensors")
        found.append(folder_fingerprint(tmp_path, "model.path"))
    assert found[0] != found[1]


@pytest.mark.parametrize("name", sorted(tiny_weights()))
def test_a_change_of_the_last_bit_of_any_matrix_of_a_tiny_model_changes_it(name: str, tmp_path: Path) -> None:
    """Matrices of up to 64 KiB count whole."""
    found = []
    for bit in (0, 1):
        weights = tiny_weights()
        weights[name].view(torch.int32).view(-1)[-7] ^= bit
        save_file(weights, tmp_path / "model.safetensors")
        found.append(folder_fingerprint(tmp_path, "model.path"))
    assert found[0] != found[1]
