"""Work on many images by one process per core. The processes are forked, so they import nothing and write into shared
memory; each ends when the one that started them does.
"""

import multiprocessing
import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from math import ceil
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import torch

from ganrun.data import files
from ganrun.data.formats import MEMORY, Memory
from ganrun.errors import UserError
from ganrun.signals import SIGNALS, end_with_parent, in_main_thread

MANY = 2048  # items; fewer are not worth the start of processes
PART = 64  # items that a process takes at a time

Item = TypeVar("Item")


class Part(NamedTuple):
    """start: of its items among all. results: what is not None. faults: reasons, by the place of an item."""

    start: int
    size: int
    results: list[Any]
    faults: dict[int, str]


Task = Callable[[int, Sequence[Item]], Part]  # (start, some of the items)


def number(num: int) -> int:
    """Processes for `num` items; 1 = only this one: for few items, outside the main thread, for a daemonic process,
    which may have none, and where forking is not safe.
    """
    alone = not in_main_thread() or multiprocessing.current_process().daemon or sys.platform != "linux"
    return 1 if alone or num < MANY else cores()


def cores() -> int:
    """Cores that this process may use: those of its affinity, or fewer by a container's quota."""
    found = len(os.sched_getaffinity(0))
    with suppress(OSError, ValueError):  # missing, or "max"
        quota, period = map(int, Path("/sys/fs/cgroup/cpu.max").read_text().split())
        found = min(found, ceil(quota / period))
    return max(1, found)


@contextmanager
def working(task: Task, items: Sequence[Item], num: int, what: str) -> Iterator[Iterator[Part]]:
    """`num` processes that do all items, part by part; gives the parts as they are done, in any order.

    Raises UserError, which begins with `what`, if a process dies. However it is left, no process remains.
    """
    context = multiprocessing.get_context("fork")
    shared = Memory(context.Condition(), context.RawValue("q", 0))
    begun = context.Value("q", 0)  # items that somebody has taken
    processes: dict[Connection, BaseProcess] = {}
    try:
        with _signals_later():  # so that no process is missed here, and all leave signals to this one
            for _ in range(num):
                ours, theirs = context.Pipe(duplex=False)
                process = context.Process(target=_work, args=(task, items, begun, shared, theirs), daemon=True)
                process.start()
                theirs.close()  # so that its end is noticed
                processes[ours] = process
        yield _received(processes, what)
    finally:
        for process in processes.values():
            process.kill()  # has ended already, unless something went wrong
        for process in processes.values():
            process.join()


@contextmanager
def _signals_later() -> Iterator[None]:
    """Signals are delivered after it; to processes that are started within it, never."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _received(processes: dict[Connection, BaseProcess], what: str) -> Iterator[Part]:
    running = dict(processes)
    while running:
        for connection in wait(list(running), timeout=1):  # a signal may have come to another thread
            try:
                yield connection.recv()
            except EOFError:
                process = running.pop(connection)
                process.join()
                if process.exitcode:
                    raise UserError(f"{what}: a process has died ({_cause(process.exitcode)}); start again") from None


def _cause(code: int) -> str:
    if code == -signal.SIGKILL:
        return "SIGKILL, as when the memory is full"
    return signal.Signals(-code).name if code < 0 else f"exit code {code}"


def _work(task: Task, items: Sequence[Item], begun: Any, shared: Memory, connection: Connection) -> None:
    end_with_parent()
    MEMORY.join(shared)
    files.renew_lock()
    torch.set_num_threads(1)  # there is a process per core; the threads of the parent do not exist here
    while True:
        with begun.get_lock():
            start = begun.value
            begun.value += PART
        if start >= len(items):
            return
        connection.send(task(start, items[start : start + PART]))
