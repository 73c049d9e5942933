"""Notes signals, to act on them between two steps, and asks SLURM to requeue a job. Imports nothing heavy."""

import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from multiprocessing import parent_process
from typing import Any

log = logging.getLogger("ganrun")
# SLURM sends USR1 before a job's time is up
SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1)
ECHO = 0.5  # seconds within which a second Ctrl-C counts as the first one, repeated by a wrapper
_raises: list[bool] = []  # not empty: see `raising`


class Signals:
    """Within `with Signals() as signals:` the first of SIGNALS is noted as `received`; a second Ctrl-C quits at once.

    Outside the main thread nothing is noted.

    They nest, a run's within its sweep's: the inner one starts with what the outer one noted, and passes on its own.
    """

    def __init__(self) -> None:
        self.received: int | None = None
        self.pid = os.getpid()
        self._since = 0.0
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> "Signals":
        if not in_main_thread():
            log.info("trained in a thread, where signals cannot be noted: stop it from the main thread's side")
            self._outer = self
            return self
        nohup = signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
        heeded = [number for number in SIGNALS if not (nohup and number == signal.SIGHUP)]
        if callable(signal.getsignal(signal.SIGUSR2)):  # a queue puts the job back by it, once its state is saved
            heeded.append(signal.SIGUSR2)
        self._previous = {number: signal.signal(number, self._note) for number in heeded}
        outer = getattr(self._previous[signal.SIGTERM], "__self__", None)
        self._outer = outer if isinstance(outer, Signals) else self
        self.received = self.received or self._outer.received
        return self

    def __exit__(self, *error: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        self._outer.received = self._outer.received or self.received

    def _note(self, number: int, frame) -> None:
        if self.received is None:
            self.received, self._since = number, time.monotonic()
            with suppress(OSError):  # the terminal itself may be gone
                os.write(2, f"ganrun: {name(number)}: finishing the step and saving; Ctrl-C quits at once\n".encode())
        elif number == signal.SIGINT and time.monotonic() - self._since > ECHO:
            if _raises:
                raise KeyboardInterrupt
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)


@contextmanager
def raising() -> Iterator[None]:
    """Within it a second Ctrl-C raises KeyboardInterrupt, which leaves a notebook its variables."""
    _raises.append(True)
    try:
        yield
    finally:
        _raises.pop()


def in_main_thread() -> bool:
    """Python sets signal handlers only there; a notebook widget or a web page may train in another thread."""
    return threading.current_thread() is threading.main_thread()


@contextmanager
def terminated() -> Iterator[None]:
    """Within it SIGTERM removes half-written files, as Ctrl-C does. Other threads than the main one get no signals."""
    if not in_main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def end_with_parent() -> None:
    """From now on this process ends as soon as its parent does, however that happens."""

    def wait() -> None:
        parent_process().join()
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


def name(number: int) -> str:
    return signal.Signals(number).name


def requeue() -> str:
    """Asks SLURM to run this job again; returns the outcome in words."""
    job = os.environ.get("SLURM_JOB_ID")
    if job is None:
        return "not requeued: this is no SLURM job"
    if "SLURM_ARRAY_JOB_ID" in os.environ:
        job = f"{os.environ['SLURM_ARRAY_JOB_ID']}_{os.environ['SLURM_ARRAY_TASK_ID']}"
    try:
        subprocess.run(["scontrol", "requeue", job], check=True, capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.SubprocessError) as error:
        return f"scontrol requeue {job} failed: {getattr(error, 'stderr', None) or error}"
    return f"requeued SLURM job {job}"
