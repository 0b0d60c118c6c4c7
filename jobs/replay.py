"""Feeds recorded outputs through the drafters, without any model: tokens per call, and the speedup of a whole
job.

    python jobs/replay.py --transcripts FILE --speculate mixed --speculation.mixed.num_drafts 10
    python jobs/replay.py --transcripts '[A, B]' --speculate adaptive --min_survival '[0.4, 0.2, 0.1, 0.05]'
    python jobs/replay.py --transcripts FILE --speculate adaptive --cost_model COSTS --batch_size '[1, 4, 16]'

A line of a transcript (JSONL, plain or .gz) is {"id", "group", "prompt", "output"}: token ids, or text with
--tokenizer. It may also hold "logprobs" and "sampling": what the model found likely, and how the output was
drawn. jobs/record.py writes such lines from a job's own rows. docs/drafting.md says how the figures are
counted.
"""

import json
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from drafting.config import SpeculationConfig
from engine.config import ModelConfig
from engine.settings import at_least, check, setting
from jobs.config import parse


def _are_probabilities(values: list[float]) -> bool:
    return bool(values) and all(0 < value <= 1 for value in values)


@dataclass(frozen=True)
class ReplayConfig:
    """What is replayed, and on which machine."""

    transcripts: str | list[str]
    """A file of recorded outputs, or a list of them: JSONL, plain or .gz."""
    min_survival: list[float] = setting([0.1], "probabilities above 0 and at most 1", _are_probabilities)
    """Mode adaptive verifies every node that survives at least this often; several values make a sweep."""
    batch_size: list[int] = setting([1], "integers of at least 1", lambda values: min(values, default=0) >= 1)
    """Rows that run at once; several values can be compared with a cost model."""
    cost_model: str | None = None
    """The costs of a machine (benchmarks/save_cost_model.py writes them): a whole job is simulated on it."""
    drafting_us: float | None = setting(None, "at least 0", at_least(0))
    """Microseconds that drafting takes per row and step of a simulated job; null measures it here."""
    limit: int | None = setting(None, "at least 1", at_least(1))
    """Replay the first rows only."""
    tables: str | None = None
    """A folder with a model's draft tables, and its calibration if a job has left it; null learns from the
    text.
    """
    tokenizer: str | None = None
    """A folder with tokenizer.json, for transcripts that are text."""
    candidates: bool = False
    """Print what became of candidates, by source, depth and match."""
    json: str | None = None
    """Write the figures to this file."""

    def __post_init__(self) -> None:
        check(ReplayConfig, vars(self), "replay.")
        if self.drafting_us is not None and not self.cost_model:
            raise ValueError(f"replay.drafting_us is {self.drafting_us}; it goes with replay.cost_model")
        if len(self.batch_size) > 1 and not self.cost_model:
            raise ValueError(
                f"replay.batch_size is {self.batch_size}; several can be compared with replay.cost_model "
                "alone"
            )
        if self.cost_model and self.min_survival != ReplayConfig("").min_survival:
            raise ValueError(
                "replay.min_survival and replay.cost_model are both given; with a cost model the price "
                "decides what is verified, so leave one out"
            )

    @property
    def files(self) -> list[Path]:
        """The transcripts as a list of paths."""
        return [
            Path(path)
            for path in ([self.transcripts] if isinstance(self.transcripts, str) else self.transcripts)
        ]


@dataclass(frozen=True)
class ReplayJobConfig:
    """Replays recorded outputs through the drafters, without any model."""

    replay: ReplayConfig
    speculation: SpeculationConfig = field(default_factory=SpeculationConfig)


def main(argv: list[str]) -> int:
    """Runs the job; bad input ends it with one line and exit code 2."""
    try:
        config = parse(ReplayJobConfig, argv)
        figures = measure(config)
        if config.replay.json:
            Path(config.replay.json).write_text(json.dumps(figures) + "\n", encoding="utf-8")
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    from jobs.replay_tables import print_figures

    print_figures(figures, config.replay.candidates)
    return 0


def measure(config: ReplayJobConfig) -> dict[str, Any]:
    """Replays the files and returns the figures as they are written to replay.json; those of a sweep come as
    a list.
    """
    # Here and not at the top: importing a job must stay cheap, and these bring numba and pyarrow.
    from drafting.replay.compare import replay_job, simulate_job
    from drafting.replay.transcripts import read_transcripts
    from rows.corpus import read_corpus

    if config.speculation.mode == "off":
        raise ValueError("speculation.mode is off, which drafts nothing; replay mixed or adaptive")
    replay = config.replay
    encode = load_encode(Path(replay.tokenizer)) if replay.tokenizer else None
    found = [transcript for path in replay.files for transcript in read_transcripts(path, encode)]
    transcripts = found[: replay.limit]
    tables = Path(replay.tables) if replay.tables else None
    encode_output = (lambda texts: [encode(text, False) for text in texts]) if encode else None
    corpus = read_corpus(config.speculation, encode_output)
    if replay.cost_model:
        seconds = None if replay.drafting_us is None else replay.drafting_us / 1e6
        costs = Path(replay.cost_model)
        chunk = ModelConfig().prefill_chunk
        return simulate_job(
            transcripts, config.speculation, tables, costs, replay.batch_size, chunk, seconds, corpus
        )
    return replay_job(
        transcripts, config.speculation, tables, replay.min_survival, replay.batch_size[0], corpus
    )


def load_encode(folder: Path) -> Callable[[str, bool], list[int]]:
    """Text to ids with a tokenizer's files; only a prompt gets the tokens that begin a text."""
    from tokenizers import Tokenizer

    try:
        tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    except Exception as error:  # tokenizers raises plain Exception for a file that is missing or damaged
        raise ValueError(f"{folder / 'tokenizer.json'} cannot be read: {error}") from error
    return lambda text, is_prompt: list(tokenizer.encode(text, add_special_tokens=is_prompt).ids)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
