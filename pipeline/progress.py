"""What a person sees while a job runs: a bar on a terminal, else a plain line now and then."""

import sys
import threading
import time
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

from rows.parts import PartSummary

INTERVAL = 10.0


class ProgressLine:
    """Context manager; `add` each summary as it comes.

    num_done: rows that an earlier start of this run has finished.
    """

    def __init__(self, num_rows: int, num_done: int = 0, interval: float = INTERVAL) -> None:
        self.num_rows = num_rows
        self.num_done = num_done
        self.total = PartSummary()
        self.began: float | None = None
        self.seconds = 0.0  # from the first shard's beginning to the latest part
        self._interval = interval
        self._ended = threading.Event()
        self._bar = _make_bar() if sys.stderr.isatty() else None
        self._task = (
            self._bar.add_task("", total=num_rows, completed=num_done, line="starting") if self._bar else None
        )
        self._thread = threading.Thread(target=self._print_lines, daemon=True)

    def add(self, summary: PartSummary, began: float) -> None:
        """Counts one part; began: when its worker took its first shard, the model loaded."""
        self.total += summary
        self.began = began if self.began is None else min(began, self.began)
        self.seconds = max(time.time() - self.began, 1e-9)
        if self._bar and self._task is not None:
            self._bar.update(self._task, completed=self.num_done + self.total.num_rows, line=self.line())

    def line(self) -> str:
        """Rows, tokens, tokens/s, acceptance length, time left."""
        rows = self.num_done + self.total.num_rows
        if self.began is None:
            return f"rows {rows:,}/{self.num_rows:,}  starting"
        tokens = self.total.num_generated_tokens
        steps = self.total.num_steps
        rate = f"{tokens / self.seconds:,.0f} tokens/s  {tokens / max(1, steps):.2f} tokens/call"
        left = (self.num_rows - rows) * self.seconds / self.total.num_rows
        return f"rows {rows:,}/{self.num_rows:,}  tokens {tokens:,}  {rate}  ETA {format_seconds(left)}"

    def __enter__(self) -> "ProgressLine":
        if self._bar:
            self._bar.start()
        else:
            self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        if self._bar:
            self._bar.stop()

    def _print_lines(self) -> None:
        while not self._ended.wait(self._interval):
            print(self.line(), file=sys.stderr, flush=True)


def _make_bar() -> Progress:
    return Progress(
        BarColumn(bar_width=30),
        TextColumn("{task.fields[line]}"),
        console=Console(stderr=True),
        transient=True,
    )


def format_seconds(seconds: float) -> str:
    """1:02:03, or 2:03 below an hour."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
