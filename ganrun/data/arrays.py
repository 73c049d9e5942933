"""Images in a NumPy file: which array holds them, its layout, and the labels beside it."""

import os
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from ganrun.data.base import as_labels
from ganrun.data.channels import WITH_OPACITY, becomes, laid_over
from ganrun.data.files import Listing, printable, reason
from ganrun.data.memory import physical_memory
from ganrun.errors import UserError

ENDINGS = (".npy", ".npz")
IMAGES = ("images", "arr_0")  # names of the image array if there are several arrays
LABELS = ("labels", "label", "y")
CLASSES = "classes"  # name of the array of class names
CHANNELS = (1, 3, 4)  # grey, RGB, RGB with opacity; others only if dataset.channels names their number
LAYOUTS = "expected (num, H, W), (num, H, W, C) or (num, C, H, W) with 1, 3 or 4 channels"
SHARE = 0.5  # of the memory that an .npz may take; an .npy is mapped


@dataclass(frozen=True)
class Header:
    """The header of one array in the file."""

    shape: tuple[int, ...]
    dtype: np.dtype

    def __str__(self) -> str:
        return f"{self.dtype} {self.shape}"


class ArrayFile:
    """The images of an .npy or .npz file, numbered; the counterpart of files.Folder.

    The images are the array called `images` or `arr_0`, or the only array of three or four dimensions: (num, H, W),
    (num, H, W, C), or (num, C, H, W) if nothing else fits. C is 1, 3 or 4, or `channels`, those that are asked for.
    Labels are integers (num,) called `labels`, `label` or `y`;
    class names are strings called `classes`. Without names, the labels' numbers are the names. Arrays of Python objects
    are refused: loading them could run code. An .npy is mapped; an .npz is loaded when an image is first read.

    Raises UserError.
    """

    def __init__(self, path: Path | str, channels: int = 3):
        self.path, self.channels = Path(path).expanduser(), channels
        self.notes: list[str] = []
        self._pixels: np.ndarray | None = None
        self._headers = self._read(self._find_headers)
        self._name = self._choose_images()
        self._first = self._is_channels_first(self._headers[self._name].shape)
        self._stamp = self._read(self._find_stamp)
        unused = [name for name in self._headers if name not in (self._name, CLASSES, self._labels_name())]
        if unused:
            told = ", ".join(f"{printable(name)} {self._headers[name]}" for name in unused)
            self.notes.append(f"{self.path.name}: the images are {self._name}; not used: {told}")

    def find(self) -> Listing:
        num = self._headers[self._name].shape[0]
        return Listing(files=[f"{self._name}[{i:0{len(str(num - 1))}}]" for i in range(num)])

    def read(self, name: str, most: int = 0) -> np.ndarray:
        """One image, (H, W) or (H, W, C), as stored."""
        row = np.array(self._load()[row_of(name)])
        return row.transpose(1, 2, 0) if self._first else row

    def stamp(self, name: str) -> str:
        return self._stamp

    def label(self, names: list[str]) -> tuple[Tensor | None, list[str]]:
        """The labels (num,) of these images, None = unlabelled, and the names of the file's classes."""
        labels, classes = self._labels()
        return None if labels is None else as_labels(labels[[row_of(name) for name in names]]), classes

    def _labels(self) -> tuple[np.ndarray | None, list[str]]:
        name, num = self._labels_name(), self._headers[self._name].shape[0]
        if name is None:
            return None, []
        header = self._headers[name]
        if header.shape not in ((num,), (num, 1)) or header.dtype.kind not in "iu":
            raise UserError(f"{self.path}: {name} is {header}; expected {num:,} integers, one for each image")
        found, labels = np.unique(self._read(self._array, name).reshape(-1), return_inverse=True)
        if CLASSES not in self._headers:
            return labels, [str(value) for value in found]
        names = [str(text) for text in self._read(self._array, CLASSES)]
        if found[0] < 0 or found[-1] >= len(names):
            raise UserError(f"{self.path}: {name} from {found[0]} to {found[-1]}; there are {len(names)} classes")
        if len(found) < len(names):
            left_out = [text for i, text in enumerate(names) if i not in found]
            self.notes.append(f"classes without images are left out: {', '.join(map(printable, left_out[:10]))}")
        return labels, [names[value] for value in found]

    def release(self) -> None:
        """Frees the pixels; they are loaded again when needed."""
        self._pixels = None

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_pixels": None}

    def _labels_name(self) -> str | None:
        return next((name for name in LABELS if name in self._headers), None)

    def _choose_images(self) -> str:
        able = [name for name, header in self._headers.items() if len(header.shape) in (3, 4)]
        named = [name for name in IMAGES if name in self._headers]
        if not named and len(able) != 1:
            told = ", ".join(f"{printable(name)} {header}" for name, header in self._headers.items())
            raise UserError(f"{self.path}: which of its arrays are the images? call one `images`; it has {told}")
        name = (named or able)[0]
        header = self._headers[name]
        if header.dtype.hasobject or header.dtype.kind not in "biuf":
            raise UserError(f"{self.path}: {name} is {header}; expected numbers")
        return name

    def _is_channels_first(self, shape: tuple[int, ...]) -> bool:
        if 0 in shape:
            raise UserError(f"{self.path}: {self._name} is {self._headers[self._name]}: there are no images in it")
        for valid in [CHANNELS] if self.channels in CHANNELS else [(self.channels,), CHANNELS]:
            if len(shape) == 4 and (shape[3] in valid or shape[1] in valid):
                first = shape[3] not in valid
                self._check_channels(shape[1 if first else 3])
                self.notes += [f"{self._name} {shape} is read as (num, C, H, W)"] if first else []
                return first
        if len(shape) != 3 or shape[2] in CHANNELS:  # (H, W, C): one image
            other = f"; dataset.channels={min(shape[1], shape[3])} reads as many" if len(shape) == 4 else ""
            raise UserError(f"{self.path}: {self._name} is {self._headers[self._name]}; {LAYOUTS}{other}")
        self._check_channels(1)
        return False

    def _check_channels(self, got: int) -> None:
        """Raises UserError for channels that do not become as many as are asked for."""
        if not becomes(got, self.channels):
            have = f"{self._name} is {self._headers[self._name]}, with {got} channels"
            advice = f"dataset.channels={self.channels} needs as many; dataset.channels={got} reads them"
            raise UserError(f"{self.path}: {have}; {advice}")
        if got in WITH_OPACITY and self.channels in (1, 3):
            self.notes.append(f"{self._name} {self._headers[self._name].shape}: {laid_over(self.channels)}")

    def _load(self) -> np.ndarray:
        if self._pixels is None:
            header = self._headers[self._name]
            size, most = np.prod(header.shape) * header.dtype.itemsize, physical_memory() * SHARE
            if self.path.suffix != ".npy" and size > most:
                raise UserError(f"{self.path}: {size / 2**30:,.1f} GiB are half of the memory or more; save it as .npy")
            self._pixels = self._read(self._array, self._name)
        return self._pixels

    def _array(self, name: str) -> np.ndarray:
        if self.path.suffix == ".npy":
            return np.load(self.path, mmap_mode="r", allow_pickle=False)
        with np.load(self.path, allow_pickle=False) as arrays:
            return arrays[name]

    def _find_headers(self) -> dict[str, Header]:
        if self.path.suffix == ".npy":
            with self.path.open("rb") as file:
                return {self.path.stem: header_of(file)}
        headers = {}
        with zipfile.ZipFile(self.path) as archive:
            for member in archive.namelist():
                with archive.open(member) as file:
                    headers[member.removesuffix(".npy")] = header_of(file)
        return headers

    def _find_stamp(self) -> str:
        status = os.stat(self.path)
        place = f"{os.path.realpath(self.path)} {status.st_dev} {status.st_ino} {status.st_size}"
        return f"{place} {status.st_mtime_ns} {status.st_ctime_ns}"

    def _read(self, reading, *args):
        try:
            return reading(*args)
        except UserError:
            raise
        except Exception as error:  # damaged files raise exceptions of every kind
            why = "it holds objects, not numbers" if "allow_pickle" in str(error) else reason(error)
            raise UserError(f"{self.path}: cannot be read as {self.path.suffix}: {why}") from error


def arrays(path: str, channels: int = 3) -> tuple[ArrayFile, Listing] | None:
    """The images of an .npy or .npz file; None for any other file. channels: asked for. Raises UserError."""
    place = Path(path).expanduser()
    if place.suffix not in ENDINGS or not place.is_file():
        return None
    found = ArrayFile(place, channels)
    return found, found.find()


def row_of(name: str) -> int:
    """arr_0[007] -> 7"""
    return int(name.rpartition("[")[2][:-1])


def header_of(file) -> Header:
    """The header in an array's first bytes."""
    version = np.lib.format.read_magic(file)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, dtype = read(file)
    return Header(shape, dtype)
