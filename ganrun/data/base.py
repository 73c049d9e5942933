"""The interface of a data set: numbered samples, classes, a value range and a way to draw them; sets of images."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, get_args

import numpy as np
import torch
from torch import Tensor

from ganrun.attributes import Attribute
from ganrun.data.identity import Fingerprint, digest_of, identity_of
from ganrun.data.memory import free_memory, physical_memory
from ganrun.data.pixels import Fit
from ganrun.depth import bits, rows, to_pixels
from ganrun.errors import UserError
from ganrun.game import Batch
from ganrun.pictures import grid
from ganrun.seeding import derive, rng_for, uniform_at

LARGEST_SIDE = 2**14  # pixels
SHARE = 0.5  # of the memory, main or GPU, that a set may take


@dataclass(kw_only=True)
class Data(ABC):
    """Numbered samples.

    A sample of two-sided data has a source and a real image, for image-to-image translation: see sides.py.

    name:        as in configs
    limit:       number of samples to use, the first of a set in memory, evenly spaced ones of files; None = all
    num_workers: processes that read batches ahead, for sets that are not in memory; 0 = the training process itself
    num_classes: the number that the config promises; None = as found in the data
    paired:      do the source and the real image of a sample belong together?
    depth:       bits of a stored pixel, 8 or 16
    shown:       the channels that pictures show, see pictures.visible; None = by their number

    Example:
        data = Digits(name="digits", resolution=16, channels=1)
        batch = data.read(torch.arange(4))  # real (4, 1, 16, 16) uint8, label (4,) int64
    """

    paired = False
    depth = 8
    shown = None
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
        self.attributes: list[Attribute] = []  # labels that are numbers; empty = none
        self.skipped: list[tuple[str, str]] = []  # files left out as unreadable, and why
        self.notes: list[str] = []  # how the data were read, if that is not obvious: for summary, log and result
        self.held: Batch = {}  # all samples, if they are in memory or can be mapped
        self.open()
        if self.num_classes is None:
            self.num_classes = len(self.classes)
        if self.num_classes != len(self.classes):
            raise UserError(
                f"dataset.num_classes={self.num_classes}, but {self.name} has {len(self.classes)} classes; leave it out"
            )

    @abstractmethod
    def open(self) -> None:
        """Finds the samples; sets `classes`, `held` if it can, and `skipped` where samples are left out."""

    @property
    @abstractmethod
    def shape(self) -> tuple[int, ...]:
        """The shape of one sample: (channels, H, W) or (channels,)."""

    @property
    def parts(self) -> dict[str, tuple[int, ...]]:
        """The shapes of a sample's tensors by their keys in a batch."""
        return {"real": self.shape}

    @property
    def sides(self) -> dict[str, "Data"]:
        """For each key in `parts` the one-sided data, in which the samples are called real, as everywhere."""
        return {"real": self}

    @property
    def streams(self) -> dict[str, "Data"]:
        """What a round draws, each in an order of its own, by the prefix that its tensors have in the round."""
        return {"": self}

    @abstractmethod
    def __len__(self) -> int:
        """The number of samples, after `limit`."""

    def read(self, indices: Tensor) -> Batch:
        """real (batch, *shape), uint8 or uint16 for images; label (batch,) int64 if there are classes; attributes
        (batch, F) as networks see them if there are any.
        """
        return {
            key: rows(samples, indices.to(samples.device, non_blocking=samples.is_cuda))
            for key, samples in self.held.items()
        }

    @property
    def num_bytes(self) -> int:
        """Bytes of the samples held in memory."""
        return sum(samples.numel() * samples.element_size() for samples in self.held.values())

    @property
    def is_resident(self) -> bool:
        """Is reading a batch as cheap as indexing, so that workers would not help?"""
        return bool(self.held) and (self.num_workers == 0 or self.num_bytes <= physical_memory() * SHARE)

    def hold_on(self, device: torch.device) -> None:
        """Moves the samples to a GPU, if they fit into a share of its free memory."""
        if self.is_resident and device.type == "cuda" and self.num_bytes <= free_memory(device) * SHARE:
            self.held = {key: samples.to(device) for key, samples in self.held.items()}

    def lies_on(self, device: torch.device) -> bool:
        """Can a batch be indexed on that device?"""
        return self.is_resident and all(samples.device.type == device.type for samples in self.held.values())

    def carried(self, indices: Tensor, only_index: bool) -> Batch:
        """What a round carries of these samples, for `complete`. only_index: True = `complete` reads them."""
        return {"index": indices} if only_index else self.read(indices)

    def complete(self, batch: Batch) -> Batch:
        """A round from `Rounds` -> its samples, augmented, on the device that holds them."""
        batch = dict(batch)
        if "index" in batch:
            batch |= self.read(batch.pop("index"))
        return self.augment(batch)

    def draw(self, positions: np.ndarray, seed: int) -> Batch:
        """The random choices for `augment`, (batch, ...); they depend only on seed and position in the stream."""
        return {}

    def augment(self, batch: Batch) -> Batch:
        """Changes samples, on their own device, as `draw` decided, and removes the decisions from the batch."""
        return batch

    def to_range(self, real: Tensor) -> Tensor:
        """Stored values -> floats in the value range that networks see."""
        return real.float()

    def in_range(self, batch: Batch) -> Batch:
        """The batch with all its samples in the value range."""
        return batch | {key: self.to_range(batch[key]) for key in self.parts}

    def as_stored(self, samples: Tensor) -> Tensor:
        """A network's samples in the form that this set stores: images in 8 or 16 bits, as a user gets them."""
        return samples.float()

    def shuffled(self, num: int, chunk: int = 1024) -> Iterator[Batch]:
        """The first `num` samples of a fixed shuffle, as stored, `chunk` at a time."""
        order = torch.randperm(len(self), generator=rng_for("reals"))[:num]
        return (self.read(some) for some in order.split(chunk))

    def held_out(self) -> "Data | None":
        """Its test split; None if there is none."""
        return None

    @property
    def class_labels(self) -> Tensor | None:
        """Labels (num,) of all samples, without reading these; None if unlabelled."""
        return self.held.get("label")

    @property
    def attribute_values(self) -> Tensor | None:
        """Attributes (num, F) float64 of all samples in their own units, without reading these; None = none."""
        return None

    @cached_property
    def fingerprint(self) -> Fingerprint:
        """Identifies the data for resumes, scores and classifiers.

        It depends on the samples as stored, not on the files and settings that led to them. The same pixels are the
        same data, whether prepared, decoded in memory or streamed, copied or packed; other pixels never are.
        """
        about = {"num": len(self), "shape": list(self.shape), "classes": list(self.classes)}
        about |= {} if self.depth == 8 else {"depth": self.depth}
        labels, values = self.class_labels, self.attribute_values
        about |= {"samples": self.digest(), "labels": None if labels is None else digest_of([labels])}
        if values is None:
            return about
        as_seen = [[one.name, one.zero, one.scale] for one in self.attributes]
        return about | {"attributes": as_seen, "values": digest_of([values])}

    @property
    def identity(self) -> str:
        """The fingerprint as one word."""
        return identity_of(self.fingerprint)

    @property
    def described(self) -> dict[str, Any]:
        """The settings that decide the samples, in words for a protocol."""
        return {}

    def digest(self) -> str:
        """The digest of all samples."""
        return digest_of(self.read(some)["real"] for some in torch.arange(len(self)).split(1024))

    @abstractmethod
    def picture(self, fake: Tensor, real: Tensor, *, columns: int, names: list[str] | None = None):
        """Draws generated samples in the network's value range as a PIL image."""


@dataclass(kw_only=True)
class Images(Data):
    """Images fitted to a resolution.

    resolution:  side in pixels, or [H, W]
    channels:    1 (grey) or 3 (RGB); of files also 2 and 4, with opacity, and of arrays any number
    fit:         see fit_images
    flip:        True = mirror each image left to right with probability 1/2
    random_crop: pixels of reflected margin, from which a random window of the image's size is taken; 0 = off
    value_range: [-1, 1] or [0, 1]
    shown:       the channels that pictures show, one as grey or three as RGB; None = see pictures.visible
    """

    resolution: int | Sequence[int]
    channels: int
    fit: Fit = "resize"
    flip: bool = False
    random_crop: int = 0
    value_range: Sequence[float] = (-1, 1)
    shown: Sequence[int] | None = None

    def __post_init__(self) -> None:
        self.size = (self.resolution,) * 2 if isinstance(self.resolution, int) else tuple(self.resolution)
        if len(self.size) != 2 or min(self.size) < 1 or max(self.size) > LARGEST_SIDE:
            raise UserError(
                f"dataset.resolution={self.resolution}; expected pixels as N or [H,W], up to {LARGEST_SIDE}"
            )
        self.check_channels()
        self.check_shown()
        if self.fit not in get_args(Fit):
            raise UserError(f"dataset.fit={self.fit}; valid: {', '.join(get_args(Fit))}")
        if tuple(self.value_range) not in ((-1, 1), (0, 1)):
            raise UserError(f"dataset.value_range={list(self.value_range)}; valid: [-1,1], [0,1]")
        if not 0 <= self.random_crop < min(self.size):
            raise UserError(f"dataset.random_crop={self.random_crop}; expected 0 (off) to {min(self.size) - 1} pixels")
        super().__post_init__()

    def check_channels(self) -> None:
        """Raises UserError for a number of channels that these images cannot have."""
        if self.channels not in (1, 3):
            raise UserError(f"dataset.channels={self.channels}; valid: 1 (grey), 3 (RGB)")

    def check_shown(self) -> None:
        last, shown = self.channels - 1, self.shown
        if shown is not None and (len(shown) not in (1, 3) or not all(0 <= channel <= last for channel in shown)):
            raise UserError(f"dataset.shown={list(shown)}; expected one or three of the channels 0 to {last}, or null")

    @property
    def shape(self) -> tuple[int, ...]:
        return (self.channels, *self.size)

    @property
    def described(self) -> dict[str, Any]:
        return {"resolution": "x".join(map(str, self.size)), "channels": self.channels, "fit": self.fit}

    def draw(self, positions: np.ndarray, seed: int) -> Batch:
        drawn = {}
        if self.flip:
            drawn["flip"] = torch.from_numpy(uniform_at(positions, derive(seed, "flip")) < 0.5)
        if self.random_crop:
            chances = [uniform_at(positions, derive(seed, "crop", side)) for side in ("top", "left")]
            places = np.floor(np.stack(chances, 1) * (2 * self.random_crop + 1)) - self.random_crop
            drawn["corner"] = torch.from_numpy(places.astype(np.int64))
        return drawn

    def augment(self, batch: Batch) -> Batch:
        real, others = batch["real"], {key: value for key, value in batch.items() if key not in ("flip", "corner")}
        real, dtype = bits(real), real.dtype
        if "flip" in batch:
            real = torch.where(batch["flip"][:, None, None, None], real.flip(-1), real)
        real = window(real, batch["corner"]) if "corner" in batch else real
        return others | {"real": real.view(dtype)}

    def to_range(self, real: Tensor) -> Tensor:
        low, high = self.value_range
        scale = (high - low) / (2**self.depth - 1)
        return ((real if self.depth == 8 else real.float()) * scale).add_(low)

    def as_stored(self, samples):
        return to_pixels(samples, self.value_range, self.depth)

    def picture(self, fake, real, *, columns, names=None):
        low, high = self.value_range
        return grid((fake.float() - low) / (high - low), columns=columns, names=names, shown=self.shown)


def window(images: Tensor, corner: Tensor) -> Tensor:
    """Each image (num, C, H, W) seen through a window of its own size with its top left pixel at `corner` (num, 2).

    Outside an image the window shows its reflection. The memory format is channels_last.
    """
    height, width = images.shape[-2:]
    rows = reflected(torch.arange(height, device=images.device) + corner[:, :1], height)  # (num, H)
    columns = reflected(torch.arange(width, device=images.device) + corner[:, 1:], width)  # (num, W)
    each = torch.arange(len(images), device=images.device)[:, None, None]
    return images[each, :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


def reflected(places: Tensor, size: int) -> Tensor:
    """Reflects places beyond either end of 0 ... size - 1, by less than `size`, back inside."""
    last = size - 1
    return last - (last - places.abs()).abs()


def limited(limit: int | None, *arrays: Tensor | None) -> list[Tensor | None]:
    """The first `limit` rows of each."""
    return [array if array is None else array[:limit] for array in arrays]


def as_labels(labels) -> Tensor:
    return torch.as_tensor(np.asarray(labels), dtype=torch.int64)
