"""Work on many images at once: evenly spaced ones, a few at a time, and those that fail."""

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch

from ganrun.data.files import reason
from ganrun.data.formats import quiet
from ganrun.progress import tracked

THREADS = min(4, os.cpu_count() or 1)  # each holds one image at its full size

Item = TypeVar("Item", str, int)


def spaced(num: int, limit: int | None) -> list[int]:
    """At most `limit` evenly spaced indices, so that every class folder keeps its share."""
    return list(range(num)) if limit is None else torch.linspace(0, num - 1, min(limit, num)).long().tolist()


def faults(
    items: Sequence[Item], check: Callable[[Item], None], *, what: str, max_pixels: int | None = None
) -> dict[Item, str]:
    """The items for which `check` raises an exception, with the reason, in order; several are checked at once.

    what: heading of the progress shown.
    """

    def fault(item: Item) -> str | None:
        try:
            check(item)
        except Exception as error:  # of any kind, as in DecodedImages
            return reason(error)
        return None

    found: dict[Item, str] = {}
    with quiet(max_pixels), ThreadPoolExecutor(THREADS) as pool:  # Pillow decodes outside the interpreter's lock
        for some in in_parts(items, what):
            found |= {item: why for item, why in zip(some, pool.map(fault, some), strict=True) if why is not None}
    return found


def in_parts(items: Sequence[Item], what: str) -> Iterator[Sequence[Item]]:
    """A few items at a time, so that an interrupt need not wait for all. what: heading of the progress shown."""
    parts = (items[start : start + 256] for start in range(0, len(items), 256))
    return tracked(parts, len(items), what, size=len)
