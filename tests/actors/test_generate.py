"""The row-level callable in somebody's own Ray Data pipeline."""

from pathlib import Path

import pytest

pytestmark = pytest.mark.ray


def test_generate_adds_the_output_columns_to_every_row(ray_session: None, tiny_folder: Path) -> None:
    import ray

    from actors.generate import Generate
    from engine.config import ModelConfig

    rows = [{"id": i, "prompt": f"row {i}" if i != 3 else "x" * 400} for i in range(12)]
    settings = {
        "model": ModelConfig(path=str(tiny_folder), dtype="float64"),
        "id_column": "id",
        "max_tokens": 5,
        "temperature": 0.9,
        "ignore_eos": True,
        "n": 2,
        "logprobs": 1,
    }
    found = (
        ray.data.from_items(rows, override_num_blocks=3)
        .map_batches(
            Generate,
            fn_constructor_kwargs=settings,
            batch_size=4,
            compute=ray.data.ActorPoolStrategy(size=1, max_concurrent_calls_per_actor=2),
        )
        .take_all()
    )
    found.sort(key=lambda row: row["id"])
    assert [row["prompt"] for row in found] == [row["prompt"] for row in rows]
    assert [row["num_generated_tokens"] for row in found] == [0 if row["id"] == 3 else 10 for row in found]
    assert [row["id"] for row in found if row["error"]] == [3]
    assert [row["samples"] is None or len(row["samples"]) for row in found] == [
        row["id"] == 3 or 2 for row in found
    ]
    assert all(len(sample["logprobs"]) == 5 for row in found for sample in row["samples"] or [])
    assert "the prompt has 400 tokens; the context is 256" in found[3]["error"]
