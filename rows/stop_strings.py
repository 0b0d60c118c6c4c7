"""Stop strings: the token that completes one ends its sequence, and the text is cut there.

Does not know the engine.

An output ends at the first token after which its decoded text holds a stop string. Replacement marks at the
text's end do not count: they may be half a character.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rows.detokenizer import MARK, Detokenizer


@dataclass(frozen=True)
class StopStrings:
    """texts: at least one, none empty; include: the one that ended the output stays in its text."""

    texts: tuple[str, ...]
    include: bool = False

    def cut(self, text: str) -> str:
        """The text up to the stop string that is completed first, or the whole text if it has none.

        If several are completed by the same character, the longest counts.
        """
        starts = ((text.rstrip(MARK).find(stop), stop) for stop in self.texts)
        found = [(start + len(stop), start) for start, stop in starts if start >= 0]
        end, start = min(found, default=(len(text), len(text)))
        return text[: end if self.include else start]


class StopStringCheck:
    """Sees one sequence's output tokens in order (engine/request.py StopCheck).

    Costs as much per token however long the text is. prompt_ids: of the sequence; a stop string in the
    prompt, or one that begins there, does not count.
    """

    def __init__(self, texts: tuple[str, ...], tokenizer: Any, prompt_ids: Sequence[int] = ()) -> None:
        self._texts = texts
        self._detokenizer = Detokenizer(tokenizer, prompt_ids)
        self._longest = max(map(len, texts))
        # The last characters given out, in which a stop string may begin that is not complete yet.
        self._tail = ""

    def __call__(self, token_id: int) -> bool:
        """Whether the text holds a stop string with this token."""
        text = self._tail + self._detokenizer.push([token_id])
        self._tail = self._end(text)
        seen = self._detokenizer.joined(text, self._longest)
        return any(stop in seen for stop in self._texts)

    def _end(self, text: str) -> str:
        """What a stop string that is complete later can have of a text: one character less than all of it,
        and marks at the end, which count only once something follows them.
        """
        solid = text.rstrip(MARK)
        marks = text[len(solid) :]
        return solid[max(0, len(solid) + 1 - self._longest) :] + marks[: self._longest]
