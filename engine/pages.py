"""Which pages of the K/V cache are free and who holds the others. Plain Python: knows no tensors and no model."""

from collections.abc import Iterable


class PagePool:
    """Hands out page ids 0 .. num_pages - 1, lowest first when fresh; a page has at most one holder."""

    def __init__(self, num_pages: int, page_size: int) -> None:
        self.num_pages = num_pages
        self.page_size = page_size
        self._free = list(range(num_pages - 1, -1, -1))

    @property
    def num_free(self) -> int:
        """Pages that nobody holds."""
        return len(self._free)

    def pages_for(self, num_tokens: int) -> int:
        """Pages that hold this many tokens."""
        return -(-num_tokens // self.page_size)

    def take(self, num_pages: int) -> list[int]:
        """Page ids for a new holder; the caller has checked that there are enough."""
        assert num_pages <= self.num_free, f"{num_pages} pages wanted, {self.num_free} free"
        return [self._free.pop() for _ in range(num_pages)]

    def give_back(self, page_ids: list[int]) -> None:
        """Frees pages; the last taken is the next handed out, still warm in the processor's cache."""
        self._free.extend(reversed(page_ids))

    def check_integrity(self, held: Iterable[list[int]]) -> None:
        """Raises AssertionError unless free and held pages together are each page once."""
        held_ids = [page for pages in held for page in pages]
        assert len(self._free) + len(held_ids) == self.num_pages, f"free {len(self._free)} + held {len(held_ids)} != {self.num_pages} pages"
        assert sorted(self._free + held_ids) == list(range(self.num_pages)), "a page is held twice, or free and held"
