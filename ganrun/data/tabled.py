"""What a table of labels says about the files of a set: classes, or attributes."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from ganrun.attributes import Attribute, as_seen, of_values
from ganrun.classes import listed
from ganrun.data.files import printable
from ganrun.data.labels import MOST, by_file
from ganrun.data.table import Row, number_of, read_table, whole_of
from ganrun.errors import UserError, one_of

Ranges = Mapping[str, Sequence[float] | None]


class Tabled:
    """The labels that a table gives files. A single column of whole numbers or of names is one of classes.

    path:    of the table
    columns: that are used; None = all
    ranges:  [low, high] of columns, which networks see as -1 and 1; without, or with None, they see (value - mean) /
             std. A column that is named here is one of numbers
    """

    def __init__(self, path: str, columns: Sequence[Any] | str | None, ranges: Ranges | None):
        self.table = read_table(path)
        named = [columns] if isinstance(columns, str) else columns
        self._named = None if named is None else list(map(str, named))
        self._places = self.table.chosen(self._named)
        self.names = [self.table.columns[i] for i in self._places]
        self.ranges = {str(name): span for name, span in (ranges or {}).items()}
        for name, span in self.ranges.items():
            check_range(name, span, self.names)
        self._cells: dict[str, list[Any]] = {}  # of each file
        self.are_classes = False

    def match(self, files: list[str], top: str) -> tuple[dict[str, str], str | None]:
        """Finds the row of each file; returns the files that have no usable one, with the reason, and a note.

        top: the folders around all files. Raises UserError if no row fits.
        """
        rows, gone = self.table.matched(files, top)
        if not rows and files:
            got = printable(", ".join(row.name for row in self.table.rows[:3]))
            text = f"none of its {len(self.table.rows):,} rows names a file of the set; its first column has {got}"
            raise UserError(f"dataset.labels={self.table.place}: {text}; the set has {printable(files[0])}")
        self._cells = {file: [row.cells[i] for i in self._places] for file, row in rows.items()}
        self.are_classes = self._holds_classes()
        bad = {file: f"{self.table.place} has no row for it" for file in files if file not in rows}
        bad |= {file: why for file, row in rows.items() if (why := self._fault(file, row))}
        example = printable(min(gone)) if gone else ""
        what = f"{self.table.place} has rows for {len(gone):,} files that are not there, such as {example}"
        return bad, what if gone else None

    def _holds_classes(self) -> bool:
        if len(self.names) != 1 or self.names[0] in self.ranges:
            return False
        cells = [row[0] for row in self._cells.values()]
        return not any(isinstance(cell, bool | list) or is_fraction(cell) for cell in cells)

    def _fault(self, file: str, row: Row) -> str | None:
        for name, cell in zip(self.names, self._cells[file], strict=True):
            if self.are_classes and isinstance(cell, str | int | float) and str(cell).strip():
                continue
            if self.are_classes or number_of(cell) is None:
                got = "is empty" if cell in ("", None) else f"is {printable(str(cell))[:40]}"
                wanted = "a class" if self.are_classes else "a number"
                return f"{self.table.place} {row.where}: {name} {got}; expected {wanted}"
        return None

    def classes(self, names: list[str]) -> tuple[list[int] | None, list[str], str]:
        """The class number of each file, None = no classes; the names of all numbers; and a note."""
        cells = {name: self._cells[name][0] for name in names}
        whole = {name: whole_of(cell) for name, cell in cells.items()}
        if all(number is not None and 0 <= number < MOST for number in whole.values()):
            return by_file(names, whole, self.table.place)
        texts = [str(cells[name]).strip() for name in names]
        found = sorted(set(texts))
        if len(found) < 2:
            return None, [], f"no classes: {self.table.place} gives every image the label {printable(found[0])}"
        return [found.index(text) for text in texts], found, f"classes: {listed(found)} from {self.table.place}"

    def attributes(self, names: list[str]) -> tuple[Tensor, list[Attribute], list[str]]:
        """The values (num, F) float64 of these files, what they mean, and notes. Columns that say nothing are left out.

        Raises UserError for such a column if it is named.
        """
        values = torch.tensor([[number_of(cell) for cell in self._cells[name]] for name in names], dtype=torch.float64)
        spans = {name: span for name, span in self.ranges.items() if span is not None}
        found = of_values(values, self.names, spans)
        same = [one for one in found if one.low == one.high and one.range is None]
        if same and self._named is not None:
            text = f"{same[0].name} is {same[0].low:g} for every image, which says nothing; leave it out"
            raise UserError(f"dataset.columns=[{','.join(self._named)}]: {text}")
        for i, one in enumerate(found):
            self._check_size(one, values[:, [i]])
        notes = [f"{self.table.place}: left out, the same for every image: {_few(same)}"] if same else []
        kept = [i for i, one in enumerate(found) if one not in same]
        notes += [f"attributes: {_few([found[i] for i in kept])} from {self.table.place}"] if kept else []
        beyond = [one for one in found if one.range and not one.range[0] <= one.low <= one.high <= one.range[1]]
        notes += [f"values of {one.said} lie outside dataset.ranges.{one.name}={list(one.range)}" for one in beyond]
        return values[:, kept], [found[i] for i in kept], notes

    def _check_size(self, one: Attribute, values: Tensor) -> None:
        """Raises UserError for numbers so large or so small that networks could not be given them in float32."""
        constant = one.low == one.high and one.range is None
        if not constant and not (0 < one.scale < math.inf and bool(as_seen(values, [one]).isfinite().all())):
            text = f"{one.name} goes from {one.low:g} to {one.high:g}, which float32 cannot hold"
            raise UserError(f"dataset.labels={self.table.place}: {text}; expected other units, or another range")


def is_fraction(cell: Any) -> bool:
    """Is it a number, but not a whole one?"""
    return number_of(cell) is not None and whole_of(cell) is None


def check_range(name: str, span: Any, names: Sequence[str]) -> None:
    """Raises UserError for a column that is not there, and for anything but two numbers."""
    if name not in names:
        raise UserError(f"dataset.ranges.{name}: there is no such column; {one_of(names, name)}")
    numbers = isinstance(span, Sequence) and all(isinstance(n, int | float) and math.isfinite(n) for n in span)
    if span is not None and not (numbers and len(span) == 2 and span[0] < span[1]):
        raise UserError(f"dataset.ranges.{name}={span}; expected [low,high], or null for mean and deviation")


def _few(attributes: Sequence[Attribute], most: int = 8) -> str:
    more = f" and {len(attributes) - most:,} more" if len(attributes) > most else ""
    return ", ".join(printable(one.said) for one in attributes[:most]) + more
