"""Text that grows token by token, never showing half a character. Knows no HTTP and no engine.

Its cost per token does not grow, whatever the tokens are.
"""

import codecs
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

MARK = "\ufffd"  # what a decoder writes for bytes that are no character
# A text that ends with a mark may end inside a character, which has at most this many bytes and so tokens.
CHARACTER_TOKENS = 4
# A text that goes on ending with marks is cut once it has this many tokens.
MAX_HELD = 4 * CHARACTER_TOKENS


class Detokenizer:
    """Turns an output's tokens into pieces of text as they come; the pieces joined are the text by which the
    tokenizer's decoding of prompt and output is longer than that of the prompt.

    At the start of a text some decoders drop a space, so the output is decoded behind the end of its prompt.
    A character split over tokens is held back until it is whole. Byte tokens (<0xE4>) are held back until
    their run ends, for one wrong byte turns the characters of the whole run into replacement marks.
    tokenizer: a Hugging Face one that stands on the `tokenizers` library.
    """

    def __init__(self, tokenizer: Any, prompt_ids: Sequence[int] = ()) -> None:
        self._tokenizer = tokenizer.backend_tokenizer
        self._kinds = _token_kinds(self._tokenizer)
        self._before = context_of(tokenizer, prompt_ids)  # the tokens given out last
        self._held: list[int] = []
        self._run = ByteRun()  # the byte tokens at the end of what is held
        self._num_dropped = 0  # characters of the run that the decoder drops at the start of a text

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
        return self._after(self._before, self._held)

    def joined(self, text: str, num_chars: int) -> str:
        """A text and what is held back behind it, without marks at its end.

        Of a long run of byte tokens, each of which adds one character at most, the last num_chars characters
        alone: so it costs the same however much is held.
        """
        if len(self._run) > MAX_HELD:
            tail = self._run.tail(num_chars)
            return tail if len(tail) == num_chars else text + tail[self._num_dropped :].rstrip(MARK)
        held = self.held()
        if run := self._run.tail(MAX_HELD):
            self._num_dropped = len(run) - len(held)
        return text + held.rstrip(MARK)

    def _take(self) -> str:
        """Takes out what is certain of the held text, behind a token that is no byte token."""
        text = self.held()
        size = len(self._held)
        # Where bytes have tokens of their own, other tokens hold whole characters.
        if text.endswith(MARK) and not self._kinds.has_bytes:
            size = self._certain(text) if size >= MAX_HELD else 0
            text = self._after(self._before, self._held[:size])
        if size:
            self._before = self._held[:size][-MAX_HELD:]
            self._held = self._held[size:]
            self._run = ByteRun()
        return text

    def _certain(self, text: str) -> int:
        """How many of the held tokens no later one can change: the text of so many begins the text of all."""
        for size in range(len(self._held) - CHARACTER_TOKENS, 0, -1):
            if text.startswith(self._after(self._before, self._held[:size])):
                return size
        return 0

    def _after(self, before: list[int], token_ids: list[int]) -> str:
        if not token_ids:
            return ""
        return self._decode(before + token_ids)[len(self._decode(before)) :]

    def _decode(self, token_ids: list[int]) -> str:
        text: str = self._tokenizer.decode(token_ids, skip_special_tokens=True) if token_ids else ""
        return text


class ByteRun:
    """A run of byte tokens: its text is the characters that its bytes make, or one mark for each byte."""

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")()
        self._chars: list[str] = []
        self._size = 0
        self._is_valid = True

    def __len__(self) -> int:
        return self._size

    def add(self, byte: int) -> None:
        """Takes in the next byte."""
        self._size += 1
        if self._is_valid:
            try:
                self._chars += self._decoder.decode(bytes([byte]))
            except UnicodeDecodeError:
                self._is_valid = False

    def tail(self, num_chars: int) -> str:
        """The last characters, "" where the run is marks at present."""
        is_whole = self._is_valid and not self._decoder.getstate()[0]
        return "".join(self._chars[max(0, len(self._chars) - num_chars) :]) if is_whole else ""


class TokenKinds:
    """What kinds of tokens a tokenizer has."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        added = tokenizer.get_added_tokens_decoder()
        self._special = {token_id for token_id, token in added.items() if token.special}
        # Some tokenizers have tokens of this name and do not take them for bytes.
        letter = tokenizer.token_to_id("<0x41>")
        self.has_bytes = letter is not None and tokenizer.decode([letter]) == "A"

    def is_left_out(self, token_id: int) -> bool:
        """Whether the tokenizer decodes as if the token were not there: special, or beyond the vocabulary."""
        return token_id in self._special or self._tokenizer.id_to_token(token_id) is None

    def byte_of(self, token_id: int) -> int | None:
        """The byte that a byte token stands for."""
        if not self.has_bytes or token_id in self._special:
            return None
        token = self._tokenizer.id_to_token(token_id)
        is_byte = token is not None and len(token) == 6 and token.startswith("<0x") and token.endswith(">")
        return int(token[3:5], 16) if is_byte else None


@lru_cache(maxsize=4)
def _token_kinds(tokenizer: Any) -> TokenKinds:
    return TokenKinds(tokenizer)


def context_of(tokenizer: Any, prompt_ids: Sequence[int]) -> list[int]:
    """The tokens at the end of a prompt behind which its output is decoded: the last one with a text of its
    own, and byte tokens after it.
    """
    if not hasattr(tokenizer, "backend_tokenizer"):  # it decodes as a whole only, so a few will do
        special = set(tokenizer.all_special_ids)
        return [token_id for token_id in prompt_ids[-MAX_HELD:] if token_id not in special]
    kinds = _token_kinds(tokenizer.backend_tokenizer)
    context: list[int] = []
    for token_id in reversed(prompt_ids):
        if not kinds.is_left_out(token_id):
            context.append(token_id)
            if kinds.byte_of(token_id) is None:
                break
    return context[::-1]
