"""Half and single precision on the demo model: where texts part, the model itself is undecided (design:
equality tests, ii).

Rounding differs between batch sizes and between implementations, so equal texts cannot be promised. But a
first difference must be a near-tie of the model's own logits, or it is a bug. NGRAM_NEAR_TIE_PROMPTS sets how
many prompts are compared (10 unless told); `-s` shows the counts.
"""

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer
from transformers import AutoModelForCausalLM

from drafting.config import MixedConfig, SpeculationConfig
from drafting.gumbel import row_keys
from drafting.sampling import Sampling
from engine.build import build_engine
from engine.config import ModelConfig
from engine.draw import gumbel_with_torch
from engine.request import Request
from tests.engine.harness import with_price

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]
DEMO = Path(__file__).parents[2] / "demo"
NUM_PROMPTS = int(os.environ.get("NGRAM_NEAR_TIE_PROMPTS", "10"))
NUM_TOKENS = 200
GREEDY = Sampling()
Texts = list[tuple[int, ...]]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return shutil.copytree(
        DEMO / "model",
        tmp_path_factory.mktemp("demo") / "model",
        ignore=shutil.ignore_patterns("checkpoint*"),
    )


@pytest.fixture(scope="module")
def prompts(folder: Path) -> Texts:
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    rows = [json.loads(line) for line in (DEMO / "prompts.jsonl").read_text().splitlines()]
    return [tuple(tokenizer.encode(row["prompt"]).ids[-700:]) for row in rows[:NUM_PROMPTS]]


def own_model(folder: Path, dtype: str):
    return AutoModelForCausalLM.from_pretrained(
        folder, dtype=getattr(torch, dtype), attn_implementation="sdpa"
    ).eval()


def engine_texts(
    folder: Path, prompts: Texts, dtype: str, speculation: SpeculationConfig, sampling: Sampling = GREEDY
) -> Texts:
    engine = build_engine(ModelConfig(path=str(folder), dtype=dtype), speculation, folder.parent / "tables")
    if speculation.mode == "adaptive":
        with_price(
            engine, 200.0
        )  # a fixed price: how much is drafted must not depend on how busy this machine is
    requests = [Request(f"{n}", p, NUM_TOKENS, sampling, ignore_eos=True) for n, p in enumerate(prompts)]
    completions = engine.generate(requests)
    if speculation.mode != "off":
        assert engine.stats.num_calls < 0.9 * engine.stats.num_tokens, "drafts were meant to be accepted"
    return [completion.token_ids for completion in completions]


@torch.inference_mode()
def generated(model, prompts: Texts) -> Texts:
    texts = []
    for prompt in prompts:
        ids = torch.tensor([prompt])
        settings = {
            "max_new_tokens": NUM_TOKENS,
            "min_new_tokens": NUM_TOKENS,
            "do_sample": False,
            "eos_token_id": None,
            "pad_token_id": 0,
        }
        texts.append(
            tuple(
                model.generate(ids, attention_mask=torch.ones_like(ids), **settings)[
                    0, len(prompt) :
                ].tolist()
            )
        )
    return texts


def divergences(one: Texts, other: Texts) -> list[tuple[int, int]]:
    """(text, position) of the first difference of each pair that differs."""
    assert {len(text) for text in [*one, *other]} == {NUM_TOKENS}
    pairs = enumerate(zip(one, other, strict=True))
    return [(n, next(i for i in range(NUM_TOKENS) if a[i] != b[i])) for n, (a, b) in pairs if a != b]


@torch.inference_mode()
def logits_at(model, prompt: tuple[int, ...], text: tuple[int, ...], position: int) -> torch.Tensor:
    """The model's own logits for the token at a position, from one plain forward pass."""
    return model(input_ids=torch.tensor([prompt + text[:position]]), use_cache=False).logits[0, -1].float()


def tolerance(logits: torch.Tensor, dtype: str) -> float:
    """1e-4 of the largest |logit| in float32; two steps of bfloat16 (8 bits of mantissa) at the
    best logit.
    """
    if dtype == "float32":
        return 1e-4 * float(logits.abs().max())
    return 2 * 2.0 ** (np.floor(np.log2(float(logits.max().abs()))) - 7)


def assert_near_ties(model, dtype: str, prompts: Texts, one: Texts, other: Texts, what: str) -> None:
    found = divergences(one, other)
    print(
        f"\n{dtype}, {what}: {len(prompts) - len(found)} of {len(prompts)} texts equal, {len(found)} part at "
        "a near-tie"
    )
    for n, position in found:
        logits = logits_at(model, prompts[n], one[n], position)
        tokens = [one[n][position], other[n][position]]
        gap = float(logits.max() - logits[tokens].min())
        assert gap <= tolerance(logits, dtype), (
            f"{what}: text {n} parts at {position}: {tokens}, whose logits are {gap} below the best"
        )


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_greedy_texts_part_only_at_near_ties(dtype, folder, prompts):
    model = own_model(folder, dtype)
    plain = engine_texts(folder, prompts, dtype, SpeculationConfig(mode="off"))
    assert_near_ties(model, dtype, prompts, generated(model, prompts), plain, "generate against plain")
    modes = {
        f"mixed ({k}, {w})": SpeculationConfig("mixed", MixedConfig(num_drafts=k, draft_len=w))
        for k, w in [(5, 4), (10, 10)]
    }
    for name, speculation in {**modes, "adaptive": SpeculationConfig()}.items():
        drafted = engine_texts(folder, prompts, dtype, speculation)
        assert_near_ties(model, dtype, prompts, plain, drafted, f"plain against {name}")


def test_sampled_texts_part_only_where_two_scores_nearly_tie(folder, prompts):
    """Both tokens must have a score, logit / temperature + Gumbel number, within 1e-4 of the best."""
    model = own_model(folder, "float32")
    sampling = Sampling(0.8, seed=5)
    close = 1e-4
    plain = engine_texts(folder, prompts, "float32", SpeculationConfig(mode="off"), sampling)
    drafted = engine_texts(folder, prompts, "float32", SpeculationConfig(), sampling)
    found = divergences(plain, drafted)
    print(
        f"\nfloat32, sampled, plain against adaptive: {len(prompts) - len(found)} of {len(prompts)} texts "
        f"equal, {len(found)} part at a near-tie"
    )
    for n, position in found:
        logits = logits_at(model, prompts[n], plain[n], position).double()
        key = row_keys([sampling.seed], np.array([position]))
        scores = logits / sampling.temperature + gumbel_with_torch(key, len(logits), logits.device)[0]
        tokens = [plain[n][position], drafted[n][position]]
        gap = float(scores.max() - scores[tokens].min())
        assert gap <= close, f"text {n} parts at {position}: {tokens}, whose scores are {gap} below the best"
