"""Rows of the input are tokenized as plain bytes."""

import pytest

from pipeline import prepare
from tests.actors.fakes import load_byte_codec


@pytest.fixture(autouse=True)
def byte_codec(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prepare, "load_codec", load_byte_codec)
