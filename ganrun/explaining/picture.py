"""The picture: the score, the players' losses and gradients over steps, with what was found marked by numbers."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ganrun.explaining.course import Course
from ganrun.explaining.finding import Finding
from ganrun.explaining.progress import FEWEST, LEAST, WINDOW
from ganrun.explaining.statistics import last, trend
from ganrun.files.record import Record
from ganrun.files.storage import replacing

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7")  # told apart by most eyes (Okabe and Ito 2008), and by styles
STYLES = ("-", "--", ":", "-.")
MARKED = 12  # findings at most that are marked, alarms first


def draw(record: Record, found: Sequence[Finding], place: Path) -> bool:
    """Draws a run's curves to a PNG; False if nothing has been logged. Raises CannotWrite."""
    from matplotlib.figure import Figure  # not pyplot: no window, no state

    course = Course(record)
    panels = [panel for panel in (scores, losses, gradients) if panel(course, None)]
    if not panels:
        return False
    figure = Figure(figsize=(9, 2.4 * len(panels) + 0.6), layout="constrained")
    axes = figure.subplots(len(panels), 1, sharex=True, squeeze=False)[:, 0]
    for panel, ax in zip(panels, axes, strict=True):
        panel(course, ax)
        ax.grid(alpha=0.3)
        ax.legend(fontsize=7, loc="upper left", bbox_to_anchor=(1.0, 1.0), frameon=False)
    mark(axes, found)
    axes[-1].set_xlabel("step")
    figure.suptitle(f"{record.path.name}: {record.status}", fontsize=10)
    with replacing(place) as file:
        figure.savefig(file, format="png", dpi=110)
    return True


def scores(course: Course, ax: Any) -> bool:
    """The score, its best step, and the trend of the last scores."""
    if not course.score:
        return False
    if ax is None:
        return True
    steps, values = course.scores
    ax.plot(steps, values, STYLES[0], marker=".", color=COLOURS[0], label=course.score)
    ax.plot(steps[course.best], values[course.best], "*", color="black", markersize=12, label="best")
    if len(values) >= FEWEST:
        start = last(steps, WINDOW, min(LEAST, len(values)))
        slope = trend(steps[start:], values[start:]).slope
        middle = sorted(value - slope * step for step, value in zip(steps[start:], values[start:], strict=True))
        level = middle[len(middle) // 2]
        ends = [steps[start], steps[-1]]
        ax.plot(ends, [level + slope * step for step in ends], STYLES[1], color=COLOURS[1], lw=2, label="trend")
    ax.set_ylabel(f"{course.score}\n({'lower' if course.lower else 'higher'} is better)", fontsize=8)
    return True


def losses(course: Course, ax: Any) -> bool:
    """Each discriminator's loss, as a share of its value at chance if that is known."""
    named = [(game.name, course.series(f"{game.player}/adversarial{game.suffix}")) for game in course.games]
    if ax is None:
        return any(series.steps for _, series in named)
    chance = course.chance or 1.0
    for i, (name, series) in enumerate(named):
        shares = [value / chance for value in series.values]
        ax.plot(series.steps, shares, STYLES[i % 4], color=COLOURS[i % 4], label=name)
    if course.chance:
        ax.axhline(1.0, color="black", ls=":", lw=1, label="at chance")
        ax.set_yscale("log", nonpositive="mask")
    ax.set_ylabel("discriminator's loss" + ("\n/ loss at chance" if course.chance else ""), fontsize=8)
    return True


def gradients(course: Course, ax: Any) -> bool:
    """The gradient norm of each player."""
    named = [(player, course.series(f"{player}/gradient_norm")) for player in course.players]
    if ax is None:
        return any(series.steps for _, series in named)
    for i, (name, series) in enumerate(named):
        ax.plot(series.steps, series.values, STYLES[i % 4], color=COLOURS[i % 4], label=name)
    ax.set_yscale("log", nonpositive="mask")
    ax.set_ylabel("gradient norm", fontsize=8)
    return True


def mark(axes: Sequence[Any], found: Sequence[Finding]) -> None:
    """A vertical line for what begins at a step, its kind written above the first panel; changes are dotted."""
    shown = [f for f in found if f.steps and (f.alarm or f.kind in ("changed", "rolled-back", "recovered"))]
    shown = sorted(shown, key=lambda finding: not finding.alarm)[:MARKED]
    for height, finding in enumerate(sorted(shown, key=lambda finding: finding.steps[0])):
        for ax in axes:
            ax.axvline(finding.steps[0], color="black", lw=1, ls="-" if finding.alarm else ":", alpha=0.6)
        axes[0].annotate(
            finding.kind, (finding.steps[0], 1.02 + 0.11 * height), xycoords=("data", "axes fraction"), fontsize=7
        )
