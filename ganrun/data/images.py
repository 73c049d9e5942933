"""Sets of images: arrays held in memory, and the images of a folder or a .zip."""

import zipfile
from abc import abstractmethod
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from ganrun.data.arrays import ENDINGS, ArrayFile, arrays
from ganrun.data.base import Images, as_labels, limited
from ganrun.data.channels import to_channels
from ganrun.data.decoded import ADVICE, DecodedImages
from ganrun.data.files import LARGEST, Listing, is_image, printable, reason, source
from ganrun.data.labels import (
    FILE,
    OTHERWISE,
    by_file,
    by_folder,
    check_splits,
    check_splits_within,
    first_folder,
    read_labels,
    wrapping,
)
from ganrun.data.pixels import fit_images
from ganrun.data.tabled import Tabled
from ganrun.depth import to_depth
from ganrun.errors import UserError


@dataclass(kw_only=True)
class ImagesInMemory(Images):
    """A set held as one tensor of pixels in channels_last: a batch is one indexing operation and needs no workers."""

    def open(self) -> None:
        images, labels, self.classes = self.load()
        images, labels = limited(self.limit, images, labels)
        images = to_channels(fit_images(images, self.size, self.fit), self.channels)
        self.held = {"real": images.contiguous(memory_format=torch.channels_last)}
        self.held |= {} if labels is None else {"label": labels}

    @abstractmethod
    def load(self) -> tuple[Tensor, Tensor | None, list[str]]:
        """uint8 or uint16 (num, C, h, w), labels (num,) or None, class names."""

    def __len__(self) -> int:
        return len(self.held["real"])


@dataclass(kw_only=True)
class Digits(ImagesInMemory):
    """scikit-learn's 1,797 handwritten digits, 8x8 with 17 grey levels (Alpaydin and Kaynak 1998); needs no network.

    num_test: the last images are set aside as the test split; 0 = none. tests: True = this is that split.
    """

    num_test: int = 0
    tests: bool = False

    def held_out(self):
        if self.num_test == 0 or self.tests:
            return None
        return replace(self, name=f"{self.name}, test split", tests=True, limit=None, num_classes=None)

    def load(self):
        from sklearn.datasets import load_digits

        digits = load_digits()
        images = torch.from_numpy(np.rint(digits.images * (255 / 16)).astype(np.uint8))
        if not 0 <= self.num_test < len(images):
            raise UserError(f"dataset.num_test={self.num_test}; expected 0 (off) to {len(images) - 1:,}")
        first = len(images) - self.num_test
        part = slice(first, None) if self.tests else slice(first)
        labels = as_labels(digits.target)[part]
        return images[part, None], labels, [str(name) for name in digits.target_names]


@dataclass(kw_only=True)
class ImageArray(ImagesInMemory):
    """The array arr_0, uint8 (num, H, W, C), of the .npz file `path`, and its integer `labels` if there are any.

    names: of the classes, unless the file has its own array `classes`. depth: 16 = uint16; uint8 is scaled to it.
    """

    path: str
    depth: int = 8
    names: Sequence[str] = ()

    def check_channels(self) -> None:
        """Any number may be right."""

    def load(self):
        try:
            with np.load(Path(self.path).expanduser(), allow_pickle=False) as arrays:
                images, labels = arrays["arr_0"], arrays.get("labels")
                names = arrays.get("classes", self.names)
        except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
            reason = "it holds objects, not arrays" if "allow_pickle" in str(error) else error
            raise UserError(f"path={self.path}: cannot be read as an .npz with arr_0: {reason}") from error
        kinds = ("uint8",) if self.depth == 8 else ("uint16", "uint8")
        if images.dtype.name not in kinds or images.ndim != 4:
            wanted = f"{' or '.join(kinds)} (num, H, W, C)"
            raise UserError(f"path={self.path}: arr_0 is {images.dtype} {images.shape}; expected {wanted}")
        images = to_depth(torch.from_numpy(images.astype(images.dtype.newbyteorder("="))), self.depth)
        images = images.permute(0, 3, 1, 2)
        if labels is None:
            return images, None, []
        if labels.shape != (len(images),) or labels.dtype.kind not in "iu":
            raise UserError(
                f"path={self.path}: labels are {labels.dtype} {labels.shape}; expected {len(images)} integers"
            )
        if len(labels) and not 0 <= labels.min() <= labels.max() < len(names):
            raise UserError(
                f"path={self.path}: labels from {labels.min()} to {labels.max()}; there are {len(names)} classes"
            )
        return images, as_labels(labels), [str(name) for name in names]


@dataclass(kw_only=True)
class ImageFolder(DecodedImages):
    """The images of a folder or a .zip, at any depth, or of an .npy or .npz.

    path: the folder, the .zip, a folder inside it (x.zip/train), or an array file, see ArrayFile.
    labels_from: auto = from StyleGAN's dataset.json if there is one, else from folders; folders = the folders at the
    first level are classes, if each image is in one of them; none = no labels. Folders around everything do not count
    as a level. A folder beside the classes without readable images is refused or skipped, as `on_error` says. With
    auto, folders that look like splits of a data set are refused.
    labels, columns, ranges: a table in place of these labels, see Tabled; None = none. num_attributes: the number that
    the config promises; None = as found in the table.
    """

    path: str | None
    labels_from: Literal["auto", "folders", "none"] = "auto"
    labels: str | None = None
    columns: Sequence[str | int] | str | None = None
    ranges: dict[str, Any] | None = None
    num_attributes: int | None = None

    def open(self) -> None:
        if self.labels_from not in ("auto", "folders", "none"):
            raise UserError(f"dataset.labels_from={self.labels_from}; valid: auto, folders, none")
        self._table = self._open_table()
        super().open()
        if self.num_attributes not in (None, len(self.attributes)):
            got = f"dataset.num_attributes={self.num_attributes}"
            raise UserError(f"{got}, but {self.name} has {len(self.attributes)} attributes; leave it out")
        if isinstance(self._source, ArrayFile):
            self.notes += self._source.notes
            if self.held:
                self._source.release()

    def check_channels(self) -> None:
        if not (self.path and Path(self.path).suffix in ENDINGS and self.channels >= 1):
            super().check_channels()

    def find(self):
        if not self.path:
            raise UserError("dataset=image-folder needs dataset.path=<folder or .zip of images, .npy or .npz>")
        wants_file = self.labels_from == "auto" and not self._table
        self._source, found = arrays(self.path, self.channels) or source(
            self.path, FILE if wants_file else "", cache=self.cache, check=self.check
        )
        self._in_folders = [name for name in [*found.files, *found.faults] if "/" in name and is_image(name)]
        self._top = wrapping(found.files or self._in_folders)
        self._file = self._find_file(found)
        self._numbers = self._read_file(found) if self._file else None
        self._match_table(found)
        unused = found.unused()
        if not found.files and not found.faults:
            told = unused or "image files end in .png, .jpg, .webp, ..."
            raise UserError(f"dataset.path={self.path}: no images in it; {told}")
        self.notes += [unused] if unused else []
        self._unseen = found.unseen
        self._folders = found.folders
        return sorted(found.files), found.faults

    def _find_file(self, found: Listing) -> str | None:
        """The dataset.json beside the outermost folders of images; others are not used."""
        parts = self._top.split("/")
        tops = ["".join(f"{part}/" for part in parts[:i]) for i in range(len(parts))]
        file = next((f"{top}{FILE}" for top in tops if f"{top}{FILE}" in found.tables), None)
        for other in found.tables.keys() - {file}:
            found.add_other(other)
        return file

    def _read_file(self, found: Listing) -> dict[str, int] | str:
        """Class numbers by file, or the reason why there are none. Images without a number become faults."""
        place = printable(f"{self.path}/{self._file}")
        if found.tables[self._file]:
            raise UserError(f"{place}: {found.tables[self._file]}; {OTHERWISE}")
        try:
            content = self._source.read(self._file)
        except Exception as error:  # of any kind, as in DecodedImages
            raise UserError(f"{place}: {reason(error)}; {OTHERWISE}") from error
        labels = read_labels(content, place)
        if isinstance(labels, str):
            return labels
        labels = {f"{self._file.removesuffix(FILE)}{name}": number for name, number in labels.items()}
        gone = labels.keys() - {*found.files, *found.faults}
        if gone:
            what = f"{len(gone):,} files that are not there, such as {printable(min(gone))}"
            self.notes.append(f"{self._file} has labels of {what}")
        found.faults |= {name: f"{self._file} gives it no label" for name in found.files if name not in labels}
        found.files = [name for name in found.files if name in labels]
        return labels

    def _open_table(self) -> Tabled | None:
        """Raises UserError for settings that exclude each other."""
        if not self.labels:
            for key in ("columns", "ranges"):
                if getattr(self, key) is not None:
                    raise UserError(f"dataset.{key}: it is for dataset.labels=<.csv or .json>, which is null")
            return None
        if self.labels_from != "auto":
            raise UserError(f"dataset.labels_from={self.labels_from}: labels are read from dataset.labels; give one")
        return Tabled(self.labels, self.columns, self.ranges)

    def _match_table(self, found: Listing) -> None:
        """Files without a row become faults."""
        if not self._table:
            return
        if isinstance(self._source, ArrayFile):
            raise UserError("dataset.labels: it is for a folder or .zip of images; an array file has its own labels")
        place = Path(self.labels).expanduser()
        if place.resolve().is_relative_to(Path(self.path).expanduser().resolve()):
            found.others -= Counter([place.suffix.lower()])
        bad, note = self._table.match(sorted([*found.files, *found.faults]), self._top)
        self.notes += [note] if note else []
        found.faults |= {name: why for name, why in bad.items() if name in found.files}
        found.files = [name for name in found.files if name not in bad]

    def describe(self, names):
        if not self._table or self._table.are_classes:
            return None
        values, self.attributes, notes = self._table.attributes(names)
        self.notes += notes
        return values if self.attributes else None

    def label(self, names):
        if isinstance(self._source, ArrayFile):
            return self._source.label(names)
        if self.labels_from == "none" or (self._table and not self._table.are_classes):
            return None, []
        if self._table:
            numbers, classes, note = self._table.classes(names)
            self.notes.append(printable(note))
            return numbers and as_labels(numbers), classes
        if isinstance(self._numbers, dict):
            numbers, classes, note = by_file(names, self._numbers, self._file)
            self.notes.append(note)
            return numbers and as_labels(numbers), classes
        return self._label_by_folder(names)

    def _label_by_folder(self, names: list[str]) -> tuple[Tensor | None, list[str]]:
        self._top = wrapping([*names, *self._in_folders])  # a bad image beside the folders may have hidden it
        seen = sorted({first_folder(name, self._top) for name in names} - {""})
        if self.labels_from == "auto":
            place = f"{self.path}/{self._top}".rstrip("/")
            note = check_splits(seen, place)
            check_splits_within(names, self._top, place)
            self.notes += [printable(note)] if note else []
        if self._numbers:
            self.notes.append(f"no classes: {self._file} is there, and {self._numbers}")
            return None, []
        folders, note = by_folder(names, self._top)
        self.notes += [printable(note)] if note else []
        if folders is None:
            return None, []
        within = [name for name in self._folders if f"{name}/".startswith(self._top)]
        self._leave_out_classes({first_folder(f"{name}/", self._top) for name in within} - {"", *seen})
        numbers = {folder: number for number, folder in enumerate(seen)}
        return as_labels([numbers[folder] for folder in folders]), seen

    def _leave_out_classes(self, empty: set[str]) -> None:
        names = [printable(name) for name in sorted(empty)]
        if names and self.on_error == "refuse":
            raise UserError(f"dataset {self.name}: class folder without readable images: {', '.join(names)}; {ADVICE}")
        self.skipped += [(name, "class folder without readable images") for name in names]

    def content(self, name, most=LARGEST):
        return self._source.read(name, most)

    def stamp(self, name):
        return self._source.stamp(name)

    def look_at_all(self):
        self._source.look_at_all()

    def name_in_messages(self, name):
        return printable(name.removeprefix(self._top))
