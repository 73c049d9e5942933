"""Rules about the score: does it still improve, which step was the best, how large is its noise."""

from collections.abc import Iterator, Sequence
from statistics import median

from ganrun.collapse.alarms import is_lost
from ganrun.config.places import command
from ganrun.explaining.course import Course
from ganrun.explaining.finding import Finding, number
from ganrun.explaining.proposals import again, decays, longer, onward, resumed, slower
from ganrun.explaining.statistics import Trend, last, trend

WINDOW = 1 / 3  # of the scored steps, over which a trend is sought
LEAST = 8  # scores in that window, if there are as many: fewer show only what is plain
FEWEST = 4  # scores from which one can tell at all: four that all improve have a chance of 1 in 24
SURE = 0.05  # largest chance of a trend that is none
BETTER, WORSE = 0.01, 0.05  # of the score, that a trend must change over the window to be worth a word
LEARNED = 0.1  # of the first score, that it must have improved by
PAST = 0.1  # of the best score, by which later ones are worse
EARLY = 0.15  # of the steps; a later first score is that of a generator that has already learned


def no_score(course: Course) -> Iterator[Finding]:
    """Without a score nothing tells whether a run improves: losses of a GAN do not (Lucic et al. 2018, 1711.10337)."""
    if course.score:
        return
    every = [] if course.setting("evaluate.every") else [f"evaluate.every={max(1, (course.goal or 100) // 20)}"]
    scored = any(name != "features" for name in course.setting("metric", {}))
    metric = [] if scored else ["metric=[sliced-wasserstein]", "change=true"]
    text = "Nothing has been scored, so nobody can tell whether it improves: a GAN's losses do not say it."
    yield Finding("no-score", text, resumed(course, *every, *metric, *onward(course)))


def progress(course: Course) -> Iterator[Finding]:
    """Is it still improving? One-sided Mann-Kendall test (Mann 1945; Kendall 1975), its variance corrected for
    neighbours that are alike (Yue and Wang 2004), and the slope of Theil 1950 and Sen 1968, over the last third.

    A trend counts if its chance is at most SURE, and its change larger than the noise about it and than a share of the
    score: BETTER or WORSE. What improves has its best score in the later half of that window.
    """
    steps, values = course.scores if course.score else ([], [])
    if not values:
        return
    if len(values) < FEWEST:
        yield too_few(course)
        return
    start = last(steps, WINDOW, min(LEAST, len(values)))
    found = trend(steps[start:], values[start:])
    span = steps[-1] - steps[start]
    better, worse = (found.falls, found.rises) if course.lower else (found.rises, found.falls)
    change = abs(found.slope) * span
    share = change / abs(median(values[start:]) or 1.0) if change > found.noise else 0.0
    where = f"over the last {found.num} scores (steps {steps[start]:,} to {steps[-1]:,})"
    told = figures(found, span, min(better, worse))
    about = (steps[start], steps[-1])
    if better <= SURE and share > BETTER and 2 * course.best >= start + len(values) - 1:
        text = f"{course.score} is still improving {where}: {told}."
        yield Finding("improving", text, longer(course), about)
    elif worse <= SURE and share > WORSE:
        yield worsening(course, f"{course.score} is getting worse {where}: {told}.", about)
    elif found.num < LEAST:
        yield too_few(course, f" They show no trend: {told}.")
    else:
        yield flat(course, found, span, f"{where}: {told}", about)


def figures(found: Trend, span: int, chance: float) -> str:
    """The numbers of a trend in words."""
    change = found.slope * span
    low, high = sorted((found.low * span, found.high * span))
    sure = "< 0.001" if chance < 0.001 else f"= {chance:.2g}"
    return (
        f"change {change:+.3g} (95 % interval {low:+.3g} to {high:+.3g}), noise {found.noise:.2g}, "
        f"Mann-Kendall p {sure}"
    )


def too_few(course: Course, more: str = "") -> Finding:
    steps = course.scores.steps
    every = max(1, (course.goal or course.step) // 20)
    text = f"{len(steps)} scores are too few to tell whether it still improves.{more}"
    return Finding("too-few", text, resumed(course, f"evaluate.every={every}", *onward(course)), tuple(steps))


def worsening(course: Course, text: str, about: tuple[int, ...]) -> Finding:
    """A falling rate, as in SNGAN and CycleGAN, damps the players' circling (Mescheder et al. 2018, 1801.04406)."""
    words = slower(course, 1 / 2) if decays(course) else ["optimizer.lr_schedule=linear"]
    return Finding("worsening", text, again(course.record, *words) if words else None, about)


def flat(course: Course, found: Trend, span: int, told: str, about: tuple[int, ...]) -> Finding:
    """With a constant rate the noise of the gradients keeps the weights moving; a lower one lets them settle
    (Robbins and Monro 1951)."""
    hidden = max(0.0, -found.low if course.lower else found.high) * span
    text = (
        f"{course.score} no longer improves {told}. An improvement of {number(hidden)} could hide in that noise."
        if hidden
        else f"{course.score} no longer improves {told}."
    )
    words = [] if decays(course) else slower(course, 1 / 4)
    command = resumed(course, *words, "change=true", *onward(course)) if words else None
    return Finding("flat", text, command, about)


def best(course: Course) -> Iterator[Finding]:
    """Which step was the best, why, and how far the last ones are from it.

    The best of many noisy scores is partly luck, so the last third's median is compared, and counts as worse beyond
    twice the noise and PAST of the best.
    """
    if not course.score or len(course.scores.values) < 2:
        return
    steps, values = course.scores
    at, top = course.best, values[course.best]
    text = (
        f"The best step was {steps[at]:,}: {course.score} {number(top)}, the {'lowest' if course.lower else 'highest'} "
        f"of {len(values)} scores"
    )
    start = max(at + 1, last(steps, WINDOW, min(LEAST, len(values))))
    later = values[start:]
    if not later:
        yield Finding("best", text + ", and the last.", None, (steps[at],))
        return
    gap, spread = abs(median(later) - top), noise_of(steps[start:], later)
    text += f"; the last is {number(values[-1])}"
    if gap <= max(2 * spread, PAST * abs(top)) or len(later) < FEWEST:
        yield Finding("best", f"{text}: they hardly differ." if gap <= 2 * spread else f"{text}.", None, (steps[at],))
        return
    text += f", and the last {len(later)} are {gap / abs(top):.0%} worse" if top else ", and those since then are worse"
    there = course.record.run.best_generator.exists()
    sample = command("sample", f"from={course.record.run.best_generator}", "out=best.png") if there else None
    yield Finding("past-best", f"{text} (noise {spread:.2g}): its best state is not its last.", sample, (steps[at],))


def noise_of(steps: Sequence[int], values: Sequence[float]) -> float:
    """Of scores about their trend; 0 for fewer than three, which any line fits."""
    return trend(steps, values).noise if len(values) > 2 else 0.0


def noise(course: Course) -> Iterator[Finding]:
    """Differences below twice the noise times root 2, of two runs of the same kind, are not seen in single scores."""
    if not course.score or len(course.scores.values) < LEAST:
        return
    steps, values = course.scores
    start = last(steps, WINDOW, LEAST)
    found = noise_of(steps[start:], values[start:])
    least = 2 * 2**0.5 * found
    text = (
        f"Single scores of this run have a noise of {found:.2g}: two runs that differ by less than {least:.2g} in "
        f"{course.score} are not told apart by one score each; seeds=3 gives a deviation."
    )
    words = (f"from={course.record.path}", f"metric=[{course.score}]", "seeds=3")
    yield Finding("noise", text, command("evaluate", *words) if course.record.run.generator.exists() else None)


def lost(course: Course) -> Iterator[Finding]:
    """Is the score far worse than its best? The watch's own rule (ganrun/collapse/alarms.py) for its patience."""
    patience = course.setting("collapse.patience", 3)
    if not course.score or len(course.scores.values) <= patience:
        return
    steps, values = course.scores
    gone = [is_lost(values[0], values[course.best], value, lower=course.lower) for value in values]
    since = next((i for i in range(len(gone)) if all(gone[i:])), None)
    if since is None or len(gone) - since < patience:
        return
    text = (
        f"It has lost what it had learned: {course.score} is {number(values[-1])} at the end, at best it was "
        f"{number(values[course.best])} at step {steps[course.best]:,} (first {number(values[0])}); over a factor of "
        f"two and half of the gain, from step {steps[since]:,} on."
    )
    words = slower(course, 1 / 4)
    yield Finding("score-lost", text, again(course.record, *words) if words else None, (steps[since],))


def not_learning(course: Course) -> Iterator[Finding]:
    """Has the best score improved by less than LEARNED of the first one? Only where that is from near the start."""
    if not course.score or len(course.scores.values) < FEWEST:
        return
    steps, values = course.scores
    if steps[0] > EARLY * steps[-1] or abs(values[course.best] - values[0]) > LEARNED * abs(values[0]):
        return
    text = (
        f"It has hardly learned: {course.score} was {number(values[0])} at step {steps[0]:,}, and at best "
        f"{number(values[course.best])} in {len(values)} scores."
    )
    words = slower(course, 10.0, *course.generators)
    yield Finding("not-learning", text, again(course.record, *words) if words else None, (steps[0], steps[-1]))
