"""Rules about how a run went: where it stands, how it ended, what was changed on the way."""

import math
from collections.abc import Iterator

from ganrun.explaining.course import Course, is_number
from ganrun.explaining.finding import Finding
from ganrun.explaining.proposals import again, resumed, slower


def state(course: Course) -> Iterator[Finding]:
    """Where it stands, by result.json. A run that says `running` and that no process owns was killed."""
    status, step, goal = course.record.status, course.step, course.goal
    done = f"{step:,}" + (f" of {goal:,}" if goal and goal != step else "") + " steps"
    reason = " ".join(str(course.result.get("reason") or "").split())
    if course.trains:
        yield Finding("running", f"It is still training, {done} are logged: all below is so far.", steps=(step,))
    elif course.not_finite:
        return  # told by `not_finite`
    elif status == "failed":
        yield Finding("failed", f"It failed after {done}: {reason}.", resumed(course), (step,))
    elif status in ("running", "no result"):
        text = f"It was killed, or its process died, after {done}." if step else "It has logged nothing yet."
        yield Finding("interrupted", text, resumed(course), (step,))
    elif course.result.get("ended"):
        yield Finding("patience", f"Patience ended it after {done}: {course.result['ended']}.", steps=(step,))
    elif status == "finished":
        yield Finding("finished", f"It finished its {done}.", steps=(step,))
    else:
        command = resumed(course) if status.startswith("stopped") else None
        yield Finding("stopped", f"It was {status} after {done}{f': {reason}' if reason else ''}.", command, (step,))


def changes(course: Course) -> Iterator[Finding]:
    """What resumes have changed and where the watch rolled it back: marks in the curves, no cause for alarm."""
    for change in course.changes:
        text = f"From step {change['step']:,} on {change['key']}={change['got']}, before {change['had']}."
        yield Finding("changed", text, steps=(change["step"],))
    found = course.result.get("collapse")
    seen = [one for one in found if isinstance(one, dict)] if isinstance(found, list) else []
    back = [finding for finding in seen if finding.get("action") == "rollback"]
    if back:
        steps = tuple(int(finding["step"]) for finding in back if isinstance(finding.get("step"), int))
        at = ", ".join(f"{step:,}" for step in steps)
        factor = course.setting("collapse.lr_factor", 1.0) ** len(back)
        text = (
            f"The watch for a collapse rolled it back {len(back)} times, at step {at}; its learning rates are now "
            f"{factor:.3g} of what was asked for. Lower ones from the start may do without."
        )
        words = slower(course, factor)
        yield Finding("rolled-back", text, again(course.record, *words) if words else None, steps)


def not_finite(course: Course) -> Iterator[Finding]:
    """NaN or infinity: among the logged numbers, or the reason why it failed. It proposes a tenth of the rates."""
    bad = {int(row["step"]): names for row in course.record.metrics if (names := broken(row))}
    if not bad and not course.not_finite:
        return
    step = min(bad, default=course.step)
    seen = f"{', '.join(bad[step][:3])} not finite from step {step:,} on" if bad else course.result.get("reason")
    words = slower(course, 1 / 10)
    yield Finding("not-finite", f"It broke: {seen}.", again(course.record, *words) if words else None, (step,))


def broken(row: dict[str, float]) -> list[str]:
    """The names whose values are NaN or infinite."""
    return [name for name, value in row.items() if is_number(value) and not math.isfinite(value)]
