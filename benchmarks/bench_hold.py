"""What it gives that a worker holds shards by their unfinished rows: the batch worker on the demo model,
without Ray, decoding plainly.

    OMP_NUM_THREADS=1 python -m benchmarks.bench_hold --transcripts FILE [FILE ...]

40 shards of 16 rows, whose outputs are an eighth as long as recorded ones, 32 rows at once. Before: shards
for twice the rows that are decoded at once, however many of their rows are done.
"""

import argparse
import asyncio
import json
import random
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from actors.worker import PROMPTS_SCHEMA, BatchWorker, WorkerJob
from benchmarks.measure import ratio
from drafting.config import SpeculationConfig
from drafting.replay.transcripts import read_transcripts
from engine.config import GenerationConfig, ModelConfig
from rows.output_columns import OutputColumns
from rows.output_folder import OutputFolder

NUM_SHARDS = 40
NUM_ROWS = 16
RUNNING = 32
CONTENDERS = {
    "by number": (4, 10**9),
    "by unfinished rows": (12, 2 * RUNNING),
}  # shards and unfinished rows at most


def make_shard(number: int, lengths: Sequence[int]) -> dict[str, Any]:
    """A prepared shard whose rows have outputs of these lengths."""
    columns = {
        "token_ids": [[100 + (number + row) % 900, 7, 9] for row in range(len(lengths))],
        "sampling": [json.dumps({"max_tokens": length, "ignore_eos": True}) for length in lengths],
        "seed": [1] * len(lengths),
        "error": [None] * len(lengths),
        "group": [""] * len(lengths),
        "prediction_ids": [[]] * len(lengths),
    }
    tables = {
        "carried": pa.table({"row": range(len(lengths))}),
        "prompts": pa.Table.from_pydict(columns, schema=PROMPTS_SCHEMA),
    }
    return {"shard": [number], **{name: [to_bytes(table)] for name, table in tables.items()}}


def to_bytes(table: pa.Table) -> bytes:
    """As Arrow bytes."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return bytes(sink.getvalue().to_pybytes())


def run(lengths: Sequence[int], max_shards: int, max_rows: int) -> tuple[float, int]:
    """Process CPU seconds and the engine's steps."""
    shards = [
        make_shard(number, lengths[number * NUM_ROWS :][:NUM_ROWS]) for number in reversed(range(NUM_SHARDS))
    ]
    model = ModelConfig(path="demo/model", max_running=RUNNING, dtype="float32")
    plain = SpeculationConfig(mode="off")
    with tempfile.TemporaryDirectory() as output:
        worker = BatchWorker(
            WorkerJob(
                OutputFolder(output),
                model,
                plain,
                GenerationConfig(),
                OutputColumns(),
                max_shards,
                max_rows,
                3,
            )
        )

        async def pull() -> None:
            while shards:
                await worker(shards.pop())

        async def pull_all() -> None:
            await asyncio.gather(*(pull() for _ in range(max_shards + 1)))

        start = time.process_time()
        asyncio.run(pull_all())
        seconds = time.process_time() - start
        steps = worker.loop.engine.stats.num_steps
        worker.loop.close()
    return seconds, steps


def main() -> None:
    """Alternates the two and prints each pair, then one JSON line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0], allow_abbrev=False)
    parser.add_argument("--transcripts", nargs="+", type=Path, required=True, metavar="FILE")
    parser.add_argument("--alternations", type=int, default=10)
    args = parser.parse_args()
    recorded = [
        len(transcript.output_ids) for path in args.transcripts for transcript in read_transcripts(path)
    ]
    lengths = [max(1, length // 8) for length in random.Random(0).choices(recorded, k=NUM_SHARDS * NUM_ROWS)]
    found: dict[str, list[tuple[float, int]]] = {name: [] for name in CONTENDERS}
    run(lengths, *CONTENDERS["by number"])
    for turn in range(args.alternations):
        for name in list(CONTENDERS)[:: 1 if turn % 2 else -1]:
            found[name].append(run(lengths, *CONTENDERS[name]))
        print({name: runs[-1] for name, runs in found.items()}, flush=True)
    seconds = {name: [cpu for cpu, _ in runs] for name, runs in found.items()}
    steps = {name: sorted(count for _, count in runs) for name, runs in found.items()}
    print(
        json.dumps(
            {
                "tokens": sum(lengths),
                "faster": ratio(seconds["by number"], seconds["by unfinished rows"]),
                "steps": steps,
            }
        )
    )


if __name__ == "__main__":
    main()
