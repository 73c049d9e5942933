"""Images that lie many to a file, each beside its own label: what Hugging Face's sets and tar shards have in common."""

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from hashlib import blake2b
from itertools import groupby
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ganrun.classes import listed
from ganrun.data.base import as_labels
from ganrun.data.decoded import DecodedImages, Unreadable
from ganrun.data.files import LARGEST, printable
from ganrun.data.formats import quiet
from ganrun.data.labels import MOST, by_file
from ganrun.data.many import THREADS, faults, spaced
from ganrun.data.pixels import DECODER
from ganrun.data.prepared import Prepared
from ganrun.data.sequence import Reader, Shards, shuffled_in_windows
from ganrun.data.table import whole_of
from ganrun.errors import UserError
from ganrun.game import Batch

LOOKED_AT = 64  # images of a streamed set that are checked when it is opened


@dataclass(frozen=True)
class Found:
    """What lies in a source, in its order.

    names:  of the samples, each once, for messages
    labels: None = there are none
    faults: samples that must not be read, with the reason
    shard, place: of each sample, (num,)
    """

    names: list[str]
    labels: list[Any] | None
    faults: dict[str, str]
    shard: np.ndarray
    place: np.ndarray


@dataclass(kw_only=True)
class Records(DecodedImages):
    """Images with labels in files of many samples. Labels are class numbers; text, sorted, if any is not a number.

    class_names: of the classes, by number; a sample with another one is refused or skipped. None = as found
    streaming:   True = nothing is decoded, prepared or checked beforehand but the first 64 images. What cannot be read
                 ends training or, with on_error=skip, gives way to the next sample. The set is known by its names,
                 sizes and 64 of its images, not by its pixels
    window:      samples that are shuffled together where a source can only be read from front to back, see
                 shuffled_in_windows; there `limit` takes the first samples, and workers would each read everything,
                 so there is at most one
    """

    class_names: Sequence[str] | None = None
    streaming: bool = False
    window: int = 1024

    def open(self) -> None:
        if self.window < 1:
            raise UserError(f"dataset.window={self.window}; expected at least 1")
        self._folder = self.cache  # for what else is kept there
        with self._without_cache() if self.streaming else nullcontext():
            super().open()
        if not self.streaming:
            return
        self.num_workers = min(self.num_workers, 1) if self.in_sequence else self.num_workers
        how = f"in sequence, shuffled within {self.window:,}" if self.in_sequence else "in any order"
        about = f"known by their names, sizes and {len(self._looked_at)} of them"
        self.notes.append(f"streamed: images are read {how}; they are {about}, not by all their pixels")

    @contextmanager
    def _without_cache(self):
        cache, self.cache = self.cache, None
        try:
            yield
        finally:
            self.cache = cache

    @abstractmethod
    def look_up(self) -> Found:
        """Finds the samples; sets `_shards` if they can only be read from front to back, else None."""

    @abstractmethod
    def fetch(self, number: int, most: int) -> Any:
        """An image by its number, if samples can be read in any order: encoded, or as an array."""

    @abstractmethod
    def known_by(self) -> Iterator[str]:
        """What tells the set from others without its images, wherever it lies."""

    _shards: Shards | None = None

    def find(self):
        self._found = self.look_up()
        self._reader = Reader(self._shards, self.window) if self._shards else None
        if self._reader and not (self.streaming or self.cache):
            self.num_workers = 0  # then a small set is decoded when it is opened
        self._numbers = {name: number for number, name in enumerate(self._found.names)}
        faults_, labels = dict(self._found.faults), self._found.labels
        if labels is not None:
            if {str(label) for label in labels} == {"-1"}:
                self.notes.append("no classes: every label is -1")
                self._found = replace(self._found, labels=None)
            else:
                told = zip(self._found.names, labels, strict=True)
                faults_ |= {name: why for name, label in told if (why := self._fault(label)) and name not in faults_}
        names = [name for name in self._found.names if name not in faults_]
        if not names and not faults_:
            raise UserError(f"dataset.path={self.path}: no images in it")
        return names, faults_

    def _fault(self, label: Any) -> str | None:
        """Why a sample has no class."""
        names, number = self.class_names, whole_of(label)
        if label is None or label == "":
            return "it has no label"
        if isinstance(label, list | dict) or (isinstance(label, float) and number is None):
            return f"its label is {printable(str(label))[:40]}; expected a class: text or a whole number"
        if names is not None:
            is_class = str(label) in names or (number is not None and 0 <= number < len(names))
            return None if is_class else f"its label {printable(str(label))[:40]} is none of {len(names)} class names"
        return None if number is None or 0 <= number < MOST else f"its label is {number}; expected 0 to {MOST - 1:,}"

    def label(self, names):
        if self._found.labels is None:
            return None, []
        labels = [self._found.labels[self._numbers[name]] for name in names]
        whole = [whole_of(label) for label in labels]
        known = list(self.class_names or ())
        if known:
            at = {name: number for number, name in enumerate(known)}
            numbers = [at.get(str(label), number) for label, number in zip(labels, whole, strict=True)]
            empty = sorted(set(range(len(known))) - set(numbers))
            without = f"; without images: {listed([known[number] for number in empty])}" if empty else ""
            self.notes.append(printable(f"classes: {listed(known)} from {self.label_place}{without}"))
            return as_labels(numbers), known
        if None not in whole:
            numbers, classes, note = by_file(names, dict(zip(names, whole, strict=True)), self.label_place)
            self.notes.append(note)
            return None if numbers is None else as_labels(numbers), classes
        texts = [str(label) for label in labels]
        found = sorted(set(texts))
        if len(found) < 2 or len(found) > MOST:
            why = f"{self.label_place} has {len(found):,} different labels, such as {found[0]}"
            self.notes.append(printable(f"no classes: {why}"))
            return None, []
        at = {text: number for number, text in enumerate(found)}
        self.notes.append(printable(f"classes: {listed(found)} from {self.label_place}"))
        return as_labels([at[text] for text in texts]), found

    @property
    def label_place(self) -> str:
        """What holds the labels, in words."""
        raise NotImplementedError

    @property
    def in_sequence(self) -> bool:
        return self.streaming and self._shards is not None

    def order(self, *parts):
        if not self.in_sequence:
            return super().order(*parts)
        return shuffled_in_windows(self._by_shard, self.window, *parts)

    def _choose(self, names):
        first = names[: self.limit] if self.in_sequence else names
        chosen = super()._choose(first)
        if not self.in_sequence:
            return chosen
        shards = [int(self._found.shard[self._numbers[name]]) for name in self._names]
        groups = groupby(range(len(shards)), key=shards.__getitem__)
        self._by_shard = [torch.tensor(list(each)) for _, each in groups]
        return chosen

    def _room(self, num, place: Prepared | None):
        room = super()._room(num, place)
        if room is None and self._reader:
            why = "it is read from front to back and too large to be decoded into memory"
            raise UserError(f"dataset {self.name}: {why}; expected dataset.cache=<folder>, or dataset.streaming=true")
        return room

    def _decode_all(self, names, known, place: Prepared | None):
        if not self.streaming:
            return super()._decode_all(names, known, place)
        self._leave_out(known)
        most = LOOKED_AT
        looked_at = names[:most] if self.in_sequence else [names[i] for i in spaced(len(names), most) if names]
        bad = faults(looked_at, self._check_header, what=f"{self.name}: checking", max_pixels=self.max_pixels)
        self._leave_out(bad)
        self._looked_at = [name for name in looked_at if name not in bad]
        self._look(self._looked_at)
        self._choose([name for name in names if name not in bad])
        self._note_what_was_said()
        return None

    def _check_header(self, name):
        if self.streaming or self._reader is None:  # otherwise the first pass decodes
            super()._check_header(name)

    def _look(self, names):
        super()._look(names[:LOOKED_AT] if self._reader else names)

    def content(self, name, most=LARGEST):
        number = self._numbers[name]
        if self._reader is None:
            return self.fetch(number, most)
        found = self._reader.read(int(self._found.shard[number]), int(self._found.place[number]))
        if found is None:
            raise ValueError("there is no image")
        return found

    def read(self, indices: Tensor) -> Batch:
        if self.held or not self.streaming:
            return super().read(indices)
        places = sorted(range(len(indices)), key=lambda i: int(indices[i]))
        chosen = indices.clone()
        images: list[Any] = [None] * len(indices)

        def fill(i: int) -> None:
            images[i], chosen[i] = self._readable(int(indices[i]))

        with quiet(self.max_pixels), ThreadPoolExecutor(THREADS) as pool:
            list(pool.map(fill, places))
        real = torch.stack([image.permute(1, 2, 0) for image in images]).permute(0, 3, 1, 2)  # channels_last
        return {"real": real} | {key: values[chosen] for key, values in self._beside.items()}

    def _readable(self, index: int) -> tuple[Tensor, int]:
        """The image and its index; if it cannot be read and may be skipped, the next one that can."""
        for other in range(index, index + min(LOOKED_AT, len(self))):
            try:
                return self._read(self._names[other % len(self)]), other % len(self)
            except Unreadable:
                if self.on_error == "refuse":
                    raise
        raise Unreadable(f"dataset {self.name}: {LOOKED_AT} images in a row cannot be read")

    def digest(self):
        if not self.streaming:
            return super().digest()
        found = blake2b(digest_size=8)
        for text in (*self._names, *self.known_by()):
            found.update(f"{text}\n".encode(errors="surrogateescape"))
        for name in self._looked_at:
            content = self.content(name)
            found.update(content if isinstance(content, bytes) else np.ascontiguousarray(content))
        found.update(repr((DECODER, self._decoding)).encode())
        return found.hexdigest()
