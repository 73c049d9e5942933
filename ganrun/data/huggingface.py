"""Sets that the library `datasets` opens: from Hugging Face's hub, saved by it, or in Parquet and Arrow files."""

import logging
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ganrun.data.files import LARGEST, file_fault, printable, reason, size_fault
from ganrun.data.records import Found, Records
from ganrun.data.rows import IterableRows, ParquetRows
from ganrun.errors import UserError, one_of, require_extra

ON_HUB = re.compile(r"[\w.-]+(/[\w.-]+)?", re.A)
LABELS = ("label", "labels", "class", "cls", "category", "target")  # columns of labels that do not say so themselves
IMAGES = ("image", "img", "images")  # of several image columns, and of bytes that do not say that they are images
TESTS = ("test", "validation", "valid", "val")


@dataclass(kw_only=True)
class HuggingFace(Records):
    """The rows of one split, memory-mapped; with `streaming`, read from front to back without a copy on the disk.

    path:         name on the hub, a folder (from save_to_disk, or of Parquet, Arrow, ... files), a .parquet, an .arrow
    split:        of the set. subset: its config, None = the only or default one. revision: on the hub, None = newest
    test_split:   auto = test, else validation, if there is one; None = none
    image_column: auto = the only column of images. label_column: auto = the only column of classes, else one called
                  label or similar; None = no labels

    No code of the set is run. What is downloaded or converted lies in the library's own cache, $HF_HOME.
    """

    path: str | None
    split: str = "train"
    subset: str | None = None
    revision: str | None = None
    test_split: str | None = "auto"
    image_column: str = "auto"
    label_column: str | None = "auto"

    def held_out(self):
        wanted = self.test_split
        if wanted == "auto":
            wanted = next((name for name in TESTS if name in self._splits), None)
        if wanted in (None, self.split):
            return None
        about = {"name": f"{self.name}, test split", "split": wanted, "test_split": None, "limit": None}
        return replace(self, **about, num_classes=None, class_names=self.classes or self.class_names)

    def look_up(self):
        require_extra("dataset=huggingface", "huggingface", "datasets")
        if not self.path:
            raise UserError("dataset=huggingface needs dataset.path=<name on the hub, folder, .parquet or .arrow>")
        with quietly():
            self._table = self._opened()
            self._image, self._label = self._choose_columns(self._table.features)
            rows = self._rows()
        self._shards = rows
        names = self._label_names()
        labels = self._labels(rows)
        self._stamp = self._stamped()
        sizes = [len(self._table)] if rows is None else rows.sizes
        shard = np.repeat(np.arange(len(sizes)), sizes)
        place = np.concatenate([np.arange(size) for size in sizes]) if sizes else shard
        if names and self.class_names is None:
            self.class_names = names
        label = f", labels: {self._label}" if self._label else ""
        self.notes.append(printable(f"images: column {self._image}{label}, split {self.split}"))
        width = len(str(max(0, len(shard) - 1)))
        return Found([f"{self.split}[{i:0{width}}]" for i in range(len(shard))], labels, {}, shard, place)

    def _opened(self) -> Any:
        """A Dataset, or an IterableDataset if it is streamed and not mapped anyway; sets the valid splits."""
        place = Path(self.path).expanduser()
        if not place.exists():
            return self._from_hub()
        try:
            return self._from_disk(place)
        except UserError:
            raise
        except Exception as error:  # of any kind: the library, pyarrow and damaged files raise their own
            raise UserError(f"dataset.path={self.path}: cannot be read: {reason(error)[:300]}") from error

    def _from_disk(self, place: Path) -> Any:
        import datasets

        if place.suffix == ".arrow" and place.is_file():
            self._check_split(["train"])
            return datasets.Dataset.from_file(str(place))
        if place.is_file():
            if place.suffix != ".parquet":
                raise UserError(f"dataset.path={self.path}: expected a folder, a .parquet or an .arrow file")
            return self._loaded("parquet", data_files=str(place.absolute()))
        if (place / "dataset_dict.json").is_file():
            found = datasets.load_from_disk(str(place))
            self._check_split(list(found))
            return found[self.split]
        if (place / "state.json").is_file():
            self._check_split(["train"])
            return datasets.load_from_disk(str(place))
        return self._loaded(str(place.absolute()))  # "parquet" alone would be one of the library's own names

    def _from_hub(self) -> Any:
        if not ON_HUB.fullmatch(self.path) or self.path.endswith((".parquet", ".arrow")):
            raise UserError(f"dataset.path={self.path}: there is no such file or folder")
        try:
            return self._loaded(self.path, revision=self.revision)
        except UserError:
            raise
        except Exception as error:  # whatever the network or the library raises
            why = f"no such file or folder, and the hub does not give it ({reason(error)[:300]})"
            raise UserError(f"dataset.path={self.path}: {why}; check the name, the network, and HF_TOKEN") from error

    def _loaded(self, path: str, **about: Any) -> Any:
        import datasets

        known = datasets.get_dataset_config_names(path, **about) if self.subset else []
        if self.subset and self.subset not in known:
            raise UserError(
                f"dataset.subset={self.subset}: {self.path} has no such config; {one_of(known, self.subset)}"
            )
        self._builder = datasets.load_dataset_builder(path, self.subset, **about)
        splits = self._builder.config.data_files or self._builder.info.splits
        if splits:
            self._check_split([str(name) for name in splits])
        return datasets.load_dataset(path, self.subset, split=self.split, streaming=self.streaming, **about)

    def _check_split(self, valid: list[str]) -> None:
        self._splits = valid
        for key, got in {"split": self.split, "test_split": self.test_split}.items():
            if got not in (None, "auto", *valid):
                raise UserError(f"dataset.{key}={got}: {self.path} has no such split; {one_of(valid, got)}")

    _splits: list[str] = ()
    _builder: Any = None

    def _choose_columns(self, features: Any) -> tuple[str, str | None]:
        import datasets

        images = [name for name, kind in features.items() if is_image(kind)]
        raw = [name for name, kind in features.items() if holds_image(kind)]
        image = self._named("image_column", self.image_column, features)
        if image is None:
            able = images or [name for name in raw if name.lower() in IMAGES] or raw
            able = [name for name in able if name == "image"] or able
            if len(able) != 1:
                what = f"several columns of images: {', '.join(able)}" if able else "no column of images"
                columns = ", ".join(features)
                raise UserError(f"dataset.path={self.path}: {what}; dataset.image_column= names one of {columns}")
            image = able[0]
        elif image not in {*images, *raw}:
            raise UserError(f"dataset.image_column={image}: it holds {features[image]}, no images")
        if self.label_column is None:
            return image, None
        label = self._named("label_column", self.label_column, features)
        if label is None:
            classes = [name for name, kind in features.items() if isinstance(kind, datasets.ClassLabel)]
            plain = [name for name in features if name.lower() in LABELS and name != image]
            found = classes if len(classes) == 1 else [name for name in plain if name in classes] or plain[:1]
            if len(classes) > 1 and not found:
                told_ = f"dataset.label_column= names one of {', '.join(classes)}"
                raise UserError(f"dataset.path={self.path}: several columns of classes; {told_}, or null")
            label = found[0] if found else None
            if label is None:
                self.notes.append(f"no classes: none of the columns {', '.join(features)} is one of classes")
        return image, label

    def _named(self, key: str, got: str | None, features: Any) -> str | None:
        if got == "auto":
            return None
        if got not in features:
            raise UserError(f"dataset.{key}={got}: there is no such column; {one_of(features, str(got))}")
        return got

    def _label_names(self) -> list[str] | None:
        return getattr(self._table.features[self._label], "names", None) if self._label else None

    def _rows(self) -> ParquetRows | IterableRows | None:
        """What reads the rows from front to back; None if they are mapped."""
        import datasets

        if isinstance(self._table, datasets.Dataset):
            kind = self._table.features[self._image]
            self._images = self._table.select_columns([self._image])
            if is_image(kind):
                self._images = self._images.cast_column(self._image, datasets.Image(decode=False))
            return None
        if self._builder.name == "parquet":
            files = self._builder.config.data_files[self.split]
            return ParquetRows(list(map(str, files)), self._image, self._label)
        print(f"dataset {self.name}: reading all rows once, to number them")
        return IterableRows(self._table, self._image, self._label, is_image(self._table.features[self._image]))

    def _labels(self, rows: ParquetRows | IterableRows | None) -> list[Any] | None:
        if self._label is None:
            return None
        return list(self._table[self._label]) if rows is None else rows.labels

    def _stamped(self) -> str:
        """What changes whenever the rows do."""
        if self._shards is not None:
            return ""  # nothing of it is prepared
        found = [self._image, self._table._fingerprint]
        for about in self._table.cache_files:
            status = os.stat(about["filename"])
            found.append(f"{about['filename']} {status.st_size} {status.st_mtime_ns} {status.st_ino}")
        return " ".join(found)

    @property
    def label_place(self) -> str:
        return f"column {self._label}"

    def fetch(self, number, most):
        return encoded(self._images[number][self._image])

    def content(self, name, most=0):
        found = super().content(name)
        return encoded(found) if self._shards is not None else found

    def stamp(self, name):
        return self._stamp

    def known_by(self):
        return [str(self._images.data.nbytes)] if self._shards is None else [str(self._shards.sizes)]


def is_image(kind: Any) -> bool:
    import datasets

    return isinstance(kind, datasets.Image)


def holds_image(kind: Any) -> bool:
    """Could a column that does not say so hold images: as bytes, with a path, or as an array?"""
    import datasets

    if isinstance(kind, datasets.Array2D | datasets.Array3D):
        return True
    if isinstance(kind, dict):
        return "bytes" in kind
    return isinstance(kind, datasets.Value) and kind.dtype in ("binary", "large_binary")


def encoded(value: Any) -> bytes | np.ndarray:
    """What a cell holds -> an image file's bytes, or an array. Raises ValueError or OSError."""
    if isinstance(value, dict):
        path, value = value.get("path"), value.get("bytes")
        value = read(path) if value is None and path else value
    if value is None:
        raise ValueError("there is no image")
    if isinstance(value, bytes):
        if why := size_fault(len(value)):
            raise ValueError(why)
        return value
    return np.asarray(value)


def read(path: str) -> bytes:
    """An image that lies beside its table. Raises ValueError or OSError."""
    if re.match(r"(\w+://.*::)?hf://", path):  # streamed
        import fsspec

        with fsspec.open(path) as file:
            return file.read(LARGEST + 1)
    if why := file_fault(Path(path)):
        raise ValueError(f"{printable(path)}: {why}")
    return Path(path).read_bytes()


@contextmanager
def quietly() -> Iterator[None]:
    """Without the library's own progress and messages."""
    import datasets

    before, shown = datasets.utils.logging.get_verbosity(), datasets.utils.are_progress_bars_disabled()
    hub = logging.getLogger("huggingface_hub")
    level = hub.level
    try:
        datasets.utils.logging.set_verbosity(logging.CRITICAL)
        datasets.utils.disable_progress_bars()
        hub.setLevel(logging.CRITICAL)
        yield
    finally:
        datasets.utils.logging.set_verbosity(before)
        hub.setLevel(level)
        if not shown:
            datasets.utils.enable_progress_bars()
