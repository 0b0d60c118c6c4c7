"""The cache is sized beside what a step needs: staging pages, logits, and room to draw from them."""

import pytest
import torch

from engine import cache_size
from engine.cache_size import StepLimits, num_cache_pages, step_bytes
from engine.config import ModelConfig
from engine.model.loading import inspect_model
from tests.tiny_models import tiny_model

# Of the tiny Llama: 3 layers x 2 heads x (key 16 + value 16) x 4 bytes, and a vocabulary of 97.
SLOT_BYTES = 768
CONTEXT = 64


@pytest.fixture
def loaded():
    return inspect_model(tiny_model("llama", dtype=torch.float32), CONTEXT)


def pages(loaded, monkeypatch, free: int, limits: StepLimits, **settings) -> int:
    monkeypatch.setattr(cache_size, "_free_bytes", lambda device: free)
    return num_cache_pages(loaded, ModelConfig(page_size=16, **settings), limits)


@pytest.mark.parametrize(
    ("limits", "num_rows", "staging_pages"),
    [
        (StepLimits(4, 0), 4, 0),
        (StepLimits(4, 1), 8, 4),
        (StepLimits(4, 17), 4 + 68, 8),
        (StepLimits(256, 100, max_step_nodes=1024), 256 + 1024, 256 + 64),
        (StepLimits(2, 3, max_step_nodes=1024), 2 + 6, 2),
    ],
)
def test_a_step_has_a_row_for_each_sequence_and_node_and_pages_of_their_own_for_its_nodes(
    limits, num_rows, staging_pages
):
    assert (limits.num_rows, limits.staging_pages(16)) == (num_rows, staging_pages)


def test_a_step_needs_its_staging_pages_its_logits_and_room_to_draw(loaded):
    # 8 staging pages of 16 slots; 72 rows of 97 logits, float32 already; all of them are drawn at once.
    assert step_bytes(loaded, StepLimits(4, 17), 16) == 128 * SLOT_BYTES + 72 * 97 * 4 + 72 * 97 * 64


def test_drawing_needs_room_for_one_piece_of_the_rows_only(loaded, monkeypatch):
    monkeypatch.setattr(cache_size, "LOGITS_AT_ONCE", 970)
    assert step_bytes(loaded, StepLimits(100, 0), 16) == 100 * 97 * 4 + 970 * 64


def test_other_dtypes_than_float32_are_copied_to_it(loaded):
    small = inspect_model(tiny_model("llama", dtype=torch.bfloat16), CONTEXT)
    assert step_bytes(small, StepLimits(1, 0), 16) == 97 * (2 + 4) + 97 * 64


def test_the_cache_gets_its_share_of_what_the_step_leaves(loaded, monkeypatch):
    limits = StepLimits(100, 17)
    needed = step_bytes(loaded, limits, 16)
    # 400 pages of 12,288 bytes would hold 100 full sequences; 0.4 of a free 2,457,600 bytes are 80 pages.
    assert pages(loaded, monkeypatch, 2_457_600 + needed, limits) == 80
    assert pages(loaded, monkeypatch, 10**12, limits) == 400
    assert pages(loaded, monkeypatch, 0, limits, cache_tokens=1000) == 63


def test_wide_trees_that_leave_no_room_for_one_sequence_are_refused_with_their_figure(loaded, monkeypatch):
    limits = StepLimits(1000, 250)
    needed = step_bytes(loaded, limits, 16)
    assert needed > 300e6
    with pytest.raises(
        ValueError, match=r"holds 0 tokens beside the 0.6 GB that a step of 251000 rows needs"
    ):
        pages(loaded, monkeypatch, 300_000_000, limits)
    # One full sequence may take nine tenths of what is left.
    assert pages(loaded, monkeypatch, needed + 4 * 12_288 * 10 // 9 + 1, limits) == 4
