"""Images that lie many to a file, each beside its own label: what Hugging Face's sets and tar shards have in common."""

from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from hashlib import blake2b
from itertools import groupby
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ganrun.data.base import as_labels
from ganrun.data.decoded import DecodedImages, Unreadable
from ganrun.data.files import LARGEST, reason
from ganrun.data.formats import quiet
from ganrun.data.many import THREADS, in_parts, spaced
from ganrun.data.naming import Naming
from ganrun.data.pixels import DECODER
from ganrun.data.prepared import Prepared
from ganrun.data.sequence import Reader, Shards, shuffled_in_windows
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
    """Images with labels in files of many samples.

    class_names: of the classes, by number; a sample of no such class is refused or skipped. None = as found, see Naming
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
        self._naming = Naming(self.class_names)
        bad, labels = dict(self._found.faults), self._found.labels
        if labels is not None:
            if {str(label) for label in labels} == {"-1"}:
                self.notes.append("no classes: every label is -1")
                self._found = replace(self._found, labels=None)
            else:
                told = zip(self._found.names, labels, strict=True)
                bad |= {name: why for name, label in told if name not in bad and (why := self._naming.fault(label))}
        names = [name for name in self._found.names if name not in bad]
        if not names and not bad:
            raise UserError(f"dataset.path={self.path}: no images in it")
        return names, bad

    def label(self, names):
        if self._found.labels is None:
            return None, []
        labels = [self._found.labels[self._numbers[name]] for name in names]
        numbers, classes, note = self._naming.numbered(labels, self.label_place)
        self.notes.append(note)
        return None if numbers is None else as_labels(numbers), classes

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
        bad = self._tried(looked_at, self._check_header, "checking")
        self._leave_out(bad)
        self._looked_at = [name for name in looked_at if name not in bad]
        self._look(self._looked_at)
        self._choose([name for name in names if name not in bad])
        self._note_what_was_said()
        return None

    def _fill(self, room, names):
        if self._reader is None:
            return super()._fill(room, names)
        numbers = {name: number for number, name in enumerate(names)}

        def keep(name: str) -> None:
            image, clipped = self._decode(name)
            self._clipped += [clipped] if clipped else []
            if room is not None:
                room[numbers[name]] = image

        return self._tried(names, keep, "decoding")

    def _tried(self, names: list[str], work: Callable[[str], Any], what: str) -> dict[str, str]:
        """The samples for which `work` raises, with the reason. By threads: each process would read all shards."""
        bad: dict[str, str] = {}

        def attempt(name: str) -> None:
            try:
                work(name)
            except Exception as error:  # of any kind, as in DecodedImages
                bad[name] = reason(error)

        with quiet(self.max_pixels), ThreadPoolExecutor(THREADS) as pool:
            for some in in_parts(names, f"{self.name}: {what}"):
                list(pool.map(attempt, some))
        return bad

    def _check_header(self, name):
        if self.streaming or self._reader is None:  # otherwise the first pass decodes
            return super()._check_header(name)
        return None

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
