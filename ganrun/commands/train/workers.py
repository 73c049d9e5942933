"""The processes that launchers start for jobs: how they hear of signals, share GPUs and give jobs back to a queue."""

import os
import signal
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from ganrun.errors import CannotWrite
from ganrun.files.run_dir import RunDir
from ganrun.files.storage import hold, is_owned, replacing
from ganrun.signals import Signals

OF_THIS_PROCESS = Signals()  # which a launcher has started
STOP = ".stop"  # in a sweep's directory: the number of the signal that its jobs in other processes are to heed
SHARE = ".gpus"  # in a sweep's directory, at the start of a name: a lock of the process that uses these GPUs
LOOK = 0.3  # seconds between looks for STOP
GRACE = 300  # seconds in which SLURM ends a job that it has told to stop

_heeding: list[threading.Thread] = []  # one a process
_shares: list[object] = []  # the lock on this process's GPUs


@contextmanager
def passing_on(signals: Signals, directory: Path) -> Iterator[None]:
    """Within it a signal to this process reaches the jobs in others, whatever launcher has started them.

    A launcher that has lost one of its processes may leave the others at work; it ends when they do.
    """
    over = threading.Event()
    (directory / STOP).unlink(missing_ok=True)

    def watch() -> None:
        while not over.wait(LOOK):
            if signals.received:
                with suppress(CannotWrite), replacing(directory / STOP) as file:
                    file.write(str(int(signals.received)).encode())
                return

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield
    finally:
        while any(is_owned(path) for path in cut_off(directory)):
            time.sleep(LOOK)
        over.set()
        watcher.join()
        for file in (directory / STOP, *directory.glob(f"{SHARE}-*")):
            file.unlink(missing_ok=True)


def cut_off(directory: Path) -> list[Path]:
    """The jobs of a sweep that have begun and not ended."""
    begun = [path.parent for path in directory.glob("*/.hydra")]
    return [path for path in begun if RunDir(path).read_result().get("status", "running") == "running"]


def heed(directory: Path, signals: Signals) -> None:
    """From now on this process stops when the sweep's first process is told to, and ends as soon as its parent does."""
    if _heeding:
        return
    parent = os.getppid()

    def watch() -> None:
        while not signals.received:
            time.sleep(LOOK)
            if os.getppid() != parent:
                os._exit(1)
            with suppress(OSError, ValueError):
                number = int((directory / STOP).read_text())
                signals.received = number  # no further job
                job = getattr(signal.getsignal(number), "__self__", None)
                if isinstance(job, Signals) and not job.received:  # a second signal would cut its last step off
                    os.kill(os.getpid(), number)

    _heeding.append(threading.Thread(target=watch, daemon=True))
    _heeding[0].start()


def give_back(number: int) -> None:
    """Leaves a job that a queue has told to stop to that queue, which is to run it again.

    submitit does so in its handler of SIGUSR2. SLURM puts a preempted job back only if it had to kill it.
    """
    if number == signal.SIGUSR2:
        signal.raise_signal(number)
    elif number == signal.SIGTERM and os.environ.get("SUBMITIT_EXECUTOR") == "slurm":
        time.sleep(GRACE)


def share_gpus(directory: Path, visible: Sequence[str], each: int) -> None:
    """Leaves this process `each` of the visible GPUs, for all its jobs: those that the fewest others of a sweep have.

    Acts once a process, by CUDA_VISIBLE_DEVICES, and so before CUDA is in use there.
    """
    shares = [visible[i : i + each] for i in range(0, len(visible) - each + 1, each)]
    if _shares or len(shares) < 2:
        return
    turn = 0
    while not _shares:
        for number, gpus in enumerate(shares):
            lock = hold(directory / f"{SHARE}-{socket.gethostname()}-{turn}-{number}")
            if lock:
                _shares.append(lock)
                os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(gpus)
                return
        turn += 1


def visible_gpus() -> list[str]:
    """The GPUs that this process may use, as CUDA_VISIBLE_DEVICES names them."""
    import torch

    there = torch.cuda.device_count()
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    return list(map(str, range(there))) if named is None else [name for name in named.split(",") if name][:there]
