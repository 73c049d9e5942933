"""Sources that are read from front to back: an order that suits them, and a reader that keeps what it passes."""

import os
import threading
import time
from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from ganrun.seeding import rng_for

TRIES = 3  # at a shard whose connection breaks


class Shards(ABC):
    """Parts of a source, each read from front to back.

    sizes: the number of samples in each
    """

    sizes: Sequence[int]

    @abstractmethod
    def open(self, shard: int, place: int) -> Iterator[Any]:
        """The images of one shard, encoded, from `place` on; None for a sample without one."""


def shuffled_in_windows(numbers: Sequence[Tensor], window: int, *parts: int | str) -> Tensor:
    """Shuffles the shards, then what they hold within each `window` samples in turn. numbers: of each shard's samples.

    So whoever follows the order passes each shard once, and needs to keep `window` samples. Unlike a shuffle buffer it
    says which sample comes at a position without reading those before.
    """
    rng = rng_for(*parts)
    together = torch.cat([numbers[i] for i in torch.randperm(len(numbers), generator=rng).tolist()])
    return torch.cat([some[torch.randperm(len(some), generator=rng)] for some in together.split(window)])


class Cursor:
    """One shard, read up to `next`. kept: what was passed lately, by its place."""

    def __init__(self, shards: Shards, shard: int, keep: int):
        self.shards, self.shard, self.keep = shards, shard, keep
        self.size = shards.sizes[shard]
        self.next = 0
        self.kept: dict[int, Any] = {}
        self.rest: Iterator[Any] | None = None

    def at(self, place: int) -> Any:
        if place in self.kept:
            return self.kept[place]
        if self.rest is None or place < self.next:
            self.kept.clear()
            self._open(0 if self.size <= self.keep else max(0, place - self.keep // 2))
        for attempt in range(1, TRIES + 1):
            try:
                self._pass(self.size if self.size <= self.keep else place + 1)
                break
            except OSError:
                if attempt == TRIES:
                    raise
                time.sleep(attempt - 1)
                self._open(self.next)
        return self.kept[place]

    def _open(self, place: int) -> None:
        """place: where a window may begin that the place asked for lies in."""
        self.rest, self.next = self.shards.open(self.shard, place), place

    def _pass(self, end: int) -> None:
        while self.next < end:
            found = next(self.rest, self)
            if found is self:
                raise OSError(f"it ends after {self.next:,} samples; it had {self.size:,}")
            self.kept[self.next] = found
            self.kept.pop(self.next - self.keep, None)
            self.next += 1
        if self.next >= self.size:
            self.rest = iter(())  # closes the file


class Reader:
    """Reads samples of shards by number, in about the order of `shuffled_in_windows`; any other order is slow.

    It keeps at most 6 windows of encoded images. Each process has its own place in the shards.
    """

    def __init__(self, shards: Shards, window: int):
        self.shards, self.window = shards, window
        self._forget()

    def read(self, shard: int, place: int) -> Any:
        """Raises OSError, or what the source raises."""
        if self._process != os.getpid():  # a forked worker: files and connections are not shared
            self._forget()
        with self._lock:
            cursor = self._cursors.setdefault(shard, Cursor(self.shards, shard, 2 * self.window))
            self._cursors.move_to_end(shard)
            found = cursor.at(place)
            while len(self._cursors) > 1 and sum(len(each.kept) for each in self._cursors.values()) > 6 * self.window:
                self._cursors.popitem(last=False)
            return found

    def _forget(self) -> None:
        self._lock, self._process = threading.Lock(), os.getpid()
        self._cursors: OrderedDict[int, Cursor] = OrderedDict()

    def __getstate__(self) -> dict[str, Any]:
        return {"shards": self.shards, "window": self.window}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(**state)
