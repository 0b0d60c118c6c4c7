"""Replays and simulated jobs as the settings ask for them: what jobs/replay.py runs.

Each run begins with a proposer that knows no text but the reference corpus. Without a model's tables, the
bigram table learns from the text.
"""

from collections.abc import Callable, Sequence
from copy import deepcopy
from functools import partial
from pathlib import Path
from typing import Any

from drafting.adaptive.adaptive_proposer import AdaptiveProposer
from drafting.adaptive.controller import Controller
from drafting.adaptive.cost_model import CostModel
from drafting.bigram import empty_table, learn_successors
from drafting.config import SpeculationConfig
from drafting.make_proposer import make_proposer
from drafting.mixed_proposer import MixedProposer
from drafting.replay.replay_counts import at_nodes, figures_of
from drafting.replay.replayed_job import NO_LIMIT, Job, compare
from drafting.replay.transcripts import Transcript
from drafting.speculation import Speculation, VerifyAll
from drafting.tables import Tables, load_tables
from drafting.teaching import teach
from drafting.tree import CandidateTrees, DraftTrees, Int32, prune

POINTS = (3, 6, 12, 24)  # nodes per call at which a sweep is read
NUM_SUCCESSORS = 16  # successors of a token in a bigram table that mode adaptive learns from the text


class VerifyLikely(VerifyAll):
    """Verifies candidates whose survival is at least `least`: the best choice if all nodes cost the same."""

    def __init__(self, least: float) -> None:
        self.least = least
        # Less likely candidates than are verified are looked for too: they are scored, and can become likely.
        self.min_survival = least / 4

    def choose(self, candidates: CandidateTrees) -> DraftTrees:
        """The likely candidates."""
        return prune(candidates, candidates.survival >= self.least)


def replay_job(
    transcripts: Sequence[Transcript],
    config: SpeculationConfig,
    tables: Path | None,
    min_survivals: Sequence[float],
    batch_size: int,
    corpus: Sequence[Int32] = (),
) -> dict[str, Any]:
    """The figures of one replay, or of a sweep over several values of min_survival.

    corpus: the texts that are taught before it.
    """
    if config.mode == "mixed":
        return _replay_once(transcripts, config, tables, 0.0, batch_size)
    runs = [
        {"min_survival": survival, **_replay_once(transcripts, config, tables, survival, batch_size, corpus)}
        for survival in min_survivals
    ]
    return runs[0] if len(runs) == 1 else {"sweep": runs, "at_nodes": at_nodes(runs, POINTS)}


def simulate_job(
    transcripts: Sequence[Transcript],
    config: SpeculationConfig,
    tables: Path | None,
    costs: Path,
    batch_sizes: Sequence[int],
    prefill_chunk: int,
    drafting_seconds: float | None,
    corpus: Sequence[Int32] = (),
) -> dict[str, Any]:
    """A whole job at each batch size, plain and with speculation.

    drafting_seconds: per row; None measures it. corpus: the texts that are taught before each job.
    """
    cost = CostModel.load(costs)
    jobs = []
    for batch_size in batch_sizes:
        plain = Job(cost, batch_size, prefill_chunk).run(transcripts)
        proposer, read_text = _start(transcripts, config, tables, corpus)
        controller = Controller(deepcopy(cost)) if config.mode == "adaptive" else VerifyAll()
        speculation = Speculation(proposer, controller)
        job = Job(cost, batch_size, prefill_chunk, speculation, read_text, drafting_seconds)
        figures = compare(plain, job.run(transcripts), proposer.source_names)
        jobs.append({"batch_size": batch_size, **figures})
    profiled = int(max(shape.sequences for shape in cost.profile.shapes))
    return {"cost_model": cost.about, "profiled_sequences": profiled, "jobs": jobs}


def _replay_once(
    transcripts: Sequence[Transcript],
    config: SpeculationConfig,
    tables: Path | None,
    min_survival: float,
    batch_size: int,
    corpus: Sequence[Int32] = (),
) -> dict[str, Any]:
    proposer, read_text = _start(transcripts, config, tables, corpus)
    speculation = Speculation(proposer, VerifyLikely(min_survival))
    job = Job(None, batch_size, NO_LIMIT, speculation, read_text)
    groups = job.run(transcripts).groups
    return {**figures_of(groups, proposer.source_names), "candidates": job.candidates.figures()}


def _start(
    transcripts: Sequence[Transcript],
    config: SpeculationConfig,
    folder: Path | None,
    corpus: Sequence[Int32],
) -> tuple[AdaptiveProposer | MixedProposer, Callable[[Int32], None] | None]:
    """A proposer that knows the corpus alone, and what its bigram table learns with if it is to learn from
    text.

    What a job of the model has taught about candidates lies beside its tables. Raises ValueError for a
    missing table.
    """
    highest = [transcript.max_id for transcript in transcripts] + [text.max() for text in corpus if len(text)]
    vocab_size = 1 + int(max(highest))
    sources = config.mixed.sources
    num_successors = config.mixed.num_drafts if config.mode == "mixed" else NUM_SUCCESSORS
    learned = empty_table(vocab_size, num_successors) if folder is None and "bigram" in sources else None
    tables = Tables(bigram=learned) if folder is None else load_tables(folder)
    for source in sources:
        if source != "context" and getattr(tables, source) is None:
            place = f"no {source} table in {folder}" if folder else f"{source} cannot be learned from text"
            remedy = "make one with jobs/build_tables.py and give its folder as --tables"
            raise ValueError(f"{place}; {remedy}")
    proposer = make_proposer(config, tables)
    teach(proposer, corpus, vocab_size)
    if isinstance(proposer, AdaptiveProposer):
        if folder:
            proposer.calibration.load(folder / "calibration.npz")
        return proposer, proposer.read_successors if learned is not None else None
    return proposer, None if learned is None else partial(learn_successors, learned)
