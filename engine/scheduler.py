"""Which sequences run in the next step, and how many of their tokens: continuous batching over pages.

Owns waiting, running, admission and preemption. Plain Python: no tensors, no model, no drafts. Oldest first
everywhere: the oldest running sequence is never preempted, so every sequence ends.
"""

from collections import deque
from operator import attrgetter
from typing import NamedTuple

from engine.page_pool import PagePool
from engine.prefix_cache import PrefixCache
from engine.sequence import Sequence

# How many waiting sequences may be overtaken at once. It bounds what a step spends on looking for a sequence
# that can start.
MAX_OVERTAKEN = 256


class Chunk(NamedTuple):  # cheaper to make than a frozen dataclass: a step makes one for every sequence
    """The next num_tokens uncached tokens of a sequence.

    last: they end with the last token of the sequence, whose logits are then needed.
    """

    sequence: Sequence
    num_tokens: int
    last: bool


class Scheduler:
    """At most max_running sequences at once; at most prefill_chunk prompt tokens in a step."""

    def __init__(
        self, pool: PagePool, max_running: int, prefill_chunk: int, prefix_cache: bool = True
    ) -> None:
        self.pool = pool
        self.prefix = PrefixCache(pool, prefix_cache)
        self.max_running = max_running
        self.prefill_chunk = prefill_chunk
        self.waiting: deque[Sequence] = deque()
        self.running: list[Sequence] = []  # oldest first
        self.num_preemptions = 0
        self.num_prompt_tokens = 0  # prompt tokens of all sequences, counted when each first started
        self.num_cached_tokens = 0  # prompt tokens that were found in the prefix cache at that moment
        self._unfinished: dict[str, Sequence] = {}  # waiting and running, by request id

    def add(self, sequence: Sequence) -> None:
        """Queues a sequence, whose request id no unfinished one has."""
        self._unfinished[sequence.request.id] = sequence
        self.waiting.append(sequence)

    def admit(self) -> None:
        """Moves waiting sequences into the running set while their tokens, and one more, have pages.

        A sequence whose beginning is just being computed stays first in line and may be overtaken. The
        sequence it waits for runs, so it waits no longer than that prefill. A sequence that overtakes
        it cannot make it wait again: only one with the same beginning could, and that one would wait too.
        """
        overtaken: list[Sequence] = []
        while self.waiting and len(self.running) < self.max_running and len(overtaken) < MAX_OVERTAKEN:
            found = self.prefix.find(self.waiting[0])
            if found is None:
                overtaken.append(self.waiting.popleft())
            elif self._fits(self.waiting[0], found):
                self._start(self.waiting.popleft(), found)
            else:
                break
        self.waiting.extendleft(reversed(overtaken))

    def schedule(self) -> list[Chunk]:
        """The chunks of the next step: the last token of every decoding sequence, then prompts,
        oldest first.
        """
        page_size = self.pool.page_size
        for sequence in tuple(self.running):
            if sequence.num_tokens > len(sequence.page_ids) * page_size and sequence in self.running:
                self._reserve_root(sequence)
        decoding = [s for s in self.running if s.num_tokens - s.num_cached == 1]
        # Neighbours of like length share an attention call, and their packed tokens follow each other.
        chunks = [Chunk(s, 1, True) for s in sorted(decoding, key=attrgetter("num_cached"))]
        return chunks + self._prefilling() if len(decoding) < len(self.running) else chunks

    def reserve(self, sequence: Sequence, num_tokens: int) -> int:
        """Takes free pages, as far as there are any, for num_tokens tokens; returns how many
        tokens fit now.
        """
        missing = self.pool.pages_for(num_tokens) - len(sequence.page_ids)
        if missing > 0:
            sequence.page_ids += self.pool.take(min(missing, self.pool.num_free), after=sequence.page_ids[-1])
        return min(num_tokens, len(sequence.page_ids) * self.pool.page_size)

    def publish(self, chunks: list[Chunk]) -> None:
        """Lets later sequences find the pages that a step has filled."""
        for sequence, _, _ in chunks:
            if sequence.num_cached // self.pool.page_size > sequence.num_published:
                self.prefix.publish(sequence)

    def retire(self, sequence: Sequence) -> None:
        """Takes a finished or aborted sequence out of the running set and frees its pages."""
        self.running.remove(sequence)
        del self._unfinished[sequence.request.id]
        self._free_pages(sequence)

    def find(self, request_id: str) -> Sequence | None:
        """The unfinished sequence of a request, if there is one."""
        return self._unfinished.get(request_id)

    def abort(self, sequence: Sequence) -> None:
        """Forgets an unfinished sequence, and frees its pages if it runs."""
        if sequence in self.waiting:
            self.waiting.remove(sequence)
            del self._unfinished[sequence.request.id]
        else:
            self.retire(sequence)

    def check_integrity(self) -> None:
        """Raises AssertionError when pages and sequences disagree."""
        self.pool.check_integrity(s.page_ids for s in self.running)
        self.prefix.check_integrity(self.running)
        for sequence in self.running:
            room = len(sequence.page_ids) * self.pool.page_size
            assert 0 <= sequence.num_cached < sequence.num_tokens, (sequence.num_cached, sequence.num_tokens)
            assert sequence.num_cached <= room, f"{sequence.num_cached} tokens cached in pages for {room}"
        assert sorted(self._unfinished) == sorted(s.request.id for s in [*self.running, *self.waiting]), (
            "an id is lost or left over"
        )
        assert all(not s.page_ids and s.num_cached == 0 for s in self.waiting), (
            "a waiting sequence holds pages"
        )

    def _fits(self, sequence: Sequence, found: list[int]) -> bool:
        # The one token more keeps a sequence from being admitted only to be preempted by its first step,
        # but must not shut out one that fills the whole pool to its last slot.
        num_pages = min(self.pool.pages_for(sequence.num_tokens + 1), self.pool.num_pages)
        return num_pages - len(found) <= self.pool.num_free_without(found)

    def _start(self, sequence: Sequence, found: list[int]) -> None:
        """Puts a sequence into the running set; it gets the pages that were found, and new ones
        for the rest.
        """
        self.pool.hold(found)
        missing = self.pool.pages_for(sequence.num_tokens) - len(found)
        sequence.page_ids = found + self.pool.take(missing, after=found[-1] if found else None)
        sequence.num_cached = len(found) * self.pool.page_size
        self.prefix.expect(sequence)
        self.running.append(sequence)
        if not sequence.was_admitted:  # what a preempted one finds again are mostly its own pages
            sequence.was_admitted = True
            sequence.stats.num_cached_tokens = sequence.num_cached
            self.num_prompt_tokens += sequence.num_prompt
            self.num_cached_tokens += sequence.num_cached

    def _reserve_root(self, sequence: Sequence) -> None:
        """Makes room for all tokens of a sequence by preempting the youngest running sequences until they
        fit; the last to be preempted is the sequence itself.
        """
        while self.reserve(sequence, sequence.num_tokens) < sequence.num_tokens:
            youngest = self.running.pop()
            self._free_pages(youngest, comes_back=True)
            self.waiting.appendleft(youngest)
            self.num_preemptions += 1
            if youngest is sequence:
                return

    def _prefilling(self) -> list[Chunk]:
        """The chunks of prompts, oldest sequence first, as many tokens as a step may run."""
        budget = self.prefill_chunk
        chunks = []
        for sequence in self.running:
            num_uncached = sequence.num_uncached
            if num_uncached > 1 and budget > 0:
                num_tokens = min(num_uncached, budget)
                chunks.append(Chunk(sequence, num_tokens, num_tokens == num_uncached))
                budget -= num_tokens
        return chunks

    def _free_pages(self, sequence: Sequence, comes_back: bool = False) -> None:
        self.prefix.forget(sequence)
        self.pool.give_back(sequence.page_ids, last_first=comes_back)
        sequence.page_ids = []
        sequence.num_cached = 0
