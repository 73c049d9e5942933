"""Robust statistics of a short series: its trend, how sure it is, and what is left of it. Pure functions."""

import math
from collections.abc import Sequence
from itertools import combinations, pairwise
from statistics import NormalDist, median
from typing import NamedTuple

EXACT = 10  # up to so many values the distribution of Kendall's S is counted out
TO_DEVIATION = 1.4826  # of a normal distribution: its standard deviation over its median absolute deviation


class Trend(NamedTuple):
    """Of a series over steps.

    slope: a step, by Theil and Sen. low, high: its 95 % interval. falls, rises: the chance that a series without a
    trend falls or rises as clearly. noise: standard deviation about the line. num: values
    """

    slope: float
    low: float
    high: float
    falls: float
    rises: float
    noise: float
    num: int


def trend(steps: Sequence[int], values: Sequence[float]) -> Trend:
    """The trend of at least two values."""
    slopes = sorted((b - a) / (t - s) for (s, a), (t, b) in combinations(zip(steps, values, strict=True), 2) if t > s)
    slope = median(slopes)
    rest = [value - slope * step for step, value in zip(steps, values, strict=True)]
    stretch = serial(rest)
    score = kendall(values)
    low, high = sen_interval(slopes, len(values), stretch)
    falls, rises = at_least(-score, values, stretch), at_least(score, values, stretch)
    return Trend(slope, low, high, falls, rises, deviation(rest), len(values))


def kendall(values: Sequence[float]) -> int:
    """S: pairs that rise minus pairs that fall (Mann 1945; Kendall 1975)."""
    return sum((b > a) - (b < a) for a, b in combinations(values, 2))


def variance(values: Sequence[float]) -> float:
    """Of S where there is no trend, corrected for ties: Kendall 1975, chapter 4."""
    ties = [sum(value == other for other in values) for value in set(values)]
    return sum(n * (n - 1) * (2 * n + 5) * sign for n, sign in [(len(values), 1), *((t, -1) for t in ties)]) / 18


def at_least(score: int, values: Sequence[float], stretch: float = 1.0) -> float:
    """The chance of an S of at least `score` where there is no trend.

    Exact up to EXACT values without ties, normal with a correction for continuity beyond. stretch: see `serial`.
    """
    if len(values) <= EXACT and len(set(values)) == len(values) and stretch == 1:
        counts = discordances(len(values))
        most = len(counts) - 1  # S = most - 2 * discordant pairs
        return sum(n for pairs, n in enumerate(counts) if most - 2 * pairs >= score) / math.factorial(len(values))
    spread = math.sqrt(variance(values) * stretch)
    return 1 - NormalDist().cdf((score - 1) / spread) if spread else 1.0


def discordances(num: int) -> list[int]:
    """How many orders of `num` values have 0, 1, 2, ... pairs that fall."""
    counts = [1]
    for size in range(1, num):
        wider = [0] * (len(counts) + size)
        for pairs, ways in enumerate(counts):
            for more in range(size + 1):
                wider[pairs + more] += ways
        counts = wider
    return counts


def serial(rest: Sequence[float]) -> float:
    """Factor by which neighbours that are alike stretch the variance of S: Yue and Wang 2004, eq. 8 and 9.

    rest: the series without its trend. 1 where neighbours are independent, and where they are too few (EXACT) to tell.
    """
    num, middle = len(rest), sum(rest) / len(rest)
    square = sum((value - middle) ** 2 for value in rest)
    if num <= EXACT or square == 0:
        return 1.0
    first = sum((a - middle) * (b - middle) for a, b in pairwise(rest)) / square
    if first <= NormalDist().inv_cdf(0.95) / math.sqrt(num):  # not different from none
        return 1.0
    return 1 + 2 * sum((1 - lag / num) * first**lag for lag in range(1, num))


def sen_interval(slopes: Sequence[float], num: int, stretch: float = 1.0) -> tuple[float, float]:
    """The 95 % interval of the slope: Sen 1968, section 6. slopes: of all pairs, in order."""
    half = 1.96 * math.sqrt(num * (num - 1) * (2 * num + 5) / 18 * stretch)
    low = max(0, math.floor((len(slopes) - half) / 2))
    return slopes[low], slopes[len(slopes) - 1 - low]


def deviation(values: Sequence[float]) -> float:
    """Standard deviation by the median absolute deviation, which outliers do not move."""
    middle = median(values)
    return TO_DEVIATION * median(abs(value - middle) for value in values)


def last(steps: Sequence[int], share: float, least: int) -> int:
    """Index of the first value of the last `share` of the steps, or of the last `least` values if those are more."""
    begin = steps[-1] - share * (steps[-1] - steps[0])
    inside = sum(step >= begin for step in steps)
    return max(0, len(steps) - max(inside, least))


def blocks(steps: Sequence[int], values: Sequence[float], most: int = 60) -> tuple[list[int], list[float]]:
    """A long series as the medians of at most `most` parts of equally many values."""
    size = -(-len(values) // most) or 1
    starts = range(0, len(values), size)
    return [steps[i] for i in starts], [median(values[i : i + size]) for i in starts]
