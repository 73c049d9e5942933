"""What a data set is to the rest: numbered samples, classes, a value range and a way to draw them."""

from abc import ABC, abstractmethod
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ganrun.errors import UserError
from ganrun.game import Batch


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
        """Finds the samples; sets `classes`."""

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

    @abstractmethod
    def picture(self, fake: Tensor, real: Tensor, *, columns: int, names: list[str] | None = None):
        """Draws generated samples in the network's value range as a PIL image."""


def limited(limit: int | None, *arrays: Tensor | None) -> list[Tensor | None]:
    """The first `limit` rows of each."""
    return [array if array is None else array[:limit] for array in arrays]


def as_labels(labels) -> Tensor:
    return torch.as_tensor(np.asarray(labels), dtype=torch.int64)
