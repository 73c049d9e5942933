"""Images as uint8 (channels, H, W): fitting to a size, value range, flips; sets in memory, folders and zip files."""

import io
import os
import zipfile
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Literal

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import interpolate, pad

from ganrun.data.base import Data, as_labels, limited
from ganrun.errors import UserError
from ganrun.game import Batch
from ganrun.pictures import grid
from ganrun.seeding import derive, uniform_at

Fit = Literal["resize", "crop", "pad"]
IN_MEMORY = 2**30  # bytes: decoded folders up to this size are kept after their first epoch
NOT_DECODED = {".pdf", ".mpg", ".mpeg", ".h5", ".hdf"}  # Pillow lists these endings but reads no pixels from them


def fit_images(images: Tensor, size: tuple[int, int], fit: Fit) -> Tensor:
    """uint8 (num, C, h, w) -> uint8 (num, C, *size).

    resize: both sides to size, whatever the shape. crop: the image fills the size, the middle is kept. pad: the image
    is shrunk into the size if it is larger, never enlarged; black around it.
    """
    height, width = images.shape[-2:]
    scales = size[0] / height, size[1] / width
    if fit == "crop":
        scales = (max(scales),) * 2
    elif fit == "pad":
        scales = (min(1.0, *scales),) * 2
    images = _resize(images, (max(1, round(height * scales[0])), max(1, round(width * scales[1]))))
    height, width = images.shape[-2:]
    top, left = (size[0] - height) // 2, (size[1] - width) // 2
    return pad(images, (left, size[1] - width - left, top, size[0] - height - top))  # negative padding crops


def _resize(images: Tensor, size: tuple[int, int]) -> Tensor:
    if images.shape[-2:] == size:
        return images
    chunks = [interpolate(c.float(), size, mode="bilinear", antialias=True) for c in images.split(1024)]
    return torch.cat([c.round().clamp(0, 255).to(torch.uint8) for c in chunks])


def to_channels(images: Tensor, channels: int) -> Tensor:
    """uint8 (num, c, H, W) -> (num, channels, H, W), 1 or 3 channels: grey by ITU-R 601 luma, colour by repetition."""
    if images.shape[1] == channels:
        return images
    if images.shape[1] == 3 and channels == 1:
        luma = torch.tensor([0.299, 0.587, 0.114]).reshape(1, 3, 1, 1)
        return torch.cat([(c * luma).sum(1, keepdim=True).round().to(torch.uint8) for c in images.split(1024)])
    if images.shape[1] == 1:
        return images.expand(-1, channels, -1, -1).contiguous()
    raise UserError(f"dataset.channels={channels}: images have {images.shape[1]}; valid: 1, 3")


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
        super().__init__(text.rpartition(f"{type(self).__qualname__}: ")[2].strip())


@dataclass(kw_only=True)
class DecodedImages(Images):
    """Images decoded from files when they are read, and kept if all of them fit in 1 GiB.

    With workers nothing is kept: each worker would keep its own copy. `limit` takes evenly spaced files.
    """

    def open(self) -> None:
        self._names, labels, self.classes = self.find()
        if self.limit is not None:  # evenly spaced, so that every class folder keeps its share
            chosen = torch.linspace(0, len(self._names) - 1, min(self.limit, len(self._names))).long()
            self._names = [self._names[i] for i in chosen]
            labels = labels if labels is None else labels[chosen]
        self._labels = labels
        keep = self.num_workers == 0 and len(self) * int(np.prod(self.shape)) <= IN_MEMORY
        self._kept = torch.zeros(len(self), *self.shape, dtype=torch.uint8) if keep else None
        self._is_kept = torch.zeros(len(self), dtype=torch.bool)

    @abstractmethod
    def find(self) -> tuple[list[str], Tensor | None, list[str]]:
        """Names of the files, labels (num,) or None, class names."""

    @abstractmethod
    def content(self, name: str) -> bytes:
        """The bytes of one file."""

    def __len__(self) -> int:
        return len(self._names)

    def read(self, indices: Tensor) -> Batch:
        if self._kept is None:
            real = torch.stack([self._decode(i) for i in indices.tolist()])
        else:
            for i in indices[~self._is_kept[indices]].tolist():
                self._kept[i] = self._decode(i)
                self._is_kept[i] = True
            real = self._kept[indices]
        return {"real": real} if self._labels is None else {"real": real, "label": self._labels[indices]}

    def _decode(self, index: int) -> Tensor:
        name = self._names[index]
        try:
            with Image.open(io.BytesIO(self.content(name))) as image:
                pixels = np.array(eight_bit(image).convert("L" if self.channels == 1 else "RGB"))
        except Exception as error:  # decoders and zip files raise exceptions of every kind on damaged bytes
            raise Unreadable(f"dataset {self.name}: cannot read image {name}: {error}") from error
        pixels = torch.from_numpy(pixels)
        pixels = pixels[None] if pixels.dim() == 2 else pixels.permute(2, 0, 1)
        return fit_images(pixels[None], self.size, self.fit)[0]


def eight_bit(image: Image.Image) -> Image.Image:
    """Grey of 16 bits scaled to 8; Pillow's own conversion clips at 255."""
    if not image.mode.startswith("I"):
        return image
    return Image.fromarray((np.asarray(image) >> 8).clip(0, 255).astype(np.uint8))


def is_image(name: str) -> bool:
    """By the ending; hidden files and what macOS adds to archives are none."""
    path = PurePosixPath(name)
    hidden = any(part.startswith(".") or part == "__MACOSX" for part in path.parts)
    suffix = path.suffix.lower()
    return not hidden and suffix in Image.registered_extensions() and suffix not in NOT_DECODED


@dataclass(kw_only=True)
class ImageFolder(DecodedImages):
    """The images of a folder or a .zip, however deep. Folders at the first level are classes if all images are in one.

    The one folder that a .zip has around everything is no level.

    path: the folder or zip file.
    """

    path: str | None

    def find(self):
        if self.path is None:
            raise UserError("dataset=image-folder needs dataset.path=<folder or .zip of images>")
        self._root, self._zip, self._opened_by = Path(self.path).expanduser(), None, None
        if not self._root.exists():
            raise UserError(f"dataset.path={self.path}: there is no such folder or .zip")
        names = sorted(self._list())
        if not names:
            raise UserError(f"dataset.path={self.path}: no images in it; image files end in .png, .jpg, .webp, ...")
        folders = [PurePosixPath(name).parts[0] if "/" in name else None for name in names]
        classes = sorted({folder for folder in folders if folder})
        if None in folders or len(classes) < 2:
            return names, None, []
        index = {name: i for i, name in enumerate(classes)}
        return names, as_labels([index[folder] for folder in folders]), classes

    def _list(self) -> list[str]:
        if self._root.is_dir():
            files = [p.relative_to(self._root).as_posix() for p in self._root.rglob("*") if p.is_file()]
            return [name for name in files if is_image(name)]
        if not zipfile.is_zipfile(self._root):
            raise UserError(f"dataset.path={self.path} is neither a folder nor a .zip file")
        with zipfile.ZipFile(self._root) as archive:
            names = [info.filename for info in archive.infolist() if not info.is_dir() and is_image(info.filename)]
        top = {PurePosixPath(name).parts[0] for name in names}
        self._prefix = f"{top.pop()}/" if len(top) == 1 and all("/" in name for name in names) else ""
        return [name.removeprefix(self._prefix) for name in names]

    def content(self, name: str) -> bytes:
        if self._root.is_dir():
            return (self._root / name).read_bytes()
        if self._opened_by != os.getpid():  # a forked worker would share its parent's place in the file
            self._zip, self._opened_by = zipfile.ZipFile(self._root), os.getpid()
        return self._zip.read(self._prefix + name)

    def __getstate__(self) -> dict:
        return self.__dict__ | {"_zip": None, "_opened_by": None}
