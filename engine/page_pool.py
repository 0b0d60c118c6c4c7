"""Which pages of the K/V cache are free, who holds the others, and which can be found again by their key.

A page is free, held by one or more sequences, or idle. An idle page is held by nobody but published, so that
a sequence with an equal beginning can still hold it. Idle pages count as free; the longest unused is taken
first. Plain Python: knows no tensors, no model, and not what a key means.
"""

from collections import Counter, OrderedDict
from collections.abc import Iterable


class PagePool:
    """Hands out page ids 0 .. num_pages - 1, lowest first when fresh."""

    def __init__(self, num_pages: int, page_size: int) -> None:
        self.num_pages = num_pages
        self.page_size = page_size
        self._free = dict.fromkeys(range(num_pages - 1, -1, -1))  # the last is handed out first
        self._num_holders = [0] * num_pages
        self._keys: list[bytes | None] = [None] * num_pages  # of published pages
        self._published: dict[bytes, int] = {}
        # By page, when it was given back; the longest unused comes first.
        self._idle: OrderedDict[int, int] = OrderedDict()
        self._clock = 0
        self._unclean: list[int] = []  # pages that were handed out since the last call of collect_unclean

    @property
    def num_free(self) -> int:
        """How many pages nobody holds."""
        return len(self._free) + len(self._idle)

    def pages_for(self, num_tokens: int) -> int:
        """How many pages this many tokens need."""
        return -(-num_tokens // self.page_size)

    def take(self, num_pages: int, after: int | None = None) -> list[int]:
        """Page ids for a new holder, following page `after` where possible; there must be enough of them."""
        assert num_pages <= self.num_free, f"{num_pages} pages wanted, {self.num_free} free"
        page_ids = []
        for _ in range(num_pages):
            after = self._take_one(after)
            self._num_holders[after] = 1
            page_ids.append(after)
        self._unclean += page_ids
        return page_ids

    def collect_unclean(self) -> list[int]:
        """The pages that were handed out since the last call: they hold what their last holder wrote."""
        unclean = self._unclean
        self._unclean = []
        return unclean

    def give_back(self, page_ids: list[int], last_first: bool = False) -> None:
        """Ends a holder's hold on its pages.

        Published pages will be evicted in the order of page_ids, so that a new sequence gets pages that
        follow each other. last_first is for a sequence that comes back soon: its last pages are of no use
        without the first. Of unpublished pages the first is handed out next, while it is warm in the
        processor's cache.
        """
        for page in reversed(page_ids):
            self._num_holders[page] -= 1
            assert self._num_holders[page] >= 0, f"page {page} is given back, but nobody holds it"
            if not self._num_holders[page] and self._keys[page] is None:
                self._free[page] = None
        for page in reversed(page_ids) if last_first else page_ids:
            if not self._num_holders[page] and self._keys[page] is not None:
                self._clock += 1
                self._idle[page] = self._clock

    def publish(self, page: int, key: bytes) -> None:
        """Lets a held page be found under a key; nothing happens when another page has this key already."""
        assert self._num_holders[page] and self._keys[page] is None, (
            f"page {page} is published twice, or held by nobody"
        )
        if self._published.setdefault(key, page) == page:
            self._keys[page] = key

    def find(self, keys: Iterable[bytes]) -> list[int]:
        """The pages of the first keys, up to the first that is not there."""
        page_ids = []
        for key in keys:
            page = self._published.get(key)
            if page is None:
                break
            page_ids.append(page)
        return page_ids

    def key_of(self, page: int) -> bytes | None:
        """The key under which a page can be found, if any."""
        return self._keys[page]

    def num_free_without(self, found: list[int]) -> int:
        """How many pages can still be taken once the found ones are held."""
        return self.num_free - sum(not self._num_holders[page] for page in found)

    def hold(self, found: list[int]) -> None:
        """Adds a holder to published pages."""
        for page in found:
            assert self._keys[page] is not None, f"page {page} is not published"
            self._idle.pop(page, None)
            self._num_holders[page] += 1

    def _take_one(self, after: int | None) -> int:
        following = -1 if after is None else after + 1
        if following in self._free:
            del self._free[following]
            return following
        # A single sequence whose pages follow each other is read in place. For this an idle page is evicted
        # out of turn, if it has not been used for long.
        idle_since = self._idle.get(following)
        if idle_since and 2 * idle_since <= next(iter(self._idle.values())) + self._clock:
            return self._evict(following)
        return self._free.popitem()[0] if self._free else self._evict(next(iter(self._idle)))

    def _evict(self, page: int) -> int:
        key = self._keys[page]
        assert key is not None, f"page {page} is idle without a key"
        del self._idle[page], self._published[key]
        self._keys[page] = None
        return page

    def check_integrity(self, held: Iterable[list[int]]) -> None:
        """Raises AssertionError unless holders, free and idle pages and keys agree with the pages held."""
        holders = Counter(page for pages in held for page in pages)
        assert holders == Counter(dict(enumerate(self._num_holders))), "the numbers of holders are wrong"
        sets = [set(self._free), set(self._idle), {*holders}]
        assert sum(map(len, sets)) == self.num_pages, (
            f"free, idle, held: {[*map(len, sets)]} of {self.num_pages} pages"
        )
        assert set.union(*sets) == set(range(self.num_pages)), "a page is in two of free, idle and held"
        keyed = {page: key for page, key in enumerate(self._keys) if key is not None}
        assert {key: page for page, key in keyed.items()} == self._published, "a key leads to another page"
        assert len(keyed) == len(self._published), "two pages have one key"
        assert sets[1] <= keyed.keys() and not sets[0] & keyed.keys(), (
            "an idle page without a key, or a free page with one"
        )
        times = list(self._idle.values())
        assert times == sorted(set(times)), "idle pages are out of order"
        assert not times or times[-1] <= self._clock, (times[-1], self._clock)
