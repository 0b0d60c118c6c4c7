"""What a person sees: the line while a job runs and the table at its end."""

import io
import time
from dataclasses import replace

import pytest
from rich.console import Console

from pipeline.progress import ProgressLine, format_seconds
from pipeline.report import make_report, print_report
from rows.parts import PartSummary

PART = PartSummary(
    num_parts=1, num_rows=16, num_errors=1, num_prompt_tokens=160, num_generated_tokens=1200, num_steps=400,
    num_cached_tokens=120, num_prefilled_tokens=40,
    verified={"context": 900, "bigram": 300}, accepted={"context": 600, "bigram": 200},
    first_error="column 'prompt' is 7; a prompt must be a string",
)  # fmt: skip
# What its worker's engine did: 400 calls in 50 steps.
ENGINE = {
    "steps": {"all": 50, "proposed": 40, "paused": 5, "price_sum": 6000.0},
    "step_nodes": {"16-31": 30, "0": 10, "4-7": 10},
    "call_lengths": {"1": 200, "2": 80, "3": 40, "10": 8, "5": 32, "9": 12, "4": 8, "8": 20},
    "proposed": {"context 9+ 17+": 900, "bigram 1 none": 700, "context 1 none": 30, "context 1 3-4": 400},
    "verified": {"context 9+ 17+": 600, "bigram 1 none": 300, "context 1 3-4": 300},
    "accepted": {"context 9+ 17+": 500, "bigram 1 none": 200, "context 1 3-4": 100},
    "seconds": {
        "propose": 0.9,
        "choose": 0.3,
        "plan": 1.0,
        "forward": 6.0,
        "sample": 1.0,
        "verify": 0.2,
        "commit": 0.4,
        "learn": 0.2,
    },
}


def test_the_line_tells_rows_tokens_rate_acceptance_length_and_time_left(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(time, "time", lambda: 110.0)
    progress = ProgressLine(num_rows=80, num_done=32)
    assert progress.line() == "rows 32/80  starting"
    progress.add(PART, began=100.0)
    assert progress.line() == "rows 48/80  tokens 1,200  120 tokens/s  3.00 tokens/call  ETA 0:20"


def test_where_there_is_no_terminal_plain_lines_come_now_and_then(capsys: pytest.CaptureFixture[str]) -> None:
    with ProgressLine(num_rows=80, interval=0.01) as progress:
        time.sleep(0.05)
        progress.add(PART, began=time.time())
        time.sleep(0.05)
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "rows 0/80  starting"
    assert lines[-1].startswith("rows 16/80  tokens 1,200")


def test_the_report_divides_what_was_counted() -> None:
    report = make_report(PART + PART, PART, 10.0, "out")
    assert (report["rows"], report["errors"], report["tokens"], report["calls"]) == (32, 2, 2400, 800)
    assert (report["tokens_per_second"], report["acceptance_length"]) == (120.0, 3.0)
    assert report["accepted_share"] == {"context": 0.75, "bigram": 0.25}
    assert (report["cached_tokens"], report["prefilled_tokens"], report["cache_hit_rate"]) == (240, 80, 0.75)


def test_what_the_engines_did_is_told_in_figures_of_the_whole_run() -> None:
    report = make_report(replace(PART, engine=ENGINE) + replace(PART, engine=ENGINE), PART, 10.0, "out")
    assert report["steps"] == {
        "all": 100,
        "proposed": 80,
        "paused": 10,
        "verified_per_step": 24.0,
        "mean_price": 150.0,
    }
    assert list(report["steps_by_verified"].items()) == [("0", 20), ("4-7", 20), ("16-31", 60)]
    assert list(report["calls_by_tokens"]) == ["1", "2", "3", "4", "5", "8", "9", "10"]
    assert report["seconds_by_phase"]["forward"] == 12.0
    assert report["candidates"] == [
        {
            "source": "bigram",
            "depth": "1",
            "match": "none",
            "proposed": 1400,
            "verified": 600,
            "accepted": 400,
        },
        {"source": "context", "depth": "1", "match": "none", "proposed": 60, "verified": 0, "accepted": 0},
        {
            "source": "context",
            "depth": "1",
            "match": "3-4",
            "proposed": 800,
            "verified": 600,
            "accepted": 200,
        },
        {
            "source": "context",
            "depth": "9+",
            "match": "17+",
            "proposed": 1800,
            "verified": 1200,
            "accepted": 1000,
        },
    ]


def printed(summary: PartSummary) -> list[str]:
    """The lines of a run's table."""
    sink = io.StringIO()
    print_report(make_report(summary, summary, 10.0, "/data/out"), Console(file=sink, width=120))
    return [line.rstrip() for line in sink.getvalue().splitlines()]


def test_the_table_tells_what_drafted_nodes_gave_and_where_the_time_went() -> None:
    assert printed(replace(PART, engine=ENGINE))[7:] == [
        "accepted tokens by source  context 75%, bigram 25%",
        "calls by tokens given      1 50%, 2 20%, 3-4 12%, 5-8 13%, 9+ 5%",
        "nodes verified per step    24.0  (80% of steps proposed, 10% paused)",
        "time by phase              forward 60%, plan 10%, sample 10%, propose 9%, other 11%",
        "output                     /data/out",
    ]


def test_without_speculation_the_table_has_no_line_for_it() -> None:
    plain = PartSummary(num_parts=1, num_rows=1, num_generated_tokens=5, num_steps=5)
    engine = {
        "steps": {"all": 5},
        "step_nodes": {"0": 5},
        "call_lengths": {"1": 5},
        "seconds": {"forward": 0.9, "plan": 0.1},
    }
    lines = printed(replace(plain, engine=engine))
    assert [line.split("  ")[0] for line in lines[5:]] == [
        "calls",
        "acceptance length",
        "time by phase",
        "output",
    ]


@pytest.mark.parametrize(("seconds", "rate"), [(10.0, "120  (in 0:10)"), (0.0, "nothing left to do")])
def test_the_table_names_every_figure(seconds: float, rate: str) -> None:
    sink = io.StringIO()
    print_report(make_report(PART, PART, seconds, "/data/out"), Console(file=sink, width=120))
    assert [line.rstrip() for line in sink.getvalue().splitlines()] == [
        "rows                       16",
        "errors                     1  (one: column 'prompt' is 7; a prompt must be a string)",
        "prompt tokens              160  (75% found in the prefix cache)",
        "tokens                     1,200",
        f"tokens/s                   {rate}",
        "calls                      400",
        "acceptance length          3.00 tokens per call",
        "accepted tokens by source  context 75%, bigram 25%",
        "output                     /data/out",
    ]


def test_nothing_generated_is_no_division_by_zero() -> None:
    report = make_report(PartSummary(num_rows=1, num_errors=1, first_error="x"), PartSummary(), 1.0, "out")
    assert (report["acceptance_length"], report["accepted_share"], report["cache_hit_rate"]) == (
        None,
        {},
        None,
    )


@pytest.mark.parametrize(("seconds", "text"), [(0, "0:00"), (125.4, "2:05"), (3723, "1:02:03")])
def test_times_read_like_a_clock(seconds: float, text: str) -> None:
    assert format_seconds(seconds) == text
