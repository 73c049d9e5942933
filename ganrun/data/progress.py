"""A sign of life while many files are read: a bar on a terminal, else a line every ten seconds."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

EVERY = 10.0  # seconds between lines


class Steps:
    """Counts what is done of `total`; `clock` gives seconds. Nothing is said of what takes less than EVERY."""

    def __init__(self, what: str, total: int, bar: Progress | None = None, clock=time.monotonic):
        self.what, self.total, self.bar, self.clock = what, total, bar, clock
        self.done, self.start = 0, clock()
        self.said = self.start
        self.task = bar.add_task(what, total=total, rate="") if bar else None

    def advance(self, num: int) -> None:
        self.done += num
        now = self.clock()
        rate = self.done / max(now - self.start, 1e-9)
        if self.bar:
            self.bar.update(self.task, completed=self.done, rate=f"{rate:,.0f} images/s")
        elif now - self.said >= EVERY and self.done < self.total:
            self.said = now
            left = f"{(self.total - self.done) / rate:,.0f} s left"
            print(f"{self.what}: {self.done:,} of {self.total:,} images, {rate:,.0f} images/s, {left}", flush=True)


@contextmanager
def steps(what: str | None, total: int) -> Iterator[Steps]:
    """Counts on the terminal, if there is one; what: None = say nothing."""
    console = Console()
    if not (what and console.is_terminal):
        yield Steps(what or "", total if what else 0)
        return
    columns = [TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[rate]}")]
    with Progress(*columns, TimeRemainingColumn(), console=console, transient=True) as bar:
        yield Steps(what, total, bar)
