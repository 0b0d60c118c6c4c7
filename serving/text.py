"""Text that grows token by token, never showing half a character. Knows no HTTP and no engine."""

from collections.abc import Sequence
from typing import Any

from tokenizers.decoders import DecodeStream


class Detokenizer:
    """Turns an output's tokens into pieces of text as they come; the pieces joined are the tokenizer's own decoding of all of them.

    A character split over tokens is held back until it is whole. Byte tokens (<0xE4>) are held back until their run ends,
    for one wrong byte turns the characters of the whole run into replacement marks. tokenizer: a Hugging Face one that
    stands on the `tokenizers` library.
    """

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer.backend_tokenizer
        self._stream = DecodeStream(skip_special_tokens=True)
        self._token_ids: list[int] = []
        self._num_streamed = 0
        self._num_sent = 0

    def push(self, token_ids: Sequence[int]) -> str:
        """The text that these tokens complete."""
        pieces = []
        for token_id in token_ids:
            self._token_ids.append(token_id)
            if self._ends_a_run(token_id):
                pieces.append(self._stream.step(self._tokenizer, self._token_ids[self._num_streamed :]) or "")
                self._num_streamed = len(self._token_ids)
        text = "".join(pieces)
        self._num_sent += len(text)
        return text

    def _ends_a_run(self, token_id: int) -> bool:
        # A token without text (special, or beyond the vocabulary) does not: the tokenizer decodes as if it were not there.
        token = self._tokenizer.id_to_token(token_id)
        return token is not None and not token.startswith("<0x") and self._tokenizer.decode([token_id], skip_special_tokens=True) != ""

    def finish(self) -> str:
        """What was held back."""
        return self._tokenizer.decode(self._token_ids, skip_special_tokens=True)[self._num_sent :]
