"""Draws the cases of the engine's random test: everything follows from a seed and the number of the case.

Owns how likely each feature is. The combinations that break engines are common here: few pages, prompts with
equal beginnings, ends inside accepted paths, requests that come and go while others run.
"""

import random
from collections.abc import Sequence
from dataclasses import replace

from checks.fuzz.fuzz_case import Case, EngineChoice, ModelChoice, RequestChoice, SpeculationChoice
from checks.fuzz.fuzz_models import MAX_CONTEXT, VOCABULARY
from checks.fuzz.references import continuation
from drafting.sampling import Sampling
from tests.tiny_families import TINY

FAMILIES = tuple(TINY)
KINDS = (
    "fresh", "fresh", "repeated", "one", "longest", "full pages", "begun", "begun", "copy", "answered",
)  # fmt: skip
VARIANTS = 4  # models of each family
CASES_PER_LOAD = 4  # cases that ask the same, so that their references are made once
MAX_REQUESTS = 9
LAST_STEP = 24  # before which a request arrives
SEEDS = (0, 1, 2, 3, -1, 2**63, 2**64 + 5)


def random_case(seed: int, number: int) -> Case:
    """The case of this number: a model in its turn and what it is asked, which a few cases share; the engine,
    ends, and times, which are the case's own.
    """
    turn = number // CASES_PER_LOAD
    rng = random.Random(f"{seed} load {turn}")
    model = _model(FAMILIES[(seed + turn) % len(FAMILIES)], rng.randrange(VARIANTS))
    max_context = rng.choice((8, 24, 40, 64, MAX_CONTEXT, rng.randint(4, MAX_CONTEXT)))
    prompts = _prompts(rng, model, max_context)
    requests = _with_samples(rng, [_request(rng, prompt, max_context) for prompt in prompts])
    texts = [_text(model, max_context, request) for request in requests]

    rng = random.Random(f"{seed} case {number}")
    eos_ids = {rng.choice(text[len(text) // 2 :]) for text in texts if rng.random() < 0.1}
    requests = [_with_stops(rng, *known) for known in zip(requests, texts, strict=True)]
    requests = [_with_times(rng, request) for request in requests]
    refused = [rng.randint(0, LAST_STEP) for _ in range(rng.choice((0, 0, 0, 2)))]
    rng = random.Random(f"{seed} predictions {number}")
    requests = [_with_prediction(rng, *known) for known in zip(requests, texts, strict=True)]
    return Case(model, _engine(rng, max_context), tuple(sorted(eos_ids)), tuple(requests), tuple(refused))


def _model(family: str, variant: int) -> ModelChoice:
    """One of a few models of a family, so that models are used again."""
    rng = random.Random(f"{family} {variant}")
    return ModelChoice(
        family,
        kv_heads=rng.choice((1, 2, 4)),
        window=rng.choice((2, 3, 5, 9, 16)),
        embedding_scale=rng.choice((1.0, 1.0, 3.0, 6.0)),
        fused_norms=rng.random() < 0.2,
        seed=rng.randrange(100),
    )


def _engine(rng: random.Random, max_context: int) -> EngineChoice:
    """Settings with a cache that often holds little more than one sequence."""
    page_size = rng.choice((1, 2, 3, 4, 5, 8, 16))
    least = -(-max_context // page_size)
    return EngineChoice(
        max_context=max_context,
        page_size=page_size,
        num_pages=least + rng.choice((0, 0, 0, 1, 2, least // 2, least // 2, least, 4 * least)),
        max_running=rng.choice((1, 2, 3, 4, 4, 6, 16)),
        prefill_chunk=rng.choice((1, 3, 7, 16, 64, 64)),
        prefix_cache=rng.random() < 0.8,
        speculation=_speculation(rng),
    )


def _speculation(rng: random.Random) -> SpeculationChoice:
    sources = rng.choice(
        (("context",), ("bigram",), ("context", "bigram"), ("bigram", "context", "unigram"), ("unigram",))
    )
    return SpeculationChoice(
        mode=rng.choices(("off", "mixed", "adaptive", "trees"), (1, 4, 4, 4))[0],
        num_drafts=rng.choice((1, 2, 5, 10)),
        draft_len=rng.choice((1, 2, 4, 8)),
        query_len=rng.choice((1, 1, 2, 3)),
        sources=sources,
        max_nodes=rng.choice((1, 3, 8, 20, 64)),
        corpus_tokens=rng.choice((0, 10, 60, 1000)),
        num_successors=rng.choice((0, 1, 2, 12)),
        is_free=rng.random() < 0.6,
        seed=rng.randrange(1000),
    )


def _prompts(rng: random.Random, model: ModelChoice, max_context: int) -> list[tuple[int, ...]]:
    """Prompts of one case: many begin as an earlier one does, some as an earlier one and its answer."""
    # Of few different tokens, so that drafts are found; token 0 and the highest are among them.
    alphabet = [0, VOCABULARY - 1, *rng.sample(range(VOCABULARY), rng.choice((1, 3, 8, 40)))]
    prompts: list[tuple[int, ...]] = []
    for _ in range(rng.randint(1, MAX_REQUESTS)):
        kind = rng.choice(KINDS)
        earlier = rng.choice(prompts) if prompts else ()
        prompt = _prompt(rng, kind, alphabet, earlier, max_context - 1)
        if kind == "answered" and earlier:
            prompt = earlier + continuation(model, earlier, Sampling(), 20).token_ids[:20] + prompt
        prompts.append(prompt[: max_context - 1])
    return prompts


def _prompt(
    rng: random.Random, kind: str, alphabet: Sequence[int], earlier: tuple[int, ...], longest: int
) -> tuple[int, ...]:
    tokens = tuple(rng.choices(alphabet, k=rng.randint(1, max(1, longest // 2))))
    if kind == "one":
        return tokens[:1]
    if kind == "longest":
        return tuple(rng.choices(alphabet, k=max(1, longest - rng.choice((0, 0, 1, 2)))))
    if kind == "repeated":
        return (tokens[: rng.randint(1, 5)] * longest)[: len(tokens)]
    if kind == "full pages":  # the last page is full, and the last token must run all the same
        size = rng.choice((4, 8, 15, 16))
        return (tokens * size)[: -(-len(tokens) // size) * size]
    if kind == "begun":
        return earlier[: rng.randint(0, len(earlier))] + tokens
    if kind == "copy":
        return earlier or tokens
    return tokens


def _request(rng: random.Random, prompt: tuple[int, ...], max_context: int) -> RequestChoice:
    lengths = (rng.randint(1, 3), rng.randint(4, 40), rng.randint(20, 60), 2 * max_context)
    return RequestChoice(
        prompt_ids=prompt,
        max_tokens=rng.choice(lengths),
        sampling=_sampling(rng),
        ignore_eos=rng.random() < 0.4,
        group=rng.choice(("", "", "a", "b")),
        logprobs=rng.choice((None, None, 0, 1, 5, 20)),
        speculate=rng.random() < 0.9,
    )


def _sampling(rng: random.Random) -> Sampling:
    if rng.random() < 0.5:
        return Sampling()
    return Sampling(
        temperature=rng.choice((0.1, 0.3, 0.7, 1.0, 2.0)),
        top_p=rng.choice((1.0, 1.0, 0.3, 0.9, 0.99)),
        top_k=rng.choice((0, 0, 1, 2, 7, VOCABULARY, VOCABULARY + 9)),
        min_p=rng.choice((0.0, 0.0, 0.01, 0.2)),
        seed=rng.choice(SEEDS),
    )


def _with_samples(rng: random.Random, requests: list[RequestChoice]) -> list[RequestChoice]:
    """In a third of the cases the first prompt gets several samples, as one group."""
    if rng.random() < 0.67:
        return requests
    first = replace(requests[0], group="samples")
    samples = [replace(first, sampling=Sampling(0.8, seed=seed)) for seed in range(rng.randint(2, 4))]
    return [*samples, *requests[1:]]


def _with_stops(rng: random.Random, request: RequestChoice, text: tuple[int, ...]) -> RequestChoice:
    """Some requests end early: at a token, or at a word, that comes somewhere in their text."""
    kind = rng.choice(("none", "none", "none", "none", "id", "id", "word", "word", "word", "check fails"))
    place = rng.randrange(len(text))
    if kind == "id":
        return replace(request, stop_ids=(text[place], rng.randrange(VOCABULARY)))
    if kind == "word":
        word = text[max(0, place - rng.randint(0, 2)) : place + 1]
        return replace(request, stop_words=(word, (VOCABULARY - 1, 0, VOCABULARY - 1)))
    if kind == "check fails":
        return replace(request, check_fails=place + 1)
    return request


def _with_prediction(rng: random.Random, request: RequestChoice, text: tuple[int, ...]) -> RequestChoice:
    """Half of the requests say what they will become: rightly, in part, too much, or anything."""
    noise = tuple(rng.choices(range(VOCABULARY), k=rng.randint(1, 2 * MAX_CONTEXT)))
    place = rng.randrange(len(text))
    changed = tuple(token if rng.random() < 0.8 else rng.randrange(VOCABULARY) for token in text)
    kinds = (text, changed, text[place:], text[:place] + noise, text + text, noise)
    return replace(request, prediction_ids=rng.choice(kinds)) if rng.random() < 0.5 else request


def _with_times(rng: random.Random, request: RequestChoice) -> RequestChoice:
    """Two thirds of the requests are there from the beginning. A fifth is aborted, and half of these come
    back.
    """
    arrives = rng.choice((0, 0, rng.randint(0, LAST_STEP)))
    if rng.random() < 0.8:
        return replace(request, arrives=arrives)
    aborted = arrives + rng.choice((0, 1, 2, rng.randint(0, LAST_STEP), rng.randint(0, LAST_STEP)))
    return replace(request, arrives=arrives, aborted=aborted, comes_back=rng.random() < 0.5)


def _text(model: ModelChoice, max_context: int, request: RequestChoice) -> tuple[int, ...]:
    """A request's text without stops."""
    room = min(request.max_tokens, max_context - len(request.prompt_ids))
    return continuation(model, request.prompt_ids, request.sampling, room).token_ids[:room]
