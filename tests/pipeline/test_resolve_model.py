"""What the driver finds out about a model without loading it."""

import json
import shutil
import struct
from pathlib import Path
from typing import Any

import pytest

from engine.config import ModelConfig
from pipeline.resolve_model import ResolvedModel, resolve_model


def make_model(folder: Path, weights: bytes = b"\0" * 8, **config: Any) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(
        json.dumps({"model_type": "llama", "max_position_embeddings": 64, **config})
    )
    header = json.dumps({"w": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}).encode()
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", len(header)) + header + weights)
    return folder


def resolve(path: Path | str, **settings: Any) -> ResolvedModel:
    return resolve_model(ModelConfig(path=str(path), **settings))


def test_context_and_chat_template_are_read_from_the_files(tmp_path: Path) -> None:
    folder = make_model(tmp_path / "m")
    assert (resolve(folder).max_context, resolve(folder).has_chat_template) == (64, False)
    (folder / "chat_template.jinja").touch()
    assert resolve(folder).has_chat_template
    assert resolve(folder, max_context=32).max_context == 32
    assert (
        resolve(
            make_model(tmp_path / "gpt", model_type="gpt2", max_position_embeddings=None, n_positions=48)
        ).max_context
        == 48
    )


def test_the_fingerprint_follows_the_content_not_the_place(tmp_path: Path) -> None:
    one = resolve(make_model(tmp_path / "one")).fingerprint
    shutil.copytree(tmp_path / "one", tmp_path / "two")
    assert resolve(tmp_path / "two").fingerprint == one
    make_model(tmp_path / "two", weights=b"\1" * 8)
    assert resolve(tmp_path / "two").fingerprint != one


def test_a_relative_folder_becomes_absolute_so_that_workers_find_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_model(tmp_path / "m")
    monkeypatch.chdir(tmp_path)
    assert resolve("m").config.path == str(tmp_path / "m")


@pytest.mark.parametrize(
    ("break_it", "error"),
    [
        (lambda f: (f / "config.json").unlink(), "has no readable config.json (No such file or directory)"),
        (lambda f: (f / "config.json").write_text("{"), "has no readable config.json (Expecting"),
        (
            lambda f: (f / "config.json").write_text("{}"),
            "has no readable config.json (it lacks 'model_type')",
        ),
        (
            lambda f: make_model(f, model_type="mamba"),
            "model type 'mamba' is not supported: its layers keep a running state",
        ),
        (lambda f: (f / "model.safetensors").unlink(), "has no weights (*.safetensors or *.bin)"),
        (
            lambda f: make_model(f, weights=b"\0" * 5),
            "is not a whole safetensors file: 74 bytes of 77; copy or download the model again",
        ),
        (
            lambda f: (f / "model.safetensors").write_bytes(b"\0" * 4),
            "is not a whole safetensors file: its header cannot be read",
        ),
    ],
)
def test_a_model_that_could_never_load_is_refused_before_anything_starts(
    tmp_path: Path, break_it: Any, error: str
) -> None:
    break_it(make_model(tmp_path / "m"))
    with pytest.raises(ValueError) as caught:
        resolve(tmp_path / "m")
    assert error in str(caught.value)


@pytest.mark.parametrize(
    ("path", "error"),
    [
        ("", "model.path is empty; name a folder or a hub name (--model)"),
        ("./nope", "model.path './nope' does not exist; give a folder in Hugging Face format or a hub name"),
        (
            "nobody/nothing",
            "model.path 'nobody/nothing' is no folder, and the hub does not give it: the hub cannot be "
            "reached",
        ),
    ],
)
def test_a_path_that_names_no_model_is_refused(path: str, error: str) -> None:
    with pytest.raises(ValueError) as caught:
        resolve(path)
    assert error in str(caught.value)


def test_more_context_than_the_model_has_is_refused(tmp_path: Path) -> None:
    with pytest.raises(
        ValueError, match="model.max_context is 65, but the model was made for 64 positions; lower it"
    ):
        resolve(make_model(tmp_path / "m"), max_context=65)


def make_adapter(folder: Path, weights: bytes = b"\0" * 8) -> Path:
    make_model(folder, weights)
    (folder / "model.safetensors").rename(folder / "adapter_model.safetensors")
    (folder / "config.json").rename(folder / "adapter_config.json")
    return folder


def test_an_adapter_and_a_quantisation_make_another_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = make_model(tmp_path / "m")
    make_adapter(tmp_path / "one")
    make_adapter(tmp_path / "other", weights=b"\1" * 8)
    monkeypatch.chdir(tmp_path)
    found = {name: resolve(model, adapter=name) for name in ("one", "other")}
    assert found["one"].config.adapter == str(tmp_path / "one")
    plain = resolve(model).fingerprint
    rounded = resolve(model, quantization="int8").fingerprint
    assert len({plain, rounded, *(each.fingerprint for each in found.values())}) == 4
    shutil.move(tmp_path / "one", tmp_path / "moved")
    assert resolve(model, adapter="moved").fingerprint == found["one"].fingerprint


@pytest.mark.parametrize(
    ("settings", "adapter", "error"),
    [
        ({}, "nope/nope/nope", "model.adapter 'nope/nope/nope' does not exist; give a folder"),
        ({}, "m", "model.adapter 'm' has no adapter_config.json; give a LoRA adapter that peft has saved"),
        (
            {"quantization_config": {"quant_method": "gptq"}},
            "one",
            "model.adapter cannot be merged into a quantised checkpoint",
        ),
    ],
)
def test_an_adapter_that_cannot_be_used_is_refused(
    settings: dict[str, Any], adapter: str, error: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_model(tmp_path / "m", **settings)
    make_adapter(tmp_path / "one")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError) as caught:
        resolve("m", adapter=adapter)
    assert error in str(caught.value)
