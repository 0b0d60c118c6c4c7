"""The end of a run: its table, and the same figures as report.json. Divides here, and only here, what was counted."""

from typing import Any

from rich.console import Console
from rich.table import Table

from actors.parts import Summary
from pipeline.progress import format_seconds


def make_report(total: Summary, this_start: Summary, seconds: float, output: str) -> dict[str, Any]:
    """Figures of the whole run.

    tokens/s: of this start only, from the first shard's beginning in a worker to the last part; None when nothing ran.
    """
    accepted, started = sum(total.accepted.values()), total.num_cached_tokens + total.num_prefilled_tokens
    return {
        "rows": total.num_rows,
        "errors": total.num_errors,
        "first_error": total.first_error,
        "prompt_tokens": total.num_prompt_tokens,
        "cached_tokens": total.num_cached_tokens,
        "prefilled_tokens": total.num_prefilled_tokens,
        "cache_hit_rate": round(total.num_cached_tokens / started, 4) if started else None,
        "tokens": total.num_generated_tokens,
        "seconds": round(seconds, 3) if seconds else None,
        "tokens_per_second": round(this_start.num_generated_tokens / seconds, 1) if seconds else None,
        "calls": total.num_steps,
        "acceptance_length": round(total.num_generated_tokens / total.num_steps, 4) if total.num_steps else None,
        "verified": total.verified,
        "accepted": total.accepted,
        "accepted_share": {source: round(count / accepted, 4) for source, count in total.accepted.items()} if accepted else {},
        "output": output,
    }


def print_report(report: dict[str, Any], console: Console | None = None) -> None:
    """The table a person sees."""
    table = Table(show_header=False, box=None, pad_edge=False)
    rate, length = report["tokens_per_second"], report["acceptance_length"]
    shares = ", ".join(f"{source} {share:.0%}" for source, share in sorted(report["accepted_share"].items(), key=lambda item: -item[1]))
    errors = f"{report['errors']:,}" + (f"  (one: {report['first_error']})" if report["errors"] else "")
    hits = f"  ({report['cache_hit_rate']:.0%} found in the prefix cache)" if report["cached_tokens"] else ""
    for name, value in (
        ("rows", f"{report['rows']:,}"),
        ("errors", errors),
        ("prompt tokens", f"{report['prompt_tokens']:,}{hits}"),
        ("tokens", f"{report['tokens']:,}"),
        ("tokens/s", f"{rate:,.0f}  (in {format_seconds(report['seconds'])})" if rate is not None else "nothing left to do"),
        ("calls", f"{report['calls']:,}"),
        ("acceptance length", f"{length:.2f} tokens per call" if length else "-"),
        ("accepted tokens by source", shares or "-"),
        ("output", report["output"]),
    ):
        table.add_row(name, value)
    (console or Console()).print(table, soft_wrap=True)
