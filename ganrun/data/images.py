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
    """The images of a folder or a .zip, however deep. Folders at the first level are classes if all images are in one.

    The one folder that a .zip has around everything is no level. Beside class folders with images, one without any is
    refused or skipped as `on_error` says.

    path: the folder or zip file, or an .npy or .npz of images, see ArrayFile.
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
        self._source, found = arrays(self.path) or source(self.path)
        if not found.files and not found.faults:
            raise UserError(f"dataset.path={self.path}: no images in it; image files end in .png, .jpg, .webp, ...")
        self._folders, self._top = found.folders, self._source.top(found.files)
        return sorted(found.files), found.faults

    def label(self, names):
        if isinstance(self._source, ArrayFile):
            return self._source.label(names)
        top = self._source.top(names)
        folders = [first_folder(name, top) for name in names]
        classes = sorted(set(folders))
        if "" in classes or len(classes) < 2:
            return None, []
        seen = {first_folder(f"{folder}/", top) for folder in self._folders if f"{folder}/".startswith(top)}
        self._leave_out_classes(seen - {"", *classes})
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


def first_folder(name: str, top: str) -> str:
    """The outermost folder within `top` that a name lies in; "" for none."""
    folder, slash, _ = name.removeprefix(top).partition("/")
    return folder if slash else ""
