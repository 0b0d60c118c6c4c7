"""The engine that a worker starts: what it is taught before its first step."""

from pathlib import Path

import pytest

from actors.engine_process import start_loop
from drafting.adaptive.adaptive_proposer import AdaptiveProposer
from drafting.config import SpeculationConfig
from engine.config import ModelConfig


def test_a_worker_teaches_the_corpus_once_as_output_text(
    tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    taught: list[bytes] = []

    def teach(self: AdaptiveProposer, token_ids) -> None:
        taught.append(bytes(token_ids.tolist()))

    monkeypatch.setattr(AdaptiveProposer, "teach", teach)
    (tmp_path / "old.jsonl").write_text('{"text": "one"}\n{"text": "two"}\n')
    speculation = SpeculationConfig(corpus_path=str(tmp_path / "old.jsonl"))
    loop = start_loop(ModelConfig(path=str(tiny_folder)), speculation, str(tmp_path / "tables"))
    loop.close()
    assert taught == [b"one", b"two"], "without the tokens that begin or end a text"


def test_ids_of_another_models_vocabulary_do_not_start_an_engine(
    tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(AdaptiveProposer, "teach", lambda self, token_ids: None)
    (tmp_path / "old.jsonl").write_text('{"output": [5, 99999]}\n')
    speculation = SpeculationConfig(corpus_path=str(tmp_path / "old.jsonl"))
    with pytest.raises(
        ValueError, match="corpus_path holds token id 99999; ids of this model go from 0 to 256"
    ):
        start_loop(ModelConfig(path=str(tiny_folder)), speculation, str(tmp_path / "tables"))
