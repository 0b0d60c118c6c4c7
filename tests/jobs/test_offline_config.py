"""Settings from files and flags: what is taken, and in one line what is refused."""

from dataclasses import dataclass, field
from pathlib import Path

import pytest

from engine.config import GenerationConfig, ModelConfig
from jobs.config import parse
from jobs.offline import OfflineConfig

GOOD = ["--input", "in.jsonl", "--output", "out", "--model", "m"]
ROOT = Path(__file__).parent.parent.parent


def test_short_names_and_long_ones_set_the_same_keys() -> None:
    short = parse(OfflineConfig, [*GOOD, "--speculate=off", "--limit", "3"])
    long = parse(
        OfflineConfig,
        [
            "--input.path",
            "in.jsonl",
            "--output.path=out",
            "--model.path",
            "m",
            "--speculation.mode",
            "off",
            "--input.limit=3",
        ],
    )
    assert short == long
    assert (
        short.input.path,
        short.output.path,
        short.model.path,
        short.speculation.mode,
        short.input.limit,
    ) == (
        "in.jsonl",
        "out",
        "m",
        "off",
        3,
    )


def test_help_tells_short_names_and_offers_no_section_as_a_flag(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse(OfflineConfig, ["--help"])
    shown = " ".join(capsys.readouterr().out.split())
    assert "--input is --input.path, --output is --output.path" in shown
    assert "--cost_model" not in shown, "a short name of another job"
    assert "--input CONFIG" not in shown and "--speculation.mixed CONFIG" not in shown


def test_a_switch_is_off_unless_its_flag_is_given() -> None:
    assert not parse(OfflineConfig, GOOD).dry_run
    assert (
        parse(OfflineConfig, [*GOOD, "--dry_run"]).dry_run
        and parse(OfflineConfig, [*GOOD, "--dry-run"]).dry_run
    )


def test_flags_after_a_file_win_over_it(tmp_path: Path) -> None:
    file = tmp_path / "job.yaml"
    file.write_text(
        "generation: {max_tokens: 9, temperature: 1e-1}\nspeculation: {mode: off}\ninput: {path: [a, b]}\n"
    )
    config = parse(
        OfflineConfig, ["--config", str(file), "--output=o", "--model=m", "--generation.max_tokens", "7"]
    )
    assert (config.generation.max_tokens, config.generation.temperature, config.speculation.mode) == (
        7,
        0.1,
        "off",
    )
    assert config.input.paths == ["a", "b"]


def test_stop_strings_may_hold_what_yaml_would_read_otherwise() -> None:
    config = parse(
        OfflineConfig,
        [*GOOD, "--generation.stop", '["\\n\\n", "off", "1", "# x"]', "--generation.logprobs=0"],
    )
    assert (config.generation.stop, config.generation.logprobs) == (["\n\n", "off", "1", "# x"], 0)


def test_a_single_stop_string_needs_no_list_unless_it_looks_like_one() -> None:
    for flag, stop in (
        ("</s>", "</s>"),
        ("off", "off"),
        ("1", "1"),
        ("a: b", "a: b"),
        ('["[END]"]', "[END]"),
    ):
        assert parse(OfflineConfig, [*GOOD, "--generation.stop", flag]).generation.stop == [stop]


def test_a_corpus_is_one_path_or_a_list_or_none() -> None:
    for flag, paths in (("old/*.jsonl", ["old/*.jsonl"]), ("[a.txt, b]", ["a.txt", "b"]), ("null", [])):
        config = parse(OfflineConfig, [*GOOD, "--speculation.corpus_path", flag])
        assert config.speculation.corpus_paths == paths


def test_globs_and_lists_need_no_quotes_of_their_own() -> None:
    config = parse(
        OfflineConfig, [*GOOD, "--input", "prompts/*.jsonl", "--generation.stop_token_ids", "[1, 2]"]
    )
    assert (config.input.path, config.generation.stop_token_ids) == ("prompts/*.jsonl", [1, 2])
    assert parse(OfflineConfig, [*GOOD, "--input", "*.jsonl"]).input.path == "*.jsonl"


@pytest.mark.parametrize(
    ("flags", "error"),
    [
        (
            ["--input.rows_per_shrad", "3"],
            "unknown setting --input.rows_per_shrad; did you mean --input.rows_per_shard?",
        ),
        (["--spekulate", "off"], "unknown setting --spekulate; did you mean --speculate?"),
        (["--serve.port", "1"], "unknown setting --serve.port"),
        (["--speculation.mixed.num_drafts", "0"], "speculation.mixed.num_drafts is 0; it must be at least 1"),
        (["--speculation.mixed.num_drafts", "5"], "set speculation.mode: mixed, or leave these settings out"),
        (["--speculation.num_drafts", "5"], "--speculation.num_drafts is now speculation.mixed.num_drafts"),
        (
            ["--speculation.corpus_path", "a", "--speculate", "off"],
            "speculation.corpus_path is 'a', but speculation.mode is off; only mode adaptive drafts from a",
        ),
        (["--pool.shards_in_flight", "5"], "--pool.shards_in_flight was removed"),
        (["--input.order", "by_group"], "input.order by_group is now by_folder"),
        (
            ["--generation.temperature", "-1"],
            "generation.temperature is -1.0; it must be a number of at least 0 (0 = greedy)",
        ),
        (["--generation.max_tokens", "0"], "generation.max_tokens is 0; it must be an integer of at least 1"),
        (["--generation.max_tokens", "many"], "Expected a <class 'int'>. Got value: many"),
        (["--generation.n", "0"], "generation.n is 0; it must be an integer of 1 to 1000"),
        (
            ["--generation.stop", '[""]'],
            "generation.stop is ['']; it must be a text or a list of at most 64 texts of 1 to 1000",
        ),
        (
            ["--generation.logprobs", "21"],
            "generation.logprobs is 21; it must be an integer of 0 (the chosen token alone) to 20",
        ),
        (
            ["--input.rows_per_shard", "0"],
            "input.rows_per_shard is 0; it must be 'auto' or an integer of at least 1",
        ),
        (
            ["--input.format", "xml"],
            "input.format is 'xml'; it must be one of auto, jsonl, json, parquet, csv, text, openai_batch",
        ),
        (["--input", ""], "input.path is empty; name a file, folder, glob or URI (--input)"),
        (["--limit", "0"], "input.limit is 0; it must be at least 1"),
        (["--pool.num_workers", "0"], "pool.num_workers is 0; it must be at least 1"),
        (["--pool.cpus_per_worker", "0"], "pool.cpus_per_worker is 0.0; it must be above 0"),
        (["--config", "nope.yaml"], "--config nope.yaml cannot be read: [Errno 2] No such file or directory"),
    ],
)
def test_a_wrong_setting_is_refused_in_one_line(flags: list[str], error: str) -> None:
    with pytest.raises(ValueError) as caught:
        parse(OfflineConfig, [*GOOD, *flags])
    assert error in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "error"),
    [
        (
            "generation: {max_token: 3}",
            "unknown setting generation.max_token; did you mean generation.max_tokens?",
        ),
        (
            "genration: {max_tokens: 3}",
            "unknown setting genration.max_tokens; did you mean generation.max_tokens?",
        ),
        ("speculation: {mixed: {num_draft: 3}}", "unknown setting speculation.mixed.num_draft; did you mean"),
        ("speculation: {draft_len: 3}", "speculation.draft_len is now speculation.mixed.draft_len"),
        ("- a\n- b", "must hold sections of settings, such as 'input: {path: a.jsonl}'"),
        ("input: {path: [", "cannot be read: while parsing"),
    ],
)
def test_a_wrong_file_is_refused_by_name(tmp_path: Path, text: str, error: str) -> None:
    (tmp_path / "job.yaml").write_text(text)
    with pytest.raises(ValueError) as caught:
        parse(OfflineConfig, [*GOOD, "--config", str(tmp_path / "job.yaml")])
    assert error in str(caught.value) and "job.yaml" in str(caught.value)


def test_without_an_input_the_setting_that_is_missing_is_named() -> None:
    with pytest.raises(ValueError, match=r"input.path"):
        parse(OfflineConfig, ["--output", "o", "--model", "m"])


def test_the_demo_settings_are_whole() -> None:
    config = parse(OfflineConfig, ["--config", str(ROOT / "jobs" / "configs" / "demo.yaml")])
    assert (config.input.path, config.input.rows_per_shard, config.model.path) == (
        "demo/prompts.jsonl",
        16,
        "demo/model",
    )


@dataclass(frozen=True)
class OtherJob:
    """A job with groups of its own."""

    model: ModelConfig
    generation: GenerationConfig = field(default_factory=GenerationConfig)


def test_any_dataclass_of_groups_can_be_parsed() -> None:
    assert parse(OtherJob, ["--model", "m"]) == OtherJob(ModelConfig(path="m"))
    with pytest.raises(ValueError, match="unknown setting --input"):
        parse(OtherJob, ["--model", "m", "--input", "x"])
