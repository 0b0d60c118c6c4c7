"""Streamed text: never half a character, and all pieces joined are the tokenizer's own decoding."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models
from transformers import PreTrainedTokenizerFast

from rows.detokenizer import Detokenizer
from tests.serving.fakes import EOS, ByteCodec

BYTES = ByteCodec()


def fallback_codec() -> ByteCodec:
    """A tokenizer in the manner of Llama 2: words, and <0xNN> tokens (ids 0..255) for the bytes
    of all else.
    """
    vocab = {f"<0x{byte:02X}>": byte for byte in range(256)} | {"▁a": 256, "b": 257, "▁": 258, "<unk>": 259}
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=[], byte_fallback=True, unk_token="<unk>"))
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    codec = ByteCodec()
    codec.tokenizer = PreTrainedTokenizerFast(tokenizer_object=tokenizer)
    return codec


FALLBACK = fallback_codec()


def streamed(codec: ByteCodec, *steps: list[int]) -> list[str]:
    """The pieces that a client would get for these events."""
    detokenizer = Detokenizer(codec.tokenizer)
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
