"""What a person sees: the line while a job runs and the table at its end."""

import io
import time

import pytest
from rich.console import Console

from actors.parts import Summary
from pipeline.progress import ProgressLine, format_seconds
from pipeline.report import make_report, print_report

PART = Summary(
    num_parts=1, num_rows=16, num_errors=1, num_prompt_tokens=160, num_generated_tokens=1200, num_steps=400,
    num_cached_tokens=120, num_prefilled_tokens=40,
    verified={"context": 900, "bigram": 300}, accepted={"context": 600, "bigram": 200},
    first_error="column 'prompt' is 7; a prompt must be a string",
)  # fmt: skip


def test_the_line_tells_rows_tokens_rate_acceptance_length_and_time_left(monkeypatch: pytest.MonkeyPatch) -> None:
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
    report = make_report(Summary(num_rows=1, num_errors=1, first_error="x"), Summary(), 1.0, "out")
    assert (report["acceptance_length"], report["accepted_share"], report["cache_hit_rate"]) == (None, {}, None)


@pytest.mark.parametrize(("seconds", "text"), [(0, "0:00"), (125.4, "2:05"), (3723, "1:02:03")])
def test_times_read_like_a_clock(seconds: float, text: str) -> None:
    assert format_seconds(seconds) == text
