"""Sets of images: arrays held in memory, and the images of a folder or a .zip."""

import zipfile
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ganrun.data.arrays import ArrayFile, arrays
from ganrun.data.base import Images, as_labels, limited
from ganrun.data.decoded import ADVICE, DecodedImages
from ganrun.data.files import LARGEST, printable, source
from ganrun.data.labels import LABELS, check_splits, first_folder, listed, read_labels, wrapping
from ganrun.data.pixels import fit_images, to_channels
from ganrun.errors import UserError


@dataclass(kw_only=True)
class ImagesInMemory(Images):
    """A set held as one uint8 tensor in channels_last: a batch is an index, no worker needed."""

    def open(self) -> None:
        images, labels, self.classes = self.load()
        images, labels = limited(self.limit, images, labels)
        images = to_channels(fit_images(images, self.size, self.fit), self.channels)
        self.held = {"real": images.contiguous(memory_format=torch.channels_last)}
        self.held |= {} if labels is None else {"label": labels}

    @abstractmethod
    def load(self) -> tuple[Tensor, Tensor | None, list[str]]:
        """uint8 (num, C, h, w), labels (num,) or None, class names."""

    def __len__(self) -> int:
        return len(self.held["real"])


@dataclass(kw_only=True)
class Digits(ImagesInMemory):
    """scikit-learn's 1,797 handwritten digits, 8x8 with 17 grey levels (Alpaydin and Kaynak 1998); needs no network."""

    def load(self):
        from sklearn.datasets import load_digits

        digits = load_digits()
        images = torch.from_numpy(np.rint(digits.images * (255 / 16)).astype(np.uint8))
        return images[:, None], as_labels(digits.target), [str(name) for name in digits.target_names]


@dataclass(kw_only=True)
class ImageArray(ImagesInMemory):
    """The array arr_0, uint8 (num, H, W, C), of the .npz file `path`, and its integer `labels` if there are any.

    names: of the classes, unless the file has its own `classes`.
    """

    path: str
    names: Sequence[str] = ()

    def load(self):
        try:
            with np.load(Path(self.path).expanduser(), allow_pickle=False) as arrays:
                images, labels = arrays["arr_0"], arrays.get("labels")
                names = arrays.get("classes", self.names)
        except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
            reason = "it holds objects, not arrays" if "allow_pickle" in str(error) else error
            raise UserError(f"path={self.path}: cannot be read as an .npz with arr_0: {reason}") from error
        if images.dtype != np.uint8 or images.ndim != 4:
            raise UserError(f"path={self.path}: arr_0 is {images.dtype} {images.shape}; expected uint8 (num, H, W, C)")
        images = torch.from_numpy(images).permute(0, 3, 1, 2)
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
    """The images of a folder or a .zip, however deep, or of an .npy or .npz.

    Labels come from a StyleGAN dataset.json, if there is one. Else the folders at the first level are classes, if each
    image lies in one of them. Folders that are around everything are no level, in a folder as in a .zip. Folders that
    are all named as splits (train, test, ...) are refused. Beside class folders with images, one without any is refused
    or skipped as `on_error` says.

    path: the folder, the .zip, a folder within it (x.zip/train), or an array file, see ArrayFile.
    """

    path: str | None

    def open(self) -> None:
        super().open()
        if isinstance(self._source, ArrayFile):
            self.notes += self._source.notes
            if self.held:
                self._source.release()

    def find(self):
        if not self.path:
            raise UserError("dataset=image-folder needs dataset.path=<folder or .zip of images, .npy or .npz>")
        self._source, self._found = arrays(self.path) or source(self.path)
        found = self._found
        if not found.files and not found.faults:
            unused = found.unused(set())
            there = f"; {unused}" if unused else ""
            raise UserError(
                f"dataset.path={self.path}: no images in it{there}; image files end in .png, .jpg, .webp, ..."
            )
        self._top = wrapping(found.files)
        return sorted(found.files), found.faults

    def label(self, names):
        if isinstance(self._source, ArrayFile):
            return self._source.label(names)
        self._top = wrapping([*names, *(name for name in [*self._found.files, *self._found.faults] if "/" in name)])
        file = next((f"{top}{LABELS}" for top in ("", self._top) if self._is_there(f"{top}{LABELS}")), None)
        unused = self._found.unused({file} if file else set())
        self.notes += [unused] if unused else []
        return self._label_by_folder(names) if file is None else self._label_by_file(names, file)

    def _is_there(self, name: str) -> bool:
        return name in self._found.others.get(".json", ())

    def _label_by_file(self, names: list[str], file: str) -> tuple[Tensor | None, list[str]]:
        place = f"{self.path}/{file}"
        labels = read_labels(self._source.read(file), place)
        if isinstance(labels, str):
            self.notes.append(f"no classes: {file} is there, but {labels}")
            return None, []
        folder = file.removesuffix(LABELS)
        labels = {f"{folder}{name}": label for name, label in labels.items()}
        without = [name for name in names if name not in labels]
        if without:
            raise UserError(
                f"{place}: no label for {len(without):,} of {len(names):,} images, such as {printable(without[0])}"
            )
        gone = len(labels.keys() - {*self._found.files, *self._found.faults})
        self.notes += [f"{file} has labels of {gone:,} files that are not there"] if gone else []
        classes = [str(number) for number in range(max(labels[name] for name in names) + 1)]
        self.notes.append(f"{len(classes):,} classes from {file}: {listed(classes)}")
        return as_labels([labels[name] for name in names]), classes

    def _label_by_folder(self, names: list[str]) -> tuple[Tensor | None, list[str]]:
        folders = [first_folder(name, self._top) for name in names]
        classes = sorted(set(folders))
        splits = check_splits(set(classes) - {""}, f"{self.path}/{self._top}".rstrip("/"))
        if "" in classes or len(classes) < 2:
            if len(classes) > 1 and self.num_classes is None:
                self.notes.append("no classes: some images lie in no folder")
            return None, []
        seen = {first_folder(f"{name}/", self._top) for name in self._found.folders if f"{name}/".startswith(self._top)}
        self._leave_out_classes(seen - {"", *classes})
        self.notes.append(f"{len(classes):,} classes from folders: {printable(listed(classes))}")
        if splits:
            self.notes.append(f"taken for classes, not for splits: {', '.join(splits)}")
        index = {name: i for i, name in enumerate(classes)}
        return as_labels([index[folder] for folder in folders]), classes

    def _leave_out_classes(self, empty: set[str]) -> None:
        names = [printable(name) for name in sorted(empty)]
        if names and self.on_error == "refuse":
            raise UserError(f"dataset {self.name}: class folder without readable images: {', '.join(names)}; {ADVICE}")
        self.skipped += [(name, "class folder without readable images") for name in names]

    def content(self, name, most=LARGEST):
        return self._source.read(name, most)

    def stamp(self, name):
        return self._source.stamp(name)

    def shown(self, name):
        return printable(name.removeprefix(self._top))
