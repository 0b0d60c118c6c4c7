"""The figures of a replay as tables on the terminal. Knows the figures' names, not how they were counted."""

from typing import Any

from rich.console import Console
from rich.table import Table


def print_figures(figures: dict[str, Any], with_candidates: bool = False) -> None:
    """Prints a sweep, simulated jobs, or the figures of one replay."""
    if "sweep" in figures:
        _print_sweep(figures)
    elif "jobs" in figures:
        _print_jobs(figures)
    else:
        _print_replay(figures, with_candidates)


def _print_replay(figures: dict[str, Any], with_candidates: bool) -> None:
    """By group with the total last, by source, and on request by what candidates were like."""
    groups = Table("group", "tokens per call", "nodes per call")
    for name, group in [*figures["by_group"].items(), ("all", figures)]:
        groups.add_row(name, f"{group['tokens_per_call']:.2f}", f"{group['nodes_per_call']:.1f}")
    sources = Table("source", "verified", "accepted", "acceptance rate")
    for name, source in figures["by_source"].items():
        sources.add_row(name, str(source["verified"]), str(source["accepted"]), _acceptance_rate(source))
    candidates = Table("source", "depth", "match", "proposed", "verified", "accepted", "acceptance rate")
    for row in figures["candidates"]:
        candidates.add_row(*(str(value) for value in row.values()), _acceptance_rate(row))
    for table in (groups, sources, candidates)[: 3 if with_candidates else 2]:
        for column in table.columns[1:]:
            column.justify = "right"
        Console().print(table)
    print(f"{figures['tokens']} tokens in {figures['calls']} calls, {figures['nodes']} nodes verified")


def _acceptance_rate(counts: dict[str, Any]) -> str:
    return f"{100 * counts['accepted'] / counts['verified']:.1f} %" if counts["verified"] else "-"


def _print_sweep(figures: dict[str, Any]) -> None:
    """A line for each min_survival, then tokens per call at given nodes per call, interpolated."""
    for run in figures["sweep"]:
        tokens = f"tokens per call {run['tokens_per_call']:.3f}"
        print(f"min survival {run['min_survival']:<6g} {tokens}  nodes per call {run['nodes_per_call']:.2f}")
    for nodes, tokens in figures["at_nodes"].items():
        found = "outside the sweep" if tokens is None else f"{tokens:.3f} tokens per call"
        print(f"at {nodes:>2} nodes per call: {found}")


def _print_jobs(figures: dict[str, Any]) -> None:
    """The machine, and a line for each batch size."""
    about = ", ".join(f"{name} {value}" for name, value in figures["cost_model"].items())
    print("cost model:", about or "it does not say of what")
    table = Table(
        "rows at once", "speedup", "tokens/s plain", "tokens/s", "acceptance length", "nodes per call"
    )
    for name in ("price", "steps that draft", "drafting time"):
        table.add_column(name)
    for job in figures["jobs"]:
        table.add_row(
            str(job["batch_size"]),
            f"{job['speedup']:.2f}",
            f"{job['plain']['tokens_per_s']:.1f}",
            f"{job['tokens_per_s']:.1f}",
            f"{job['acceptance_length']:.2f}",
            f"{job['nodes_per_call']:.1f}",
            f"{job['price']:.1f}" if job["price"] else "-",
            f"{job['speculating_steps']:.0%}",
            f"{job['drafting_share']:.0%}",
        )
    for column in table.columns:
        column.justify = "right"
    Console(width=max(Console().width, 120)).print(table)
    measured = figures["profiled_sequences"]
    beyond = [job["batch_size"] for job in figures["jobs"] if job["batch_size"] > measured]
    if beyond:
        print(
            f"{beyond} rows at once are more than the {measured} that were profiled: those figures are "
            "extrapolated"
        )
