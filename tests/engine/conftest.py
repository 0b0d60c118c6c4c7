"""Leaves out the checks that need files which are not in the repository; the loop that several files test."""

import os
from collections.abc import Iterator

import pytest

from engine.loop import EngineLoop
from tests.engine.harness import make_engine, mixed_proposer
from tests.tiny_models import tiny_model

collect_ignore = [] if "NGRAM_SHARED" in os.environ else ["test_published_text.py"]


@pytest.fixture
def loop() -> Iterator[EngineLoop]:
    loop = EngineLoop(make_engine(tiny_model("llama"), mixed_proposer(3, 3), max_running=4))
    yield loop
    loop.close()
