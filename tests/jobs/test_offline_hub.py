"""A whole job whose model and adapter lie on a hub, a fake one on this machine: fetched once for the pool,
pinned, resumed.
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from tests.engine.model.test_adapters import save_adapter
from tests.fake_hub import FakeHub, files_of
from tests.time_limits import PROCESS_S

pytestmark = pytest.mark.ray
ROOT = Path(__file__).parent.parent.parent


def run(hub: FakeHub, folder: Path, output: str, **settings: Any) -> subprocess.CompletedProcess[str]:
    """The job as a user runs it, on a Ray of its own."""
    flags = {
        "input": folder / "prompts.jsonl", "output": folder / output, "model": "org/model",
        "model.dtype": "float64", "pool.num_workers": 2,
        "input.rows_per_shard": 2, "generation.max_tokens": 8, "generation.ignore_eos": "true", **settings,
    }  # fmt: skip
    command = [sys.executable, "jobs/offline.py", *(f"--{key}={value}" for key, value in flags.items())]
    env = os.environ | hub.environment(folder / "cache")
    return subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=PROCESS_S)


def test_a_pool_loads_a_model_and_an_adapter_of_the_hub(tiny_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "prompts.jsonl").write_text(
        "".join(json.dumps({"prompt": f"row {i}"}) + "\n" for i in range(24))
    )
    adapter, other = (
        save_adapter(tmp_path / name, seed=seed, vocab_size=257)
        for name, seed in (("adapter", 1), ("other", 2))
    )
    with FakeHub({"org/model": tiny_folder, "org/adapter": adapter, "org/other": other}) as hub:
        adapted = run(hub, tmp_path, "adapted", **{"model.adapter": "org/adapter"})
        assert adapted.returncode == 0, adapted.stderr
        weights = {"org/model": "model.safetensors", "org/adapter": "adapter_model.safetensors"}
        for name, file in weights.items():
            assert hub.downloads(name)[file] == 1
            assert hub.downloads(name, "HEAD")[file] == 1
        assert set(hub.downloads("org/model").values()) == {1}
        assert set(hub.downloads("org/model")) <= set(files_of(tiny_folder))
        config = json.loads((tmp_path / "adapted" / "_run" / "run.json").read_text())["config"]["model"]
        assert (config["revision"], config["adapter_revision"]) == (
            hub.commit("org/model"),
            hub.commit("org/adapter"),
        )
        refused = run(hub, tmp_path, "adapted", **{"model.adapter": "org/other"})
        assert refused.returncode == 2
        assert "belongs to a different run (model (fingerprint): " in refused.stderr
        assert "model.adapter: org/adapter -> org/other" in refused.stderr
    rows = [
        row
        for part in (tmp_path / "adapted").glob("part-*.parquet")
        for row in pq.read_table(part).to_pylist()
    ]
    assert len(rows) == 24
    assert {(row["error"], row["num_generated_tokens"]) for row in rows} == {(None, 8)}
