"""What the page shows: views of runs as text and numbers that a template can place."""

from collections.abc import Mapping
from datetime import datetime
from math import isfinite
from pathlib import Path
from typing import Any

from ganrun.commands.report.comparing import best_of, metrics_of, unlike
from ganrun.commands.report.curves import charts, curves_of
from ganrun.commands.report.pictures import Shown
from ganrun.commands.report.runs import NOT_STARTED, View, differing
from ganrun.commands.report.scores import Score

COLOURS = 6  # see --c0 ... in style.css
DASHES = ("none", "7 3", "2 3", "9 3 2 3")
OVERLAID = 8  # runs whose curves are shown at first
TONES = {"finished": "good", "failed": "bad", "collapsed": "bad", "running": "busy", "died": "bad", "cut off": "bad"}
OWN = "It names classes of your own: add --config-dir <their folder>, and trust=[<their package>] to a resume."


def content(views: list[View], shown: list[Shown]) -> dict[str, Any]:
    """Everything but pictures of neighbours. shown: the pictures of each view."""
    metrics = metrics_of(views)
    best = best_of(views, metrics[0]) if metrics else None
    other = {name: unlike(views, name) for name in metrics}
    keys, shared = differing(views)
    ticked = first_shown(views, metrics)
    rows = [row_of(v, keys, metrics, other, pictures) for v, pictures in zip(views, shown, strict=True)]
    for row in rows:
        row |= {"is_best": best is not None and len(views) > 1 and row["number"] == best.number,
                "ticked": row["number"] in ticked}  # fmt: skip
    curves = {view.number: curves_of(view.record) for view in views}
    names = list(dict.fromkeys(name for found in curves.values() for name in found))
    return {
        "rows": rows,
        "keys": keys,
        "metrics": [{"name": name, "better": better(views, name)} for name in metrics],
        "statuses": sorted({view.status for view in views}),
        "below": below(shared, other),
        "charts": charts(names),
        "pictured": any(shown),
        "lead": lead(views, best, metrics),
        "hero": hero(best, metrics, rows),
        "data": {"runs": [drawn(v, curves[v.number], some) for v, some in zip(views, shown, strict=True)]},
        "now": datetime.now().strftime("%Y-%m-%d %H:%M:%S"),
        "cwd": str(Path.cwd()),
    }


def row_of(
    view: View, keys: list[str], metrics: list[str], other: Mapping[str, dict[int, str]], pictures: Shown
) -> dict[str, Any]:
    steps, goal, seconds, speed = map(view.number_of, ("steps", "goal", "seconds", "images_per_second"))
    if steps is None and view.record.metrics:
        steps = view.record.metrics[-1]["step"]
    what = "Source, output and target" if view.translates else "Samples"
    about = f"{what} of {view.data or 'the data'}, run {view.number}"
    last = max(pictures, default=0)
    return {
        **{name: getattr(view, name) for name in ("number", "name", "status", "reason", "signs", "explained", "changes",
                                                  "notes", "commands", "started")},
        "style": style_of(view.number),
        "tone": TONES.get(view.status, "mild"),
        "words": [view.words.get(key) for key in keys],
        "cells": [cell(view.scores.get(name), other[name].get(view.number)) for name in metrics],
        "made": [made(name, score) for name, score in view.scores.items()],
        "steps": "" if steps is None else spelt(steps) + (f" of {spelt(goal)}" if goal and goal != steps else ""),
        "seconds": "" if seconds is None else spelt(round(seconds)),
        "speed": "" if speed is None else spelt(round(speed)),
        "sort_steps": plain(steps), "sort_seconds": plain(seconds), "sort_speed": plain(speed),
        "picture": pictures.get(last, ""),
        "pictures": len(pictures),
        "last_step": spelt(last),
        "about": about,
        "alt": f"{about}, step {last}",
        "quiet": quiet(view),
        "own": OWN if own_classes(view.record.config) else "",
        "facts": facts(view),
    }  # fmt: skip


def cell(score: Score | None, unlike: str | None) -> dict[str, Any]:
    if score is None:
        return {"text": "", "sort": "", "title": "", "lines": []}
    lines = [f"floor {score.floor:.4g}"] if score.floor is not None else []
    if score.best is not None and score.best != score.value:
        lines.append(f"best {score.best:.4g} at {spelt(score.best_step or 0)}")
    lines += ([score.also] if score.also else []) + (["made otherwise"] if unlike else [])
    title = score.made + (f"; it does not compare: {unlike}" if unlike else "")
    return {"text": str(score), "sort": plain(score.value), "title": title, "lines": lines}


def made(name: str, score: Score) -> str:
    text = f"{name} {score}, {score.better} is better: {score.made}"
    text += f"; {score.also}" if score.also else ""
    text += f"; real data of the other split score {score.floor:.4g}" if score.floor is not None else ""
    if score.best is not None:
        text += f"; the best in training was {score.best:.4g} at step {spelt(score.best_step or 0)}"
    return text


def first_shown(views: list[View], metrics: list[str]) -> set[int]:
    """The runs whose curves are overlaid at first: all if they are few, else the best by the first score."""
    name = metrics[0] if metrics else ""

    def order(view: View) -> tuple[bool, float]:
        score = view.scores.get(name)
        if score is None or not isfinite(score.value):
            return (True, 0.0)
        return (False, -score.value if score.better == "higher" else score.value)

    drawable = [view for view in views if view.started]
    return {view.number for view in (views if len(drawable) <= OVERLAID else sorted(drawable, key=order)[:OVERLAID])}


def below(shared: Mapping[str, str], other: Mapping[str, dict[int, str]]) -> list[str]:
    """What stands under the table: the words of all runs, and which scores do not compare."""
    lines = [f"All of them: {' '.join(f'{key}={value}' for key, value in shared.items())}"] if shared else []
    for name, runs in other.items():
        lines += [f"{name} of run {number} was made otherwise, so it does not compare: {text}"
                  for number, text in runs.items()]  # fmt: skip
    return lines


def lead(views: list[View], best: View | None, metrics: list[str]) -> str:
    counts = {status: [v.status for v in views].count(status) for status in dict.fromkeys(v.status for v in views)}
    told = ", ".join(f"{number} {status}" for status, number in counts.items())
    text = f"{len(views)} runs: {told}." if len(views) > 1 else f"The run is {told.partition(' ')[2]}."
    collapsed = sum(bool(view.signs) for view in views)
    text += f" Signs of a collapse in {collapsed}." if collapsed else ""
    if best is not None:
        which = f", by #{best.number} {best.name}" if len(views) > 1 else ""
        text += f" {'Best ' if len(views) > 1 else ''}{metrics[0]} {best.scores[metrics[0]]}{which}."
    return text


def hero(best: View | None, metrics: list[str], rows: list[dict[str, Any]]) -> dict[str, str] | None:
    """The picture on top: that of the best run, else of the first with one."""
    wanted = [row for row in rows if row["picture"]]
    wanted.sort(key=lambda row: best is None or row["number"] != best.number)
    if not wanted:
        return None
    row = wanted[0]
    which = f"#{row['number']} {row['name']}, " if len(rows) > 1 else ""
    return {"picture": row["picture"], "alt": row["alt"], "caption": f"{which}step {row['last_step']}"}


def drawn(view: View, curves: dict[str, tuple[list[int], list[float | None]]], pictures: Shown) -> dict[str, Any]:
    """What the page's script draws of a run; curves of the same steps share them."""
    steps: list[list[int]] = []
    shared = {}
    for name, (at, values) in curves.items():
        if at not in steps:
            steps.append(at)
        shared[name] = (steps.index(at), values)
    return {"number": view.number, **style_of(view.number), "steps": steps, "curves": shared,
            "pictures": list(pictures.items())}  # fmt: skip


def style_of(number: int) -> dict[str, str]:
    """Colour and dashes of a run's line; 24 differ."""
    i = number - 1
    return {"colour": f"var(--c{i % COLOURS})", "dash": DASHES[(i + i // COLOURS) % len(DASHES)]}


def quiet(view: View) -> str:
    looks = view.record.config.get("on_collapse")
    return "No sign of a collapse was seen." if looks else "Nobody looked for a collapse: on_collapse is off."


def own_classes(node: Any) -> bool:
    """Does a config name classes that are neither ganrun's nor its libraries'?"""
    if isinstance(node, dict):
        target = node.get("_target_")
        own = isinstance(target, str) and target.split(".")[0] not in ("ganrun", "torch", "pytorch_lightning")
        return own or any(map(own_classes, node.values()))
    return isinstance(node, list) and any(map(own_classes, node))


def facts(view: View) -> str:
    """Where it lies, and what it was made with."""
    versions = view.record.result.get("versions")
    versions = versions if isinstance(versions, dict) else {}
    memory, precision = view.number_of("peak_memory_mib"), view.record.result.get("precision")
    parts = [str(view.path), *(f"{name} {version}" for name, version in versions.items())]
    parts += [f"precision {precision}"] if precision else []
    parts += [f"peak memory {spelt(memory)} MiB"] if memory else []
    return " · ".join(parts) if view.status != NOT_STARTED else f"{view.path} will be its directory"


def better(views: list[View], name: str) -> str:
    return next(view.scores[name].better for view in views if name in view.scores)


def spelt(value: float) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:,.0f}"


def plain(value: float | None) -> str:
    """A number as the table sorts it; empty for what is none."""
    return "" if value is None or value != value else repr(value).replace("inf", "Infinity")
