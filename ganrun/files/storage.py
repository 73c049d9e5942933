"""Files that are whole or absent, whatever happens while they are written; a directory with one owner."""

import json
import os
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from secrets import token_hex
from tempfile import TemporaryFile
from typing import BinaryIO, TextIO

from ganrun.errors import CannotWrite, UserError

PARTIAL = ".partial"  # suffix of files being written; a killed process leaves them behind


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turns any OSError inside into CannotWrite, which names `path`."""
    try:
        yield
    except OSError as error:
        raise CannotWrite.of(path, error) from error


def make_cache(folder: Path) -> None:
    """Makes a folder of `cache_dir` for writing. Raises CannotWrite, which says how to choose another one."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with TemporaryFile(dir=folder):
            pass
    except OSError as error:
        advice = "cache_dir=<folder> or $GANRUN_CACHE names another place"
        raise CannotWrite(f"cannot write cache_dir={folder}: {error.strerror or error}; {advice}") from error


@contextmanager
def replacing(path: Path, *, sync: bool = True) -> Iterator[BinaryIO]:
    """A binary file that takes the place of `path` whole, or not at all: written beside it, synced, renamed.

    sync: wait for the disk, so that the file is whole even after a power cut; too slow for thousands of small files.
    Raises CannotWrite. The directory must exist: a run does not recreate its directory if that has vanished.
    """
    with writing(path):
        # named before it is made, so that cleaning up after an interrupt finds it
        temporary = path.with_name(f".{path.name}.{token_hex(4)}{PARTIAL}")
        try:
            with temporary.open("xb") as file:
                yield file
                file.flush()
                if sync:
                    os.fsync(file.fileno())
            os.replace(temporary, path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise


def link(source: Path, target: Path) -> None:
    """Makes `target` the same file as `source`, atomically."""
    temporary = target.with_name(f".{target.name}.link{PARTIAL}")
    temporary.unlink(missing_ok=True)
    try:
        os.link(source, temporary)
    except OSError:  # a file system without hard links
        with replacing(target) as file:
            file.write(source.read_bytes())
    else:
        os.replace(temporary, target)


def remove_partial(directory: Path) -> None:
    """Removes partial files of killed processes below `directory`."""
    for path in directory.rglob(f".*{PARTIAL}"):
        path.unlink(missing_ok=True)


class Owned(UserError):
    """Another process has the directory."""


@contextmanager
def owning(directory: Path) -> Iterator[None]:
    """Within it no other process can own the directory. A process that has died owns nothing, however it died.

    Raises Owned naming the owner. The lock is on the file `.lock`, which says who took it last. The file stays, since
    removing it would let two processes lock two different files of that name.
    """
    import fcntl  # POSIX only; unlike flock's, its record locks are not inherited by forked data workers

    path = directory / ".lock"
    try:
        file = path.open("a+", encoding="utf-8")
    except OSError as error:
        raise UserError(f"{directory}: cannot write there: {error.strerror}") from error
    with file:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError) as error:  # EAGAIN or EACCES, depending on the system
            owner = path.read_text(encoding="utf-8", errors="replace").strip()
            raise Owned(f"{directory} is being trained by another process: {owner}") from error
        except OSError as error:  # a file system without locks
            print(f"warning: {directory} has no owner: {error.strerror}; nothing else may train it", file=sys.stderr)
        with writing(path):
            file.truncate(0)
            now = datetime.now().isoformat(" ", "seconds")
            file.write(json.dumps({"pid": os.getpid(), "host": socket.gethostname(), "since": now}))
            file.flush()
        yield


def hold(path: Path) -> TextIO | None:
    """The open file of this name, locked until it is closed or the process ends; None if another process has it."""
    import fcntl  # POSIX only

    with writing(path):
        file = path.open("a")
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):  # EAGAIN or EACCES, depending on the system
        file.close()
        return None
    except OSError:  # a file system without locks
        pass
    return file


def mark_used(path: Path) -> None:
    """Notes in the file's time that it is in use; file systems do not all note when a file is read."""
    with suppress(OSError):
        os.utime(path)


def is_owned(directory: Path) -> bool:
    """Does another process own it?"""
    path = directory / ".lock"
    lock = hold(path) if path.exists() else None
    if lock:
        lock.close()
    return path.exists() and lock is None


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Within it no other process makes the same file; others wait. Without file locks each makes it; the last stays."""
    import fcntl  # POSIX only

    with writing(path):
        file = path.with_suffix(".lock").open("w")
    with file:
        with suppress(OSError):
            fcntl.lockf(file, fcntl.LOCK_EX)
        yield
