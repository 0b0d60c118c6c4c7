"""The run folder of an output: what made it (run.json), its plan, its report, and the rule that one output
holds one run.

Parts are the truth about what is done; nothing here records doneness.
"""

import json
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.plan import Plan
from rows.output_folder import RUN_FOLDER, OutputFolder

RUN, PLAN, REPORT = (f"{RUN_FOLDER}/{name}" for name in ("run.json", "plan.parquet", "report.json"))
# The settings of IDENTITY_GROUPS decide what the rows say, except those in NOT_IDENTITY. Places may move,
# since plan and model are known by their content; how much runs at once may be tuned between two starts.
IDENTITY_GROUPS = ("input", "output", "model", "generation")
HOW_FAST = ("input.order", "input.group_column", "input.prediction_column")
PLACES = ("input.path", "output.path")
MODEL_PLACES = ("path", "revision", "adapter", "adapter_revision")
TUNING = ("max_running", "cache_tokens", "page_size", "prefix_cache", "prefill_chunk", "threads")
CHECKS = ("trust_remote_code", "check_memory")
NOT_IDENTITY = {*HOW_FAST, *PLACES, *(f"model.{name}" for name in (*MODEL_PLACES, *TUNING, *CHECKS))}


@dataclass(frozen=True)
class RunRecord:
    """What run.json holds.

    config: resolved, by group; plan and model: digests and figures; versions: of the libraries.
    """

    config: dict[str, dict[str, Any]]
    plan: dict[str, Any]
    model: dict[str, Any]
    versions: dict[str, str]

    def identity(self) -> dict[str, Any]:
        """Everything that decides what the rows say, flat."""
        settings = {
            f"{group}.{key}": value for group in IDENTITY_GROUPS for key, value in self.config[group].items()
        }
        own = {key: value for key, value in settings.items() if key not in NOT_IDENTITY}
        return {
            **own,
            "input (rows, digest)": f"{self.plan['num_rows']}, {self.plan['digest']}",
            "model (fingerprint)": self.model["fingerprint"],
        }


def make_record(config: dict[str, dict[str, Any]], plan: Plan, fingerprint: str) -> RunRecord:
    """The record of a run that is about to start."""
    figures = {
        "digest": plan.digest,
        "num_rows": plan.num_rows,
        "num_shards": plan.num_shards,
        "rows_per_shard": plan.rows_per_shard,
    }
    versions = {name: version(name) for name in ("ray", "torch", "transformers", "pyarrow")}
    return RunRecord(config, figures, {"fingerprint": fingerprint}, versions)


def read_record(output: OutputFolder) -> RunRecord | None:
    """The record of the run that an output belongs to; raises ValueError for a foreign output.

    None for a fresh output, and for one without any part: whoever fixes a setting after a failed start begins
    anew.
    """
    text = output.read(RUN)
    has_parts = bool(output.list_parts())
    if has_parts and text is None:
        raise ValueError(
            f"output.path {output.path!r} holds part files but no {RUN}: it is not this program's; "
            "name another folder"
        )
    if text is None or not has_parts:
        return None
    try:
        return RunRecord(**json.loads(text))
    except (ValueError, TypeError) as error:
        remedy = "name another folder, or remove this one"
        raise ValueError(f"{output.path}/{RUN} cannot be read ({error}); {remedy}") from error


def check_same(old: RunRecord, new: RunRecord, output: str) -> None:
    """Raises ValueError, showing each difference as old -> new, when an output belongs to a different run."""
    before = old.identity()
    after = new.identity()
    changed = [key for key in sorted({*before, *after}) if before.get(key) != after.get(key)]
    differences = [f"{key}: {_shown(before.get(key))} -> {_shown(after.get(key))}" for key in changed]
    if differences:
        places = (("input", "path"), ("model", "path"), ("model", "adapter"))
        moved = {
            f"{group}.{key}": (old.config[group].get(key), new.config[group].get(key))
            for group, key in places
        }
        differences += [f"{key}: {one} -> {other}" for key, (one, other) in moved.items() if one != other]
        raise ValueError(
            f"output.path {output!r} belongs to a different run ({'; '.join(differences)}); "
            "name another folder, or remove this one"
        )


def _shown(value: Any) -> str:
    return str(value) or "''"


def open_run(output: OutputFolder, record: RunRecord, plan: Plan) -> None:
    """Clears what an earlier start has left, and writes the plan and the record of a new run."""
    output.clear_leftovers()
    if output.read(RUN) is None or not output.list_parts():
        sink = pa.BufferOutputStream()
        pq.write_table(plan.pieces, sink)
        output.write(PLAN, sink.getvalue())
        output.write_json(RUN, vars(record))  # last: a run folder without it is a fresh one
