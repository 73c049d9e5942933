"""From what a trial has measured to what a run will take: plain arithmetic."""

from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any, NamedTuple

Found = Mapping[str, Any]  # what ganrun.training.trial.measure returns, as JSON has it
WALL, CPU, BYTES = range(3)  # of a cost
GROWS = 64 << 20  # bytes of activations by which a second trial exceeds the first, so that its peak tells
LARGEST = 64  # times the batch at most, where images are so small that memory hardly matters


def times(number: int, every: int) -> int:
    """How often something is done in so many steps, once of these at the end; every 0 = only there."""
    return number // every + (number % every > 0) if every else 1


def counts(found: Found) -> dict[str, int]:
    """How often each event happens before the end of the run.

    The last checkpoint belongs to the end. Looks and a user's own callbacks do nothing more there.
    """
    steps, every = found["config"]["steps"], found["every"]
    numbers = {name: steps // each if each else 0 for name, each in every.items()}
    for name in ("logs", "pictures", "scores"):
        numbers[name] = times(steps, every[name])
    numbers["checkpoints"] = (steps - 1) // every["checkpoints"] if every["checkpoints"] else 0
    return numbers


def of_steps(found: Found, unit: int = WALL) -> float:
    """All steps of the run. Those of a kind that the trial did not time cost by their FLOPs."""
    typical = {kind: median(cost[unit] for cost in costs) for kind, costs in found["times"].items()}
    known = max(typical, key=lambda kind: len(found["times"][kind]))
    rate = typical[known] / max(1, found["flops"][known])
    return sum(
        number * typical.get(kind, rate * found["flops"].get(kind, found["flops"][known]))
        for kind, number in found["kinds"].items()
    )


def a_step(found: Found, unit: int = WALL) -> float:
    return of_steps(found, unit) / found["config"]["steps"]


def warming(found: Found, unit: int = WALL) -> float:
    """What the first steps take beyond later ones, such as compiling."""
    return sum(max(0.0, cost[unit] - a_step(found, unit)) for cost in found["untimed"])


def of_events(costs: Sequence[Sequence[float]], number: int, unit: int = WALL) -> float:
    """So many times the same event, of which the first makes what the others find."""
    return costs[0][unit] + (number - 1) * costs[-1][unit] if costs and number else 0.0


def time_of(found: Found, unit: int = WALL) -> dict[str, float]:
    """Seconds of the whole command, by what takes them."""
    start = found["start"]["seconds" if unit == WALL else "cpu"]
    parts = {"start-up": start + warming(found, unit), "steps": of_steps(found, unit)}
    number = counts(found)
    parts |= {name: of_events(costs, number[name], unit) for name, costs in found["events"].items()}
    return parts | {"end": found["end"][unit]}


def disk_of(found: Found) -> dict[str, int]:
    """Bytes of the run directory, by what takes them; its files are as large as those of the trial."""
    files, steps, every = found["files"], found["config"]["steps"], found["every"]
    number, keep = counts(found), found["config"]["keep"]
    saved = steps // every["checkpoints"] if every["checkpoints"] else 0
    kept = saved if keep is None else min(saved, keep)
    kept += not (saved and steps % every["checkpoints"] == 0)  # last.ckpt, where it is no other name of the last step's
    drawn = steps // every["pictures"] if every["pictures"] else 0
    grown = sum(of_events(costs, number[name], BYTES) for name, costs in found["events"].items())
    parts = {
        "checkpoints": kept * files["checkpoint"] + files["best checkpoint"],
        "generators": files["generators"],
        "pictures": (drawn + 1) * files["picture"],
        "curves": files["curves at the start"] + round(grown),
        "about the run": files["about"],
    }
    if files["snapshot"]:
        parts["averages"] = times(steps, every.get("PosthocEMA", 0)) * files["snapshot"]
    return parts


def flops_of(found: Found) -> float:
    """Of a step, the mean over all of the run's."""
    known = max(found["flops"].values())
    return sum(n * found["flops"].get(kind, known) for kind, n in found["kinds"].items()) / found["config"]["steps"]


def factor(found: Found) -> int:
    """How many times as large a batch shows its part in the peak: a power of 2; 0 where none would fit safely."""
    each, images, memory = found["activation_bytes"], found["images"], found["memory"]
    times = 2
    while each * images * (times - 1) < GROWS and times < LARGEST:
        times *= 2
    extra = 2 * each * images * (times - 1)  # twice what autograd keeps, for what passes need besides
    return times if memory["peak"] + extra < memory["room"] / 2 else 0


class Line(NamedTuple):
    """Peak memory as a straight line through two trials: bytes = fixed + each * images."""

    each: float
    fixed: float

    @classmethod
    def through(cls, small: Found, large: Found) -> "Line":
        """Through their steps. The activations that autograd keeps in bf16 are the least that an image needs."""
        grown = large["memory"]["steps"] - small["memory"]["steps"]
        each = max(grown / (large["images"] - small["images"]), small["activation_bytes"] / 2)
        return cls(each, small["memory"]["steps"] - each * small["images"])

    @classmethod
    def of_activations(cls, found: Found) -> "Line":
        each = found["activation_bytes"]
        return cls(each, found["memory"]["peak"] - each * found["images"])

    def largest(self, room: int) -> int:
        """The most images that fit."""
        return max(0, int((room - self.fixed) // self.each))


class Way(NamedTuple):
    """Something that was tried instead. words: overrides. gain: its steps/s divided by those of the run as asked for.

    pays_after: steps until a longer start-up is made up for; None = it never is.
    """

    words: str
    steps_per_second: float
    gain: float
    warming: float
    pays_after: int | None


def way(words: str, found: Found, asked: Found) -> Way:
    step, had = a_step(found), a_step(asked)
    extra = warming(found) - warming(asked)
    after = max(0, round(extra / (had - step))) if step < had else None
    return Way(words, 1 / step, had / step, warming(found), after)


class Saving(NamedTuple):
    """What an event takes of the whole time, and by how much a twice as long interval would shorten it."""

    name: str
    key: str
    every: int
    share: float
    seconds: float


KEYS = {"logs": "log_every", "pictures": "sample_every", "looks": "collapse.every", "scores": "evaluate.every",
        "checkpoints": "checkpoint.every"}  # fmt: skip
NOTABLE = 0.03  # share of the time from which an event is worth a word


def savings(found: Found) -> list[Saving]:
    """The events that take a notable share of the time and happen several times."""
    parts = time_of(found)
    total, number, made = sum(parts.values()), counts(found), []
    for name, key in KEYS.items():
        if number[name] > 1 and parts.get(name, 0.0) > NOTABLE * total:
            less = (number[name] - number[name] // 2) * found["events"][name][-1][WALL]
            made.append(Saving(name, key, 2 * found["every"][name], parts[name] / total, less))
    return made
