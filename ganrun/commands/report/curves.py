"""The curves of a run, thinned so that a page holds many of them."""

from itertools import pairwise
from math import isfinite
from typing import Any

from ganrun.files.record import Record

POINTS = 240  # of one curve
DIGITS = 5
LARGEST = 1e300  # a larger number is as good as infinite, and an integer may have any number of digits
HEADINGS = {"score": "Scores", "discriminator": "Discriminator", "generator": "Generator", "collapse": "Collapse"}


def curves_of(record: Record) -> dict[str, tuple[list[int], list[float | None]]]:
    """Each curve's steps and values; None for a value that is no finite number."""
    found = {}
    for name in record.names:
        steps, values = record.series(name)
        finite = [value if is_finite(value) else None for value in values]
        found[name] = thinned(steps, finite)
    return found


def is_finite(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < LARGEST and isfinite(value)


def thinned(steps: list[int], values: list[float | None]) -> tuple[list[int], list[float | None]]:
    """At most POINTS points: of each stretch of a longer curve the lowest and the highest, so that peaks stay."""
    kept = list(range(len(steps)))
    if len(steps) > POINTS:
        edges = [round(i * len(steps) / (POINTS // 2)) for i in range(POINTS // 2 + 1)]
        stretches = [range(low, high) for low, high in pairwise(edges)]
        kept = sorted({i for stretch in stretches for i in extremes(stretch, values)})
    return [steps[i] for i in kept], [rounded(values[i]) for i in kept]


def extremes(stretch: range, values: list[float | None]) -> set[int]:
    known = [i for i in stretch if values[i] is not None] or [stretch[0]]
    return {min(known, key=lambda i: values[i] or 0), max(known, key=lambda i: values[i] or 0)}


def rounded(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.{DIGITS}g}")


def charts(names: list[str]) -> list[tuple[str, list[str]]]:
    """The names of curves under headings: by what stands before their slash, scores first."""
    groups: dict[str, list[str]] = {heading: [] for heading in HEADINGS.values()}
    for name in names:
        group = name.partition("/")[0] if "/" in name else ""
        heading = HEADINGS.get(group, group.replace("_", " ").capitalize() or "Other")
        groups.setdefault(heading, []).append(name)
    return [(heading, names) for heading, names in groups.items() if names]
