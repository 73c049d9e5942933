"""Sets decoded from image files, and what becomes of the files that cannot be."""

import hashlib
import math
import os
from abc import abstractmethod
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Literal, TypeVar

import torch
from torch import Tensor

from ganrun.data.base import Images
from ganrun.data.files import LARGEST, printable, reason
from ganrun.data.pixels import check_crop, decode, fit_images, opened, quiet
from ganrun.errors import UserError
from ganrun.game import Batch

IN_MEMORY = 2**30  # bytes: sets that are not larger are decoded when they are opened, and kept
HEADER = 2**16  # bytes from which most image files can be told
THREADS = min(4, os.cpu_count() or 1)  # each holds one image at its full size
ADVICE = "dataset.on_error=skip leaves out what is bad"

Item = TypeVar("Item", str, int)


class Unreadable(UserError):
    """An image that cannot be decoded. Stays one line when a worker process passes it on with its traceback."""

    def __init__(self, text: str):
        super().__init__(text.splitlines()[-1].partition(": ")[2] if text.startswith("Caught ") else text)


@dataclass(kw_only=True)
class DecodedImages(Images):
    """Images decoded from files: all when the set is opened if they fit in 1 GiB, else each when it is read.

    With workers nothing is kept: each worker would keep its own copy. `limit` takes evenly spaced files. Transparent
    pixels are laid over white.

    on_error: refuse raises Unreadable for the first file that cannot be read, when the set is opened if its header
    tells or if all are decoded then. skip decodes every file once and leaves the bad ones out, see `skipped`.
    """

    on_error: Literal["refuse", "skip"] = "refuse"

    def open(self) -> None:
        if self.on_error not in ("refuse", "skip"):
            raise UserError(f"dataset.on_error={self.on_error}; valid: refuse, skip")
        names, known = self.find()
        bad = known | faults(names, self._check_header)
        self._leave_out(bad)
        names, pixels = [name for name in names if name not in bad], None
        if self.on_error == "skip":
            names, pixels = self._decodable(names)
        if not names:
            raise UserError(f"dataset {self.name}: no image is left; {': '.join(self.skipped[0])}")
        labels, self.classes = self.label(names)
        chosen = spaced(len(names), self.limit)
        self._names = [names[i] for i in chosen]
        self._labels = None if labels is None else labels[chosen]
        self._kept = pixels if pixels is None or len(chosen) == len(names) else pixels[chosen]
        if self._kept is None and self._fits(self._names):
            names, self._kept = self._decodable(self._names)
            if len(names) < len(chosen):
                raise UserError(f"dataset {self.name}: its files have changed while they were read")
        self.skipped.sort()

    @abstractmethod
    def find(self) -> tuple[list[str], dict[str, str]]:
        """The files in their order, and the reasons not to read further ones."""

    def label(self, names: list[str]) -> tuple[Tensor | None, list[str]]:
        """Labels (num,) or None, class names."""
        return None, []

    @abstractmethod
    def content(self, name: str, most: int = LARGEST) -> bytes:
        """The first `most` bytes of one file."""

    @abstractmethod
    def mark(self, name: str) -> int:
        """A number that most changes of a file change, found without reading it."""

    def digest(self) -> str:
        found = hashlib.blake2b(digest_size=8)
        for name in self._names:
            found.update(f"{name}/{self.mark(name)}/".encode(errors="surrogateescape"))
        found.update(b"" if self._labels is None else self._labels.numpy().tobytes())
        return found.hexdigest()

    def shown(self, name: str) -> str:
        """A file's name in messages."""
        return printable(name)

    def __len__(self) -> int:
        return len(self._names)

    def read(self, indices: Tensor) -> Batch:
        if self._kept is not None:
            real = self._kept[indices]
        else:
            with quiet():
                real = torch.stack([self._read(self._names[i]) for i in indices.tolist()])
        return {"real": real} if self._labels is None else {"real": real, "label": self._labels[indices]}

    def _read(self, name: str) -> Tensor:
        try:
            return self._decode(name)
        except Exception as error:  # decoders and zip files raise exceptions of every kind on damaged bytes
            raise self._unreadable({name: reason(error)}) from error

    def _decode(self, name: str) -> Tensor:
        return fit_images(decode(self.content(name), self.channels)[None], self.size, self.fit)[0]

    def _check_header(self, name: str) -> None:
        try:
            image = opened(self.content(name, HEADER))
        except Exception:  # some formats need the whole file
            image = opened(self.content(name))
        with image:
            if self.fit == "crop":
                check_crop(image, self.size)

    def _fits(self, names: list[str]) -> bool:
        return self.num_workers == 0 and len(names) * math.prod(self.shape) <= IN_MEMORY

    def _decodable(self, names: list[str]) -> tuple[list[str], Tensor | None]:
        """Decodes all; the names of the good ones and, if they are to be kept, their pixels (num, C, H, W)."""
        pixels = torch.zeros(len(names), *self.shape, dtype=torch.uint8) if self._fits(names) else None
        if pixels is None:
            print(f"dataset {self.name}: checking {len(names):,} images")

        def keep(index: int) -> None:
            image = self._decode(names[index])
            if pixels is not None:
                pixels[index] = image

        bad = faults(range(len(names)), keep)
        self._leave_out({names[i]: why for i, why in bad.items()})
        if not bad:
            return names, pixels
        good = [i for i in range(len(names)) if i not in bad]
        return [names[i] for i in good], None if pixels is None else pixels[good]

    def _leave_out(self, bad: dict[str, str]) -> None:
        if bad and self.on_error == "refuse":
            raise self._unreadable(bad)
        self.skipped += [(self.shown(name), why) for name, why in sorted(bad.items())]

    def _unreadable(self, bad: dict[str, str]) -> Unreadable:
        name, why = min(bad.items())
        more = f", and {len(bad) - 1} more" if len(bad) > 1 else ""
        advice = f"; {ADVICE}" if self.on_error == "refuse" else ""
        return Unreadable(f"dataset {self.name}: cannot read image {self.shown(name)}: {why}{more}{advice}")


def spaced(num: int, limit: int | None) -> list[int]:
    """Indices, evenly spaced, so that every class folder keeps its share."""
    return list(range(num)) if limit is None else torch.linspace(0, num - 1, min(limit, num)).long().tolist()


def faults(items: Sequence[Item], check: Callable[[Item], None]) -> dict[Item, str]:
    """The items that `check` raises an exception for, with the reason, in their order; several are checked at once."""

    def fault(item: Item) -> str | None:
        try:
            check(item)
        except Exception as error:  # of any kind, as in DecodedImages
            return reason(error)
        return None

    found: dict[Item, str] = {}
    with quiet(), ThreadPoolExecutor(THREADS) as pool:  # Pillow decodes without holding the interpreter's lock
        for start in range(0, len(items), 256):  # few at a time, so that an interrupt need not wait for all
            some = items[start : start + 256]
            found |= {item: why for item, why in zip(some, pool.map(fault, some), strict=True) if why is not None}
    return found
