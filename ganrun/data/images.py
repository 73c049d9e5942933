"""Sets of images as uint8 (channels, H, W): held in memory, decoded from files; value range and flips."""

import os
from abc import abstractmethod
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from ganrun.data.base import Data, as_labels, limited
from ganrun.data.files import Zip, printable, reason, source
from ganrun.data.pixels import Fit, check_crop, decode, fit_images, opened, quiet, to_channels
from ganrun.errors import UserError
from ganrun.game import Batch
from ganrun.pictures import grid
from ganrun.seeding import derive, uniform_at

IN_MEMORY = 2**30  # bytes: folders whose decoded images fit are decoded when they are opened, and kept
HEADER = 2**16  # bytes that tell what most image files are
THREADS = min(4, os.cpu_count() or 1)  # decode while a set is opened; each holds one image at its full size
HINT = "dataset.on_error=skip leaves out what is bad"


@dataclass(kw_only=True)
class Images(Data):
    """Images fitted to a resolution.

    resolution: side in pixels, or [H, W]. channels: 1 (grey) or 3 (RGB). fit: resize, crop or pad (see fit_images).
    flip: mirror each image left to right with probability 1/2. value_range: [-1, 1] or [0, 1].
    """

    resolution: int | Sequence[int]
    channels: int
    fit: Fit = "resize"
    flip: bool = False
    value_range: Sequence[float] = (-1, 1)

    def __post_init__(self) -> None:
        self.size = (self.resolution,) * 2 if isinstance(self.resolution, int) else tuple(self.resolution)
        if len(self.size) != 2 or min(self.size) < 1:
            raise UserError(f"dataset.resolution={self.resolution}; expected pixels as N or [H,W]")
        if self.channels not in (1, 3):
            raise UserError(f"dataset.channels={self.channels}; valid: 1 (grey), 3 (RGB)")
        if self.fit not in ("resize", "crop", "pad"):
            raise UserError(f"dataset.fit={self.fit}; valid: resize, crop, pad")
        if tuple(self.value_range) not in ((-1, 1), (0, 1)):
            raise UserError(f"dataset.value_range={list(self.value_range)}; valid: [-1,1], [0,1]")
        super().__post_init__()

    @property
    def shape(self) -> tuple[int, ...]:
        return (self.channels, *self.size)

    def augment(self, batch: Batch, positions: np.ndarray, seed: int) -> Batch:
        if not self.flip:
            return batch
        flipped = torch.from_numpy(uniform_at(positions, derive(seed, "flip")) < 0.5)
        real = torch.where(flipped[:, None, None, None], batch["real"].flip(-1), batch["real"])
        return batch | {"real": real}

    def to_range(self, real: Tensor) -> Tensor:
        low, high = self.value_range
        return real.float() * ((high - low) / 255) + low

    def picture(self, fake, real, *, columns, names=None):
        low, high = self.value_range
        return grid((fake.float() - low) / (high - low), columns=columns, names=names)


@dataclass(kw_only=True)
class ImagesInMemory(Images):
    """A set held as one uint8 tensor: a batch is an index, no worker needed."""

    def open(self) -> None:
        images, labels, self.classes = self.load()
        images, labels = limited(self.limit, images, labels)
        self._images = to_channels(fit_images(images, self.size, self.fit), self.channels)
        self._labels = labels

    @abstractmethod
    def load(self) -> tuple[Tensor, Tensor | None, list[str]]:
        """uint8 (num, C, h, w), labels (num,) or None, class names."""

    def __len__(self) -> int:
        return len(self._images)

    def read(self, indices: Tensor) -> Batch:
        batch = {"real": self._images[indices]}
        return batch if self._labels is None else batch | {"label": self._labels[indices]}


@dataclass(kw_only=True)
class Digits(ImagesInMemory):
    """scikit-learn's 1,797 handwritten digits, 8x8 with 17 grey levels (Alpaydin and Kaynak 1998); needs no network."""

    def load(self):
        from sklearn.datasets import load_digits

        digits = load_digits()
        images = torch.from_numpy(np.rint(digits.images * (255 / 16)).astype(np.uint8))
        return images[:, None], as_labels(digits.target), [str(name) for name in digits.target_names]


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
        more = f"; {len(bad) - 1} more cannot be read" if len(bad) > 1 else ""
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


@dataclass(kw_only=True)
class ImageFolder(DecodedImages):
    """The images of a folder or a .zip, however deep. Folders at the first level are classes if all images are in one.

    The one folder that a .zip has around everything is no level. A class folder without images is an error, as is a
    file that cannot be read.

    path: the folder or zip file.
    """

    path: str | None

    def find(self):
        if not self.path:
            raise UserError("dataset=image-folder needs dataset.path=<folder or .zip of images>")
        self._source, found = source(self.path)
        if not found.files and not found.faults:
            raise UserError(f"dataset.path={self.path}: no images in it; image files end in .png, .jpg, .webp, ...")
        self._folders, self._top = found.folders, self._source.top(found.files)
        return sorted(found.files), found.faults

    def label(self, names):
        top = self._source.top(names)
        folders = [first_folder(name.removeprefix(top)) for name in names]
        classes = sorted(set(folders))
        if "" in classes or len(classes) < 2:
            return None, []
        self._leave_out_classes({first_folder(f"{folder}/".removeprefix(top)) for folder in self._folders}, classes)
        index = {name: i for i, name in enumerate(classes)}
        return as_labels([index[folder] for folder in folders]), classes
