"""Two classes of one set as the two sides of unpaired data, such as horse2zebra."""

from dataclasses import dataclass
from typing import Any

from ganrun.data.base import Data
from ganrun.data.derivation import check_channels, check_images
from ganrun.data.sides import Subset, TwoSided
from ganrun.errors import UserError, one_of


@dataclass(frozen=True, kw_only=True)
class Classes:
    """Turns data into two sides: the samples of class `a` are the source, those of class `b` the real side.

    a, b: names, or numbers from 0. source_channels: of the data; networks read it in the config.
    """

    a: int | str
    b: int | str
    source_channels: int

    def __call__(self, data: Data) -> "BetweenClasses":
        """Raises UserError for data without these classes."""
        check_images(data, "classes")
        check_channels(self.source_channels, data.shape[0], "classes")
        a, b = self.number(data, "a"), self.number(data, "b")
        if a == b:
            raise UserError(f"pairs.a={self.a} pairs.b={self.b}: expected two classes")
        return BetweenClasses(data, a, b, self)

    def number(self, data: Data, key: str) -> int:
        """The number of the class that pairs.<key> names."""
        got, names = getattr(self, key), data.classes
        if not names:
            raise UserError(f"pairs=classes: dataset {data.name} has no classes")
        if str(got) in names:
            return names.index(str(got))
        if isinstance(got, int) and 0 <= got < len(names):
            return got
        raise UserError(f"pairs.{key}={got}: dataset {data.name} has no such class; {one_of(names, str(got))}")


class BetweenClasses(TwoSided):
    """The samples of two classes, unpaired."""

    def __init__(self, base: Data, a: int, b: int, classes: Classes):
        self.base, self.chosen, self._classes = base, {"a": base.classes[a], "b": base.classes[b]}, classes
        self.value_range, self.depth, self.shown = base.value_range, base.depth, base.shown
        sides = {"source": ("a", a), "real": ("b", b)}
        self._sides = {key: self._side(self.chosen[its], number) for key, (its, number) in sides.items()}
        super().__init__(name=base.name, num_workers=base.num_workers)

    def _side(self, name: str, number: int) -> Subset:
        indices = (self.base.class_labels.cpu() == number).nonzero().flatten()
        if not len(indices):
            raise UserError(f"pairs=classes: dataset {self.base.name} has no samples of class {name}")
        return Subset(self.base, indices, f"{self.base.name}, {name}", labelled=False)

    def open(self) -> None:
        self.skipped, self.notes = list(self.base.skipped), list(self.base.notes)

    @property
    def stores(self):
        return [self.base]

    @property
    def described(self) -> dict[str, Any]:
        return self.base.described | {"pairs": "classes"} | self.chosen

    def held_out(self) -> "BetweenClasses | None":
        found = self.base.held_out()
        return None if found is None else self._classes(found)
