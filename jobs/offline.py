"""The main job: prompts through a model with speculation, into Parquet, each row once.

    python jobs/offline.py --config jobs/configs/demo.yaml
    python jobs/offline.py --input 'prompts/*.jsonl' --output /data/out --model <hub name or folder> --dry_run

Everything that can be wrong is checked before Ray or a model is started. The same command again continues a
broken run.
"""

import os
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import pyarrow as pa

from actors.config import PoolConfig
from actors.worker import WorkerJob
from drafting.config import SpeculationConfig
from engine.config import GenerationConfig, ModelConfig
from jobs.config import parse
from jobs.exit_code import exit_code
from pipeline.config import InputConfig, OutputConfig
from pipeline.order import in_order
from pipeline.plan import Plan, carried_schema, make_plan
from pipeline.prepare import PrepareJob
from pipeline.preview import first_prompts, print_plan, print_prompts
from pipeline.progress import ProgressLine
from pipeline.ray_session import JobFailed, connect, in_submitted_job
from pipeline.report import make_report, print_report
from pipeline.resolve_model import ResolvedModel, resolve_model
from pipeline.resources import Demand, check_cluster, check_memory_here
from pipeline.run_folder import REPORT, check_same, make_record, open_run, read_record
from rows.corpus import check_corpus
from rows.output_columns import OutputColumns
from rows.output_folder import OutputFolder
from rows.parts import PartSummary
from rows.storage import is_uri


@dataclass(frozen=True)
class OfflineConfig:
    """Generates text for every row of the input."""

    input: InputConfig
    output: OutputConfig
    model: ModelConfig
    generation: GenerationConfig = field(default_factory=GenerationConfig)
    speculation: SpeculationConfig = field(default_factory=SpeculationConfig)
    pool: PoolConfig = field(default_factory=PoolConfig)
    dry_run: bool = field(
        default=False, metadata={"help": "show the plan and the first prompts, run nothing and write nothing"}
    )

    @property
    def added(self) -> OutputColumns:
        """The columns that generation adds."""
        output = self.output
        return OutputColumns.of(
            self.generation, output.prefix, output.generated_ids, output.samples, output.logprobs
        )


def main(argv: list[str]) -> int:
    """Runs the job; 0 = every row is in the output, 1 = the job failed, 2 = the settings or the input are
    wrong.
    """
    return exit_code(lambda: run(parse(OfflineConfig, argv)), "the same command continues this run")


def run(config: OfflineConfig) -> None:
    """Checks, plans, generates what is missing, and reports."""
    check_output(config.output.path)
    model = check_model(config)
    config = replace(config, model=model.config, speculation=check_corpus(config.speculation))
    output = OutputFolder(config.output.path)
    previous = read_record(output)
    resolved = previous.plan["rows_per_shard"] if previous and config.input.rows_per_shard == "auto" else None
    plan, prepare = plan_rows(config, model, resolved)
    settings = {name: section for name, section in asdict(config).items() if name != "dry_run"}
    record = make_record(settings, plan, model.fingerprint)
    if previous:
        check_same(previous, record, output.path)
    if config.dry_run:
        print_plan(plan, config.added.schema, prepare, output.path, len(output.list_parts()))
        print_prompts(first_prompts(plan, prepare))
        return
    with output.hold():
        open_run(output, record, plan)
        print_report(complete(config, output, plan, prepare))


def complete(config: OfflineConfig, output: OutputFolder, plan: Plan, prepare: PrepareJob) -> dict[str, Any]:
    """Generates the shards that have no part yet, and returns the report; JobFailed when a row is missing."""
    done = sorted(output.list_parts())
    pending = in_order(plan.without(done), config.input.order)
    with ThreadPoolExecutor(16) as pool:
        earlier = sum(filter(None, pool.map(output.read_summary, done)), PartSummary())
    counts = f"{plan.num_rows:,} rows in {plan.num_shards:,} shards, {len(done):,} of them done"
    print(counts, file=sys.stderr)
    progress = ProgressLine(plan.num_rows, earlier.num_rows)
    if pending.num_rows:
        generate(config, output, plan, pending, prepare, progress)
    total = earlier + progress.total
    missing = plan.num_shards - len(output.list_parts())
    if missing or total.num_rows != plan.num_rows:
        rows = f"{plan.num_rows:,} rows went in, {total.num_rows:,} came out"
        raise JobFailed(f"{rows}; {missing} parts are missing")
    report = make_report(total, progress.total, progress.seconds, output.path)
    if pending.num_rows or output.read(REPORT) is None:
        output.write_json(REPORT, report)
    return report


def check_output(path: str) -> None:
    """Raises ValueError for a path where the parts could not stay."""
    if not path:
        raise ValueError("output.path is empty; name a folder or URI (--output)")
    if in_submitted_job() and not is_uri(path) and not os.path.isabs(path):
        raise ValueError(
            f"output.path {path!r} is relative and would land in Ray's session folder; "
            "give an absolute path or a URI"
        )


def check_model(config: OfflineConfig) -> ResolvedModel:
    """Finds the model; raises ValueError where its files cannot be used, or cannot render the job's chats."""
    model = resolve_model(config.model)
    if config.input.messages_column:
        check_template(model, "input.messages_column")
    return model


def check_template(model: ResolvedModel, needed_by: str) -> None:
    """Raises ValueError for a base model, which cannot render a chat."""
    if not model.has_chat_template:
        remedy = (
            "use input.prompt_column, or requests to /v1/completions"
            if needed_by == "the input"
            else "use input.prompt_column"
        )
        raise ValueError(
            f"model {model.config.path!r} has no chat template, which {needed_by} needs; {remedy}"
        )


def plan_rows(
    config: OfflineConfig, model: ResolvedModel, rows_per_shard: int | None = None
) -> tuple[Plan, PrepareJob]:
    """The shards of the input, and how their rows become prompts.

    rows_per_shard: what a run that is continued has resolved `auto` to. Raises ValueError for an input that
    cannot be read, and for columns that are missing or clash.
    """
    plan = make_plan(config.input, config.pool.num_workers, rows_per_shard, config.output.columns)
    if plan.chats:
        check_template(model, "the input")
    carried = carried_schema(plan, config.input, config.output, config.added)
    strict = config.output.columns is None
    seed = config.generation.seed
    return plan, PrepareJob(config.model, config.input, plan.schema, carried, strict, seed, model.max_context)


def generate(
    config: OfflineConfig,
    output: OutputFolder,
    plan: Plan,
    pending: pa.Table,
    prepare: PrepareJob,
    progress: ProgressLine,
) -> None:
    """Starts or joins Ray and runs the pending shards; raises JobFailed with the one line that matters."""
    demand = Demand.of_pool(config.pool)
    check_memory_here(config.model, demand)
    connect(config.pool)
    check_cluster(config.model, demand)
    from pipeline.flow import run_flow

    worker = WorkerJob(
        output=output,
        model=config.model,
        speculation=config.speculation,
        generation=config.generation,
        columns=config.added,
        max_shards=config.pool.shards_per_worker(plan.rows_per_shard, config.model.max_running),
        max_rows=config.pool.rows_per_worker(config.model.max_running),
        max_engine_faults=config.pool.max_engine_faults,
    )
    with progress:
        for summary, began in run_flow(pending, prepare, worker, config.pool):
            progress.add(summary, began)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
