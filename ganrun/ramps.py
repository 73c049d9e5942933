"""Ramps: numbers that change in the course of training, wherever a parameter is annotated `float | Ramp`.

A ramp is a pure function of `Now`: nothing of it is saved, and a resume goes on in the middle of it.
"""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

from ganrun.errors import UserError, one_of, require
from ganrun.game import Now

UNITS = {"steps": "step", "images": "images"}  # of `over` and `hold` -> what counts them in Now
FIRST, LAST = Now(0, 0, 0), Now(2**62, 0, 2**62)


class Ramp(ABC):
    """A number that depends on where training stands."""

    @abstractmethod
    def at(self, now: Now) -> float:
        """Its value in the move of `now`."""


def at(value: "float | Ramp", now: Now) -> float:
    """A number as it is, a ramp's value now."""
    return value.at(now) if isinstance(value, Ramp) else value


def bounds(value: "float | Ramp") -> tuple[float, float]:
    """The smaller and the larger of its first and its last value; of a number twice itself."""
    ends = at(value, FIRST), at(value, LAST)
    return min(ends), max(ends)


@dataclass(frozen=True)
class Constant(Ramp):
    """The same number throughout."""

    value: float

    def at(self, now: Now) -> float:
        return self.value


class Course(Ramp):
    """A function of the share of `over` that has passed, in [0, 1]; afterwards it stays at its last value.

    Its fields are, among others, over: steps or images until its last value; unit: which of them, steps or images.
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
    """`value` up to `hold`, then in a straight line to `end`, which it reaches at `over`.

    hold: None = half of over. CycleGAN's learning rate: Zhu et al. 2017, arXiv 1703.10593, section 4.
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
