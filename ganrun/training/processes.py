"""Several processes of one run, started by ganrun itself, by torchrun or by SLURM."""

import os
import signal
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing import connection, get_context
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch

from ganrun.errors import Failure, NotFinite, reason_of
from ganrun.files.run_dir import RunDir
from ganrun.signals import SIGNALS, end_with_parent

FAILED = 17  # exit code of a further process that raised and reported why
GRACE = 20  # seconds that a process gets to notice by itself that another one has ended
NOTICED = 2  # seconds until the end of a process shows
LOST = ("Connection closed by peer", "Connection reset by peer")  # as torch says that another process is ending
Work = Callable[[dict[str, Any], RunDir, Path | None], None]


@contextmanager
def further_processes(
    probe: pl.Trainer, work: Work, cfg: dict[str, Any], run: RunDir, path: Path | None, died: Callable[[str], str]
) -> Iterator[None]:
    """Within it the run's further processes on this machine train too; they end with it, and with this process.

    There are none for one device, or if torchrun or SLURM started them. probe: a trainer for the config. work: what
    such a process does, given the config in plain containers, the run, and the checkpoint to start from. died: records
    that a process died while this one waits for it, and returns the message. Raises Failure if one of them has died.
    """
    environment = getattr(probe.strategy, "cluster_environment", None)
    if probe.num_devices == 1 or environment is None or environment.creates_processes_externally:
        with clean_environment():
            yield
        return
    with clean_environment():
        os.environ.setdefault("MASTER_ADDR", "127.0.0.1")
        os.environ.setdefault("MASTER_PORT", str(free_port()))
        os.environ["LOCAL_RANK"] = "0"  # also tells Lightning that the processes exist already
        others = [_start(work, rank, cfg, run, path) for rank in range(1, probe.num_devices)]
        done = threading.Event()
        threading.Thread(target=_watch, args=(others, done, died), daemon=True).start()
        try:
            yield
            wait_for(others, GRACE)
        except Exception as error:
            wait_for(others, GRACE if any(text in str(error) for text in LOST) else NOTICED)
            ended = failures(others)
            if ended and not isinstance(error, Failure):  # the error raised here only follows from it
                how = "failed, as told above" if ended[0] == FAILED else f"died with exit code {ended[0]}"
                raise Failure(f"another process of this run {how}") from error
            raise
        finally:
            done.set()
            for process in others:
                process.kill()
                process.join()


def wait_for(processes: list[BaseProcess], seconds: float) -> None:
    until = time.monotonic() + seconds
    for process in processes:
        process.join(max(0, until - time.monotonic()))


def failures(processes: list[BaseProcess]) -> list[int]:
    """The exit codes, other than 0, of those that have ended."""
    ended = [process for process in processes if connection.wait([process.sentinel], timeout=0)]
    return [code for code in map(exit_code, ended) if code]


@contextmanager
def clean_environment() -> Iterator[None]:
    """Afterwards no process group and no environment variable of this run is left for the next job of a sweep."""
    before = dict(os.environ)
    try:
        yield
    finally:
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()
        for name in os.environ.keys() - before.keys():
            del os.environ[name]
        os.environ.update(before)


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("", 0))
        return found.getsockname()[1]


def _start(work: Work, rank: int, *args: Any) -> BaseProcess:
    process = get_context("spawn").Process(target=_work, args=(work, rank, *args))
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)  # inherited: signals are for the first process
    try:
        process.start()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
    return process


def _work(work: Work, rank: int, *args: Any) -> None:
    """Does `work` in a further process; its exit code says how it ended."""
    end_with_parent()
    os.environ["LOCAL_RANK"] = str(rank)
    try:
        work(*args)
    except NotFinite:
        os._exit(FAILED)  # bad numbers spread with the gradients: the first process reports them
    except Exception as error:
        if not isinstance(error, Failure):
            traceback.print_exc()
        print(f"ganrun: process {rank}: {reason_of(error)}", file=sys.stderr, flush=True)
        os._exit(FAILED)


def _watch(others: list[BaseProcess], done: threading.Event, died: Callable[[str], str]) -> None:
    """Ends this process when another one has died and collectives would wait for it for ever."""
    running = {process.sentinel: process for process in others}
    while running and not done.is_set():
        for sentinel in connection.wait(list(running), timeout=1):
            if exit_code(running.pop(sentinel)) != 0 and not done.wait(GRACE):
                os.write(2, f"{died('another process of this run has died')}\n".encode())
                os._exit(1)


def exit_code(ended: BaseProcess) -> int:
    while ended.exitcode is None:  # the other thread is still reading it
        time.sleep(0.01)
    return ended.exitcode
