"""Models and tokenizers that bring their own code: it is run when the user trusts it, and named when not."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from engine.build import engine_for
from engine.config import ModelConfig
from engine.model.loading import load_model
from pipeline.resolve_model import resolve_model
from rows.text_codec import TextCodec
from tests.engine.harness import greedy_cases
from tests.time_limits import PROCESS_S
from tests.tiny_models import tiny_model

pytestmark = pytest.mark.slow
CODE = """
from transformers import LlamaConfig, LlamaForCausalLM

class OwnConfig(LlamaConfig):
    model_type = "own"

class OwnForCausalLM(LlamaForCausalLM):
    config_class = OwnConfig
"""
UNTRUSTED = (
    "it needs the code that comes with it (modeling_own.py), which is not run unasked; read it, "
    "then set model.trust_remote_code: true"
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A tiny Llama that calls itself otherwise and says by which code it is to be run."""
    folder = tmp_path / "model"
    tiny_model("llama", "sdpa").save_pretrained(folder)
    config = json.loads((folder / "config.json").read_text())
    auto_map = {"AutoConfig": "modeling_own.OwnConfig", "AutoModelForCausalLM": "modeling_own.OwnForCausalLM"}
    (folder / "config.json").write_text(json.dumps({**config, "model_type": "own", "auto_map": auto_map}))
    (folder / "modeling_own.py").write_text(CODE)
    return folder


def test_code_that_is_not_trusted_is_not_run(folder: Path) -> None:
    (folder / "modeling_own.py").write_text("raise SystemExit('it was run')")
    for load in (load_model, resolve_model):
        with pytest.raises(ValueError) as error:
            load(ModelConfig(path=str(folder)))
        assert UNTRUSTED in str(error.value)
        assert str(error.value).startswith(f"model.path '{folder}'")


def test_code_that_is_trusted_gives_the_text_of_generate(folder: Path) -> None:
    config = ModelConfig(path=str(folder), trust_remote_code=True, dtype="float64")
    resolve_model(config)
    loaded = load_model(config)
    assert type(loaded.model).__name__ == "OwnForCausalLM"
    case = greedy_cases("llama")[1]
    assert engine_for(loaded, ModelConfig(), None).generate([case.request()])[0].token_ids == case.token_ids


def test_a_known_family_runs_on_the_code_that_we_know_though_it_brings_its_own(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "model_type": "llama"}))
    (folder / "modeling_own.py").write_text("raise SystemExit('it was run')")
    assert type(load_model(ModelConfig(path=str(folder))).model).__name__ == "LlamaForCausalLM"


def test_a_tokenizer_that_brings_its_own_code_is_named(tmp_path: Path) -> None:
    auto_map = {"AutoTokenizer": ["tokenizer_own.OwnTokenizer", None]}
    (tmp_path / "tokenizer_config.json").write_text(
        json.dumps({"tokenizer_class": "OwnTokenizer", "auto_map": auto_map})
    )
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "own"}))
    (tmp_path / "tokenizer_own.py").write_text("raise SystemExit('it was run')")
    with pytest.raises(
        ValueError,
        match="cannot be loaded: it needs code that comes with it; read it, then set "
        "model.trust_remote_code: true",
    ):
        TextCodec(str(tmp_path))
    code = "import sys; from rows.text_codec import TextCodec; TextCodec(sys.argv[1], None, True)"
    done = subprocess.run(
        [sys.executable, "-c", code, tmp_path],
        capture_output=True,
        text=True,
        env=dict(os.environ),
        timeout=PROCESS_S,
    )
    assert "it was run" in done.stderr
