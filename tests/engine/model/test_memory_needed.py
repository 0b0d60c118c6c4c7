"""What a model needs is read from its files; what is free, from the system's; neighbours that have not loaded
yet are counted.
"""

import json
import os
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from engine.config import ModelConfig
from engine.model import loading
from engine.model.memory_available import available_memory, claim
from engine.model.memory_needed import check_fits, needed
from tests.tiny_models import tiny_model

LLAMA = {
    "model_type": "llama", "vocab_size": 32_000, "hidden_size": 4096, "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8, "max_position_embeddings": 8192, "dtype": "bfloat16",
}  # fmt: skip
WEIGHTS = {
    "model.embed_tokens.weight": [32_000, 4096],
    "model.layers.0.mlp.up_proj.weight": [1_000_000, 4096],
    "model.norm.weight": [4096],
}
CACHE = 2 * 32 * 8 * 128 * 8192  # values of one sequence


def header_only(folder: Path, weights: dict[str, list[int]] = WEIGHTS, **config: Any) -> Path:
    """A model whose weights are a header without data: enough to be measured."""
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps(LLAMA | config))
    header = json.dumps(
        {name: {"dtype": "BF16", "shape": shape, "data_offsets": [0, 0]} for name, shape in weights.items()}
    ).encode()
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", len(header)) + header)
    return folder


def config(folder: Path, **settings: Any) -> ModelConfig:
    return ModelConfig(path=str(folder), **settings)


def test_weights_and_cache_are_counted_in_the_dtype_that_is_asked_for(tmp_path: Path) -> None:
    folder = header_only(tmp_path / "m")
    values = 32_000 * 4096 + 1_000_000 * 4096 + 4096
    need = needed(folder, config(folder), "bfloat16", on_cpu=False)
    assert need and (need.weights, need.cache) == (2 * values, 2 * CACHE)
    need = needed(folder, config(folder, max_context=1024), "float32", on_cpu=False)
    assert need and (need.weights, need.cache) == (4 * values, 4 * CACHE // 8)


def test_on_a_cpu_the_output_layer_counts_twice(tmp_path: Path) -> None:
    folder = header_only(tmp_path / "m")
    on_gpu, on_cpu = (needed(folder, config(folder), "float32", on_cpu=on_cpu) for on_cpu in (False, True))
    assert on_gpu and on_cpu and on_cpu.weights - on_gpu.weights == 32_000 * 4096 * 4


@pytest.mark.parametrize(("name", "each"), [("int8", 1), ("nf4", 0.5625)])
def test_quantised_layers_count_less_and_embeddings_do_not(name: str, each: float, tmp_path: Path) -> None:
    folder = header_only(tmp_path / "m")
    need = needed(folder, config(folder, quantization=name), "bfloat16", on_cpu=False)
    assert need and need.weights == 2 * 32_000 * 4096 + each * 1_000_000 * 4096 + 2 * 4096


def test_weights_that_are_still_on_the_hub_are_known_from_the_index(tmp_path: Path) -> None:
    folder = header_only(tmp_path / "m")
    (folder / "model.safetensors").unlink()
    index = {
        "metadata": {"total_size": 16_000_000_000},
        "weight_map": {"a": "model-00001-of-00002.safetensors"},
    }
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    need = needed(folder, config(folder), "float32", on_cpu=False)
    assert need and need.weights == 32_000_000_000


def test_a_model_of_which_nothing_is_known_is_not_judged(tmp_path: Path) -> None:
    folder = header_only(tmp_path / "m")
    (folder / "model.safetensors").unlink()
    assert needed(folder, config(folder), "float32", on_cpu=True) is None
    check_fits(folder, config(folder), "float32", True, 1, "here")


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_a_real_models_files_give_the_size_of_its_weights(family: str, tmp_path: Path) -> None:
    model = tiny_model(family)
    model.save_pretrained(tmp_path)
    need = needed(tmp_path, config(tmp_path), "float64", on_cpu=False)
    assert need and need.weights == 8 * sum(parameter.numel() for parameter in model.parameters())
    assert need.cache == 8 * 256 * (2 * 3 * 2 * 16)


def test_what_does_not_fit_is_refused_with_figures_and_with_what_would(tmp_path: Path) -> None:
    folder = header_only(tmp_path / "m")
    with pytest.raises(ValueError) as error:
        check_fits(folder, config(folder), "float32", False, int(18e9), "on cuda:0")
    assert str(error.value) == (
        f"model.path '{folder}' needs 19.1 GB (16.9 of weights, 2.1 of K/V cache for one sequence of 8192 "
        "tokens), but 18.0 GB are free "
        "on cuda:0; use model.dtype bfloat16 (9.5 GB), model.quantization int8 (6.8 GB), model.quantization "
        "nf4 (5.0 GB), "
        "a lower model.max_context or a larger GPU (model.check_memory: false loads it all the same)"
    )
    check_fits(folder, config(folder), "float32", False, int(19.2e9), "on cuda:0")


def test_a_worker_refuses_before_it_reads_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = header_only(tmp_path / "m")  # its weights could not be read
    monkeypatch.setattr(loading, "available_memory", lambda: int(11.2e9))
    with pytest.raises(
        ValueError,
        match=r"needs 19\.6 GB .* but 11\.2 GB are free on this machine beside its other workers; use ",
    ):
        loading.load_model(config(folder))
    with pytest.raises(ValueError, match="cannot be loaded"):
        loading.load_model(config(folder, check_memory=False))


def system(root: Path, files: dict[str, str]) -> Path:
    for name, text in {"proc/meminfo": "MemTotal: 9000000 kB\nMemAvailable: 4000000 kB\n", **files}.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


GROUP = {
    "memory.max": "3000000000\n",
    "memory.current": "2500000000\n",
    "memory.stat": "anon 5\ninactive_file 700000000\nactive_file 0\n",
}
OLD = {
    "memory.limit_in_bytes": "1000000000",
    "memory.usage_in_bytes": "400000000",
    "memory.stat": "total_inactive_file 100000000",
}


@pytest.mark.parametrize(
    ("files", "free"),
    [
        ({}, 4_096_000_000),
        ({"proc/self/cgroup": "0::/\n"}, 4_096_000_000),
        ({"proc/self/cgroup": "0::/\n"} | {f"sys/fs/cgroup/{k}": v for k, v in GROUP.items()}, 1_200_000_000),
        (
            {"proc/self/cgroup": "0::/a/b\n"} | {f"sys/fs/cgroup/a/{k}": v for k, v in GROUP.items()},
            1_200_000_000,
        ),
        (
            {"proc/self/cgroup": "0::/a\n"}
            | {f"sys/fs/cgroup/a/{k}": v for k, v in (GROUP | {"memory.max": "max\n"}).items()},
            4_096_000_000,
        ),
        (
            {"proc/self/cgroup": "4:memory:/x\n0::/\n"}
            | {f"sys/fs/cgroup/memory/{k}": v for k, v in OLD.items()},
            700_000_000,
        ),
    ],
    ids=["bare", "no-limit", "container", "service", "unlimited", "version-1"],
)
def test_free_memory_heeds_the_limits_of_containers(files: dict[str, str], free: int, tmp_path: Path) -> None:
    assert available_memory(system(tmp_path, files)) == free


def test_a_neighbour_that_has_not_loaded_yet_is_counted_until_it_is_gone(tmp_path: Path) -> None:
    code = (
        "import sys, pathlib, engine.model.memory_available as memory\n"
        "print(memory.claim(6 * 10**9, 10**10, pathlib.Path(sys.argv[1])), flush=True)\nsys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, tmp_path], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as other:
        assert other.stdout and int(other.stdout.readline()) == 10**10
        left = claim(5 * 10**9, 10**10, tmp_path)
        assert 4 * 10**9 <= left < 4.1 * 10**9
        assert claim(10**9, 10**10, tmp_path) == left, "its own claims are not held against a process"
        other.communicate()
    assert claim(5 * 10**9, 10**10, tmp_path) == 10**10
    assert [file.name.split("-")[0] for file in tmp_path.glob("*-*")] == [str(os.getpid())]
