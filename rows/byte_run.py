"""A run of byte tokens (<0xE4>), byte by byte: its text is the characters that its bytes make, or one mark
for each byte as long as they make none.
"""

import codecs
from collections.abc import Iterable


class ByteRun:
    """The bytes so far and their characters; a further byte costs the same however many there are."""

    def __init__(self, bytes_: Iterable[int] = ()) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")()
        self._chars: list[str] = []
        self._size = 0
        self._is_valid = True
        for byte in bytes_:
            self.add(byte)

    def add(self, byte: int) -> None:
        """Takes in the next byte."""
        self._size += 1
        if self._is_valid:
            try:
                self._chars += self._decoder.decode(bytes([byte]))
            except UnicodeDecodeError:
                self._is_valid = False

    @property
    def num_open(self) -> int:
        """How many bytes at the end make a further one read otherwise than it would read alone: those of an
        unfinished character, or all of a run that is marks for good.
        """
        return len(self._decoder.getstate()[0]) if self._is_valid else self._size

    @property
    def is_whole(self) -> bool:
        """Whether the text is characters at present, and at least one."""
        return self._size > 0 and self.num_open == 0

    @property
    def num_chars(self) -> int:
        """How many characters the bytes have made."""
        return len(self._chars)

    def end(self, first: int, num_chars: int) -> str:
        """The last characters, none of them before number `first`; "" where the text is marks at present."""
        return "".join(self._chars[max(first, len(self._chars) - num_chars) :]) if self.is_whole else ""
