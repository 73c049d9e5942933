"""Rules about what the fakes are like: all alike, or copies of the training images."""

import math
from collections.abc import Iterator
from types import SimpleNamespace

from ganrun.collapse.alarms import START, sameness
from ganrun.config.places import command
from ganrun.explaining.course import Course, Series
from ganrun.explaining.finding import Finding
from ganrun.explaining.progress import FEWEST, LEAST, SURE
from ganrun.explaining.proposals import again, calmer, resumed
from ganrun.explaining.statistics import last, trend

FIELDS = ("pixel_spread", "feature_spread", "twins", "real_twins", "reach", "real_reach")
NARROW = 0.5  # of the reals' spread; below the watch's own limit of 0.125 it is a collapse
RISE = 0.1  # of the samples
WIDE = 2.0  # of the reals' spread
COPIES = 0.9  # share of samples nearer to a training image than that is to any other; see .github/measurements.md
ABOVE_FLOOR = 0.3  # more than what unseen images score
FEW = 2000  # images; below it, a discriminator learns them by heart (Karras et al. 2020, 2006.06676, figure 1)


def collapsed(course: Course) -> Iterator[Finding]:
    """Are the fakes alike? The watch's own rules (ganrun/collapse/alarms.py), look by look, for its patience."""
    rows = [row for row in course.record.metrics if all(f"collapse/{field}" in row for field in FIELDS)]
    if not rows:
        text = "Whether the fakes are alike cannot be told: no look has been taken (on_collapse=warn takes some)."
        yield Finding("unwatched", text)
        return
    patience = course.setting("collapse.patience", 3)
    spells, signs = alike(rows, patience)
    now, at = rows[-1], int(rows[-1]["step"])
    spread, twins = now["collapse/pixel_spread"], now["collapse/twins"]
    for begun, ended, whole in spells:
        if whole and ended == at:
            text = f"The fakes have collapsed, from step {begun:,} on: {'; '.join(signs)}."
            yield Finding("collapsed", text, calmer(course), (begun, ended))
            return
        if whole:
            text = f"The fakes were alike from step {begun:,} to {ended:,}, and recovered."
            yield Finding("recovered", text, steps=(begun, ended))
    seen = f"their spread is {spread:.0%} of the reals' at step {at:,}, {twins:.0%} have a near twin."
    if signs:
        yield Finding("narrow", f"The fakes are alike, not yet for long enough to be a collapse: {seen}", None, (at,))
    elif spread > WIDE:
        yield Finding("scattered", f"The fakes lie far beyond the reals: {seen}", None, (at,))
    elif spread < NARROW:
        yield Finding("narrow", f"The fakes vary little: {seen}", None, (at,))
    else:
        yield Finding("diverse", f"The fakes are not all alike: {seen}", None, (at,))


def alike(rows: list[dict[str, float]], patience: int) -> tuple[list[tuple[int, int, bool]], list[str]]:
    """The spells of looks at which the fakes were alike: first and last step, and is it as long as a collapse must be?

    And the signs at the last look, none if it was not alike. Before the fakes have ever been diverse they need START
    times the patience.
    """
    spells: list[tuple[int, int, bool]] = []
    best, diverse, streak, signs = -math.inf, False, 0, []
    for row in rows:
        seen = SimpleNamespace(**{field: row[f"collapse/{field}"] for field in FIELDS})
        best = max(best, seen.reach)
        signs = sameness(seen, best)
        diverse, streak = diverse or not signs, streak + 1 if signs else 0
        step, whole = int(row["step"]), streak >= patience * (1 if diverse else START)
        if streak == 1:
            spells.append((step, step, whole))
        elif signs:
            spells[-1] = (spells[-1][0], step, whole)
    return spells, signs


def memorised(course: Course) -> Iterator[Finding]:
    """Are the samples copies? One minus the authenticity of Alaa et al. 2022, arXiv 2102.08921, section 3.3, beside
    what unseen images score, where `ganrun evaluate` has measured this floor."""
    seen = course.series("score/memorisation")
    images = course.setting("dataset.limit")
    if not seen.values:
        if isinstance(images, int) and images < FEW and course.score and not course.setting("pairs", {}):
            text = f"Whether it copies its {images:,} images cannot be told: memorisation was not scored."
            yield Finding("copies-unknown", text, scored_too(course))
        return
    now, at, least = seen.values[-1], seen.steps[-1], floor(course)
    limit = COPIES if least is None else min(COPIES, least + ABOVE_FLOOR)
    share = f"{now:.0%} of the samples are nearer to a training image than that image is to any other"
    beside = "" if least is None else f" (unseen images: {least:.0%})"
    if least is None and not course.setting("dataset.resolution"):
        text = f"{share}; in few dimensions unseen points score up to this, so whether these are copies cannot be told."
        yield Finding("copies-unknown", text, None, (at,))
        return
    if now < limit and rising(seen):
        text = (
            f"It begins to learn its images by heart: {share}{beside}, {seen.values[0]:.0%} at step {seen.steps[0]:,}."
        )
        yield Finding("copies-rise", text, varied(course), (at,))
        return
    if now < limit:
        yield Finding("no-copies", f"No copies: {share}{beside}.", steps=(at,))
        return
    since = next(step for i, step in enumerate(seen.steps) if min(seen.values[i:]) >= limit)
    text = f"It has learned its images by heart: {share}{beside}, at least {limit:.0%} from step {since:,} on."
    yield Finding("memorised", text, varied(course), (since,))


def rising(seen: Series) -> bool:
    """Has the share of copies clearly risen over the last half of the scores (Mann-Kendall), by at least RISE?"""
    start = last(seen.steps, 1 / 2, min(LEAST, len(seen.steps)))
    steps, values = seen.steps[start:], seen.values[start:]
    return len(values) >= FEWEST and trend(steps, values).rises <= SURE and values[-1] - values[0] >= RISE


def scored_too(course: Course) -> str | None:
    """The command that scores memorisation: at once, if there is a generator; else in training from now on."""
    if course.record.run.generator.exists():
        return command("evaluate", f"from={course.record.path}", "metric=[memorisation]")
    metrics = [name for name in course.setting("metric", {}) if name != "features"]
    return resumed(course, f"metric=[{','.join([*metrics, 'memorisation'])}]", "change=true")


def floor(course: Course) -> float | None:
    """What unseen images score, if an evaluation of this run says it."""
    found = course.result.get("evaluations")
    entries = found if isinstance(found, list) else []
    floors = [e.get("floor") for e in entries if isinstance(e, dict) and e.get("metric") == "memorisation"]
    return next((float(f) for f in reversed(floors) if isinstance(f, int | float)), None)


def varied(course: Course) -> str | None:
    """More images, where a limit leaves some out; else changes of what the discriminator sees, which help few images
    (Zhao et al. 2020, arXiv 2006.10738); no gain is measured here yet, see .github/measurements.md."""
    if course.setting("dataset.limit"):
        return again(course.record, "dataset.limit=null")
    if not course.setting("augment", {}) and course.setting("dataset.resolution"):
        return again(course.record, "augment=[diffaugment]")
    return None
