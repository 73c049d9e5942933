"""Sets decoded from image files, and the treatment of files that cannot be decoded."""

import math
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext, suppress
from dataclasses import dataclass, replace
from itertools import chain
from operator import itemgetter
from typing import Literal

import numpy as np
import PIL
import torch
from torch import Tensor

from ganrun.attributes import KEY, as_seen
from ganrun.data.base import Images
from ganrun.data.channels import NAMES, OF_FILES
from ganrun.data.files import LARGEST, printable, reason
from ganrun.data.formats import FRAMES, Frames, quiet
from ganrun.data.identity import digest_of
from ganrun.data.known import CHECKS, Check
from ganrun.data.levels import (
    LOOKED_AT,
    Depth,
    Seen,
    check,
    checked_range,
    kept,
    ranges,
    typed,
    whole_range,
    without_range,
)
from ganrun.data.many import THREADS, each, in_parts, spaced
from ganrun.data.pixels import DECODER, Decoding
from ganrun.data.prepared import Prepared, Ready, room_for
from ganrun.depth import DTYPES
from ganrun.depth import rows as rows_of
from ganrun.errors import UserError
from ganrun.game import Batch

IN_MEMORY = 2**30  # bytes; sets without a cache up to this size are decoded when opened, and kept
HEADER = 2**16  # bytes that suffice to recognise most image files
ADVICE = "dataset.on_error=skip leaves out what is bad"


class Unreadable(UserError):
    """An image that cannot be decoded. Stays one line even if a worker process passes it on with its traceback."""

    def __init__(self, text: str):
        super().__init__(text.splitlines()[-1].partition(": ")[2] if text.startswith("Caught ") else text)


@dataclass(kw_only=True)
class DecodedImages(Images):
    """Images decoded from files. `limit` takes evenly spaced files. With 1 or 3 channels they are laid over white.

    depth:      bits of a pixel that are kept: 8, or 16 from the file to the network; 8-bit files are scaled to 16
    on_error:   refuse = Unreadable is raised for the first file that cannot be read: when the set is opened, if the
                header shows it or if all files are decoded then; otherwise when the file is read. skip = every file is
                decoded once and the bad ones are left out, see `skipped`
    cache:      a folder for the decoded pixels; they are prepared when the set is first opened with these settings, and
                mapped from then on. None = off: sets of at most 1 GiB are decoded whenever they are opened, unless
                there are workers, each of which would keep its own copy; otherwise each image is decoded when it is
                read. The same happens, with a warning, if the default folder cannot be written
    check:      of a folder with a cache: fast = a file is not looked at while its folder is as it was, see known.Known;
                full = each file's size and times are looked at
    range:      [low, high], the stored values that become black and white; values outside are clipped, with a note.
                None = all that the pixels' depth can hold, 0..255 or 0..65535; pixels of more than 8 bits that use less
                than 1/8 of it are refused (noted with depth=16, which loses nothing), and floats, signed and wider
                integers have no range of their own. "auto" = lowest to highest value of 1,024 evenly spaced images.
                Opacity in files has a range of its own
    frames:     of files with several frames or pages, see formats.chosen
    max_pixels: of one file; None = 2^28. No more files are decoded at the same time than half of the memory holds
    """

    on_error: Literal["refuse", "skip"] = "refuse"
    depth: int = 8
    cache: str | None = None
    check: Check = "fast"
    range: Sequence[float] | str | None = None
    frames: Frames = "refuse"
    max_pixels: int | None = None
    half = None  # of each image, see Decoding

    def open(self) -> None:
        for key, valid in {"on_error": ("refuse", "skip"), "frames": FRAMES, "check": CHECKS}.items():
            if getattr(self, key) not in valid:
                raise UserError(f"dataset.{key}={getattr(self, key)}; valid: {', '.join(valid)}")
        if self.max_pixels is not None and self.max_pixels < 1:
            raise UserError(f"dataset.max_pixels={self.max_pixels}; expected at least 1, or null")
        if self.depth not in DTYPES:
            raise UserError(f"dataset.depth={self.depth}; valid: {', '.join(map(str, DTYPES))}")
        span = checked_range(self.range)
        settings = {"fit": self.fit, "frames": self.frames, "max_pixels": self.max_pixels, "half": self.half}
        settings |= {"depth": self.depth}
        self._decoding = Decoding(self.size, self.channels, span=None if span == "auto" else span, **settings)
        self._remarks: list[str] = []  # notes on how the files are decoded
        self._said: list[tuple[str, str]] = []  # remarks about how a file is read, and the file
        self._clipped: list[int] = []  # number of clipped values, for each file that has any
        self._digest: str | None = None
        self._unseen: str | None = None  # in words, the files that `find` did not look at
        names, known = self.find()
        place, ready = self._prepared(names)
        with place.owned() if place and not ready else nullcontext():
            ready = ready or (place.load(tell=True) if place else None)  # another process may have prepared it
            if ready:
                self._leave_out(known | ready.bad)
                self._choose([name for name in names if name not in ready.bad])
                pixels, self._digest = ready.pixels, ready.digest
                self._remarks = ready.notes
            else:
                pixels = self._decode_all(names, known, place)
        self.notes += [*self._remarks, *filter(None, [self._unseen])]
        self.skipped.sort()
        if pixels is not None:
            self.held = {"real": pixels} | self._beside

    def _prepared(self, names: list[str]) -> tuple[Prepared | None, Ready | None]:
        """The place of the decoded pixels, None if they are not kept; and what lies there."""
        if not self.cache:
            return None, None
        place = Prepared(self.cache, self._about(names), self.shape, self.depth)
        ready = place.load()
        if ready or not self._unseen:
            return (place if ready or place.can_be_made() else None), ready
        self.look_at_all()  # they will be read anyway
        self._unseen = None
        return self._prepared(names)

    def _about(self, names: list[str]) -> Iterator[str]:
        """Everything that decides which pixels the set has."""
        yield from map(str, (DECODER, PIL.__version__, torch.__version__, self.shape, self.fit, self.on_error))
        yield from map(str, (self.limit, self.range, self.frames, self.max_pixels))
        if self.half:
            yield self.half
        if self.depth != 8:
            yield f"depth {self.depth}"
        for name in names:
            yield name
            yield self.stamp(name)

    def _choose(self, names: list[str]) -> list[int]:
        """Sets names and labels to those within `limit`; returns their indices."""
        if not names:
            raise UserError(f"dataset {self.name}: no image is left; {': '.join(self.skipped[0])}")
        labels, self.classes = self.label(names)
        chosen = spaced(len(names), self.limit)
        self._names = [names[i] for i in chosen]
        self._beside = {} if labels is None else {"label": labels[chosen]}
        self._values = self.describe(self._names)
        if self._values is not None:
            self._beside[KEY] = as_seen(self._values, self.attributes)
        return chosen

    def _decode_all(self, names: list[str], known: dict[str, str], place: Prepared | None) -> Tensor | None:
        """The chosen images (num, C, H, W); None if there is no room for them."""
        said, bad = each(names, self._check_header, what=f"{self.name}: checking", max_pixels=self.max_pixels)
        self._said += chain(*said)
        self._leave_out(known | bad)
        names, room = [name for name in names if name not in bad], None
        self._look(names)
        rows: Sequence[int] = range(len(names))
        if self.on_error == "skip" and names:
            room = self._room(len(names), place)
            if room is None:
                print(f"dataset {self.name}: checking {len(names):,} images")
            undecodable = self._fill(room, names)
            self._leave_out(undecodable)
            bad |= undecodable
            rows = [i for i, name in enumerate(names) if name not in undecodable]
        chosen = self._choose([names[i] for i in rows])
        if room is None:
            return self._decode_chosen(bad, place)
        return self._kept(room, [rows[i] for i in chosen], bad, place)

    def _decode_chosen(self, bad: dict[str, str], place: Prepared | None) -> Tensor | None:
        room = self._room(len(self._names), place)
        undecodable = {} if room is None else self._fill(room, self._names)
        if undecodable and self.on_error == "skip":
            raise UserError(f"dataset {self.name}: its files have changed while they were read; start again")
        self._leave_out(undecodable)
        return self._kept(room, range(len(self._names)), bad, place)

    def _kept(
        self, room: Tensor | None, rows: Sequence[int], bad: dict[str, str], place: Prepared | None
    ) -> Tensor | None:
        self._note_what_was_said()
        if place:
            pixels, self._digest = place.finish(room, rows, bad, self._remarks)
            return pixels
        return room if room is None or len(rows) == len(room) else rows_of(room, rows)

    def _room(self, num: int, place: Prepared | None) -> Tensor | None:
        """Memory or a file for `num` decoded images, (num, C, H, W); None if there is neither."""
        size = num * math.prod(self.shape) * (self.depth // 8)
        if place:
            print(f"dataset {self.name}: preparing {num:,} images once, {size / 2**20:,.1f} MiB in {place.pixels}")
            return place.allocate(num)
        if self.num_workers == 0 and size <= IN_MEMORY:
            return room_for(num, self.shape, self.depth)
        return None

    def _fill(self, room: Tensor | None, names: list[str]) -> dict[str, str]:
        """Decodes all; returns the files that cannot be decoded, with the reason."""

        def keep(index: int) -> int | None:
            image, clipped = self._decode(names[index])
            if room is not None:
                room[index] = image
            return clipped or None

        clipped, found = each(range(len(names)), keep, what=f"{self.name}: decoding", max_pixels=self.max_pixels)
        self._clipped += clipped
        return {names[i]: why for i, why in found.items()}

    def check_channels(self) -> None:
        if self.channels not in OF_FILES:
            raise UserError(f"dataset.channels={self.channels}; valid: {NAMES}; an .npy or .npz may have any number")

    @abstractmethod
    def find(self) -> tuple[list[str], dict[str, str]]:
        """The files in their order, and other files with the reason why they are not read."""

    def label(self, names: list[str]) -> tuple[Tensor | None, list[str]]:
        """Labels (num,) or None, class names."""
        return None, []

    def describe(self, names: list[str]) -> Tensor | None:
        """Attributes (num, F) float64 in their own units, which it sets `attributes` for; None = none."""
        return None

    @abstractmethod
    def content(self, name: str, most: int = LARGEST) -> bytes | np.ndarray:
        """The first `most` bytes of one file, or an image as an array, see Decoding.decode."""

    @abstractmethod
    def stamp(self, name: str) -> str:
        """A text that changes whenever a file's content does, found without reading the file."""

    def look_at_all(self) -> None:
        """Looks at the files that `find` did not look at, and so finds their stamps anew."""

    @property
    def class_labels(self) -> Tensor | None:
        return self._beside.get("label")

    @property
    def attribute_values(self) -> Tensor | None:
        return self._values

    def digest(self) -> str:
        """The digest; of a prepared set it is known, a streamed set is decoded once to find it."""
        if self._digest is None:
            self._digest = super().digest() if self.held else digest_of(self._decoded())
        return self._digest

    def _decoded(self) -> Iterator[Tensor]:
        """All images, in parts."""
        print(f"dataset {self.name}: looking at {len(self):,} images, by which scores and a resume know them")
        with quiet(self.max_pixels), ThreadPoolExecutor(THREADS) as pool:
            for some in in_parts(self._names, f"{self.name}: looking at"):
                yield torch.stack(list(pool.map(self._read, some)))

    def name_in_messages(self, name: str) -> str:
        """A file's name in messages."""
        return printable(name)

    def __len__(self) -> int:
        return len(self._names)

    def read(self, indices: Tensor) -> Batch:
        if self.held:
            return super().read(indices)
        with quiet(self.max_pixels):
            images = [self._read(self._names[i]).permute(1, 2, 0) for i in indices.tolist()]
        real = torch.stack(images).permute(0, 3, 1, 2)  # channels_last
        return {"real": real} | {key: values[indices] for key, values in self._beside.items()}

    def _read(self, name: str) -> Tensor:
        try:
            return self._decode(name)[0]
        except Exception as error:  # decoders and zip files raise exceptions of every kind on damaged bytes
            raise self._unreadable({name: reason(error)}) from error

    def _decode(self, name: str) -> tuple[Tensor, int]:
        """A file's pixels, and how many of its values were clipped."""
        return self._decoding.decode(self.content(name))

    def _range_of(self, name: str) -> tuple[Depth, float, float]:
        """The depth of a file's pixels, their lowest and their highest value."""
        return self._decoding.look(self.content(name))

    def _check_header(self, name: str) -> list[tuple[str, str]] | None:
        """Remarks about how a file is read, each with its name; None if there are none."""
        said = None
        with suppress(Exception):  # some formats need the whole file
            said = self._decoding.check(self.content(name, HEADER), whole=False)
        if said is None:
            said = self._decoding.check(self.content(name), whole=True)
        return [(text, name) for text in said] or None

    def _look(self, names: list[str]) -> None:
        """Checks the range of evenly spaced images, and finds that of dataset.range=auto."""
        num = LOOKED_AT["auto" if self.range == "auto" else None]
        found = self._ranges([names[i] for i in spaced(len(names), num)] if names else [])
        if self.range is None and self.on_error == "refuse":
            bad = {seen.first: without_range(depth, seen) for depth, seen in found.items() if not depth.full}
            self._leave_out(bad)
        try:
            if self.range is None:
                self._remarks += check(
                    {depth: seen for depth, seen in found.items() if depth.full}, len(names), self.depth
                )
            elif found:
                span = whole_range(found) if self.range == "auto" else self._decoding.span
                self._decoding = replace(self._decoding, span=span)
                said = next(filter(None, (kept(depth, self.depth) for depth in found)), "")
                self._remarks.append(f"{typed(span)} for pixels of {ranges(found)}{said}")
        except UserError as error:
            raise UserError(f"dataset {self.name}: {error}") from error

    def _ranges(self, names: list[str]) -> dict[Depth, Seen]:
        def look(name: str) -> tuple[str, Depth, float, float]:
            return (name, *self._range_of(name))

        looked_at, _ = each(
            names, look, what=f"{self.name}: range of", max_pixels=self.max_pixels
        )  # bad: dealt with later
        found: dict[Depth, Seen] = {}
        for name, depth, low, high in sorted(looked_at, key=itemgetter(0)):
            found.setdefault(depth, Seen(low, high, first=name)).add(low, high)
        return found

    def _note_what_was_said(self) -> None:
        """Turns remarks about single files into notes."""
        for text in sorted({text for text, _ in self._said}):
            names = [name for said, name in self._said if said == text]
            self._remarks.append(f"{text} ({len(names):,} files, such as {self.name_in_messages(min(names))})")
        if self._clipped:
            self._remarks.append(
                f"{sum(self._clipped):,} values outside {typed(self._decoding.span)} are clipped, in "
                f"{len(self._clipped):,} images"
            )
        self._said, self._clipped = [], []

    def _leave_out(self, bad: dict[str, str]) -> None:
        if bad and self.on_error == "refuse":
            raise self._unreadable(bad)
        self.skipped += [(self.name_in_messages(name), why) for name, why in sorted(bad.items())]

    def _unreadable(self, bad: dict[str, str]) -> Unreadable:
        name, why = min(bad.items())
        more = f", and {len(bad) - 1} more" if len(bad) > 1 else ""
        advice = f"; {ADVICE}" if self.on_error == "refuse" else ""
        return Unreadable(f"dataset {self.name}: cannot read image {self.name_in_messages(name)}: {why}{more}{advice}")
