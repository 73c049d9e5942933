"""Two-sided data from two folders or .zip files, paired by name or unpaired, and from images side by side."""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import PurePosixPath
from typing import Any, get_args

import torch

from ganrun.data.arrays import ArrayFile, arrays, row_of
from ganrun.data.base import Data
from ganrun.data.decoded import ADVICE
from ganrun.data.files import printable, source
from ganrun.data.images import ImageFolder
from ganrun.data.labels import wrapping
from ganrun.data.many import spaced
from ganrun.data.pixels import Half
from ganrun.data.sides import Subset, TwoSided
from ganrun.errors import UserError

SHOWN = 5  # names in one line
WHERE = "<folder or .zip>"
OF_SOURCE = {"path": "source", "range": "source_range", "channels": "source_channels"}  # a side's key -> the source's
OF_CLASSES = ("classes: ", "no classes: ")  # notes on labels that are not used


@dataclass(kw_only=True)
class Side(ImageFolder):
    """The images of one side of pairs, in the order of the pairs' names.

    names: pair name of each file, other files are not read; None = each file is a pair. half: see Decoding.
    """

    names: dict[str, str] | None = None
    half: Half | None = None

    def find(self):
        files, faults = super().find()
        if self.names is None:
            return files, faults
        known = {file: why for file, why in faults.items() if file in self.names}
        return sorted((file for file in files if file in self.names), key=self.names.get), known

    @property
    def found(self) -> list[str]:
        """The pairs for which it has an image, in order."""
        return [file if self.names is None else self.names[file] for file in self._names]


@dataclass(kw_only=True)
class TwoFolders(TwoSided, ImageFolder):
    """Two sides with an ImageFolder's settings, which act on both.

    path:            the real images
    source:          the images that are translated to them
    source_channels: as `channels`, of the source; None = as the real images
    source_range:    as `range`, which is for the real images alone
    """

    source: str | None = None
    source_channels: int | None = None
    source_range: Sequence[float] | str | None = None
    side_by_side = False

    def _open_side(self, key: str, kind: type[ImageFolder] = ImageFolder, **settings: Any) -> ImageFolder:
        own = {field.name: getattr(self, field.name) for field in fields(ImageFolder)}
        own |= {"num_classes": None, "num_attributes": None}
        if key == "source":
            own |= {"name": f"{self.name}, source", "path": self.source, "range": self.source_range}
            own |= {"channels": self._channels_of(key), "shown": None}
            own |= {"labels": None, "columns": None, "ranges": None}
        try:
            return kind(**own | settings)
        except UserError as error:
            raise type(error)(self._told(str(error), key)) from error

    def _channels_of(self, key: str) -> int:
        return (self.source_channels or self.channels) if key == "source" else self.channels

    def _told(self, text: str, key: str) -> str:
        """A message of one side, with its keys as the user knows them."""
        if key == "real":
            return text
        keys = {name: of for name, of in OF_SOURCE.items() if name != "path" or not self.side_by_side}
        return re.sub(rf"dataset\.({'|'.join(keys)})\b", lambda found: f"dataset.{keys[found[1]]}", text)

    def _take(self, sides: dict[str, ImageFolder], labelled: bool) -> None:
        """Takes over the sides, with their notes and skipped files."""
        for key, side in sides.items():
            twin = sides["real"] if key == "source" and self.side_by_side else None  # has the same notes on its files
            notes = [note for note in side.notes if twin is None or note not in twin.notes]
            skipped = [file for file in side.skipped if twin is None or file not in twin.skipped]
            if key == "source" or not labelled:
                notes = [note for note in notes if not note.startswith(OF_CLASSES)]
            about = "source: " if key == "source" else ""
            self.notes += [f"{about}{self._told(note, key)}" for note in notes]
            self.skipped += [(name, f"{about}{why}") for name, why in skipped]

    def _check_places(self) -> None:
        if not (self.path and self.source):
            raise UserError(
                f"dataset={self.name} needs dataset.source={WHERE}, the images to translate, and dataset.path={WHERE}, "
                "what they are to become"
            )


@dataclass(kw_only=True)
class UnpairedImages(TwoFolders):
    """Two sets of images of different kinds, as CycleGAN translates them: Zhu et al. 2017 (arXiv 1703.10593)."""

    def open(self) -> None:
        self._check_places()
        self._sides = {key: self._open_side(key) for key in ("source", "real")}
        self._take(self._sides, labelled=False)
        self.notes.append("no classes: what is not paired has none")


@dataclass(kw_only=True)
class PairedImages(TwoFolders):
    """Pairs of images: two folders, in which files with the same name up to the ending belong together.

    Or two images side by side in one file, as in the data sets of pix2pix (Isola et al. 2017, arXiv 1611.07004).

    side: the half that is the source, left or right; None = two folders. on_error: also for images without a partner.
    """

    paired = True
    side: Half | None = None

    @property
    def side_by_side(self) -> bool:
        return self.side is not None

    def open(self) -> None:
        if self.side not in (None, *get_args(Half)):
            raise UserError(f"dataset.side={self.side}; valid: {', '.join(get_args(Half))}, or null for two folders")
        matched = self._halves() if self.side else self._matched()
        sides = {key: self._open_side(key, Side, **settings) for key, settings in matched.items()}
        self._take(sides, labelled=True)
        self._sides = self._aligned(sides)
        self.classes, self.attributes = list(self._sides["real"].classes), list(self._sides["real"].attributes)

    def _halves(self) -> dict[str, dict[str, Any]]:
        """The settings of each side."""
        if self.source:
            raise UserError(f"dataset.side={self.side}: it is for images side by side; expected dataset.source=null")
        if not self.path:
            raise UserError(f"dataset.side={self.side} needs dataset.path={WHERE} of images side by side")
        halves = {"source": self.side, "real": "left" if self.side == "right" else "right"}
        return {key: {"path": self.path, "half": half, "limit": self._limit} for key, half in halves.items()}

    def _matched(self) -> dict[str, dict[str, Any]]:
        """The settings of each side; files without a partner raise UserError, or are left out."""
        self._check_places()
        files = {key: self._files(key) for key in ("source", "real")}
        names = match(files["source"], files["real"])
        common = set(names["source"].values()) & set(names["real"].values())
        alone = {key: sorted(set(found.values()) - common) for key, found in names.items()}
        self._leave_alone(alone, len(common))
        return {
            key: {"names": {file: name for file, name in found.items() if name in common}, "limit": self._limit}
            for key, found in names.items()
        }

    def _files(self, key: str) -> dict[str, str]:
        """The image files of one side, readable or not, each with its name without the ending."""
        path = self.source if key == "source" else self.path
        try:
            read, listing = arrays(path, self._channels_of(key)) or source(path, cache=self.cache, check=self.check)
        except UserError as error:
            raise UserError(self._told(str(error), key)) from error
        if isinstance(read, ArrayFile):
            return {file: f"{row_of(file):09}" for file in listing.files}
        found = {file: without_ending(file) for file in sorted({*listing.files, *listing.faults})}
        twice = [name for name, num in Counter(found.values()).items() if num > 1]
        if twice:
            files = printable(" and ".join(file for file, name in found.items() if name == twice[0]))
            raise UserError(self._told(f"dataset.path={path}: {files} have the same name without its ending", key))
        return found

    def _leave_alone(self, alone: dict[str, list[str]], num: int) -> None:
        """Leaves out files without a partner, or raises UserError. alone: names, by side. num: number of pairs."""
        places = {"source": f"dataset.path={self.path}", "real": f"dataset.source={self.source}"}  # of the partner
        for key, names in alone.items():
            if names and (self.on_error == "refuse" or not num):
                shown = printable(", ".join(names[:SHOWN])) + (", ..." if len(names) > SHOWN else "")
                advice = f"; {ADVICE}" if num else ""
                raise UserError(f"{places[key]} has no partner for {len(names):,} images by name: {shown}{advice}")
            self.skipped += [(printable(name), f"without a partner in {places[key]}") for name in names]

    @property
    def _limit(self) -> int | None:
        """The limit of the sides; None if a chosen image may still be left out later."""
        return self.limit if self.on_error == "refuse" else None

    def _aligned(self, sides: dict[str, Side]) -> dict[str, Data]:
        """The images whose partners can be read as well, at most `limit`."""
        found = {key: side.found for key, side in sides.items()}
        common = set(found["source"]) & set(found["real"])
        chosen = [name for name in found["real"] if name in common]
        if not chosen:
            raise UserError(f"dataset {self.name}: no pair is left")
        lost = sorted({*found["source"], *found["real"]} - common)
        self.skipped += [(printable(name), "its partner is left out") for name in lost]
        chosen = [chosen[i] for i in spaced(len(chosen), self.limit)]
        return {key: self._those(side, found[key], chosen) for key, side in sides.items()}

    def _those(self, side: Side, found: list[str], chosen: list[str]) -> Data:
        if found == chosen:
            return side
        index = {name: i for i, name in enumerate(found)}
        return Subset(side, torch.tensor([index[name] for name in chosen]), side.name)


def without_ending(file: str) -> str:
    return PurePosixPath(file).with_suffix("").as_posix()


def match(source: dict[str, str], real: dict[str, str]) -> dict[str, dict[str, str]]:
    """Pair names by file, for each side; folders around everything are ignored if nothing matches otherwise."""
    found = {"source": source, "real": real}
    if source and real and not set(source.values()) & set(real.values()):
        tops = {key: wrapping(files) for key, files in found.items()}
        found = {
            key: {file: name.removeprefix(tops[key]) for file, name in files.items()} for key, files in found.items()
        }
    return found
