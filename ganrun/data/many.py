"""Work on many images at once: evenly spaced ones, a few at a time, and those that fail."""

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from operator import attrgetter
from typing import TypeVar

import torch

from ganrun.data.files import reason
from ganrun.data.formats import quiet
from ganrun.data.processes import Part, Task, number, working
from ganrun.progress import tracked

THREADS = min(4, os.cpu_count() or 1)  # each holds one image at its full size
TOGETHER = 256  # items

Item = TypeVar("Item", str, int)
Result = TypeVar("Result")


def spaced(num: int, limit: int | None) -> list[int]:
    """At most `limit` evenly spaced indices, so that every class folder keeps its share."""
    return list(range(num)) if limit is None else torch.linspace(0, num - 1, min(limit, num)).long().tolist()


def each(
    items: Sequence[Item], work: Callable[[Item], Result | None], *, what: str, max_pixels: int | None = None
) -> tuple[list[Result], dict[Item, str]]:
    """What `work` gives for the items, without None; and those for which it raises, with the reason. Both in order.

    Several are done at once: many items by a process per core, whose `work` changes nothing here but shared memory; few
    items by threads. what: heading of the progress shown.
    """
    task = partial(_part, work)
    num = number(len(items))
    with quiet(max_pixels), working(task, items, num, what) if num > 1 else _threads(task, items) as parts:
        done = sorted(tracked(parts, len(items), what, size=attrgetter("size")), key=attrgetter("start"))
    results = [result for part in done for result in part.results]
    return results, {items[place]: why for part in done for place, why in part.faults.items()}


def _part(work: Callable[[Item], Result | None], start: int, items: Sequence[Item]) -> Part:
    results, faults = [], {}
    for place, item in enumerate(items, start):
        try:
            result = work(item)
        except Exception as error:  # of any kind, as in DecodedImages
            faults[place] = reason(error)
        else:
            results += [] if result is None else [result]
    return Part(start, len(items), results, faults)


@contextmanager
def _threads(task: Task, items: Sequence[Item]) -> Iterator[Iterator[Part]]:
    """Done by threads, a few at a time, so that an interrupt need not wait for all."""

    def part(start: int) -> Part:
        some = range(start, min(start + TOGETHER, len(items)))
        alone = list(pool.map(lambda place: task(place, items[place : place + 1]), some))
        faults = {place: why for one in alone for place, why in one.faults.items()}
        return Part(start, len(alone), [result for one in alone for result in one.results], faults)

    with ThreadPoolExecutor(THREADS) as pool:  # Pillow decodes outside the interpreter's lock
        yield map(part, range(0, len(items), TOGETHER))


def in_parts(items: Sequence[Item], what: str) -> Iterator[Sequence[Item]]:
    """A few items at a time, so that an interrupt need not wait for all. what: heading of the progress shown."""
    parts = (items[start : start + TOGETHER] for start in range(0, len(items), TOGETHER))
    return tracked(parts, len(items), what, size=len)
