"""What counts as a collapse: rules over a few numbers, and their findings in words. No tensors, no trainer.

The limits were chosen by measurement; tests/test_collapse.py holds the runs used for it.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:  # its module imports torch
    from ganrun.collapse.diversity import Diversity

LEAST_SPREAD = 0.125  # of the reals'
MOST_TWINS = 0.8  # share of the fakes; of 256 fakes 0.92 if a generator knows 100 images by heart, 0.22 for 1,000
LOST_REACH = 0.6  # of the reals' own
LEAST_REACH = 0.25  # of the reals' own; a reach that was never this large cannot be lost
KNOWN_REACH = 0.25  # of the reals; below it, neighbours say nothing about these data
LEAST_LOSS = 0.005  # of the discriminator's loss at chance
START = 4  # factor of the patience for fakes that were never diverse: all fakes start out alike


def sameness(seen: "Diversity", best_reach: float) -> list[str]:
    """Signs that the fakes are too much alike. best_reach: the largest so far, this look included."""
    signs = []
    if min(seen.pixel_spread, seen.feature_spread) < LEAST_SPREAD:
        pixels, features = seen.pixel_spread, seen.feature_spread
        signs.append(f"the fakes' spread is {pixels:.1%} of the reals' in pixels, {features:.1%} in random features")
    if seen.twins > max(MOST_TWINS, seen.real_twins):
        signs.append(f"{seen.twins:.0%} of the fakes have a near twin (reals: {seen.real_twins:.0%})")
    if is_out_of_reach(seen.reach, best_reach, seen.real_reach):
        signs.append(
            f"the fakes nearest to the reals explain {seen.reach:.0%} of their variance (at best {best_reach:.0%})"
        )
    return signs


def is_out_of_reach(now: float, best: float, real: float) -> bool:
    """Has reach fallen from its best by most of the reals' own reach? False where even neighbours among reals say
    nothing, as in spaces of many dimensions, and before the fakes have had any reach.
    """
    return real >= KNOWN_REACH and best >= LEAST_REACH * real and now < best - LOST_REACH * real


def is_saturated(loss: float, chance: float) -> bool:
    """Is a discriminator's loss tiny beside its value at chance? False if that is 0, as for Wasserstein."""
    return chance > 0 and loss < LEAST_LOSS * chance


def is_lost(first: float, best: float, now: float, *, lower: bool) -> bool:
    """Is a score far worse than the best: by a factor of 2, and by over half of the gain since the first?

    lower: is lower better?
    """
    lost, gained = (now - best, first - best) if lower else (best - now, best - first)
    return lost > max(abs(best) if lower else abs(best) / 2, gained / 2)


ADVICE = {
    "diversity": "try a lower optimizer.generator.lr, penalty=[r1] or a larger batch_size",
    "discriminator": "try a lower optimizer.discriminator.lr, penalty=[r1] or augment=[instance-noise]",
    "score": "try a lower optimizer.lr, or optimizer.lr_schedule=linear",
}


def told(kind: str, step: int, seen: str, times: int) -> str:
    """A finding in one sentence."""
    unit = "scores" if kind == "score" else "looks"
    row = f" for {times} {unit} in a row" if times > 1 else ""
    return f"collapse at step {step:,}: {seen}{row}; {ADVICE[kind]}"
