"""Commands that a finding proposes: the run again with other words, or on from where it is."""

from ganrun.config.places import command, key_of
from ganrun.explaining.course import Course, is_number
from ganrun.files.record import Record

DROPPED = ("run_dir", "resume", "hydra", "sweep")  # words that belong to where and how a run was started


def again(record: Record, *words: str) -> str | None:
    """The command of a new run with the words of this one, `words` in place of those for the same keys."""
    if not record.config:
        return None
    new = [key_of(word) for word in words]
    kept = [word for word in record.overrides if key_of(word) not in new and not is_dropped(key_of(word))]
    keys = {*new, *map(key_of, kept)}
    return command(*(word for word in kept if not is_unread(record, key_of(word), keys)), *words)


def is_unread(record: Record, key: str, keys: set[str]) -> bool:
    """Is it a setting of both players' optimizers that each of them has of its own? Such a word would be refused."""
    group, _, name = key.rpartition(".")
    nodes = record.config.get("optimizer")
    found = nodes.items() if isinstance(nodes, dict) else ()
    players = [player for player, node in found if isinstance(node, dict) and "_target_" in node]
    return group == "optimizer" and bool(players) and all(f"optimizer.{player}.{name}" in keys for player in players)


def is_dropped(key: str) -> bool:
    return any(key == name or key.startswith((f"{name}.", f"{name}/")) for name in DROPPED)


def resumed(course: Course, *words: str) -> str | None:
    """The command that goes on with the run; None while a process trains it, or where its config is lost."""
    if course.trains or not course.record.config:
        return None
    return command(f"resume={course.record.path}", *words)


def longer(course: Course) -> str | None:
    """On for half as long again; anew where learning rates fall to 0, since schedules keep their first horizon."""
    if not course.goal:
        return None
    if decays(course) and course.step >= course.goal:
        return again(course.record, f"steps={half_more(course)}")
    return resumed(course, *onward(course))


def half_more(course: Course) -> int:
    goal = max(course.goal or 0, course.step)
    return goal + goal // 2


def onward(course: Course) -> list[str]:
    """The words by which a resume has something left to do: steps where all are done, no patience where it ran out."""
    steps = [f"steps={half_more(course)}"] if course.step >= (course.goal or 0) else []
    return steps + (["evaluate.patience=null"] if course.result.get("ended") else [])


def decays(course: Course) -> bool:
    """Does a player's learning rate fall to 0?"""
    schedules = [course.setting(f"optimizer.{player}.lr_schedule", "constant") for player in course.players]
    return any(schedule != "constant" for schedule in schedules)


def rate(course: Course, player: str) -> float | None:
    """A player's learning rate now, with what resumes have changed; None if it is a ramp, or unknown."""
    found = course.setting(f"optimizer.{player}.lr")
    for change in course.changes:
        if change["key"] == f"optimizer.{player}.lr":
            found = change["got"]
    return float(found) if is_number(found) and found > 0 else None


def slower(course: Course, factor: float, *players: str) -> list[str]:
    """The words that multiply learning rates by a factor; those of all players unless some are named. [] if unknown."""
    names = players or tuple(course.players)
    rates = [rate(course, name) for name in names]
    if not names or None in rates:
        return []
    own = any(key_of(word).endswith(".lr") and key_of(word) != "optimizer.lr" for word in course.record.overrides)
    if not players and len(set(rates)) == 1 and not own and rates[0] == course.setting("optimizer.lr"):
        return [f"optimizer.lr={rates[0] * factor:.2g}"]
    return [f"optimizer.{name}.lr={found * factor:.2g}" for name, found in zip(names, rates, strict=True)]


def with_penalty(course: Course, name: str) -> str:
    """The word that adds a penalty to those that the run has."""
    return f"penalty=[{','.join([*course.setting('penalty', {}), name])}]"


def calmer(course: Course) -> str | None:
    """Against a collapse: equal rates if the generator's is the higher; else R1, which makes GANs converge locally
    (Mescheder et al. 2018, arXiv 1801.04406, section 4); with a penalty already, a quarter of the rates."""
    generators, critics = course.generators, [game.player for game in course.games]
    own = [rate(course, name) for name in generators]
    theirs = [rate(course, name) for name in critics]
    if own and theirs and None not in own + theirs and max(own) > max(theirs):
        return again(course.record, *slower(course, max(theirs) / max(own), *generators))
    if not course.setting("penalty", {}):
        return again(course.record, with_penalty(course, "r1"))
    words = slower(course, 1 / 4)
    return again(course.record, *words) if words else None
