"""Ramps: numbers that change during training, for any parameter annotated `float | Ramp`.

A ramp is a pure function of `Now`: nothing is saved, and a resume continues in the middle of it.
"""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

from ganrun.errors import UserError, one_of, require
from ganrun.game import Now

UNITS = {"steps": "step", "images": "images"}  # of `over` and `hold` -> what counts them in Now
FIRST, LAST = Now(0, 0, 0), Now(2**62, 0, 2**62)


class Ramp(ABC):
    """A number that depends on where training stands.

    Example:
        weight = Linear(start=10.0, end=1.0, over=1000)
        weight.at(Now(step=500, move=0, images=32_000))  # 5.5
    """

    @abstractmethod
    def at(self, now: Now) -> float:
        """Its value at `now`."""


def at(value: "float | Ramp", now: Now) -> float:
    """The value of a ramp at `now`; a plain number stays as it is."""
    return value.at(now) if isinstance(value, Ramp) else value


def bounds(value: "float | Ramp") -> tuple[float, float]:
    """The smaller and the larger of a ramp's first and last values; for a number, itself twice."""
    ends = at(value, FIRST), at(value, LAST)
    return min(ends), max(ends)


@dataclass(frozen=True)
class Constant(Ramp):
    """The same number throughout."""

    value: float

    def at(self, now: Now) -> float:
        return self.value


class Course(Ramp):
    """A function of the share of `over` that has passed, in [0, 1]; afterwards it keeps its last value.

    over: steps or images until the last value. unit: which of the two, steps or images.
    """

    over: int
    unit: str

    def __post_init__(self):
        require(1, over=self.over)
        if self.unit not in UNITS:
            raise UserError(f"unit={self.unit}; {one_of(UNITS, str(self.unit))}")

    def at(self, now: Now) -> float:
        return self.course(min(1.0, getattr(now, UNITS[self.unit]) / self.over))

    @abstractmethod
    def course(self, t: float) -> float:
        """Its value when the share t of `over` has passed."""


@dataclass(frozen=True)
class Linear(Course):
    """From start to end in a straight line."""

    start: float
    end: float
    over: int
    unit: str = "steps"

    def course(self, t):
        return (1 - t) * self.start + t * self.end


@dataclass(frozen=True)
class ConstantThenLinear(Course):
    """Holds `value` up to `hold`, then goes in a straight line to `end`, reached at `over`.

    hold: steps or images; None = half of over. CycleGAN's learning rate: Zhu et al. 2017, arXiv 1703.10593, section 4.
    """

    value: float
    over: int
    hold: int | None = None
    end: float = 0.0
    unit: str = "steps"

    def __post_init__(self):
        super().__post_init__()
        if self.hold is not None and not 0 <= self.hold < self.over:
            raise UserError(f"hold={self.hold}; expected at least 0 and less than over={self.over}")

    def course(self, t):
        hold = 0.5 if self.hold is None else self.hold / self.over
        fallen = max(0.0, t - hold) / (1 - hold)
        return (1 - fallen) * self.value + fallen * self.end


@dataclass(frozen=True)
class Cosine(Course):
    """From start to end along half a cosine: Loshchilov and Hutter 2017, arXiv 1608.03983, eq. 5 without restarts."""

    start: float
    end: float
    over: int
    unit: str = "steps"

    def course(self, t):
        return self.end + (self.start - self.end) * (1 + math.cos(math.pi * t)) / 2
