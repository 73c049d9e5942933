"""Signs of life of long stages: a bar on a terminal; elsewhere, as in a log file, a line every ten seconds."""

import sys
import time
from collections.abc import Callable, Iterable, Iterator
from datetime import timedelta
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

T = TypeVar("T")
SECONDS = 10.0  # between two lines, at least
Clock = Callable[[], float]


class Pace:
    """Lets something happen at most every `seconds`. first: does the first one come at once?"""

    def __init__(self, clock: Clock = time.monotonic, *, seconds: float = SECONDS, first: bool = False):
        self.clock = clock
        self.seconds = seconds
        self._last = float("-inf") if first else clock()

    def is_due(self) -> bool:
        """True starts the next interval."""
        now = self.clock()
        if now - self._last < self.seconds:
            return False
        self._last = now
        return True


def time_left(done: int, total: int, seconds: float) -> str:
    """Of `total`, when `done` took `seconds`: 1:02:03; empty while nothing is done."""
    return str(timedelta(seconds=round(seconds / done * (total - done)))) if done else ""


def tracked(
    items: Iterable[T], total: int | None, what: str, unit: str = "images", *,
    size: Callable[[T], int] = lambda item: 1, clock: Clock = time.monotonic,
) -> Iterator[T]:  # fmt: skip
    """Passes `items` on and shows on stderr how far they are; what is over within ten seconds leaves no line.

    total: how many `unit` there are, None = unknown. size: for how many of them an item counts, as len of a batch.
    """
    console = Console(stderr=True, highlight=False, markup=False)
    if console.is_terminal:
        return _bar(items, total, what, size, console)
    return _lines(items, total, what, unit, size, clock)


def _bar(items: Iterable[T], total: int | None, what: str, size: Callable[[T], int], console: Console) -> Iterator[T]:
    columns = [TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()]
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task(what, total=total)
        for item in items:
            yield item
            bar.advance(task, size(item))


def _lines(
    items: Iterable[T], total: int | None, what: str, unit: str, size: Callable[[T], int], clock: Clock
) -> Iterator[T]:
    began, pace, done = clock(), Pace(clock), 0
    for item in items:
        yield item
        done += size(item)
        if pace.is_due():
            seconds = clock() - began
            of = f" of {total:,}" if total else ""
            left = f", {time_left(done, total, seconds)} left" if total else ""
            print(f"{what}: {done:,}{of} {unit}, {done / seconds:,.0f} {unit}/s{left}", file=sys.stderr, flush=True)
