"""Streamed text: never half a character, and all pieces joined are the tokenizer's own decoding."""

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models
from transformers import PreTrainedTokenizerFast

from rows.detokenizer import Detokenizer
from rows.stop_strings import StopStringCheck
from tests.serving.fakes import EOS, ByteCodec

BYTES = ByteCodec()


def fallback_codec(more: dict[str, int] | None = None) -> ByteCodec:
    """A tokenizer in the manner of Llama 2: words, and <0xNN> tokens (ids 0..255) for the bytes
    of all else.
    """
    words = {"▁a": 256, "b": 257, "▁": 258, "<unk>": 259}
    vocab = {f"<0x{byte:02X}>": byte for byte in range(256)} | words | (more or {})
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=[], byte_fallback=True, unk_token="<unk>"))
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    codec = ByteCodec()
    codec.tokenizer = PreTrainedTokenizerFast(tokenizer_object=tokenizer)
    return codec


FALLBACK = fallback_codec()


def ends_at(
    codec: ByteCodec, token_ids: Sequence[int], *texts: str, prompt: Sequence[int] = ()
) -> int | None:
    """How many tokens an output has when one of the texts ends it, None when none does."""
    check = StopStringCheck(texts, codec.tokenizer, prompt)
    return next((count for count, token_id in enumerate(token_ids, 1) if check(token_id)), None)


def streamed(codec: ByteCodec, *steps: list[int], prompt: Sequence[int] = ()) -> list[str]:
    """The pieces that a client would get for these events."""
    detokenizer = Detokenizer(codec.tokenizer, prompt)
    return [*(detokenizer.push(step) for step in steps), detokenizer.held()]


def test_a_character_split_over_tokens_comes_out_whole_and_once() -> None:
    assert streamed(BYTES, [0x61], [0xE4], [0xBD], [0xA0], [0x62]) == ["a", "", "", "你", "b", ""]


def test_an_event_may_end_inside_a_character() -> None:
    assert streamed(BYTES, [0x61, 0xF0, 0x9F], [0x98, 0x80, 0x21]) == ["a", "😀!", ""]


def test_half_a_character_at_the_end_shows_as_a_replacement_mark_at_the_end_only() -> None:
    assert streamed(BYTES, [0x61], [0xE4], [0xBD]) == ["a", "", "", "\ufffd"]


def test_special_tokens_have_no_text() -> None:
    assert streamed(BYTES, [0x61, EOS]) == ["a", ""]


def test_a_token_id_beyond_the_tokenizer_has_no_text() -> None:
    """Models often have more rows in their embedding than the tokenizer has tokens."""
    assert streamed(BYTES, [0x61], [5000], [0x62]) == ["a", "", "b", ""]


def test_one_wrong_byte_spoils_its_run_of_byte_tokens_so_the_run_is_held_back() -> None:
    """Sent early, the 你 could not be taken back: the tokenizer decodes the whole run as four marks."""
    assert streamed(FALLBACK, [257], [0xE4], [0xBD], [0xA0], [0xFF], [257]) == [
        "b",
        "",
        "",
        "",
        "",
        "\ufffd\ufffd\ufffd\ufffdb",
        "",
    ]


def test_a_token_without_text_does_not_end_a_run_of_byte_tokens() -> None:
    """The tokenizer decodes 0x41 0xE4 as one run, two marks, whether or not an unknown id stands between
    them.
    """
    assert streamed(FALLBACK, [257], [0x41], [260], [0xE4]) == ["b", "", "", "", "\ufffd\ufffd"]


def test_the_first_word_of_an_output_keeps_its_space() -> None:
    """Token 256 is ' a'. Decoded alone it is 'a': the decoder drops the space at the start of a text."""
    assert FALLBACK.decode([256]) == "a"
    assert streamed(FALLBACK, [256], [256], prompt=[257]) == [" a", " a", ""]
    assert FALLBACK.decode([256, 256], FALLBACK.context([257])) == " a a"


def test_an_output_behind_a_prompt_without_text_begins_the_text() -> None:
    for prompt in ([], [260], [260, 260]):  # 260 is beyond the vocabulary
        assert streamed(FALLBACK, [256], prompt=prompt) == ["a", ""]
        assert FALLBACK.decode([256], FALLBACK.context(prompt)) == "a"


def test_tokens_without_text_between_prompt_and_output_change_nothing() -> None:
    assert streamed(FALLBACK, [256], prompt=[257, 260, 260]) == [" a", ""]
    assert FALLBACK.context([256, 257, 260, 260]) == [257]


def test_a_prompt_may_end_inside_a_character_which_the_output_completes() -> None:
    """Prompts of token ids may be cut anywhere. The character belongs to the text that completes it."""
    for codec, letter in ((BYTES, 0x62), (FALLBACK, 257)):
        prompt = [letter, 0xE4]
        assert "".join(streamed(codec, [0xBD], [0xA0], [letter], prompt=prompt)) == "你b"
        assert codec.decode([0xBD, 0xA0, letter], codec.context(prompt)) == "你b"


def test_the_mark_of_a_character_that_no_output_completes_is_text_of_the_prompt() -> None:
    for codec, letter in ((BYTES, 0x62), (FALLBACK, 257)):
        prompt = [letter, 0xE4]
        assert (codec.decode(prompt), codec.decode([*prompt, letter])) == ("b\ufffd", "b\ufffdb")
        assert streamed(codec, [letter], prompt=prompt) == ["b", ""]
        assert codec.decode([letter], codec.context(prompt)) == "b"


def test_of_byte_tokens_at_the_end_of_a_prompt_those_count_that_a_later_byte_can_still_change() -> None:
    """Token 257 is 'b', 260 is beyond the vocabulary, 0xE4 0xBD 0xA0 are 你."""
    assert FALLBACK.context([256, 257, 0x41, 0x42]) == [257], "whole characters"
    assert FALLBACK.context([257, 0xE4, 0xBD, 0xA0, 0xE4, 260, 0xBD]) == [257, 0xE4, 0xBD], "half of one"
    assert FALLBACK.context([257, 0x41, 0xFF, 0x42]) == [257, 0x41, 0xFF, 0x42], "marks, all of them"
    assert FALLBACK.context([0x41, 0x42]) == [0x41, 0x42], "no word before them"


def test_a_wrong_byte_spoils_no_byte_tokens_of_the_prompt() -> None:
    """Prompt 'b' and 你, then an output that ends inside a character: one mark for its one token."""
    prompt = [257, 0xE4, 0xBD, 0xA0]
    assert streamed(FALLBACK, [0xC3], prompt=prompt) == ["", "\ufffd"]
    assert FALLBACK.decode([0xC3], FALLBACK.context(prompt)) == "\ufffd"


def test_a_token_that_only_looks_like_a_byte_token_is_a_word() -> None:
    codec = fallback_codec({"<0xZZ>": 260, "<0x 1>": 261})
    assert streamed(codec, [260], [261], prompt=[257]) == ["<0xZZ>", "<0x 1>", ""]


@pytest.mark.parametrize(
    ("codec", "token_ids"),
    [
        (FALLBACK, [0x41] * 4000),
        (FALLBACK, [0xFF] * 4000),
        (FALLBACK, list("你".encode()) * 1333),
        (FALLBACK, [260] * 4000),
        (BYTES, [EOS] * 4000),
        (BYTES, [5000] * 4000),
        (BYTES, [0xFF] * 4000),
        (BYTES, [0xE4, 0xBD] * 2000),
        (BYTES, [0xF0, 0x9F, 0x98] * 1333),
    ],
    ids=["bytes", "wrong bytes", "characters", "unknown", "special", "beyond", "marks", "halves", "parts"],
)
def test_a_token_costs_the_same_however_long_its_run_is(
    codec: ByteCodec, token_ids: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    num_decoded = 0
    decode = Detokenizer._decode

    def counted(self: Detokenizer, ids: list[int]) -> str:
        nonlocal num_decoded
        num_decoded += len(ids)
        return decode(self, ids)

    monkeypatch.setattr(Detokenizer, "_decode", counted)
    text = "".join(streamed(codec, *([token_id] for token_id in token_ids)))
    assert text == codec.decode(token_ids)
    assert num_decoded <= 20 * len(token_ids)
    num_decoded = 0
    assert ends_at(codec, token_ids, "stop", "more") is None
    assert num_decoded <= 40 * len(token_ids)


@given(st.text(), st.data())
def test_any_text_arrives_unchanged_however_it_is_cut(text: str, data: st.DataObject) -> None:
    token_ids = list(text.encode())
    cuts = sorted(data.draw(st.lists(st.integers(0, len(token_ids)))))
    steps = [token_ids[start:end] for start, end in zip([0, *cuts], [*cuts, len(token_ids)], strict=True)]
    pieces = streamed(BYTES, *steps)
    assert "".join(pieces) == text
    assert "\ufffd" not in "".join(pieces) or "\ufffd" in text


@pytest.mark.parametrize("codec", [BYTES, FALLBACK], ids=["byte-level", "byte-fallback"])
@given(
    st.lists(
        st.lists(st.one_of(st.sampled_from([0x41, 0xE4, 0xBD, 0xA0, 0xFF]), st.integers(0, 260)), max_size=6),
        max_size=8,
    )
)
def test_whatever_the_tokens_the_pieces_joined_are_the_decoding_of_all(
    codec: ByteCodec, steps: list[list[int]]
) -> None:
    assert "".join(streamed(codec, *steps)) == codec.decode([token_id for step in steps for token_id in step])


WORDS_AND_BYTES = st.lists(
    st.sampled_from([256, 257, 258, 260, 0x41, 0xE4, 0xBD, 0xA0, 0xF0, 0x9F, 0xFF]), max_size=12
)


@pytest.mark.parametrize("codec", [BYTES, FALLBACK], ids=["byte-level", "byte-fallback"])
@given(WORDS_AND_BYTES, WORDS_AND_BYTES)
def test_whatever_the_prompt_the_pieces_joined_are_the_text_of_the_output_after_it(
    codec: ByteCodec, prompt: list[int], output: list[int]
) -> None:
    pieces = streamed(codec, *([token_id] for token_id in output), prompt=prompt)
    text = codec.decode(output, codec.context(prompt))
    assert "".join(pieces) == text
    before = codec.decode(prompt)
    both = codec.decode(prompt + output)
    assert before + text == both or not both.startswith(before), "unless the output changes the prompt's text"


LONG_RUNS = st.lists(
    st.tuples(st.sampled_from([0x61, 0xE4, 0xBD, 0xA0, 0xFF, 0x80, 0xF0]), st.integers(1, 30)), max_size=5
)


@given(LONG_RUNS)
def test_long_runs_of_wrong_bytes_are_cut_where_nothing_can_change_any_more(
    runs: list[tuple[int, int]],
) -> None:
    token_ids = [byte for byte, count in runs for _ in range(count)]
    pieces = streamed(BYTES, *([token_id] for token_id in token_ids))
    assert "".join(pieces) == BYTES.decode(token_ids)
