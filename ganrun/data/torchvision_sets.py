"""The classic image sets through torchvision: found under data_dir, else downloaded to it."""

import contextlib
import io
import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ganrun.data.base import Data, as_labels
from ganrun.data.decoded import DecodedImages
from ganrun.data.files import LARGEST, Folder
from ganrun.data.images import ImagesInMemory
from ganrun.data.known import Known
from ganrun.errors import UserError, one_of


def open_torchvision(dataset: str, name: str, data_dir: str, arguments: dict[str, Any]):
    """The torchvision set of that class name, from the files under data_dir or by download.

    Raises UserError if there is no such class, or if the files are missing and cannot be downloaded.
    """
    cls = torchvision_class(dataset)
    try:
        return cls(root=data_dir, download=False, **arguments)
    except (RuntimeError, FileNotFoundError):
        pass  # not downloaded yet
    print(f"{name} is not in {data_dir}; downloading it")
    before = folders_in(data_dir)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            return cls(root=data_dir, download=True, **arguments)
    except Exception as error:  # whatever the network, the disk or the archive raises: the advice is the same
        reason = " ".join(str(error).split()) or type(error).__name__
        for folder in sorted(folders_in(data_dir) - before, reverse=True):  # the empty folders that it made
            with contextlib.suppress(OSError):
                folder.rmdir()
        raise UserError(
            f"dataset={name}: not in data_dir={data_dir}, and the download failed ({reason}); point data_dir= or "
            "$GANRUN_DATA at the files, or use dataset=digits, which needs no network"
        ) from error


def folders_in(place: str) -> set[Path]:
    """The parent folders of a place and the folders in it."""
    root = Path(place)
    found = [root, *root.parents, *(Path(folder) for folder, _, _ in os.walk(root))]
    return {folder for folder in found if folder.is_dir()}


def torchvision_class(dataset: str) -> Callable:
    """The data set class of that name in torchvision.datasets; nothing else there is accepted."""
    module = import_module("torchvision.datasets")
    classes = {name: getattr(module, name) for name in module.__all__}
    valid = [name for name, cls in classes.items() if isinstance(cls, type) and issubclass(cls, module.VisionDataset)]
    if dataset not in valid:
        raise UserError(f"dataset.dataset={dataset}: torchvision has no such data set; {one_of(valid, str(dataset))}")
    return classes[dataset]


def with_test_arguments(data: Data) -> Data | None:
    """The same set opened with its `test_arguments`."""
    if data.test_arguments is None or data.test_arguments == data.arguments:
        return None
    return replace(data, name=f"{data.name}, test split", arguments=data.test_arguments, limit=None, num_classes=None)


def as_images(data: Tensor | np.ndarray) -> Tensor:
    """torchvision's arrays, (num, H, W), (num, H, W, C) or (num, C, H, W), -> uint8 (num, C, H, W)."""
    images = torch.as_tensor(data)
    if images.dim() == 3:
        return images[:, None]
    return images if images.shape[1] in (1, 3) else images.permute(0, 3, 1, 2).contiguous()


@dataclass(kw_only=True)
class TorchvisionImages(ImagesInMemory):
    """A set that torchvision holds as an array.

    dataset: class name in torchvision.datasets. arguments: of that class, such as {train: true} or {split: train}.
    test_arguments: the arguments that open its test split, None = it has none.
    """

    dataset: str
    data_dir: str
    arguments: dict[str, Any]
    test_arguments: dict[str, Any] | None = None

    def held_out(self):
        return with_test_arguments(self)

    def load(self):
        found = open_torchvision(self.dataset, self.name, self.data_dir, self.arguments)
        labels = getattr(found, "targets", getattr(found, "labels", None))
        labels = None if labels is None or np.min(np.asarray(labels)) < 0 else as_labels(labels)
        classes = [] if labels is None else getattr(found, "classes", None) or map(str, range(int(labels.max()) + 1))
        return as_images(found.data), labels, [str(name) for name in classes]


@dataclass(kw_only=True)
class CelebA(DecodedImages):
    """202,599 aligned faces of 178x218 (Liu et al. 2015); read file by file, without attributes.

    arguments: of torchvision.datasets.CelebA, such as {split: train}. test_arguments: those of its test split.
    """

    data_dir: str
    arguments: dict[str, Any]
    test_arguments: dict[str, Any] | None = None

    def held_out(self):
        return with_test_arguments(self)

    def find(self):
        found = open_torchvision("CelebA", self.name, self.data_dir, self.arguments)
        place = f"{found.root}/{found.base_folder}/img_align_celeba"
        self._folder = Folder(place, known=Known(place, self.cache, self.check))
        self._unseen = self._folder.find().unseen  # and the stamps of all files
        return list(found.filename), {}

    def content(self, name, most=LARGEST):
        return self._folder.read(name, most)

    def stamp(self, name):
        return self._folder.stamp(name)

    def look_at_all(self):
        self._folder.look_at_all()
