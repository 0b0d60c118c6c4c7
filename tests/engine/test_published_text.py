"""A real Llama against its published greedy text; collected only where NGRAM_SHARED names the folder that
holds the model.

NGRAM_SHARED=<folder> pytest tests/engine/test_published_text.py
"""

import os
from pathlib import Path

import pytest
from tokenizers import Tokenizer

from drafting.config import MixedConfig, SpeculationConfig
from engine.build import build_engine
from engine.config import ModelConfig
from engine.request import Request

FOLDER = Path(os.environ["NGRAM_SHARED"]) / "data" / "models" / "stories260K"


@pytest.mark.parametrize("page_size", [1, 16])
@pytest.mark.parametrize("grid", [None, (1, 4), (5, 4), (10, 10)])
def test_once_upon_a_time_goes_on_as_published(grid, page_size, tmp_path):
    speculation = (
        SpeculationConfig(mode="off")
        if grid is None
        else SpeculationConfig("mixed", MixedConfig(num_drafts=grid[0], draft_len=grid[1]))
    )
    engine = build_engine(
        ModelConfig(path=str(FOLDER), dtype="float32", page_size=page_size), speculation, tmp_path
    )
    tokenizer = Tokenizer.from_file(str(FOLDER / "tokenizer.json"))
    prompt_ids = tuple(tokenizer.encode("Once upon a time").ids)
    assert prompt_ids[0] == 1, "the text was published for a prompt that begins with <s>"
    (completion,) = engine.generate([Request("a", prompt_ids, 257 - len(prompt_ids))])
    text = tokenizer.decode([*prompt_ids, *completion.token_ids])
    published = (FOLDER / "expected_greedy.txt").read_text().strip()
    assert text.strip().startswith(published)
    if grid:
        assert completion.stats.num_steps < completion.stats.num_generated_tokens
