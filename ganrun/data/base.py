"""What a data set is to the rest: numbered samples, classes, a value range and a way to draw them; sets of images."""

import hashlib
import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ganrun.data.pixels import Fit
from ganrun.errors import UserError
from ganrun.game import Batch
from ganrun.pictures import grid
from ganrun.seeding import derive, uniform_at

DIGESTED = 2**26  # values of a set that its digest looks at


@dataclass(kw_only=True)
class Data(ABC):
    """Numbered samples.

    name: as in configs. num_classes: what the config promises; None = found in the data. limit: use so many samples
    (the first of a set in memory, evenly spaced ones of files), None = all. num_workers: processes that read batches
    ahead, 0 = the training process itself.
    """

    name: str
    limit: int | None = None
    num_workers: int = 0
    num_classes: int | None = None

    def __post_init__(self) -> None:
        for key, least in {"limit": 1, "num_workers": 0}.items():
            value = getattr(self, key)
            if value is not None and value < least:
                raise UserError(f"dataset.{key}={value}; expected at least {least}")
        self.classes: list[str] = []  # names by label; empty = unlabelled
        self.skipped: list[tuple[str, str]] = []  # files left out as unreadable, and why
        self.open()
        if self.num_classes is None:
            self.num_classes = len(self.classes)
        if self.num_classes != len(self.classes):
            raise UserError(f"dataset.num_classes={self.num_classes}, but {self.name} has {len(self.classes)} classes")

    @abstractmethod
    def open(self) -> None:
        """Finds the samples; sets `classes`, and `skipped` where samples are left out."""

    @property
    @abstractmethod
    def shape(self) -> tuple[int, ...]:
        """Of one sample: (channels, H, W) or (channels,)."""

    @abstractmethod
    def __len__(self) -> int:
        """How many samples, after `limit`."""

    @abstractmethod
    def read(self, indices: Tensor) -> Batch:
        """real (batch, *shape), uint8 for images, and label (batch,) int64 where there are classes."""

    def augment(self, batch: Batch, positions: np.ndarray, seed: int) -> Batch:
        """Random changes that depend on each sample's position in the stream and the seed alone."""
        return batch

    def to_range(self, real: Tensor) -> Tensor:
        """Stored values -> floats in the value range that networks see."""
        return real.float()

    def digest(self) -> str:
        """Changes with the samples and labels; of a large set only every so manieth sample is looked at."""
        size = max(1, math.prod(self.shape) * len(self))
        found = hashlib.blake2b(digest_size=8)
        for indices in torch.arange(0, len(self), math.ceil(size / DIGESTED)).split(1024):
            for _, values in sorted(self.read(indices).items()):
                found.update(values.contiguous().numpy().tobytes())
        return found.hexdigest()

    @abstractmethod
    def picture(self, fake: Tensor, real: Tensor, *, columns: int, names: list[str] | None = None):
        """Draws generated samples in the network's value range as a PIL image."""


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


def limited(limit: int | None, *arrays: Tensor | None) -> list[Tensor | None]:
    """The first `limit` rows of each."""
    return [array if array is None else array[:limit] for array in arrays]


def as_labels(labels) -> Tensor:
    return torch.as_tensor(np.asarray(labels), dtype=torch.int64)
