"""Rows to requests: what is read, what is refused and with which words."""

from typing import Any

import pytest

from engine.config import GenerationConfig
from rows.prompts import Prompt, PromptColumns, PromptReader, make_request, row_seed
from tests.actors.fakes import ByteCodec


def read(row: dict[str, Any], max_context: int | None = 8, **columns: Any) -> Prompt:
    return PromptReader(ByteCodec(), PromptColumns(**columns), max_context).read([row])[0]


def test_a_prompt_becomes_its_token_ids() -> None:
    assert read({"prompt": "ab"}) == Prompt([97, 98])


@pytest.mark.parametrize(("value", "group"), [("law", "law"), (7, "7"), (0, "0"), (None, ""), ("", "")])
def test_a_rows_group_is_the_text_of_its_column_and_null_is_no_group(value: Any, group: str) -> None:
    assert read({"prompt": "ab", "kind": value}, group="kind") == Prompt([97, 98], group=group)
    assert read({"prompt": "ab", "kind": value}).group == "", "a column that is not named means nothing"


@pytest.mark.parametrize(
    ("row", "error"),
    [
        ({}, "column 'prompt' is missing; each row needs a prompt (input.prompt_column names its column)"),
        (
            {"prompt": None},
            "column 'prompt' is missing; each row needs a prompt (input.prompt_column names its column)",
        ),
        ({"prompt": 5}, "column 'prompt' is 5; a prompt must be a string"),
        ({"prompt": ""}, "the prompt is empty; give it at least one token"),
        (
            {"prompt": "a\ud800"},
            "the prompt is not valid Unicode: surrogates not allowed at position 1; fix the row",
        ),
        (
            {"prompt": "12345678"},
            "the prompt has 8 tokens; the context is 8 and needs room for one more: "
            "shorten it, or raise model.max_context if the model allows",
        ),
        (
            {"prompt": "a", "old": 7},
            "column 'old' is 7; a prediction must be a string (input.prediction_column names its column)",
        ),
        (
            {"prompt": "a", "old": "a\ud800"},
            "the prediction is not valid Unicode: surrogates not allowed at position 1; fix the row",
        ),
        (
            {"prompt": "a", "sampling": {"temperature": -1.0}},
            "sampling.temperature is -1.0; it must be a number of at least 0 (0 = greedy)",
        ),
        (
            {"prompt": "a", "sampling": {"max_tokens": 0}},
            "sampling.max_tokens is 0; it must be an integer of at least 1",
        ),
        (
            {"prompt": "a", "sampling": {"tempreture": 1}},
            "column 'sampling' sets 'tempreture', which is not a setting; did you mean 'temperature'?",
        ),
        (
            {"prompt": "a", "sampling": "hot"},
            "column 'sampling' is 'hot'; it must be a struct of settings (input.sampling_column: null "
            "ignores it)",
        ),
    ],
)
def test_a_bad_row_keeps_an_error_that_names_value_and_remedy(row: dict[str, Any], error: str) -> None:
    assert read(row, prediction="old") == Prompt(error=error)


@pytest.mark.parametrize("text", [None, ""])
def test_a_row_without_a_prediction_has_none(text: str | None) -> None:
    assert read({"prompt": "ab", "old": text}, prediction="old") == Prompt([97, 98])
    assert read({"prompt": "ab"}, prediction="old") == Prompt([97, 98])
    assert read({"prompt": "ab", "old": 7}) == Prompt([97, 98]), "a column that is not named means nothing"


def test_a_prediction_is_read_as_output_text_and_cut_to_the_room_after_the_prompt() -> None:
    row = {"prompt": "ab", "old": "cdefghij"}
    assert bytes(read(row, prediction="old").prediction_ids) == b"cdefgh", "the context has 8 positions"
    assert bytes(read(row, None, prediction="old").prediction_ids) == b"cdefghij"


def test_predictions_stay_with_their_rows_among_bad_ones() -> None:
    reader = PromptReader(ByteCodec(), PromptColumns(prediction="old"), 4)
    rows = [{"old": "x"}, {"prompt": "a"}, {"prompt": "long", "old": "y"}, {"prompt": "b", "old": "z"}]
    assert [bytes(prompt.prediction_ids) for prompt in reader.read(rows)] == [b"", b"", b"", b"z"]


STOP = "a text or a list of at most 64 texts of 1 to 1000 characters"
SAMPLES = "an integer of 1 to 1000"
LOGPROBS = "an integer of 0 (the chosen token alone) to 20; leave it out for none"


@pytest.mark.parametrize(
    ("setting", "error"),
    [
        ({"stop": ""}, f"sampling.stop is ''; it must be {STOP}"),
        ({"stop": ["end", ""]}, f"sampling.stop is ['end', '']; it must be {STOP}"),
        ({"stop": ["end", 5]}, f"sampling.stop is ['end', 5]; it must be {STOP}"),
        ({"stop": ["x" * 10_000]}, f"sampling.stop is ['{'x' * 55}...; it must be {STOP}"),
        ({"stop": ["ab"] * 65}, f"sampling.stop is {str(['ab'] * 65)[:57]}...; it must be {STOP}"),
        ({"include_stop": 1}, "sampling.include_stop is 1; it must be true or false"),
        ({"n": 0}, f"sampling.n is 0; it must be {SAMPLES}"),
        ({"n": 10**9}, f"sampling.n is 1000000000; it must be {SAMPLES}"),
        ({"n": 2.0}, f"sampling.n is 2.0; it must be {SAMPLES}"),
        ({"n": True}, f"sampling.n is true; it must be {SAMPLES}"),
        ({"logprobs": -1}, f"sampling.logprobs is -1; it must be {LOGPROBS}"),
        ({"logprobs": 21}, f"sampling.logprobs is 21; it must be {LOGPROBS}"),
        ({"logprobs": True}, f"sampling.logprobs is true; it must be {LOGPROBS}"),
        ({"logprobs": "5"}, f"sampling.logprobs is '5'; it must be {LOGPROBS}"),
    ],
)
def test_settings_of_samples_stops_and_logprobs_out_of_range_are_errors_of_the_row(
    setting: dict[str, Any], error: str
) -> None:
    assert read({"prompt": "a", "sampling": setting}) == Prompt(error=error)


def test_settings_at_the_ends_of_their_ranges_are_taken() -> None:
    for setting in (
        {"stop": ["x" * 1000] * 64},
        {"stop": []},
        {"n": 1000},
        {"logprobs": 0},
        {"logprobs": 20},
    ):
        assert read({"prompt": "a", "sampling": setting}).sampling == setting


def test_a_prompt_that_leaves_room_for_one_token_is_taken() -> None:
    assert read({"prompt": "1234567"}).error is None


def test_good_rows_keep_their_places_among_bad_ones() -> None:
    reader = PromptReader(ByteCodec(), PromptColumns())
    prompts = reader.read([{"prompt": 1}, {"prompt": "a"}, {}, {"prompt": "b"}])
    assert [prompt.token_ids for prompt in prompts] == [[], [97], [], [98]]


def test_messages_go_through_the_chat_template_and_get_no_special_tokens_twice() -> None:
    row = {"chat": [{"role": "u", "content": "x", "tool_calls": None}]}
    assert read(row, messages="chat") == Prompt([1, *b"<u>x"])


@pytest.mark.parametrize("messages", [None, 5, [], ["hi"], [{"content": "x"}]])
def test_messages_of_a_wrong_shape_are_an_error(messages: Any) -> None:
    found = "null" if messages is None else repr(messages)
    wanted = "it must be a list of messages, each with role and content"
    assert read({"chat": messages}, messages="chat").error == f"column 'chat' is {found}; {wanted}"


def test_a_template_that_refuses_messages_is_an_error_of_the_row() -> None:
    assert "the chat template refused the messages: no such role" in (
        read({"chat": [{"role": "nobody", "content": ""}]}, messages="chat").error or ""
    )


def test_settings_that_parquet_fills_with_null_count_as_absent() -> None:
    assert read({"prompt": "a", "sampling": {"top_k": 3, "seed": None}}).sampling == {"top_k": 3}


def test_a_rows_own_settings_win_field_by_field_and_its_own_seed_over_the_derived_one() -> None:
    generation = GenerationConfig(max_tokens=9, temperature=0.5, stop_token_ids=[7])
    plain = make_request("1", Prompt([1, 2]), generation, seed=42)
    own = make_request("1", Prompt([1, 2], {"seed": 3, "max_tokens": 4}), generation, seed=42)
    assert (plain.sampling.seed, plain.max_tokens, plain.sampling.temperature, plain.stop_ids) == (
        42,
        9,
        0.5,
        {7},
    )
    assert (own.sampling.seed, own.max_tokens, own.sampling.temperature, own.prompt_ids) == (
        3,
        4,
        0.5,
        (1, 2),
    )


def test_a_request_carries_the_rows_prediction() -> None:
    request = make_request("1", Prompt([1, 2], prediction_ids=[3, 4]), GenerationConfig(), seed=42)
    assert request.prediction_ids == (3, 4)
    assert make_request("1", Prompt([1, 2]), GenerationConfig(), seed=42).prediction_ids == ()


def test_seeds_are_fixed_for_ever() -> None:
    assert row_seed(0, "a.jsonl", 0) == 7300759841143866110
    assert len({row_seed(job, name, place) for job in (0, 1) for name in ("a", "b") for place in (0, 1)}) == 8
