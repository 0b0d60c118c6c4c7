"""Text that grows token by token, never showing half a character. Knows no HTTP and no engine.

Its cost per token does not grow, whatever the tokens are. (DecodeStream of the `tokenizers` library raises an
error where a wrong byte spoils text that it gave out already, decodes special tokens and wrong bytes again at
every token, and gives out the end of a prompt that ends inside a character.)
"""

from collections.abc import Iterable, Sequence
from functools import lru_cache
from itertools import islice
from os.path import commonprefix
from typing import Any

from rows.byte_run import ByteRun

MARK = "\ufffd"  # what a decoder writes for bytes that are no character
# A text that ends with a mark may end inside a character, which has at most this many bytes and so tokens.
CHARACTER_TOKENS = 4
# A text that goes on ending with marks is cut once it has this many tokens.
MAX_HELD = 4 * CHARACTER_TOKENS


class Detokenizer:
    """Turns an output's tokens into pieces of text as they come; the pieces joined are what the decoding of
    the output after its prompt adds to that of the prompt (added_text).

    At the start of a text some decoders drop a space, so the output is decoded after the end of its prompt.
    A character split over tokens is held back until it is whole. Byte tokens (<0xE4>) are held back until
    their run ends, for one wrong byte turns the characters of the whole run into replacement marks.
    tokenizer: a Hugging Face one that stands on the `tokenizers` library.
    """

    def __init__(self, tokenizer: Any, prompt_ids: Sequence[int] = ()) -> None:
        self._tokenizer = tokenizer.backend_tokenizer
        self._kinds = _token_kinds(self._tokenizer)
        self._before = context_of(tokenizer, prompt_ids)  # the tokens given out last
        self._held: list[int] = []
        self._run = ByteRun(self._kinds.bytes_of(self._before))  # the byte tokens at the end of all these
        # How many characters of the run are the prompt's, or are dropped at the start of a text
        self._num_earlier = 0

    def push(self, token_ids: Sequence[int]) -> str:
        """The text that these tokens complete."""
        pieces = []
        for token_id in token_ids:
            byte = self._kinds.byte_of(token_id)
            if byte is not None:
                self._held.append(token_id)
                self._run.add(byte)
            elif not self._kinds.is_left_out(token_id):
                self._held.append(token_id)
                pieces.append(self._take())
        return "".join(pieces)

    def held(self) -> str:
        """What is held back, as it would read if nothing came after it."""
        if not self._held:
            return ""
        return added_text(self._decode(self._before), self._decode(self._before + self._held))

    def joined(self, text: str, num_chars: int) -> str:
        """A text and what is held back, without marks at the end.

        Of a long run of byte tokens, each of which adds one character at most, the last num_chars characters
        alone: so it costs the same however much is held.
        """
        if self._kinds.has_bytes and len(self._held) > MAX_HELD:
            end = self._run.end(self._num_earlier, num_chars)
            return (end if len(end) == num_chars else text + end).rstrip(MARK)
        held = self.held()
        if self._run.is_whole:
            self._num_earlier = self._run.num_chars - len(held)
        return (text + held).rstrip(MARK)

    def _take(self) -> str:
        """Takes out what is certain of the held text, after a token that is no byte token."""
        whole = self._decode(self._before + self._held)
        size = len(self._held)
        # Where bytes have tokens of their own, other tokens hold whole characters.
        if whole.endswith(MARK) and not self._kinds.has_bytes:
            size = self._num_certain(whole) if size >= MAX_HELD else 0
            if size == 0:
                return ""
            whole = self._decode(self._before + self._held[:size])
        text = added_text(self._decode(self._before), whole)
        self._before = (self._before + self._held[:size])[-CHARACTER_TOKENS:]
        self._held = self._held[size:]
        self._run = ByteRun()
        return text

    def _num_certain(self, whole: str) -> int:
        """How many of the held tokens no later one can change: the text of so many begins the text of all."""
        for size in range(len(self._held) - CHARACTER_TOKENS, 0, -1):
            if whole.startswith(self._decode(self._before + self._held[:size])):
                return size
        return 0

    def _decode(self, token_ids: list[int]) -> str:
        text: str = self._tokenizer.decode(token_ids, skip_special_tokens=True) if token_ids else ""
        return text


def added_text(before: str, whole: str) -> str:
    """What further tokens made of a text: all of it from where it changed.

    A text that ended inside a character ends with a mark, in place of which the whole character may stand.
    """
    return whole[len(before) if whole.startswith(before) else len(commonprefix([before, whole])) :]


class TokenKinds:
    """What kinds of tokens a tokenizer has."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        added = tokenizer.get_added_tokens_decoder()
        self._special = {token_id for token_id, token in added.items() if token.special}
        # Some tokenizers have tokens of this name and do not take them for bytes.
        letter = tokenizer.token_to_id("<0x41>")
        self.has_bytes = letter is not None and tokenizer.decode([letter]) == "A"
        names = {f"<0x{byte:{form}}>": byte for byte in range(256) for form in ("02X", "02x")}
        self._bytes = {
            token_id: byte
            for name, byte in names.items()
            if self.has_bytes and (token_id := tokenizer.token_to_id(name)) not in (None, *self._special)
        }

    def is_left_out(self, token_id: int) -> bool:
        """Whether the tokenizer decodes as if the token were not there: special, or beyond the vocabulary."""
        return token_id in self._special or self._tokenizer.id_to_token(token_id) is None

    def byte_of(self, token_id: int) -> int | None:
        """The byte that a byte token stands for."""
        return self._bytes.get(token_id)

    def bytes_of(self, token_ids: Iterable[int]) -> list[int]:
        """The bytes of those that are byte tokens."""
        return [byte for token_id in token_ids if (byte := self.byte_of(token_id)) is not None]


@lru_cache(maxsize=4)
def _token_kinds(tokenizer: Any) -> TokenKinds:
    return TokenKinds(tokenizer)


def context_of(tokenizer: Any, prompt_ids: Sequence[int]) -> list[int]:
    """The tokens at the end of a prompt after which its output is decoded: so many that they hold what the
    output can complete, and do not begin a text.
    """
    if not hasattr(tokenizer, "backend_tokenizer"):  # it decodes as a whole only, so a few will do
        special = set(tokenizer.all_special_ids)
        return [token_id for token_id in prompt_ids[-MAX_HELD:] if token_id not in special]
    kinds = _token_kinds(tokenizer.backend_tokenizer)
    with_text = (token_id for token_id in reversed(prompt_ids) if not kinds.is_left_out(token_id))
    if not kinds.has_bytes:
        return list(islice(with_text, CHARACTER_TOKENS))[::-1]
    run: list[int] = []  # the byte tokens at the end, the last one first
    for token_id in with_text:
        if kinds.byte_of(token_id) is None:
            num_open = ByteRun(kinds.bytes_of(reversed(run))).num_open
            return [token_id, *reversed(run[:num_open])]
        run.append(token_id)
    return run[::-1]
