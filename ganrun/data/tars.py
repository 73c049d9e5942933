"""Tar shards as WebDataset writes them: neighbouring files that share a name up to its first dot are a sample."""

import json
import lzma
import re
import tarfile
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from ganrun.data.files import LARGEST, is_hidden, printable, reason, size_fault
from ganrun.data.places import Place, opened
from ganrun.data.sequence import Shards
from ganrun.progress import tracked

NAME = re.compile(r"((?:.*/)?[^./][^./]*)\.([^/]+)")  # a/b.seg.png -> a/b, seg.png
BROKEN = (tarfile.TarError, EOFError, zlib.error, lzma.LZMAError)  # what damaged archives raise beside OSError
LABEL_BYTES = 2**20  # of a label or of a .json


class Member(NamedTuple):
    """A file in a shard. begin: where its header begins. offset: of its content."""

    name: str
    begin: int
    offset: int
    size: int


@dataclass
class Sample:
    """key: its name. begin: where its first header begins. files: by what follows the first dot, in lower case.

    contents: of those files that were to be read.
    """

    key: str
    begin: int
    files: dict[str, Member]
    contents: dict[str, bytes]
    fault: str | None = None


class Damaged(OSError):
    """A shard that is cut off, or is no tar file."""


def samples(place: Place, begin: int = 0, wanted=lambda kind: False) -> Iterator[Sample]:
    """The samples of a shard from a sample's first header on. wanted: which files' contents are read, by their kind.

    Raises Damaged where the archive breaks off; a sample that may have lost files is not given. Raises OSError.
    """
    with opened(place, begin) as file:
        found: Sample | None = None
        in_sequence = place.is_remote or place.is_compressed
        try:
            for member, content in members(file, in_sequence, lambda name: wanted(parted(name)[1])):
                key, kind = parted(member.name)
                if found is None or key != found.key:
                    if found:
                        yield found
                    found = Sample(key, member.begin, {}, {})
                if kind in found.files:
                    found.fault = f"{printable(kind)} is there twice"
                found.files[kind] = member
                if content is not None:
                    found.contents[kind] = content
        except BROKEN as error:
            raise Damaged(f"cut off or damaged: {reason(error)}") from error
        if found:
            yield found


def parted(name: str) -> tuple[str, str]:
    """a/b.Seg.PNG -> (a/b, seg.png)"""
    found = NAME.fullmatch(name)
    return (found[1], found[2].lower()) if found else (name, "")


def members(file: BinaryIO, in_sequence: bool, wanted) -> Iterator[tuple[Member, bytes | None]]:
    """The regular files of a tar, and their contents if they are wanted.

    in_sequence: it cannot be sought in, and may be compressed.
    """
    with tarfile.open(fileobj=file, mode="r|*" if in_sequence else "r:") as tar:
        info = tar.next()
        while info is not None:
            if info.isreg() and not info.issparse() and not is_hidden(info.name) and parted(info.name)[1]:
                read = wanted(info.name) and info.size <= LARGEST
                yield (
                    Member(info.name, info.offset, info.offset_data, info.size),
                    (tar.extractfile(info).read() if read else None),
                )
            info = following(tar)


def following(tar: tarfile.TarFile) -> tarfile.TarInfo | None:
    """The next header; None at the end of the archive, which zeros mark. tarfile's own `next` takes anything for it."""
    tar.fileobj.seek(tar.offset)
    try:
        return tarfile.TarInfo.fromtarfile(tar)
    except tarfile.EOFHeaderError:
        return None
    except tarfile.HeaderError as error:
        empty = isinstance(error, tarfile.EmptyHeaderError)
        raise tarfile.ReadError("its end is missing" if empty else str(error)) from error


@dataclass(frozen=True)
class Chosen:
    """Which files of a sample are used. images: kinds, the first that is there. label: kind, with a field of JSON."""

    images: tuple[str, ...]
    label: str | None
    field: str | None = None


@dataclass
class Index:
    """Where the samples of shards lie, one entry each.

    begin: where its first header begins. offset, size: of its image. labels: None = there are none.
    """

    names: list[str] = field(default_factory=list)
    shard: list[int] = field(default_factory=list)
    place: list[int] = field(default_factory=list)
    begin: list[int] = field(default_factory=list)
    offset: list[int] = field(default_factory=list)
    size: list[int] = field(default_factory=list)
    labels: list[Any] | None = field(default_factory=list)
    faults: dict[str, str] = field(default_factory=dict)
    sizes: list[int] = field(default_factory=list)  # samples in each shard
    unused: dict[str, int] = field(default_factory=dict)  # files by kind


def index_of(places: Sequence[Place], chosen: Chosen, what: str) -> Index:
    """Reads all headers and labels once. what: heading of the progress shown. Raises OSError if a server fails."""
    found, seen = Index(), set()
    found.labels = None if chosen.label is None else []
    for number, place in enumerate(tracked(places, len(places), what, "shards")):
        num = 0
        try:
            for sample in samples(place, wanted=lambda kind: kind == chosen.label):
                add(found, sample, number, num, place, chosen, seen)
                num += 1
        except OSError as error:
            if not isinstance(error, Damaged):
                raise
            found.faults[place.name] = f"{reason(error)}, after {num:,} samples"
        found.sizes.append(num)
    return found


def add(found: Index, sample: Sample, shard: int, num: int, place: Place, chosen: Chosen, seen: set[str]) -> None:
    """Adds the sample `num` of a shard. seen: names so far, which it joins."""
    name = f"{place.name}/{sample.key}"
    if name in seen:
        found.faults[name] = "another sample of the shard has the same name"
        return
    seen.add(name)
    used = next((kind for kind in chosen.images if kind in sample.files), None)
    image = sample.files[used] if used else None
    for kind in sample.files.keys() - {used, chosen.label}:
        found.unused[kind] = found.unused.get(kind, 0) + 1
    label, why = (None, None) if chosen.label is None else label_of(sample, chosen)
    fault = sample.fault or why or (size_fault(image.size) if image else "it has no image")
    if fault:
        found.faults[name] = fault
    found.names.append(name)
    numbers = (shard, num, sample.begin, image.offset if image else 0, image.size if image else 0)
    for values, value in zip((found.shard, found.place, found.begin, found.offset, found.size), numbers, strict=True):
        values.append(value)
    if found.labels is not None:
        found.labels.append(label)


def label_of(sample: Sample, chosen: Chosen) -> tuple[Any, str | None]:
    """The label, text or what JSON holds; and why there is none."""
    content = sample.contents.get(chosen.label)
    if content is None:
        return None, f"it has no {chosen.label}"
    try:
        text = content[:LABEL_BYTES].decode().strip()
        if chosen.field is None:
            return text, None
        return json.loads(text)[chosen.field], None
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        return None, f"its {chosen.label}: {'no field ' if isinstance(error, KeyError) else ''}{reason(error)}"


class TarShards(Shards):
    """Shards read from front to back. index: of all of them."""

    def __init__(self, places: Sequence[Place], index: Index, chosen: Chosen):
        self.places, self.sizes, self.chosen = places, index.sizes, chosen
        starts = np.concatenate([[0], np.cumsum(index.sizes)])
        self._begin = np.zeros(starts[-1], dtype=np.int64)
        self._begin[starts[np.asarray(index.shard, dtype=int)] + np.asarray(index.place, dtype=int)] = index.begin
        self._starts = starts

    def open(self, shard, place):
        """A server is asked for the rest of the shard from this sample on, unless it is compressed."""
        at = self.places[shard]
        begin = int(self._begin[self._starts[shard] + place]) if place and not at.is_compressed else 0
        passed = samples(at, begin, self._is_image)
        for sample in islice(passed, 0 if begin else place, None):
            yield next((sample.contents[kind] for kind in self.chosen.images if kind in sample.contents), None)

    def _is_image(self, kind: str) -> bool:
        return kind in self.chosen.images
