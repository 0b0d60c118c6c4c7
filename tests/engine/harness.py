"""What the engine's tests share: engines over tiny models, proposers that know the answer, and random load.

A Case is a prompt with the text that transformers' generate gives for it; `run_under_load` feeds cases to an
engine in random order, aborts some copies of them midway, and asserts every token on the way.
"""

import random
from collections.abc import Sequence as Many
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import numpy as np

from drafting.adaptive.adaptive_proposer import AdaptiveProposer
from drafting.adaptive.controller import MAX_STEP_NODES, Controller
from drafting.config import MixedConfig
from drafting.mixed_proposer import MixedProposer
from drafting.sampling import Sampling
from drafting.speculation import Speculation
from drafting.tables import Tables
from drafting.tree import CandidateTrees, DraftTrees, certain
from engine.build import engine_for
from engine.config import ModelConfig
from engine.engine import Engine
from engine.model.loading import inspect_model
from engine.request import Request
from tests.tiny_models import BASE, reference_greedy, tiny_model

VOCABULARY = BASE["vocab_size"]


@dataclass(frozen=True)
class Case:
    """A prompt and the tokens that must come out."""

    name: str
    prompt_ids: tuple[int, ...]
    token_ids: tuple[int, ...]

    def request(self, **settings: Any) -> Request:
        return Request(
            self.name, self.prompt_ids, **{"max_tokens": len(self.token_ids), "ignore_eos": True, **settings}
        )


def random_prompts(count: int, seed: int, longest: int = 40) -> list[tuple[int, ...]]:
    """Ragged prompts, the first of a single token; half of them repeat themselves, as text does."""
    rng = random.Random(seed)
    prompts = []
    for number in range(count):
        length = 1 if number == 0 else rng.randint(2, longest)
        period = rng.randint(3, 7) if number % 2 else length
        beginning = [rng.randrange(3, VOCABULARY) for _ in range(period)]
        prompts.append(tuple((beginning * length)[:length]))
    return prompts


@cache
def greedy_cases(family: str, count: int = 16, seed: int = 0) -> tuple[Case, ...]:
    """Prompts of 1 to 40 tokens with 1 to 40 tokens of transformers' greedy text, without any eos."""
    rng = random.Random(seed)
    model = tiny_model(family, attention="sdpa")
    prompts = random_prompts(count, seed)
    return tuple(
        Case(f"case {i}", prompt, tuple(reference_greedy(model, list(prompt), rng.randint(1, 40))))
        for i, prompt in enumerate(prompts)
    )


def make_engine(model: Any, proposer: Any = None, max_context: int | None = None, **settings: Any) -> Engine:
    """An engine that checks its pages after every step."""
    engine = engine_for(
        inspect_model(model, max_context), ModelConfig(**{"page_size": 4, **settings}), proposer
    )
    engine.debug = True
    return engine


def mixed_proposer(
    num_drafts: int, draft_len: int, cases: Many[Case] = (), query_len: int = 1
) -> MixedProposer:
    """The paper's drafts; its bigram table knows some of what follows what in the cases, the rest
    is random.
    """
    bigram = np.random.default_rng(0).integers(0, VOCABULARY, (VOCABULARY, 12), np.int32)
    for case in cases:
        for token, following in zip(case.token_ids, case.token_ids[1:], strict=False):
            bigram[token, 1] = following
    config = MixedConfig(num_drafts, draft_len, query_len)
    return MixedProposer(config, num_drafts * draft_len, Tables(bigram=bigram))


def adaptive_proposer(cases: Many[Case] = (), max_nodes: int = 20) -> AdaptiveProposer:
    """Adaptive drafts; its bigram table knows some of what follows what in the cases."""
    tables = mixed_proposer(1, 1, cases)._tables
    return AdaptiveProposer(max_nodes=max_nodes, corpus_tokens=1000, tables=tables)


def with_price(engine: Engine, price: float) -> Engine:
    """Fixes what a second is worth, in tokens, and lets a node cost 1 ms: at price 0 every candidate is
    verified.
    """
    assert isinstance(engine.speculation, Speculation)
    controller = engine.speculation.controller
    assert isinstance(controller, Controller)

    def set_price() -> None:
        controller.step.price = price
        controller.step.plain_rate = price or 1e-9

    controller._set_price = set_price  # type: ignore[method-assign]
    controller.cost.node_seconds = lambda plain, most: 0.001 * np.arange(most + 1)  # type: ignore[method-assign]
    controller._node_seconds = 0.001 * np.arange(MAX_STEP_NODES + 1)
    return engine


def run_under_load(
    engine: Engine, cases: Many[Case], seed: int, sampling: dict[str, Sampling] | None = None
) -> None:
    """Random arrivals and aborts; asserts that each case gets its tokens, and each aborted copy a beginning
    of them.
    """
    rng = random.Random(seed)
    doomed = [replace(case, name=f"doomed {case.name}") for case in rng.sample(list(cases), len(cases) // 3)]
    arriving = rng.sample([*cases, *doomed], len(cases) + len(doomed))
    expected = {case.name: case.token_ids for case in arriving}
    found: dict[str, list[int]] = {case.name: [] for case in arriving}
    finished = set()
    while arriving or engine.has_work:
        while arriving and (not engine.has_work or rng.random() < 0.5):
            case = arriving.pop()
            engine.add(
                case.request(sampling=(sampling or {}).get(case.name.removeprefix("doomed "), Sampling()))
            )
        for event in engine.step():
            assert event.token_ids, "an event without tokens"
            assert event.request_id not in finished, "an event after the end"
            assert len(event.sources) == len(event.token_ids)
            found[event.request_id] += event.token_ids
            if event.finish_reason:
                finished.add(event.request_id)
        for case in doomed:
            if found[case.name] and case.name not in finished and rng.random() < 0.1:
                assert engine.abort(case.name)
                finished.add(case.name)
    for name, token_ids in expected.items():
        at_least = 1 if name.startswith("doomed ") else len(token_ids)
        assert len(found[name]) >= at_least, f"{name}: {len(found[name])} of {len(token_ids)} tokens"
        assert tuple(found[name]) == token_ids[: len(found[name])], name
    assert engine.scheduler.pool.num_free == engine.scheduler.pool.num_pages
    assert engine.scheduler.find("any") is None


class ChainProposer:
    """Proposes one chain per sequence, `depth` tokens of a known text, each `shift` too high: with shift 0
    all right, else all wrong.
    """

    source_names: tuple[str, ...] = ("known",)

    def __init__(self, cases: Many[Case], depth: int, shift: int = 0) -> None:
        self.texts = [[*case.prompt_ids, *case.token_ids] for case in cases]
        self.max_depth = self.max_nodes = depth
        self.shift = shift

    def start(self, token_ids: Any, *args: Any, **kwargs: Any) -> list[int]:
        return token_ids.tolist()

    def extend(self, states: Many[list[int]], token_ids: Any, offsets: Any, likely: Any = None) -> None:
        for state, first, end in zip(states, offsets[:-1], offsets[1:], strict=True):
            state += token_ids[first:end].tolist()

    def following(self, state: list[int]) -> list[int]:
        """What comes after the state in its text; a text that has ended goes on with token 3."""
        text = next(text for text in self.texts if text[: len(state)] == state)
        return [(token + self.shift) % VOCABULARY for token in [*text[len(state) :], *[3] * self.max_depth]]

    def propose(self, states: Many[list[int]], max_depths: Any, min_survival: float = 0.0) -> CandidateTrees:
        return certain(
            packed(
                [self.tree(state, depth) for state, depth in zip(states, max_depths.tolist(), strict=True)]
            )
        )

    def learn(
        self,
        states: Many[list[int]],
        candidates: CandidateTrees,
        token_ids: Any,
        offsets: Any,
        likely: Any = None,
    ) -> None:
        self.extend(states, token_ids, offsets)

    def wants_likely(self) -> int:
        return 0

    def wants_successors(self) -> int:
        return 0

    def reward(self, sources: Any) -> None:
        pass

    def recycle(self, token_ids: Any, likely: Any) -> None:
        pass

    def finish(self, state: list[int]) -> None:
        pass

    def drop(self, state: list[int]) -> None:
        pass

    def tree(self, state: list[int], depth: int) -> list[tuple[int, int, int]]:
        """Nodes as (token, parent, source)."""
        return [
            (token, index, 0)
            for index, token in enumerate(self.following(state)[: min(depth, self.max_depth)])
        ]


class RandomTrees(ChainProposer):
    """Trees of random shape, partly right; siblings may be equal, which a proposer that merges
    would avoid.
    """

    source_names = ("one", "two")

    def __init__(self, cases: Many[Case], depth: int, max_nodes: int, seed: int) -> None:
        super().__init__(cases, depth)
        self.max_nodes = max_nodes
        self.rng = random.Random(seed)

    def tree(self, state: list[int], depth: int) -> list[tuple[int, int, int]]:
        following = self.following(state)
        rng = self.rng
        nodes: list[tuple[int, int, int]] = []
        depths = [0]
        for _ in range(rng.randint(0, self.max_nodes)):
            parent = rng.randrange(len(depths))
            if depths[parent] < min(depth, self.max_depth):
                token = following[depths[parent]] if rng.random() < 0.6 else rng.randrange(VOCABULARY)
                nodes.append((token, parent, rng.randrange(2)))
                depths.append(depths[parent] + 1)
        return nodes


def packed(trees: list[list[tuple[int, int, int]]]) -> DraftTrees:
    """Trees of (token, parent, source) nodes in drafting's arrays."""
    depths: list[int] = []
    for nodes in trees:
        own = [0]
        own += [0] * len(nodes)
        for index, (_, parent, _) in enumerate(nodes, 1):
            own[index] = own[parent] + 1
        depths += own[1:]
    flat = [node for nodes in trees for node in nodes]
    column = [np.array([node[i] for node in flat], np.int32) for i in range(3)]
    offsets = np.cumsum([0, *map(len, trees)]).astype(np.int64)
    return DraftTrees(
        column[0],
        column[1],
        np.array(depths, np.int32),
        column[2].astype(np.uint8),
        np.zeros(len(flat), np.uint8),
        offsets,
    )
