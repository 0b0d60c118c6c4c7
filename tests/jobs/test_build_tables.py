"""Draft tables from a model: what they hold, that one worker builds for all, and the command that builds
them.
"""

import logging
import shutil
import threading
from pathlib import Path

import numpy as np
import pytest
import torch

from drafting.likely import Likely
from drafting.tables import load_likely, load_table, load_tables, save_table
from engine import draft_tables as tables
from engine.draft_tables import bigram_of, build_bigram, load_or_build_tables, unigram_of
from engine.model.fingerprint import folder_fingerprint
from jobs.build_tables import main
from tests.tiny_models import tiny_model


def logits_of_successor(ids_BT: torch.Tensor) -> torch.Tensor:
    """Over 40 tokens: the likeliest after x is x + 1, then x + 2; every token before x counts ten."""
    shift = 10 * (ids_BT.shape[1] - 1)
    wanted = (ids_BT[:, -1:] + 1 + shift) % 40
    return -((torch.arange(40)[None] - wanted) % 40).float()


@pytest.fixture
def model_folder(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    tiny_model("llama", dtype=torch.float32).save_pretrained(folder)
    return folder


def test_each_token_gets_its_likeliest_successors_best_first() -> None:
    table = build_bigram(logits_of_successor, vocab_size=40, num_successors=3)
    assert table is not None and table.ids.dtype == np.int32
    assert (table.ids[0].tolist(), table.ids[39].tolist()) == ([1, 2, 3], [0, 1, 2])
    assert table.ids.shape == table.logprobs.shape == (40, 3)
    # The logits are 0, -1, -2 ...: the sum of the probabilities' ratios is 1 / (1 - 1/e) = e^0.4587.
    np.testing.assert_allclose(table.logprobs[[0, 39]], [[-0.4587, -1.4587, -2.4587]] * 2, atol=1e-4)


def test_prefix_tokens_come_before_each_token() -> None:
    table = build_bigram(logits_of_successor, vocab_size=40, num_successors=1, prefix_ids=(0,))
    assert table is not None and table.ids[5].tolist() == [16]


def test_prefix_tokens_outside_the_vocabulary_are_refused() -> None:
    with pytest.raises(ValueError, match=r"prefix_ids is \[40\]; ids of this model go from 0 to 39"):
        build_bigram(logits_of_successor, vocab_size=40, num_successors=1, prefix_ids=(40,))


def test_a_table_that_would_take_too_long_is_skipped_with_a_notice(caplog: pytest.LogCaptureFixture) -> None:
    calls = []

    def slow(ids_BT: torch.Tensor) -> torch.Tensor:
        calls.append(len(ids_BT))
        return torch.zeros(len(ids_BT), 100_000)

    with caplog.at_level(logging.WARNING):
        assert build_bigram(slow, vocab_size=100_000, num_successors=4, max_seconds=0.001) is None
    assert "no bigram table: it would take" in caplog.text
    assert calls[0] == 8 and sum(calls) < 2000, "the first batches are small, and their estimate is enough"


def test_the_models_table_is_what_the_model_answers_to_one_token() -> None:
    model = tiny_model("llama")
    table = bigram_of(model, 4)
    own = tiny_model("llama", attention="eager")
    logprobs, ids = own(input_ids=torch.tensor([[17], [3]])).logits[:, -1].log_softmax(-1).topk(4)
    assert table is not None and table.ids.shape == (97, 4)
    assert table.ids[[17, 3]].tolist() == ids.tolist()
    np.testing.assert_allclose(table.logprobs[[17, 3]], logprobs.detach().numpy(), atol=1e-5)
    assert model.config._attn_implementation == "ngram_tree", "the engine's attention is put back"


def test_the_models_unigram_list_holds_distinct_tokens() -> None:
    assert len(set(unigram_of(tiny_model("gpt2", tie_word_embeddings=True), 10).tolist())) == 10


def test_a_saved_table_is_loaded_only_for_what_it_was_made_from(tmp_path: Path) -> None:
    ids = np.array([[1, 2]], np.int32)
    save_table(tmp_path, "bigram", ids, "weights 1")
    assert load_tables(tmp_path).bigram.tolist() == [[1, 2]]
    assert load_table(tmp_path, "bigram", "weights 1").tolist() == [[1, 2]]
    assert load_table(tmp_path, "bigram", "weights 2") is None
    assert load_tables(tmp_path).unigram is None
    assert [path.name for path in tmp_path.iterdir()] == ["bigram.npz"]


def test_a_table_is_saved_with_its_log_probabilities_and_a_file_of_older_code_has_none(
    tmp_path: Path,
) -> None:
    table = Likely(np.array([[1, 2]], np.int32), np.array([[-0.25, -1.5]], np.float32))
    save_table(tmp_path, "bigram", table, "weights 1")
    found = load_tables(tmp_path)
    assert (found.bigram.tolist(), found.bigram_logprobs.tolist()) == ([[1, 2]], [[-0.25, -1.5]])
    assert load_likely(tmp_path, "bigram", "weights 1").logprobs.tolist() == [[-0.25, -1.5]]
    assert load_likely(tmp_path, "bigram", "weights 2") is None
    save_table(tmp_path, "bigram", table.ids, "weights 1")
    found = load_tables(tmp_path)
    assert (found.bigram.tolist(), found.bigram_logprobs) == ([[1, 2]], None)
    assert load_likely(tmp_path, "bigram", "weights 1") is None, "it is built again"


def test_of_many_workers_one_builds(
    model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    built = []
    found = []
    all_started = threading.Barrier(4)

    def build(model: object, num_successors: int, prefix_ids: tuple[int, ...]) -> Likely:
        built.append(num_successors)
        return Likely(np.full((3, 2), 7, np.int32), np.zeros((3, 2), np.float32))

    def worker() -> None:
        all_started.wait()
        found.append(
            load_or_build_tables(
                None,
                folder_fingerprint(model_folder, "model.path"),
                tmp_path / "cache",
                ["context", "bigram"],
            ).bigram
        )

    monkeypatch.setattr(tables, "bigram_of", build)
    threads = [threading.Thread(target=worker) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(built) == 1
    assert [table.tolist() for table in found] == [[[7, 7]] * 3] * 4


@pytest.mark.parametrize("kept_bytes", [0, 200, -10])
def test_a_torn_file_is_built_again(model_folder: Path, tmp_path: Path, kept_bytes: int) -> None:
    model = tiny_model("llama")
    whole = load_or_build_tables(
        model, folder_fingerprint(model_folder, "model.path"), tmp_path, ["bigram"]
    ).bigram
    path = tmp_path / folder_fingerprint(model_folder, "model.path") / "bigram.npz"
    path.write_bytes(path.read_bytes()[:kept_bytes])
    assert load_tables(path.parent).bigram is None
    assert (
        load_or_build_tables(
            model, folder_fingerprint(model_folder, "model.path"), tmp_path, ["bigram"]
        ).bigram.tolist()
        == whole.tolist()
    )
    assert load_tables(path.parent).bigram.tolist() == whole.tolist()


def test_other_settings_build_another_table(model_folder: Path, tmp_path: Path) -> None:
    model = tiny_model("llama")
    assert load_or_build_tables(
        model, folder_fingerprint(model_folder, "model.path"), tmp_path, ["bigram"], num_successors=3
    ).bigram.shape == (97, 3)
    assert load_or_build_tables(
        model, folder_fingerprint(model_folder, "model.path"), tmp_path, ["bigram"], num_successors=5
    ).bigram.shape == (97, 5)


def test_a_single_changed_weight_file_changes_the_fingerprint(model_folder: Path, tmp_path: Path) -> None:
    same = shutil.copytree(model_folder, tmp_path / "copy")
    assert folder_fingerprint(same, "model.path") == folder_fingerprint(model_folder, "model.path")
    weights = same / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    assert folder_fingerprint(same, "model.path") != folder_fingerprint(model_folder, "model.path")


def test_the_command_builds_and_says_where_the_tables_lie(
    model_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert (
        main(["--model", str(model_folder), "--tables", str(tmp_path / "out"), "--tables.num_successors=6"])
        == 0
    )
    folder = tmp_path / "out" / folder_fingerprint(model_folder, "model.path")
    assert capsys.readouterr().out == f"{folder / 'bigram.npz'}: 97 x 6\n{folder / 'unigram.npz'}: 6\n"
    assert load_tables(folder).bigram.shape == (97, 6)


def test_the_command_builds_with_tokens_before_each_one(model_folder: Path, tmp_path: Path) -> None:
    for out, prefix in (("plain", []), ("prefixed", ["--tables.prefix_ids=[1]"])):
        assert main(["--model", str(model_folder), "--tables", str(tmp_path / out), *prefix]) == 0
    plain, prefixed = (
        load_tables(tmp_path / out / folder_fingerprint(model_folder, "model.path"))
        for out in ("plain", "prefixed")
    )
    assert plain.bigram.tolist() != prefixed.bigram.tolist()
    assert plain.unigram.tolist() == prefixed.unigram.tolist()


def test_the_command_refuses_bad_input_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--model", str(tmp_path)]) == 2
    message = capsys.readouterr().err
    assert str(tmp_path) in message and message.count("\n") == 1, "one line, no traceback"
    assert main(["--model", str(tmp_path), "--tables.num_successors=0"]) == 2
    assert "tables.num_successors is 0; it must be at least 1" in capsys.readouterr().err
