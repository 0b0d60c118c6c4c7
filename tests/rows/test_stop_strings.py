"""Stop strings against an oracle that decodes the whole text at every token, and through the engine with
drafts.
"""

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rows.stop_strings import StopStrings
from tests.rows.test_detokenizer import BYTES, FALLBACK, ends_at, fallback_codec
from tests.serving.fakes import EOS, ByteCodec

MARK_TOKEN = fallback_codec({"\ufffd": 260})  # token 260 is the replacement mark itself


def oracle(codec: ByteCodec, token_ids: Sequence[int], *texts: str, prompt: Sequence[int] = ()) -> int | None:
    """The same by decoding everything at every token."""
    context = codec.context(prompt)
    outputs = (token_ids[:count] for count in range(1, len(token_ids) + 1))
    decoded = [codec.decode(output, context).rstrip("\ufffd") for output in outputs]
    return next((count for count, text in enumerate(decoded, 1) if any(stop in text for stop in texts)), None)


def test_the_token_that_completes_a_stop_string_ends_the_output() -> None:
    assert ends_at(BYTES, list(b"one\n\ntwo"), "\n\n") == 5
    assert ends_at(BYTES, list(b"one\ntwo"), "\n\n") is None


def test_a_stop_string_may_end_inside_a_token_and_begin_in_an_earlier_one() -> None:
    """Token 256 is ' a', 257 is 'b', 260 has no text: of 'b ab' the stop 'b ' is there with the
    second token.
    """
    assert ends_at(FALLBACK, [257, 260, 256, 257], "b ") == 3
    assert ends_at(FALLBACK, [257, 260, 256, 257], "ab") == 4


def test_a_stop_string_may_begin_with_the_space_of_the_first_word() -> None:
    """Token 256 is ' a', 257 is 'b'."""
    assert ends_at(FALLBACK, [256, 257], " a", prompt=[257]) == 1
    assert ends_at(FALLBACK, [256, 257], " a") is None, "at the start of a text there is no space"


def test_the_text_of_the_prompt_is_no_part_of_a_stop_string() -> None:
    assert ends_at(FALLBACK, [257, 257], "ab", prompt=[256]) is None
    assert ends_at(FALLBACK, [257, 257], " a", prompt=[257, 256]) is None
    assert ends_at(BYTES, list(b"bc"), "ab", prompt=list(b"a")) is None


def test_a_stop_string_may_lie_across_a_word_and_a_run_of_bytes_behind_it() -> None:
    assert ends_at(FALLBACK, [257, *b"cdefg"], "bcd") == 3
    assert ends_at(FALLBACK, [257, *b"cdefghij", 257], "jb") == 10
    assert ends_at(FALLBACK, [257, *b"cdefghij", 257], "bh") is None


def test_a_stop_string_inside_of_a_long_token_is_found_though_the_token_ends_with_half_a_character() -> None:
    assert ends_at(BYTES, [*b"xstopyyyyyyyyyyyyy", 0xE4], "stop") == 5


def test_a_stop_string_of_several_bytes_ends_at_its_last_byte_and_not_before() -> None:
    text = "a你b".encode()
    assert [
        ends_at(codec, list(text[:-1]) + [98 if codec is BYTES else 257], "你") for codec in (BYTES, FALLBACK)
    ] == [4, 4]


def test_half_a_character_is_no_replacement_mark_but_a_wrong_byte_is_one_as_soon_as_text_follows() -> None:
    assert ends_at(BYTES, [0x61, 0xE4, 0xBD, 0xA0], "\ufffd") is None
    assert ends_at(BYTES, [0x61, 0xE4, 0x62, 0x63], "\ufffd") == 3


def test_marks_at_the_end_are_no_part_of_a_stop_string_even_where_they_can_change_no_more() -> None:
    """Else the output would end there and its text, in which such marks do not count, would not be cut."""
    assert ends_at(BYTES, [0xFF] * 40, "\ufffd") is None
    assert ends_at(BYTES, [*[0xFF] * 40, 0x61], "\ufffd") == 41
    assert ends_at(BYTES, [0x62, *[0xFF] * 40, 0x61], "b\ufffd") == 42
    assert ends_at(BYTES, [0x62, *[0xFF] * 40, 0x61], "b\ufffda") is None
    assert ends_at(MARK_TOKEN, [260], "\ufffd") is None
    assert ends_at(MARK_TOKEN, [260, 257], "\ufffd") == 2


def test_a_long_run_of_bytes_that_the_prompt_spoils_is_marks_and_holds_no_stop_string() -> None:
    assert FALLBACK.decode([0x41] * 40, FALLBACK.context([257, 0xFF])) == "\ufffd" * 40
    assert ends_at(FALLBACK, [0x41] * 40, "AA", prompt=[257, 0xFF]) is None


def test_a_long_run_of_bytes_whose_first_character_began_in_the_prompt_holds_stop_strings() -> None:
    output = [0xBD, 0xA0, *b"abcdefghijklmnopqrs"]
    assert FALLBACK.decode(output, FALLBACK.context([257, 0xE4])) == "你abcdefghijklmnopqrs"
    assert ends_at(FALLBACK, output, "rs", prompt=[257, 0xE4]) == 21


def test_special_tokens_have_no_text_and_do_not_part_a_stop_string() -> None:
    assert ends_at(BYTES, [0x61, EOS, 0x62], "ab") == 3
    assert ends_at(BYTES, [0x78, EOS, EOS], "<eos>") is None


def test_any_of_several_stop_strings_ends_the_output() -> None:
    assert ends_at(BYTES, list(b"abcdef"), "x", "de", "cdefg", "f") == 5


# Few letters, so that stop strings are found, begin again and overlap: 'a' of one, two and three bytes, and
# wrong bytes.
LETTERS = ["a", "b", " ", "é", "你", "😀"]
STOPS = st.lists(
    st.text(st.sampled_from([*LETTERS, "\ufffd"]), min_size=1, max_size=4), min_size=1, max_size=3
)
BYTE_IDS = st.one_of(
    st.text(st.sampled_from(LETTERS), max_size=4).map(lambda text: list(text.encode())),
    st.lists(st.sampled_from([0x61, 0xE4, 0xBD, 0xA0, 0xFF, EOS, 300]), max_size=3),
)
WORD_IDS = st.one_of(
    BYTE_IDS.map(lambda ids: [i for i in ids if i < 256]),
    st.lists(st.sampled_from([256, 257, 258, 259, 260]), max_size=3),
)


@pytest.mark.parametrize(
    ("codec", "pieces"), [(BYTES, BYTE_IDS), (FALLBACK, WORD_IDS)], ids=["byte-level", "byte-fallback"]
)
@given(st.data())
def test_every_text_ends_where_the_oracle_ends_it(
    codec: ByteCodec, pieces: st.SearchStrategy[list[int]], data: st.DataObject
) -> None:
    token_ids = [token_id for piece in data.draw(st.lists(pieces, max_size=8)) for token_id in piece]
    prompt = data.draw(pieces)
    stops = data.draw(STOPS)
    end = oracle(codec, token_ids, *stops, prompt=prompt)
    assert ends_at(codec, token_ids, *stops, prompt=prompt) == end
    text = codec.decode(token_ids[:end], codec.context(prompt))
    kept = StopStrings(tuple(stops), include=True).cut(text)
    cut = StopStrings(tuple(stops)).cut(text)
    assert text.startswith(kept) and kept.startswith(cut)
    assert not any(stop in cut.rstrip("\ufffd") for stop in stops)
    assert (end is None) == (kept == cut)
    assert end is None or kept.removeprefix(cut) in stops


@given(st.lists(st.sampled_from(["a", " ", "é", "你", "b"]), max_size=60).map("".join), STOPS)
def test_a_stop_string_in_a_long_run_of_bytes_is_found_where_it_is_complete(
    text: str, stops: list[str]
) -> None:
    token_ids = list(text.encode())
    assert ends_at(FALLBACK, token_ids, *stops) == oracle(FALLBACK, token_ids, *stops)


@pytest.mark.parametrize(
    ("stops", "text", "cut", "kept"),
    [
        (("\n\n",), "one\n\ntwo", "one", "one\n\n"),
        (("abcd", "bc"), "xabcdx", "xa", "xabc"),  # bc is complete first, as it would be letter by letter
        (("b", "ab"), "xab", "x", "xab"),  # complete together: the longest
        (("y",), "x\ufffd", "x\ufffd", "x\ufffd"),
        (("\ufffd",), "x\ufffd", "x\ufffd", "x\ufffd"),
    ],
)
def test_a_text_is_cut_before_the_stop_string_or_behind_it(
    stops: tuple[str, ...], text: str, cut: str, kept: str
) -> None:
    assert (StopStrings(stops).cut(text), StopStrings(stops, include=True).cut(text)) == (cut, kept)
