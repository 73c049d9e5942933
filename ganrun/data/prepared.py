"""Decoded sets as files of pixels: built once, mapped into memory, compared with checksums when opened."""

import hashlib
import json
import mmap
import os
import sys
import tempfile
import warnings
import zlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from math import ceil, prod
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from torch import Tensor

from ganrun.data.identity import digest_of
from ganrun.depth import bits
from ganrun.errors import UserError
from ganrun.files.storage import PARTIAL, mark_used, replacing

FORMAT = 3  # 1 had a digest of the files, not of the pixels; 2 had no notes
DEFAULT = "~/.cache/ganrun"  # as in configs/train.yaml
BLOCK = 2**24  # bytes, each with a checksum
CHECKED = 2**30  # bytes checked when a set is opened: all of a smaller set, evenly spaced blocks of a larger one
ROWS = 1024  # rows moved at once


@dataclass(frozen=True)
class Ready:
    """A prepared set.

    pixels: uint8 or uint16 (num, C, H, W) in channels_last, mapped
    bad:    files left out, with the reason
    digest: of the pixels
    notes:  about how the files were decoded
    """

    pixels: Tensor
    bad: dict[str, str]
    digest: str
    notes: list[str]


class Prepared:
    """The place of one decoded set in `folder`; its name is derived from `about`, everything that decides its pixels.

    depth: bits of a pixel. Raises UserError if it cannot be written.
    """

    def __init__(self, folder: str, about: Iterable[str], shape: tuple[int, int, int], depth: int = 8):
        self.folder = Path(folder).expanduser()
        name = hashlib.blake2b(digest_size=16)
        for text in (str(FORMAT), *about):
            name.update(f"{len(text)}:{text}".encode(errors="surrogateescape"))
        self.pixels = self.folder / f"{name.hexdigest()}.pixels"
        self.header = self.pixels.with_suffix(".json")
        self.partial = self.folder / f"{self.pixels.stem}-{os.getpid()}{PARTIAL}"
        channels, height, width = shape
        self.row = (height, width, channels)
        self.kind = kind_of(depth)
        self.row_bytes = prod(self.row) * self.kind.itemsize

    def can_be_made(self) -> bool:
        """False, with a warning, if this is the default folder and it cannot be written."""
        if self.folder != Path(DEFAULT).expanduser():
            return True  # errors there are raised later
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=self.folder):
                return True
        except OSError as error:
            print(
                f"warning: cannot write {self.folder} ({error.strerror}): decoded pixels are not kept; "
                "cache_dir=<folder> or $GANRUN_CACHE names another place",
                file=sys.stderr,
            )
            return False

    @contextmanager
    def owned(self) -> Iterator[None]:
        """Within it no other process looks or prepares: if several start at once, one does the work."""
        import fcntl  # POSIX only

        with self._writing():
            self.folder.mkdir(parents=True, exist_ok=True)
            lock = self.pixels.with_suffix(".lock").open("w")
        with lock:
            with suppress(OSError):  # a file system without locks: then each prepares, and the last file stays
                fcntl.lockf(lock, fcntl.LOCK_EX)
                self._remove_abandoned()
            try:
                yield
            finally:
                self.partial.unlink(missing_ok=True)

    def _remove_abandoned(self) -> None:
        """Removes the unfinished files of killed processes, which may never be asked for again."""
        import fcntl

        for partial in self.folder.glob(f"[!.]*-*{PARTIAL}"):
            name = partial.name.partition("-")[0]
            if name == self.pixels.stem:  # its lock is held; opening and closing it again would release the lock
                partial.unlink()
                continue
            with suppress(OSError), (self.folder / f"{name}.lock").open("w") as lock:
                fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                partial.unlink()

    def load(self, *, tell: bool = False) -> Ready | None:
        """The prepared set; None if there is none or it is damaged. tell: report damage."""
        if not (self.header.exists() and self.pixels.exists()):
            return None
        try:
            header = json.loads(self.header.read_text(encoding="utf-8"))
            mapped = self._map(self.pixels, header["num"], "r")
            if mismatch(mapped, header["checksums"]):
                raise ValueError("checksums do not match")
            mark_used(self.header)
            return Ready(as_images(mapped), dict(header["bad"]), str(header["digest"]), header["notes"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            if tell:
                print(f"{self.pixels} is damaged ({error}); preparing it again")
            return None

    def allocate(self, num: int) -> Tensor:
        """Room for `num` images, (num, C, H, W), in a file beside the final one."""
        with self._writing(), self.partial.open("wb") as file:
            reserve(file, num * self.row_bytes)
        return as_images(self._map(self.partial, num, "r+"))

    def finish(self, room: Tensor, rows: Sequence[int], bad: dict[str, str], notes: list[str]) -> tuple[Tensor, str]:
        """Keeps these rows, in ascending order, of the memory from `allocate`; they are mapped again, for reading.

        Returns them and their digest.
        """
        for start in range(0, len(rows), ROWS):
            some = rows[start : start + ROWS]
            if list(some) != list(range(start, start + len(some))):
                bits(room)[start : start + len(some)] = bits(room)[list(some)]
        size = len(rows) * self.row_bytes
        mapped = room.permute(0, 2, 3, 1).numpy().reshape(-1)[: size // self.kind.itemsize]
        digest = digest_of(room[: len(rows)].split(ROWS))
        header = {"num": len(rows), "bad": bad, "digest": digest, "notes": notes, "checksums": checksums(mapped)}
        with self._writing():
            with self.partial.open("r+b") as file:
                file.truncate(size)
                os.fsync(file.fileno())
            os.replace(self.partial, self.pixels)
            with replacing(self.header) as file:
                file.write(json.dumps(header).encode())
        return as_images(self._map(self.pixels, len(rows), "r")), digest

    def _map(self, path: Path, num: int, mode: Any) -> np.ndarray:
        if path.stat().st_size != num * self.row_bytes:
            raise ValueError(f"{path.stat().st_size:,} bytes; expected {num * self.row_bytes:,}")
        return np.memmap(path, self.kind, mode, shape=(num, *self.row))

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise UserError(
                f"dataset.cache={self.folder}: {error.strerror}; name another folder; dataset.cache=null does without"
            ) from error


def reserve(file: BinaryIO, size: int) -> None:
    """Reserves disk space now: writing to mapped memory on a full disk would kill the process."""
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(file.fileno(), 0, max(1, size))
    else:
        for start in range(0, size, BLOCK):
            file.write(bytes(min(BLOCK, size - start)))


def kind_of(depth: int) -> np.dtype:
    """How a pixel of that many bits is stored."""
    return np.dtype(np.uint8 if depth == 8 else np.uint16)


def room_for(num: int, shape: tuple[int, int, int], depth: int) -> Tensor:
    """Memory for images (num, C, H, W) in channels_last, which forked processes share."""
    channels, height, width = shape
    kind, size = kind_of(depth), num * prod(shape)
    memory = mmap.mmap(-1, max(1, size) * kind.itemsize)
    return as_images(np.frombuffer(memory, kind, size).reshape(num, height, width, channels))


def as_images(mapped: np.ndarray) -> Tensor:
    """(num, H, W, C) -> (num, C, H, W) in channels_last, in the same memory."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch warns of read-only memory; nothing here writes to it
        return torch.from_numpy(mapped).permute(0, 3, 1, 2)


def checksums(mapped: np.ndarray) -> list[int]:
    """The checksum of each block of bytes."""
    flat = mapped.reshape(-1).view(np.uint8)
    return [zlib.crc32(flat[start : start + BLOCK]) for start in range(0, flat.size, BLOCK)]


def mismatch(mapped: np.ndarray, expected: list[int]) -> bool:
    """Does any checked block differ from its checksum?"""
    flat = mapped.reshape(-1).view(np.uint8)
    if len(expected) != ceil(flat.size / BLOCK):
        return True
    looked_at = range(0, len(expected), ceil(max(1, flat.size) / CHECKED))
    return any(zlib.crc32(flat[i * BLOCK : (i + 1) * BLOCK]) != expected[i] for i in looked_at)
