"""Attributes: labels that are numbers. What a vector of them means, and which vectors a user asks for."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from ganrun.errors import UserError, one_of

KEY = "attributes"  # of a batch: float32 (batch, F), as networks see them
COLUMNS = 8  # values of a number that a grid shows
REACH = 2.0  # standard deviations on either side of the mean, between which they lie
Kind = Literal["binary", "number"]
Wanted = str | Mapping[str, float | None]  # "age=31,smiling" or {"age": 31, "smiling": None}; no value = all in turn


@dataclass(frozen=True)
class Attribute:
    """A number that belongs to each sample, in the units of the table that it was read from.

    name:  of its column
    kind:  binary = of two values
    mean:  over the data
    std:   over the data
    low:   smallest value in the data
    high:  largest value in the data
    range: the values that networks see as -1 and 1; None = they see (value - mean) / std
    """

    name: str
    kind: Kind
    mean: float
    std: float
    low: float
    high: float
    range: tuple[float, float] | None = None

    @property
    def zero(self) -> float:
        """The value that networks see as 0."""
        return self.mean if self.range is None else sum(self.range) / 2

    @property
    def scale(self) -> float:
        """The difference that networks see as 1."""
        return self.std if self.range is None else (self.range[1] - self.range[0]) / 2

    @property
    def usual(self) -> float:
        """The mean; of two values the more frequent one, since no sample has one between them."""
        if self.kind == "number":
            return self.mean
        return self.low if self.mean - self.low <= self.high - self.mean else self.high

    @property
    def shown(self) -> list[float]:
        """The values that have a column in a grid."""
        if self.kind == "binary":
            return [self.low, self.high]
        low, high = max(self.low, self.mean - REACH * self.std), min(self.high, self.mean + REACH * self.std)
        return [low + (high - low) * i / (COLUMNS - 1) for i in range(COLUMNS)]

    @property
    def said(self) -> str:
        """In words, for summary and log."""
        if self.kind == "binary":
            return f"{self.name} ({self.low:.4g} or {self.high:.4g}, mean {self.mean:.4g})"
        spread = f"mean {self.mean:.4g}, deviation {self.std:.4g}"
        return f"{self.name} ({self.low:.4g} to {self.high:.4g}, {spread})"

    @property
    def plain(self) -> dict[str, Any]:
        """In plain containers, for files."""
        return asdict(self) | {"range": None if self.range is None else list(self.range)}


def of_values(values: Tensor, names: Sequence[str], ranges: Mapping[str, Sequence[float]]) -> list[Attribute]:
    """Describes values (num, F). ranges: of the columns that have one."""
    found = []
    for name, column in zip(names, values.double().T, strict=True):
        numbers = (column.mean(), column.std(correction=0), column.min(), column.max())
        kind = "binary" if bool(((column == numbers[2]) | (column == numbers[3])).all()) else "number"
        span = ranges.get(name)
        found.append(Attribute(name, kind, *map(float, numbers), None if span is None else (span[0], span[1])))
    return found


def of_plain(nodes: Any) -> list[Attribute]:
    """Reads what `plain` wrote, from a file that may have been edited. Raises UserError."""
    keys = set(Attribute.__dataclass_fields__)
    if not isinstance(nodes, list) or not all(isinstance(node, dict) and set(node) == keys for node in nodes):
        raise UserError(f"attributes in a generator's .yaml: expected a list of {', '.join(sorted(keys))}")
    found = [Attribute(**node | {"range": None if node["range"] is None else tuple(node["range"])}) for node in nodes]
    for one in found:
        numbers = (one.mean, one.std, one.low, one.high, *(one.range or ()))
        plain = all(isinstance(number, int | float) and math.isfinite(number) for number in numbers)
        if not (isinstance(one.name, str) and one.kind in get_args(Kind) and plain and one.scale > 0):
            raise UserError(f"attributes in a generator's .yaml: {one} cannot be used")
    return found


def drawn(attributes: Sequence[Attribute], num: int, rng: torch.Generator) -> Tensor:
    """Vectors (num, F) as networks see them, each attribute by itself: two values as often as in the data, numbers
    normal with the data's mean and deviation, within its smallest and largest."""
    columns = []
    for one in attributes:
        if one.kind == "binary":
            share = (one.mean - one.low) / (one.high - one.low)
            columns.append(torch.where(torch.rand(num, generator=rng) < share, one.high, one.low))
        else:
            columns.append((one.mean + one.std * torch.randn(num, generator=rng)).clamp(one.low, one.high))
    return as_seen(torch.stack(columns, 1), attributes)


def as_seen(values: Tensor, attributes: Sequence[Attribute]) -> Tensor:
    """Values (num, F) in their own units -> float32 (num, F) as networks see them."""
    zero, scale = (
        torch.tensor([getattr(one, key) for one in attributes], dtype=torch.float64) for key in ("zero", "scale")
    )
    return ((values.double() - zero) / scale).float()


def in_units(seen: Tensor, attributes: Sequence[Attribute]) -> Tensor:
    """The way back: float64 (num, F)."""
    zero, scale = (
        torch.tensor([getattr(one, key) for one in attributes], dtype=torch.float64) for key in ("zero", "scale")
    )
    return seen.double().cpu() * scale + zero


def asked(label: Wanted | Sequence[Wanted] | None, attributes: Sequence[Attribute]) -> Tensor:
    """The values (num, F) that a label asks for: a vector, or one for each value of the attribute that has none.

    label: see Wanted, or several of them; None = the first attribute through its values. Attributes that are not named
    have their usual value. Raises UserError for what cannot be understood.
    """
    rows = [row for one in _several(label, attributes) for row in _rows(_parsed(one, attributes), attributes)]
    return torch.tensor(rows, dtype=torch.float64)


def remarks(label: Wanted | Sequence[Wanted] | None, attributes: Sequence[Attribute]) -> list[str]:
    """What must be said of a label: attributes that it leaves open, and values outside those of the data."""
    wanted = parsed(label, attributes)
    left = [one for one in attributes if any(one.name not in each for each in wanted)]
    taken = ", ".join(f"{one.name}={one.usual:.4g}" for one in left)
    said = [f"not in label=, so at the mean, or of two values the more frequent one: {taken}"] if left else []
    for one in attributes:
        values = [each[one.name] for each in wanted if each.get(one.name) is not None]
        beyond = [value for value in values if not one.low <= value <= one.high]
        if beyond:
            said.append(f"{one.name}={beyond[0]:g} lies outside the training data's {one.low:.4g} to {one.high:.4g}")
    return said


def parsed(label: Wanted | Sequence[Wanted] | None, attributes: Sequence[Attribute]) -> list[dict[str, float | None]]:
    """The value of each attribute that a label names, for each of its parts. Raises UserError."""
    return [_parsed(one, attributes) for one in _several(label, attributes)]


def headings(values: Tensor) -> list[str]:
    """What tells vectors (num, F) apart, briefly: the values that differ."""
    differ = (values != values[0]).any(0)
    return [", ".join(f"{value:.3g}" for value in row[differ].tolist()) for row in values]


def in_turn(attributes: Sequence[Attribute], values: Tensor) -> str | None:
    """In words: the attribute in which vectors (num, F) differ; None if that is not a single one."""
    names = [one.name for one, same in zip(attributes, (values == values[0]).all(0).tolist(), strict=True) if not same]
    return names[0] if len(names) == 1 else None


def _several(label: Any, attributes: Sequence[Attribute]) -> list[Wanted]:
    if label is None:
        return [{attributes[0].name: None}]
    several = [label] if isinstance(label, str | Mapping) or not isinstance(label, Iterable) else list(label)
    if not several:
        raise UserError(f"label={label}: {_expected(attributes)}")
    return several


def _parsed(label: Wanted, attributes: Sequence[Attribute]) -> dict[str, float | None]:
    """The value of each attribute that a label names."""
    pairs = list(label.items()) if isinstance(label, Mapping) else [_pair(part) for part in str(label).split(",")]
    names, found = [one.name for one in attributes], {}
    for given, value in pairs:
        name = str(given)
        if name not in names:
            raise UserError(f"label={label}: there is no attribute {name!r}; {one_of(names, name)}")
        if name in found:
            raise UserError(f"label={label}: {name} is given twice")
        found[name] = None if value is None else _number(value, name, label)
    if sum(value is None for value in found.values()) > 1:
        raise UserError(f"label={label}: {_expected(attributes)}, at most one of them without a value")
    return found


def _pair(text: str) -> tuple[str, str | None]:
    name, equals, value = text.rpartition("=")
    return (name.strip(), value.strip()) if equals else (text.strip(), None)


def _number(value: Any, name: str, label: Wanted) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not math.isfinite(number):
        raise UserError(f"label={label}: {name}={value}; expected a number")
    return number


def _rows(given: dict[str, float | None], attributes: Sequence[Attribute]) -> list[list[float]]:
    swept = next((one for one in attributes if given.get(one.name, 0.0) is None), None)
    rows = []
    for value in swept.shown if swept else [None]:
        row = given | ({swept.name: value} if swept else {})
        rows.append([row.get(one.name, one.usual) for one in attributes])
    return rows


def _expected(attributes: Sequence[Attribute]) -> str:
    example = ",".join(f"{one.name}={one.mean:.3g}" for one in attributes[:2])
    return f"expected attributes with values, as in label={example}"
