"""Rules about what changes by itself: learning rates that reach 0, and augmentation that adapts."""

from collections.abc import Iterator

from ganrun.explaining.course import Course, is_number
from ganrun.explaining.finding import Finding
from ganrun.explaining.proposals import again

LEAKS = 0.8  # p beyond which augmentations leak into the fakes: Karras et al. 2020, arXiv 2006.06676, section 2.2
OVER = 0.05  # of the run, that must pass at rate 0 to be told


def rates(course: Course) -> Iterator[Finding]:
    """Is a learning rate 0 before the end? A linear or cosine schedule is at 0 after decay_steps, and so is a ramp that
    ends at 0: from there on nothing is learned."""
    if not course.players:
        return
    over = {player: steps for player in course.players if (steps := zero_from(course, player)) is not None}
    end = max(course.goal or 0, course.step)
    past = [player for player, steps in over.items() if course.step - steps > OVER * end]
    if past:
        since = min(over[player] for player in past)
        text = (
            f"The learning rate of {' and '.join(past)} has been 0 since step {since:,}: the {course.step - since:,} "
            "steps since then have taught nothing."
        )
        yield Finding("rate-over", text, again(course.record, *lengthened(course, past, end)), (since,))
    elif over and min(over.values()) >= course.step:
        at = min(over.values())
        yield Finding(
            "rate-ends", f"Learning rates fall to 0 at step {at:,}; beyond it nothing is learned.", None, (at,)
        )


def zero_from(course: Course, player: str) -> int | None:
    """The step from which a player's learning rate is 0; None = it never is."""
    node = course.setting(f"optimizer.{player}", {})
    lr, schedule = node.get("lr"), node.get("lr_schedule", "constant")
    found = [node["decay_steps"]] if schedule != "constant" and is_number(node.get("decay_steps")) else []
    if isinstance(lr, dict) and lr.get("end") == 0 and is_number(lr.get("over")):
        images = lr.get("unit") == "images"
        found.append(-(-lr["over"] // course.setting("batch_size", 1)) if images else lr["over"])
    return min(found, default=None)


def lengthened(course: Course, players: list[str], end: int) -> list[str]:
    """The words by which the schedules of players last to the end."""
    words = []
    for player in players:
        lr = course.setting(f"optimizer.{player}.lr")
        unit = course.setting("batch_size", 1) if isinstance(lr, dict) and lr.get("unit") == "images" else 1
        key = "lr.over" if isinstance(lr, dict) else "decay_steps"
        words.append(f"optimizer.{player}.{key}={end * unit}")
    return words


def augmentation(course: Course) -> Iterator[Finding]:
    """ADA's p and the sign r that drives it: Karras et al. 2020, arXiv 2006.06676, section 3.1."""
    for name in [name.removesuffix("_sign") for name in course.record.names if name.endswith("_sign")]:
        p, sign = course.series(f"{name}_p"), course.series(f"{name}_sign")
        part = name.rpartition("/")[2]
        group = "augment" if part in course.setting("augment", {}) else "presentation"
        target = course.setting(f"{group}.{part}.target", 0.6)
        if not p.values or not sign.values:
            continue
        now, r = p.values[-1], sign.values[-1]
        told = f"{part}'s p is {now:.2g} at step {p.steps[-1]:,}, the sign of logits {r:+.2f} (target {target:+.2f})"
        if group == "augment" and now > LEAKS:
            first = next(step for step, value in zip(*p, strict=True) if value > LEAKS)
            text = f"{told}: above {LEAKS} changes leak into the fakes."
            words = [f"augment.{part}.p={LEAKS * 3 / 4:.1f}"]
            yield Finding("augmentation-leaks", text, again(course.record, *unadapted(course, part), *words), (first,))
        elif course.setting(f"{group}.{part}.p") is not None:
            yield Finding("augmentation-fixed", f"{told}: p follows what was asked for.", steps=(p.steps[-1],))
        elif now == 0:
            yield Finding("augmentation-idle", f"{told}: nothing is changed now.", steps=(p.steps[-1],))
        elif r > target:
            yield Finding("augmentation-rises", f"{told}: p still rises.", steps=(p.steps[-1],))
        else:
            yield Finding("augmentation-holds", f"{told}: p holds overfitting back.", steps=(p.steps[-1],))


def unadapted(course: Course, part: str) -> list[str]:
    """The words that undo settings which act only where p adapts, as a fixed p requires."""
    off = {"start": "0.0", "target": "0.6", "over": "500000", "every": "4"}
    return [
        f"augment.{part}.{key}={value}"
        for key, value in off.items()
        if str(course.setting(f"augment.{part}.{key}")) not in (value, "None")
    ]
