"""Progress of long stages: a bar on a terminal or in a notebook; elsewhere, as in a log, a line every ten seconds."""

import logging
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from datetime import timedelta
from html import escape
from typing import Any, TypeVar

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeRemainingColumn,
)
from rich.text import Text

log = logging.getLogger("ganrun")
T = TypeVar("T")
SECONDS = 10.0  # between two lines, at least
OFTEN = 1.0  # seconds between two states of a notebook's bar, at least
Clock = Callable[[], float]


def console() -> Console:
    """Standard output; without a terminal it is plain, and wide enough not to wrap lines. In a notebook it is HTML."""
    found = Console(highlight=False, markup=False)
    return found if found.is_terminal or found.is_jupyter else Console(highlight=False, markup=False, width=200)


class Pace:
    """Lets something happen at most every `seconds`. first: True = the first time at once."""

    def __init__(self, clock: Clock = time.monotonic, *, seconds: float = SECONDS, first: bool = False):
        self.clock = clock
        self.seconds = seconds
        self._last = float("-inf") if first else clock()

    def is_due(self) -> bool:
        """Is it time? If so, the next interval begins."""
        now = self.clock()
        if now - self._last < self.seconds:
            return False
        self._last = now
        return True


class Cell:
    """A bar and a line below a notebook's cell, replaced in place whenever `pace` says so."""

    def __init__(self, pace: Pace):
        self.pace = pace
        self._shown: Any = None

    def show(self, done: int, total: int | None, line: str) -> None:
        """total: None = unknown."""
        value = f'value="{done}" max="{total}"' if total else ""
        page = f'<progress {value} style="width:12em"></progress> <code>{escape(line)}</code>'
        self._put({"text/plain": line, "text/html": page})

    def clear(self) -> None:
        if self._shown:
            self._put({"text/plain": ""})

    def _put(self, content: dict[str, str]) -> None:
        from IPython.display import display

        if self._shown:
            self._shown.update(content, raw=True)
        else:
            self._shown = display(content, raw=True, display_id=True)


class Rate(ProgressColumn):
    """How many a second: 512 images/s; empty until it is known."""

    def __init__(self, unit: str):
        super().__init__()
        self.unit = unit

    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text(f"{speed:,.0f} {self.unit}/s" if speed else "")


def time_left(done: int, total: int, seconds: float) -> str:
    """Time left for the rest of `total`, when `done` took `seconds`: 1:02:03; empty while nothing is done."""
    return str(timedelta(seconds=round(seconds / done * (total - done)))) if done else ""


def tracked(
    items: Iterable[T], total: int | None, what: str, unit: str = "images", *,
    size: Callable[[T], int] = lambda item: 1, clock: Clock = time.monotonic,
) -> Iterator[T]:  # fmt: skip
    """Yields `items` and shows progress on stderr; a run's train.log gets the same lines.

    Stages shorter than ten seconds print no line. total: number of `unit` in all, None = unknown. size: how many of
    them an item counts for, such as len for batches.
    """
    console = Console(stderr=True, highlight=False, markup=False)
    columns = [TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), Rate(unit), TimeRemainingColumn()]
    began, pace, done = clock(), Pace(clock), 0
    cell = Cell(Pace(clock, seconds=OFTEN)) if console.is_jupyter else None
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(what, total=total)
        for item in items:
            yield item
            done += size(item)
            bar.update(task, completed=done)
            if cell and cell.pace.is_due():
                cell.show(done, total, f"{what}: {_how_far(done, total, unit, clock() - began)}")
            if done != total and pace.is_due():
                line = f"{what}: {_how_far(done, total, unit, clock() - began)}"
                log.info(line)
                if not console.is_terminal and not cell:
                    print(line, file=sys.stderr, flush=True)
    if cell:
        cell.clear()


def _how_far(done: int, total: int | None, unit: str, seconds: float) -> str:
    """40 of 100 images, 2 images/s, 0:00:24 left"""
    rate = f"{unit}, {done / seconds:,.0f} {unit}/s"
    return f"{done:,} of {total:,} {rate}, {time_left(done, total, seconds)} left" if total else f"{done:,} {rate}"
