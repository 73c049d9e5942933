"""From pixel values of any depth to 8 or 16 bits: which values become black and white, and is the range used?"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np

from ganrun.errors import UserError

Range = Literal["auto"] | tuple[float, float] | None
LEAST_USED = 1 / 8  # share of a depth's own range; pixels that use less look as if they had another depth
USUAL = ((0, 1), (-1, 1), (0, 255), (0, 65535))  # ranges that floats are stored with
LOOKED_AT = {None: 64, "auto": 1024}  # evenly spaced images of a set whose range is checked


class Depth(NamedTuple):
    """How pixels are stored. full: the values that mean black and white, None if unknown."""

    name: str
    full: tuple[float, float] | None


BITS = Depth("1-bit", (0, 1))
EIGHT = Depth("8-bit", (0, 255))
SIXTEEN = Depth("16-bit", (0, 65535))
TWELVE = Depth("12-bit", (0, 4095))
COLOUR = Depth("16-bit colour, read in 8 bits,", (0, 255))
INTEGERS = Depth("integer", None)
FLOATS = Depth("float", None)
DEEPER = (SIXTEEN, TWELVE, INTEGERS, FLOATS)  # than 8 bits, and read whole


def depth_of(values: np.ndarray) -> Depth:
    """The depth, by an array's type; wider integers that fit into 16 unsigned bits count as 16-bit.

    Raises ValueError for values that are not finite or not numbers.
    """
    if values.dtype.kind not in "biuf":
        raise ValueError(f"its pixels are {values.dtype}; expected numbers")
    if values.dtype == bool:
        return BITS
    if values.dtype == np.uint8:
        return EIGHT
    if values.dtype.kind == "f":
        if not np.isfinite(values).all():
            raise ValueError("its pixels are not all finite")
        return FLOATS
    return SIXTEEN if values.size and values.min() >= 0 and values.max() <= SIXTEEN.full[1] else INTEGERS


def to_levels(
    values: np.ndarray, depth: Depth, span: tuple[float, float] | None, bits: int = 8
) -> tuple[np.ndarray, int]:
    """Values scaled so that span[0] becomes 0 and span[1] 255, or 65535 for 16 `bits`; how many were clipped.

    span: None = the depth's own range. Raises ValueError if there is none.
    """
    if not (span or depth.full):
        raise ValueError(without_range(depth, Seen(values.min().item(), values.max().item())))
    low, high = span or depth.full
    if depth == COLOUR and span:
        why = "16-bit colour is read in 8 bits, so dataset.range cannot choose among its values"
        raise ValueError(f"{why}; dataset.depth=16 keeps 16" if bits == 8 else why)
    top, kind = 2**bits - 1, np.uint8 if bits == 8 else np.uint16
    if (low, high) == (0, top) and values.dtype == kind:
        return values, 0
    clipped = int(np.count_nonzero((values < low) | (values > high)))
    scaled = values.astype(np.float32 if values.dtype.itemsize < 4 and bits == 8 else np.float64)
    scaled -= low  # in place: images may be large
    scaled *= top / (high - low)
    return np.rint(scaled, out=scaled).clip(0, top, out=scaled).astype(kind), clipped


def text(span: Iterable[float]) -> str:
    """0..1399"""
    return "..".join(number(value) for value in span)


def number(value: float) -> str:
    return f"{value:.6g}" if isinstance(value, (float, np.floating)) else str(value)


def typed(span: Iterable[float]) -> str:
    """A range as the user types it."""
    return f"dataset.range=[{','.join(number(value) for value in span)}]"


@dataclass
class Seen:
    """For the images of one depth: lowest and highest value, number of images, and name of the first."""

    low: float
    high: float
    num: int = 0
    first: str = ""

    def add(self, low: float, high: float) -> None:
        self.low, self.high, self.num = min(self.low, low), max(self.high, high), self.num + 1


def used(depth: Depth, seen: Seen) -> float:
    """The share of the depth's own range that is used."""
    return (seen.high - seen.low) / (depth.full[1] - depth.full[0])


def check(found: dict[Depth, Seen], total: int, bits: int = 8) -> list[str]:
    """Notes about the ranges found in a set without dataset.range, of which `bits` are kept.

    Raises UserError if pixels of more than 8 bits use so little of their range that 8 bits would be black or flat; 16
    bits would only be dark.
    """
    notes = []
    for depth, seen in ((depth, seen) for depth, seen in found.items() if depth is not BITS):
        pixels = f"{depth.name} pixels lie in {text((seen.low, seen.high))} of {text(depth.full)}"
        pixels += f" ({seen.num:,} of {total:,} images looked at)"
        if used(depth, seen) >= LEAST_USED:
            notes += [f"{pixels}{kept(depth, bits)}"] if (depth is not EIGHT or bits > 8) else []
        elif depth == COLOUR:
            raise UserError(f"{pixels}: they would be black or flat; save the files in 8 bits")
        elif depth is not EIGHT and bits == 8:
            raise UserError(f"{pixels}: they would be black or flat; give {advice(seen)}")
        else:
            notes.append(f"{pixels}: they are dark or flat unless you give {advice(seen)}")
    return notes


def kept(depth: Depth, bits: int) -> str:
    """What becomes of pixels when `bits` are kept; "" if nothing is lost or added."""
    if bits == 16:
        return ": scaled to 16 bits" if depth == EIGHT else ""
    return ": read in 8 bits; dataset.depth=16 keeps 16" if depth in DEEPER else ""


def without_range(depth: Depth, seen: Seen) -> str:
    pixels = f"{depth.name} pixels, here {text((seen.low, seen.high))}, have no range of their own"
    return f"{pixels}; give {advice(seen)}"


def advice(seen: Seen) -> str:
    """A range to suggest: for floats the usual one that contains them, otherwise the values seen."""
    span = (seen.low, seen.high)
    if isinstance(seen.low, float):
        span = next((usual for usual in USUAL if usual[0] <= seen.low and seen.high <= usual[1]), span)
    return f"{typed(span)} or auto"


def ranges(found: dict[Depth, Seen]) -> str:
    """All ranges found: 8-bit 0..255, 16-bit 0..1399"""
    return ", ".join(f"{depth.name} {text((seen.low, seen.high))}" for depth, seen in found.items())


def whole_range(found: dict[Depth, Seen]) -> tuple[float, float]:
    """The range for dataset.range=auto. Raises UserError for several depths, and for a single value."""
    if len(found) > 1 and not set(found) <= {SIXTEEN, INTEGERS}:
        raise UserError(f"dataset.range=auto: the images are of several depths: {ranges(found)}; give [low,high]")
    low, high = min(seen.low for seen in found.values()), max(seen.high for seen in found.values())
    if low == high:
        raise UserError(f"dataset.range=auto: all pixels are {number(low)}")
    return low, high


def checked_range(given) -> Range:
    """The user's dataset.range, checked. Raises UserError."""
    if given is None or given == "auto":
        return given
    if isinstance(given, str) or len(given) != 2 or not given[0] < given[1]:
        raise UserError(f"dataset.range={given}; expected [low,high], auto, or null for all that the depth can hold")
    return tuple(given)
