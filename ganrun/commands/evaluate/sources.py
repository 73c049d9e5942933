"""The things that can be scored: a generator's samples, images from anywhere, a data set's own test split."""

import re
from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ganrun.attributes import KEY, as_seen, in_units
from ganrun.classes import listed
from ganrun.data.base import Data
from ganrun.data.channels import becomes, to_channels
from ganrun.data.images import ImageArray, ImageFolder
from ganrun.depth import to_numbers, to_pixels
from ganrun.errors import UserError
from ganrun.game import Batch
from ganrun.sampling.files import folder_names
from ganrun.sampling.generator import SamplingGenerator
from ganrun.sampling.translator import Translator
from ganrun.training.refusing import refusing


class Source(ABC):
    """Fakes to score.

    num:         how many there will be
    conditional: do they have labels?
    key:         of the labels in a batch, see Scorer
    about:       for the protocol
    like:        the side of the data that they should resemble
    paired:      do they come with their targets?
    copyable:    could what they are made from stand in their place?
    """

    num: int
    conditional = False
    key = "label"
    about: dict[str, Any]
    like = "real"
    paired = False
    copyable = False

    @abstractmethod
    def fakes(self, seed: int, labels: Tensor | None) -> Iterator[Batch]:
        """Batches of fake, in the form that the data set stores, and label if conditional."""


class TranslatorSource(Source):
    """Images of the data's other side, translated. direction: None = the only or first one."""

    def __init__(self, translator: Translator, data: Data, num: int, batch_size: int, direction: str | None):
        self.sampling, self.data, self.batch_size = translator, data, batch_size
        self.direction = translator.direction(direction)
        self.takes, self.like = translator.between[self.direction]
        self.num, self.paired = min(num, len(data)), data.paired
        trained = {"ema": None} | translator.trained
        self.about = {key: trained[key] for key in ("ema", "standing") if key in trained}
        self.about["direction"] = self.direction
        got = tuple(data.parts[key][0] if key in data.parts else 0 for key in (self.takes, self.like))
        if got != translator.channels[self.direction]:
            wanted = " to ".join(map(str, translator.channels[self.direction]))
            have = ", ".join(f"{key} {list(shape)}" for key, shape in data.parts.items())
            raise UserError(
                f"from: {self.direction} translates {self.takes} to {self.like} images, {wanted} channels; dataset "
                f"{data.name} has {have}"
            )
        self.copyable = becomes(*got)

    def fakes(self, seed, labels):
        for batch in self.data.shuffled(self.num, self.batch_size):
            made = self.sampling.translate(to_numbers(batch[self.takes]), self.direction)
            yield {"fake": to_pixels(made, depth=self.data.depth), "target": batch[self.like]}

    def copies(self) -> Iterator[Batch]:
        """The sources themselves in place of their translations: the scores that a translator must beat."""
        for batch in self.data.shuffled(self.num, self.batch_size):
            yield {"fake": to_channels(batch[self.takes], batch[self.like].shape[1]), "target": batch[self.like]}


class GeneratorSource(Source):
    """Samples of a generator. If it is conditional, the labels or attributes are those of as many reals.

    truncation: see SamplingGenerator.sample; it may be set anew between two streams of fakes
    standing:   batches over which batch norm's statistics are measured before each stream; None = as they are
    cutoff:     how many styles are truncated; None = all
    """

    truncation: float | None = None

    def __init__(
        self,
        sampling: SamplingGenerator,
        data: Data,
        num: int,
        batch_size: int,
        standing: int | None = None,
        cutoff: int | None = None,
    ):
        self.sampling, self.num, self.batch_size, self.standing = sampling, num, batch_size, standing
        self.cutoff = cutoff
        self.conditional, self.attributes = bool(sampling.classes or sampling.attributes), data.attributes
        self.key, self.depth = KEY if sampling.attributes else "label", data.depth
        if standing is not None:
            sampling.check_stands(standing)
        if (sampling.value_range is None) != (len(data.shape) == 1):
            kinds = ("points", "images") if sampling.value_range is None else ("images", "points")
            raise UserError(f"from: the generator makes {kinds[0]}, but dataset {data.name} has {kinds[1]}")
        names = [[one.name for one in held] for held in (sampling.attributes, data.attributes)]
        if sampling.attributes and names[0] != names[1]:
            raise UserError(f"from: the generator's attributes {names[0]} are not {names[1]}, those of {data.name}")
        if sampling.classes and sampling.classes != data.classes:
            raise UserError(
                f"from: the generator's classes, {listed(sampling.classes)}, are not those of dataset {data.name}, "
                f"{listed(data.classes) or 'which has none'}"
            )
        got = tuple(sampling.sample(1).shape[1:])
        if got != data.shape:
            raise UserError(
                f"from: the generator makes {list(got)}, but dataset {data.name} has {list(data.shape)}{fitting(got)}"
            )

    @property
    def about(self) -> dict[str, Any]:
        trained = self.sampling.trained
        standing = trained.get("standing") if self.standing is None else self.sampling.stands_by(self.standing)
        truncated = self.sampling.truncated_by(self.truncation, self.cutoff)
        optional = {"standing": standing, "sampler": self.sampling.sampler and self.sampling.sampler.about}
        return {"ema": trained.get("ema")} | truncated | {k: v for k, v in optional.items() if v is not None}

    def fakes(self, seed, labels):
        if self.sampling.attributes not in ([], self.attributes):  # the same names, but other data have other means
            labels = as_seen(in_units(labels, self.attributes), self.sampling.attributes)
        cutoff = None if self.truncation is None else self.cutoff
        truncated = {"truncation": self.truncation, "truncation_cutoff": cutoff}
        if self.standing is not None:
            self.sampling.stand(self.standing, **truncated)
        for samples, label in self.sampling.batches(self.num, seed, labels, **truncated, batch_size=self.batch_size):
            fake = samples if self.sampling.value_range is None else to_pixels(samples, depth=self.depth)
            yield {"fake": fake} | ({} if label is None else {self.key: label})


class DatasetSource(Source):
    """The samples of another data set, at most `num` of them, in a fixed shuffle.

    Their labels are used if each class is one of the data's, by its name or by its folder name in `ganrun sample`.
    """

    def __init__(self, held: Data, data: Data, num: int):
        self.held, self.num = held, min(num, len(held))
        if self.num < 2:
            raise UserError(f"{held.name}: {self.num} samples; expected at least 2")
        index = {name: i for names in (folder_names(data.classes), data.classes) for i, name in enumerate(names)}
        self.conditional = bool(held.classes) and set(held.classes) <= index.keys()
        self.about = {"labels": "their own"} if self.conditional else {}
        self._labels = torch.tensor([index[name] for name in held.classes] if self.conditional else [])
        if held.classes and data.classes and not self.conditional:
            other = listed([name for name in held.classes if name not in index])
            print(f"labels are not used: {other} of {held.name} are no classes of {data.name}")

    def fakes(self, seed, labels):
        for batch in self.held.shuffled(self.num):
            label = {"label": self._labels[batch["label"].cpu()]} if self.conditional else {}
            yield {"fake": batch["real"]} | label


def fitting(shape: tuple[int, ...]) -> str:
    """What makes images of a data set of the user's choice as large as those of a generator."""
    if len(shape) != 3:
        return ""
    channels, height, width = shape
    size = f"{height}" if height == width else f"[{height},{width}]"
    return f"; dataset.resolution={size} dataset.channels={channels} makes them alike, where these are keys"


def images_at(path: str, data: Data, max_pixels: int | None = None) -> Data:
    """The images of a folder, .zip or .npz, which must have the data's size. Raises UserError."""
    if len(data.shape) != 3:
        raise UserError(f"from=images: dataset {data.name} has points, not images; choose a dataset of images")
    channels, *size = data.shape
    about = {"name": f"images of {path}", "path": path, "resolution": size, "channels": channels, "fit": "exact"}
    about |= {"depth": data.depth}
    if Path(path).suffix == ".npz":
        return refusing("path", ImageArray)(**about, names=data.classes)
    try:
        return refusing("path", ImageFolder)(**about, max_pixels=max_pixels)
    except UserError as error:  # its messages name a key that does not exist here
        told, *_ = re.split(r"; (?=dataset\.(?:on_error|labels_from)=)", str(error))
        raise UserError(re.sub(r"\bdataset\.(?=(path|max_pixels)=)|^path: dataset\.", "", told)) from error
