"""Records the rows of an offline job for replays: what came, what the model found likely, how it was drawn.

    python jobs/record.py --config jobs/configs/demo.yaml --limit 200 --out transcripts.jsonl.gz
    python jobs/replay.py --transcripts transcripts.jsonl.gz --speculate adaptive

It takes the settings of jobs/offline.py and gives the same rows with the same texts, in one process and
without Ray: --limit N for the first N. Nothing is written to output.path. Of the settings of the pool, only
gpus_per_worker counts: 0 decodes on the CPU unless model.device says otherwise.

One line for each sample that was decoded, in token ids, with the group that the engine saw. A row with an
error is named and left out. The file is written whole or not at all.
"""

import asyncio
import gzip
import shlex
import sys
from collections.abc import AsyncGenerator
from contextlib import aclosing, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import IO

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from actors.config import PoolConfig
from drafting.config import SpeculationConfig
from engine.config import MAX_LOGPROBS, GenerationConfig, ModelConfig
from engine.model.fingerprint import model_fingerprint
from engine.settings import check, setting
from jobs.config import parse
from jobs.exit_code import exit_code
from jobs.offline import OfflineConfig, check_model, plan_rows
from pipeline.config import InputConfig, OutputConfig
from pipeline.order import in_order
from pipeline.progress import ProgressLine
from pipeline.ray_session import JobFailed
from pipeline.recording import RecordedRow, Recorder
from rows.corpus import check_corpus
from rows.output_columns import summarize
from rows.storage import first_line, is_uri, whole_file

Stream = IO[bytes] | gzip.GzipFile


@dataclass(frozen=True)
class RecordConfig:
    """What is recorded, and where."""

    out: str
    """The file of the transcripts: JSONL, packed if its name ends in .gz. It is written whole or not at all.
    """
    num_likely: int = setting(8, f"an integer of 1 to {MAX_LOGPROBS}", lambda v: 1 <= v <= MAX_LOGPROBS)
    """The likeliest tokens that are recorded of each place."""

    def __post_init__(self) -> None:
        check(RecordConfig, vars(self), "record.")
        if not self.out or is_uri(self.out):
            raise ValueError(f"record.out is {self.out!r}; name a file on this machine (--out)")


@dataclass(frozen=True)
class RecordJobConfig:
    """Records the rows of an offline job for replays."""

    record: RecordConfig
    input: InputConfig
    output: OutputConfig
    model: ModelConfig
    generation: GenerationConfig = field(default_factory=GenerationConfig)
    speculation: SpeculationConfig = field(default_factory=SpeculationConfig)
    pool: PoolConfig = field(default_factory=PoolConfig)

    @property
    def job(self) -> OfflineConfig:
        """The offline job whose rows these are."""
        return OfflineConfig(
            self.input, self.output, self.model, self.generation, self.speculation, self.pool
        )


def main(argv: list[str]) -> int:
    """Runs the job; 0 = recorded, 1 = the engine failed, 2 = the settings or the input are wrong."""
    return exit_code(lambda: record(parse(RecordJobConfig, argv)), "nothing was written")


def record(config: RecordJobConfig) -> None:
    """Writes the file; prints what was recorded, and the command that replays it."""
    job = config.job
    model = check_model(job)
    speculation = check_corpus(job.speculation)
    job = replace(job, model=decoding_like_a_worker(model.config, job.pool), speculation=speculation)
    plan, prepare = plan_rows(job, model)
    if not plan.num_rows:
        raise ValueError("the input has no rows; there is nothing to record")
    recorder = Recorder(
        job.model,
        job.speculation,
        job.generation,
        job.added,
        config.record.num_likely,
        job.pool.rows_per_worker(job.model.max_running),
    )
    out = config.record.out
    progress = ProgressLine(plan.num_rows)
    with whole_file(out) as file, _packed(file) if out.endswith(".gz") else nullcontext(file) as stream:
        rows = recorder.rows(in_order(plan.pieces, job.input.order), prepare)
        num_transcripts = write(rows, stream, progress)
        total = progress.total
        if total.num_errors == total.num_rows:
            raise ValueError(f"all {total.num_rows:,} rows have errors; nothing was written")
    recorded = f"{total.num_rows - total.num_errors:,} rows, {num_transcripts:,} transcripts"
    left_out = f"; {total.num_errors:,} rows with errors were left out" if total.num_errors else ""
    print(f"{out}: {recorded}, {total.num_generated_tokens:,} tokens{left_out}")
    print(f"next: {replay_command(job, out)}")


def write(rows: AsyncGenerator[RecordedRow, None], stream: Stream, progress: ProgressLine) -> int:
    """Writes and counts rows as they come, and names those with an error; returns how many transcripts there
    are. Raises JobFailed when the engine has ended.
    """

    async def write_all() -> int:
        num_transcripts = 0
        async with aclosing(rows):
            async for row in rows:
                if isinstance(row.result, str):
                    print(f"{row.place}: {row.result}", file=sys.stderr)
                for line in row.lines:
                    stream.write(line.encode() + b"\n")
                num_transcripts += len(row.lines)
                progress.add(summarize([row.result]), row.began)
        return num_transcripts

    try:
        with progress:
            return asyncio.run(write_all())
    except RuntimeError as fault:  # EngineDead, or a device without memory
        raise JobFailed(first_line(fault)) from fault


def decoding_like_a_worker(model: ModelConfig, pool: PoolConfig) -> ModelConfig:
    """The model's settings on the device that a worker would have: one without a GPU decodes on the CPU."""
    return replace(model, device="cpu") if model.device == "auto" and not pool.gpus_per_worker else model


def _packed(file: IO[bytes]) -> gzip.GzipFile:
    return gzip.GzipFile(filename="", mode="wb", fileobj=file, mtime=0)  # equal texts make equal files


def replay_command(job: OfflineConfig, out: str) -> str:
    """The command that replays the file, with the model's draft tables where the job has made them."""
    # Here and not at the top: importing a job must stay cheap, and this brings torch.
    from engine.draft_tables import default_cache

    mode = job.speculation.mode
    words = ["--transcripts", out, "--speculate", "adaptive" if mode == "off" else mode]
    tables = default_cache() / model_fingerprint(job.model)
    if (tables / "bigram.npz").is_file():
        words += ["--tables", str(tables)]
    return shlex.join(["python", "jobs/replay.py", *words])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
