"""Tar shards in WebDataset's layout, on the disk or on a web server: https://github.com/webdataset/webdataset.

The library itself is not used: its samples come from a stream without numbers, so that neither an exact resume nor
scores of the same reals are possible. The layout is a plain tar; an index of where each sample lies takes one pass.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np

from ganrun.data.files import has_ending, printable, reason
from ganrun.data.places import places
from ganrun.data.records import Found, Records
from ganrun.data.tars import Chosen, Damaged, Index, TarShards, index_of, samples
from ganrun.errors import UserError, one_of
from ganrun.files.storage import locked, make_cache, mark_used, replacing

FORMAT = 1  # of the index
FIELDS = ("label", "class", "cls", "class_id", "target")  # of a .json, in the order in which they are looked for


@dataclass(kw_only=True)
class WebDataset(Records):
    """The samples of tar shards, numbered once in an index that is kept in `cache`.

    A local shard that is not compressed is read in any order. Compressed shards, and those on a server, are read from
    front to back, see Records.window.

    path:      shards: a brace pattern, a list, a folder, or URLs, see places
    image_key: what follows the first dot of a sample's image, or several as jpg;png; auto = any ending of an image
    class_key: that of its label; json:<field> reads a field; auto = cls, or a field of FIELDS; None = no labels
    test_path: shards of the test split; None = there is none
    """

    path: str | None
    image_key: str = "auto"
    class_key: str | None = "auto"
    test_path: str | None = None

    def held_out(self):
        if not self.test_path:
            return None
        about = {"name": f"{self.name}, test split", "path": self.test_path, "test_path": None, "limit": None}
        return replace(self, **about, num_classes=None, class_names=self.classes or self.class_names)

    def look_up(self):
        if not self.path:
            raise UserError("dataset=webdataset needs dataset.path=<shards>, as 'train-{0000..0009}.tar' or a folder")
        self._places = places(self.path)
        try:
            self._chosen = self._choose_kinds()
            self._index = self._indexed()
        except OSError as error:
            raise UserError(f"dataset.path={printable(self.path)}: {reason(error)}") from error
        any_order = not any(place.is_remote or place.is_compressed for place in self._places)
        self._shards = None if any_order else TarShards(self._places, self._index, self._chosen)
        self._note_kinds()
        shard, place = (np.asarray(values, dtype=np.int64) for values in (self._index.shard, self._index.place))
        return Found(self._index.names, self._index.labels, self._index.faults, shard, place)

    def _choose_kinds(self) -> Chosen:
        """The kinds of files that are read, by the first sample where they are not named."""
        first, place = None, self._places[0]
        try:
            first = next(samples(place, wanted=lambda kind: kind == "json"), None)
        except Damaged as error:
            raise UserError(f"dataset.path={printable(self.path)}: {place.name}: {reason(error)}") from error
        if first is None:
            raise UserError(f"dataset.path={printable(self.path)}: {place.name}: there are no samples in it")
        kinds = sorted(first.files)
        label, _, name = (self.class_key or "").lower().partition(":")
        images = [kind for kind in kinds if "." not in kind and has_ending(f"x.{kind}")]
        if self.image_key != "auto":
            images = [kind.strip().lower().lstrip(".") for kind in self.image_key.split(";") if kind.strip()]
            self._check_kind("image_key", self.image_key, set(images) & set(kinds), kinds, first.key)
        elif len(images) != 1:
            what = f"has {len(images)} images" if images else "has no image"
            advice = f"; dataset.image_key={images[0]} chooses one" if images else ""
            raise UserError(f"{place.name}: its first sample, {first.key}, {what}: {', '.join(kinds)}{advice}")
        else:
            images += sorted(ALSO - set(images))
        if self.class_key is None:
            return Chosen(tuple(images), None)
        if self.class_key != "auto":
            self._check_kind("class_key", self.class_key, label in kinds, kinds, first.key)
            if (label == "json") != bool(name):
                raise UserError(f"dataset.class_key={self.class_key}; expected json:<field>, or another key alone")
            return Chosen(tuple(images), label, self.class_key.partition(":")[2] or None)
        return Chosen(tuple(images), *self._guess_label(kinds, first.contents.get("json")))

    def _check_kind(self, key: str, got: str, is_there: Any, kinds: Sequence[str], sample: str) -> None:
        if not is_there:
            text = f"the first sample, {sample}, has no such file"
            raise UserError(f"dataset.{key}={got}: {text}; {one_of(kinds, got)}")

    def _guess_label(self, kinds: Sequence[str], content: bytes | None) -> tuple[str | None, str | None]:
        if "cls" in kinds:
            return "cls", None
        try:
            about = json.loads(content or b"{}")
        except (ValueError, RecursionError):
            about = None
        fields = [name for name in FIELDS if isinstance(about, dict) and isinstance(about.get(name), int | str)]
        return ("json", fields[0]) if fields else (None, None)

    def _note_kinds(self) -> None:
        chosen, unused = self._chosen, self._index.unused
        found = [kind for kind in chosen.images if self.image_key != "auto" or kind not in ALSO] or chosen.images[:1]
        self.notes.append(f"images: {', '.join(found)} of {len(self._places):,} shards")
        if chosen.label is None:
            why = "no cls in it, and no label in a .json" if self.class_key else "dataset.class_key=null"
            self.notes.append(f"no classes: {why}")
        if unused:
            told = ", ".join(f"{num:,} .{printable(kind)}" for kind, num in sorted(unused.items()))
            self.notes.append(f"not used: {told}")

    def _indexed(self) -> Index:
        """The index, from the cache or made."""
        about = json.dumps([FORMAT, [place.stamp for place in self._places], asdict(self._chosen)])
        name = blake2b(about.encode(errors="surrogateescape"), digest_size=16).hexdigest()
        path = self._folder and Path(self._folder).expanduser() / f"{name}.index"
        if not path:
            return self._numbered()
        if found := load(path):
            return found
        make_cache(path.parent)
        with locked(path):  # one of several processes reads the shards
            found = load(path) or self._numbered()
            if not any(place.is_remote and place.name in found.faults for place in self._places):
                keep(found, path)
        return found

    def _numbered(self) -> Index:
        size = sum(place.size for place in self._places)
        print(f"dataset {self.name}: numbering the samples of {len(self._places):,} shards, {size / 2**30:,.1f} GiB")
        return index_of(self._places, self._chosen, f"{self.name}: numbering")

    @property
    def label_place(self) -> str:
        label, name = self._chosen.label, self._chosen.field
        return f"{label}:{name}" if name else f".{label}"

    def fetch(self, number, most):
        size = min(most, self._index.size[number])
        with open(self._places[self._index.shard[number]].path, "rb") as file:
            file.seek(self._index.offset[number])
            found = file.read(size)
        if len(found) < size:
            raise OSError("its shard has been cut off since it was numbered")
        return found

    def stamp(self, name):
        number = self._numbers[name]
        return f"{self._places[self._index.shard[number]].stamp} {self._index.place[number]}"

    def known_by(self):
        return (str(self._index.size[self._numbers[name]]) for name in self._names)


ALSO = {"jpg", "jpeg", "png", "webp"}  # kinds that are read beside the guessed one, where it is missing


def keep(found: Index, path: Path) -> None:
    """Writes an index. Raises CannotWrite."""
    with replacing(path) as file:
        file.write(json.dumps(asdict(found)).encode(errors="surrogateescape"))


def load(path: Path) -> Index | None:
    """The index in a file; None if there is none or it is damaged."""
    try:
        found = Index(**json.loads(path.read_bytes()))
    except (OSError, ValueError, TypeError):
        return None
    mark_used(path)
    return found
