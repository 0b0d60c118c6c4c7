"""Text that grows token by token, never showing half a character. Knows no HTTP and no engine."""

from collections.abc import Sequence
from typing import Any


class Detokenizer:
    """Turns an output's tokens into pieces of text as they come; the pieces joined are the tokenizer's own
    decoding of all of them.

    A character split over tokens is held back until it is whole. Byte tokens (<0xE4>) are held back until
    their run ends, for one wrong byte turns the characters of the whole run into replacement marks.
    tokenizer: a Hugging Face one that stands on the `tokenizers` library.
    """

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer.backend_tokenizer
        # The tokens given out last: at the start of a text some decoders drop a space.
        self._before: list[int] = []
        self._held: list[int] = []

    def push(self, token_ids: Sequence[int]) -> str:
        """The text that these tokens complete."""
        pieces = []
        for token_id in token_ids:
            self._held.append(token_id)
            if self._ends_a_run(token_id):
                text = self.held()
                if text and not text.endswith("\ufffd"):
                    pieces.append(text)
                    self._before = self._held
                    self._held = []
        return "".join(pieces)

    def held(self) -> str:
        """What is held back, as it would read if nothing came after it."""
        if not self._held:
            return ""
        return self._decode(self._before + self._held)[len(self._decode(self._before)) :]

    def _ends_a_run(self, token_id: int) -> bool:
        # A token without text (special, or beyond the vocabulary) does not end a run of byte tokens, because
        # the tokenizer decodes as if it were not there.
        token = self._tokenizer.id_to_token(token_id)
        return token is not None and not token.startswith("<0x") and self._decode([token_id]) != ""

    def _decode(self, token_ids: list[int]) -> str:
        text: str = self._tokenizer.decode(token_ids, skip_special_tokens=True) if token_ids else ""
        return text
