"""One thread that owns the network: requests that come together share a forward pass."""

import math
import threading
import time
from collections import deque
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

Rows = tuple[Tensor | None, ...]


class Full(Exception):
    """No room for more. seconds: after which there probably is."""

    def __init__(self, seconds: int):
        super().__init__(f"busy: the queue is full; try again in {seconds} s")
        self.seconds = seconds


@dataclass(eq=False)
class Job:
    """Part of a request.

    forward: what the network does: rows (num, ...) -> images (num, ...). Jobs of equal keys share one call.
    size:    in images, as the queue counts them
    """

    key: Hashable
    forward: Callable[..., Tensor]
    rows: Rows
    size: int
    came: float = field(default_factory=time.monotonic)
    done: Future = field(default_factory=Future)


class Batcher:
    """Runs jobs in the order in which they come, several of one key in a forward pass.

    batch_size: images a forward pass at most. wait: seconds from the first job of a batch on in which others may join.
    queue: images that may wait. saw: is told each batch's jobs, images and seconds.
    """

    def __init__(
        self, *, batch_size: int, wait: float, queue: int, saw: Callable[[int, int, float], Any] = lambda *_: None
    ):
        self.batch_size, self.wait, self.queue, self.saw = batch_size, wait, queue, saw
        self._jobs: deque[Job] = deque()
        self._waiting = 0  # images in _jobs
        self._pace = 0.0  # seconds an image, a moving average
        self._closed = False
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._work, name="network", daemon=True)
        self._thread.start()

    @property
    def waiting(self) -> int:
        """Images in the queue."""
        return self._waiting

    def submit(self, jobs: Sequence[Job]) -> list[Future]:
        """Takes all jobs of a request or none. Raises Full."""
        size = sum(job.size for job in jobs)
        with self._changed:
            if self._waiting + size > self.queue:
                raise Full(min(60, math.ceil(self._pace * self._waiting) or 1))
            self._jobs += jobs
            self._waiting += size
            self._changed.notify()
        return [job.done for job in jobs]

    def close(self) -> None:
        """Waits until all jobs are done."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join()

    def _work(self) -> None:
        while batch := self._batch():
            began = time.monotonic()
            try:
                made = batch[0].forward(*map(joined, zip(*(job.rows for job in batch), strict=True)))
                parts = made.split([len(job.rows[0]) for job in batch])
            except Exception as error:
                for job in batch:
                    job.done.set_exception(error)
            else:
                for job, part in zip(batch, parts, strict=True):
                    job.done.set_result(part)
            size, seconds = sum(job.size for job in batch), time.monotonic() - began
            self._pace = 0.8 * self._pace + 0.2 * seconds / size if self._pace else seconds / size
            self.saw(len(batch), size, seconds)

    def _batch(self) -> list[Job]:
        """The next jobs of one key; empty when all is done and nothing more will come."""
        with self._changed:
            self._changed.wait_for(lambda: self._jobs or self._closed)
            if not self._jobs:
                return []
            first = self._jobs[0]
            until = first.came + self.wait
            while not self._closed and self._alike(first) < self.batch_size:
                if not self._changed.wait(max(0.0, until - time.monotonic())) and time.monotonic() >= until:
                    break
            batch, size = [], 0
            for job in self._jobs:
                if job.key == first.key and (not batch or size + job.size <= self.batch_size):
                    batch.append(job)
                    size += job.size
            taken = set(map(id, batch))
            self._jobs = deque(job for job in self._jobs if id(job) not in taken)
            self._waiting -= size
            return batch

    def _alike(self, first: Job) -> int:
        return sum(job.size for job in self._jobs if job.key == first.key)


def joined(parts: Sequence[Tensor | None]) -> Tensor | None:
    """The rows of all jobs; None where none has any."""
    return None if parts[0] is None else parts[0] if len(parts) == 1 else torch.cat(parts)
