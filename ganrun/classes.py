"""Class names: the order in which they are shown, a selection of many, and which one a label means."""

import re
from collections.abc import Sequence
from numbers import Integral
from typing import Any

LISTED = 10  # names in one line


def by_number(classes: Sequence[str]) -> list[int]:
    """Class indices in the order to show them: numeric names first, by value; then the others as they are.

    The indices follow the names sorted as text ("10" before "2") and stay what a generator was trained with.
    """

    def place(index: int) -> tuple[bool, float]:
        name = classes[index]
        return (False, float(name)) if re.fullmatch(r"[+-]?\d+(\.\d+)?", name, re.A) else (True, 0.0)

    return sorted(range(len(classes)), key=place)


def listed(classes: Sequence[str]) -> str:
    """The first names, and how many more there are."""
    names = [classes[index] for index in by_number(classes)]
    more = f" and {len(names) - LISTED:,} more" if len(names) > LISTED else ""
    return ", ".join(names[:LISTED]) + more


def spaced(items: Sequence[int], num: int) -> list[int]:
    """At most `num` of the items, evenly spaced from the first to the last."""
    if len(items) <= num:
        return list(items)
    return [items[i * (len(items) - 1) // max(1, num - 1)] for i in range(num)]


def index_of(label: Any, classes: Sequence[str]) -> int | None:
    """The class meant by a name, an index, or an index written as text; names go first. None if there is none."""
    if isinstance(label, str):
        if label in classes:
            return classes.index(label)
        return index_of(int(label), classes) if re.fullmatch(r"0|[1-9]\d{0,9}", label, re.A) else None
    if isinstance(label, Integral) and not isinstance(label, bool):
        return int(label) if 0 <= label < len(classes) else None
    return None


def ambiguities(labels: Sequence[Any], classes: Sequence[str]) -> list[str]:
    """Warnings for labels that are the name of one class and the index of another."""
    notes = []
    for label in dict.fromkeys(label for label in labels if isinstance(label, str | int)):
        named = classes.index(str(label)) if str(label) in classes else None
        counted = index_of(int(label), classes) if named is not None and str(label).isdecimal() else None
        if counted is None or counted == named:
            continue
        if isinstance(label, str):
            notes.append(f"label={label} is the class named {label}; the class of index {label} is {classes[counted]}")
        else:
            there = f"label={label} is the class of index {label}, {classes[counted]}"
            notes.append(f"{there}; label='{label}' is the class named {label}")
    return notes
