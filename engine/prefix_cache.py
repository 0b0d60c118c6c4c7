"""The prefix cache: sequences that begin alike share the full pages of their beginning.

A full page's key is a hash of its tokens and of the key before it, so equal keys mean equal beginnings. Only
tokens whose K/V is committed are ever published. Owns the keys, and who is computing what; the pages belong
to engine/page_pool.py.
"""

from hashlib import blake2b

from engine.page_pool import PagePool
from engine.sequence import Sequence


class PrefixCache:
    """Finds and publishes pages by the tokens in them; switched off, it finds nothing and
    publishes nothing.
    """

    def __init__(self, pool: PagePool, enabled: bool = True) -> None:
        self.pool = pool
        self.enabled = enabled
        self._computing: dict[bytes, Sequence] = {}  # keys of pages that running sequences are about to fill

    def find(self, sequence: Sequence) -> list[int] | None:
        """The pages that hold the sequence's beginning, without its last token, which must run.

        None when a running sequence is computing the next page of it: waiting is cheaper than computing it
        twice.
        """
        if not self.enabled:
            return []
        if sequence.awaited_key in self._computing:
            return None
        keys = self._keys(sequence, (sequence.num_tokens - 1) // self.pool.page_size)
        found = self.pool.find(keys)
        sequence.awaited_key = keys[len(found)] if len(found) < len(keys) else None
        return None if sequence.awaited_key in self._computing else found

    def expect(self, sequence: Sequence) -> None:
        """Notes that the sequence, which has just got its pages, will compute those that were not found."""
        sequence.num_published = sequence.num_cached // self.pool.page_size
        if self.enabled:
            keys = self._keys(sequence, sequence.num_tokens // self.pool.page_size)
            for key in keys[sequence.num_published :]:
                self._computing.setdefault(key, sequence)

    def publish(self, sequence: Sequence) -> None:
        """Lets others find the pages that the sequence has filled since the last call."""
        num_full = sequence.num_cached // self.pool.page_size
        if num_full > sequence.num_published and self.enabled:
            keys = self._keys(sequence, num_full)
            for index in range(sequence.num_published, num_full):
                self.pool.publish(sequence.page_ids[index], keys[index])
                self._computing.pop(keys[index], None)
            sequence.num_published = num_full

    def forget(self, sequence: Sequence) -> None:
        """The sequence loses its pages, so nobody waits any more for pages that it has not computed."""
        for key in sequence.page_keys[sequence.num_published :]:
            if self._computing.get(key) is sequence:
                del self._computing[key]
        sequence.num_published = 0

    def check_integrity(self, running: list[Sequence]) -> None:
        """Raises AssertionError when nobody computes an awaited key, or a page is published unfilled."""
        for key, sequence in self._computing.items():
            assert sequence in running, "a sequence is waited for that does not run"
            assert sequence.num_uncached > 0 and key in sequence.page_keys[sequence.num_published :], (
                "a key is awaited in vain"
            )
        for sequence in running:
            num_full = sequence.num_cached // self.pool.page_size
            assert sequence.num_published <= num_full, (sequence.num_published, sequence.num_cached)
            for index, page in enumerate(sequence.page_ids):
                published_as = self.pool.key_of(page)
                own = sequence.page_keys[index] if index < sequence.num_published and self.enabled else None
                assert published_as in (None, own), (
                    f"page {page} is published with other tokens than its holder's"
                )

    def _keys(self, sequence: Sequence, num_pages: int) -> list[bytes]:
        """The keys of the sequence's first pages. Each is hashed once: tokens are only ever appended."""
        keys = sequence.page_keys
        size = self.pool.page_size
        for first in range(len(keys) * size, num_pages * size, size):
            own = sequence.token_ids[first : first + size].tobytes()
            keys.append(blake2b((keys[-1] if keys else b"") + own, digest_size=32).digest())
        return keys[:num_pages]
