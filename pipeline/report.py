"""The end of a run: its table, and the same figures as report.json.

Divides here, and only here, what was counted.
"""

from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.table import Table

from pipeline.progress import format_seconds
from rows.engine_counts import EngineCounts
from rows.parts import PartSummary

# How the table groups calls, by the least number of tokens that they gave.
LENGTHS = {1: "1", 2: "2", 3: "3-4", 5: "5-8", 9: "9+"}


def make_report(total: PartSummary, this_start: PartSummary, seconds: float, output: str) -> dict[str, Any]:
    """Figures of the whole run.

    tokens/s: of this start only, from the first shard's beginning in a worker to the last part; None when
    nothing ran.
    """
    started = total.num_cached_tokens + total.num_prefilled_tokens
    return {
        "rows": total.num_rows,
        "errors": total.num_errors,
        "first_error": total.first_error,
        "prompt_tokens": total.num_prompt_tokens,
        "cached_tokens": total.num_cached_tokens,
        "prefilled_tokens": total.num_prefilled_tokens,
        "cache_hit_rate": _ratio(total.num_cached_tokens, started),
        "tokens": total.num_generated_tokens,
        "seconds": round(seconds, 3) if seconds else None,
        "tokens_per_second": _ratio(this_start.num_generated_tokens, seconds, 1),
        "calls": total.num_steps,
        "acceptance_length": _ratio(total.num_generated_tokens, total.num_steps),
        "verified": total.verified,
        "accepted": total.accepted,
        "accepted_share": {source: round(share, 4) for source, share in fractions(total.accepted).items()},
        **_engine_figures(total.engine),
        "output": output,
    }


def _ratio(count: float, of: float, digits: int = 4) -> float | None:
    return round(count / of, digits) if of else None


def _engine_figures(engine: EngineCounts) -> dict[str, Any]:
    """What the workers' engines did: steps, calls by the tokens they gave, seconds by phase, and what became
    of candidates.
    """
    steps = engine.get("steps", {})
    num_steps = steps.get("all", 0)
    num_proposals = steps.get("proposed", 0)
    nodes = sum(engine.get("verified", {}).values())
    return {
        "steps": {
            "all": num_steps,
            "proposed": num_proposals,
            "paused": steps.get("paused", 0),
            "verified_per_step": _ratio(nodes, num_steps, 3),
            "mean_price": _ratio(steps["price_sum"], num_proposals, 3) if "price_sum" in steps else None,
        },
        "steps_by_verified": by_size(engine.get("step_nodes", {})),
        "calls_by_tokens": by_size(engine.get("call_lengths", {})),
        "seconds_by_phase": engine.get("seconds", {}),
        "candidates": candidate_rows(engine),
    }


def candidate_rows(engine: EngineCounts) -> list[dict[str, Any]]:
    """A row for each source, depth and length of match that had a candidate: how many were proposed,
    verified and accepted.
    """
    rows = []
    for key in engine.get("proposed", {}):
        source, depth, match = key.split()
        counts = {stage: engine.get(stage, {}).get(key, 0) for stage in ("proposed", "verified", "accepted")}
        rows.append({"source": source, "depth": depth, "match": match, **counts})
    return sorted(
        rows, key=lambda row: (row["source"], first_number(row["depth"]), first_number(row["match"]))
    )


def by_size(counts: dict[str, float]) -> dict[str, float]:
    """In the order of the numbers that the names begin with."""
    return dict(sorted(counts.items(), key=lambda item: first_number(item[0])))


def first_number(name: str) -> int:
    """The number that the name of a range begins with: 4 for 4-7, 32 for 32+, 0 for none."""
    return 0 if name == "none" else int(name.rstrip("+").split("-")[0])


def print_report(report: dict[str, Any], console: Console | None = None) -> None:
    """The table a person sees."""
    table = Table(show_header=False, box=None, pad_edge=False)
    rate = report["tokens_per_second"]
    length = report["acceptance_length"]
    speed = "nothing left to do"
    if rate is not None:
        speed = f"{rate:,.0f}  (in {format_seconds(report['seconds'])})"
    errors = f"{report['errors']:,}" + (f"  (one: {report['first_error']})" if report["errors"] else "")
    hits = f"  ({report['cache_hit_rate']:.0%} found in the prefix cache)" if report["cached_tokens"] else ""
    for name, value in (
        ("rows", f"{report['rows']:,}"),
        ("errors", errors),
        ("prompt tokens", f"{report['prompt_tokens']:,}{hits}"),
        ("tokens", f"{report['tokens']:,}"),
        ("tokens/s", speed),
        ("calls", f"{report['calls']:,}"),
        ("acceptance length", f"{length:.2f} tokens per call" if length else "-"),
        *speculation_lines(report),
        ("time by phase", shares(report["seconds_by_phase"], most=4)),
        ("output", report["output"]),
    ):
        if value:
            table.add_row(name, value)
    (console or Console()).print(table, soft_wrap=True)


def speculation_lines(report: dict[str, Any]) -> list[tuple[str, str]]:
    """What drafted nodes gave and took; nothing where there were none."""
    steps = report["steps"]
    lines = [("accepted tokens by source", shares(report["accepted"]))]
    if steps["proposed"]:
        grouped = dict.fromkeys(LENGTHS.values(), 0.0)
        for name, count in report["calls_by_tokens"].items():
            grouped[LENGTHS[max(least for least in LENGTHS if least <= first_number(name))]] += count
        proposed, paused = (f"{steps[kind] / steps['all']:.0%}" for kind in ("proposed", "paused"))
        calls = ", ".join(f"{name} {share:.0%}" for name, share in fractions(grouped).items())
        nodes = f"{steps['verified_per_step']:.1f}  ({proposed} of steps proposed, {paused} paused)"
        lines += [("calls by tokens given", calls), ("nodes verified per step", nodes)]
    return lines


def shares(counts: Mapping[str, float], most: int = 9) -> str:
    """The largest first, as "context 75%, bigram 25%"; those after the first `most` as one."""
    ranked = sorted(fractions(counts).items(), key=lambda item: -item[1])
    rest = [("other", sum(share for _, share in ranked[most:]))] if ranked[most:] else []
    return ", ".join(f"{name} {share:.0%}" for name, share in ranked[:most] + rest)


def fractions(counts: Mapping[str, float]) -> dict[str, float]:
    """Each count divided by their sum."""
    total = sum(counts.values())
    return {name: count / total for name, count in counts.items()} if total else {}
