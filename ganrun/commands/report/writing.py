"""Writes the page, once or again and again while runs go on."""

import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from ganrun.commands.report.comparing import best_of, metrics_of
from ganrun.commands.report.content import content
from ganrun.commands.report.pictures import fitted, pictures_of
from ganrun.commands.report.request import MARK, Request
from ganrun.commands.report.runs import View, at_work, sweeps_of, views
from ganrun.config.places import command
from ganrun.files.storage import replacing

SCRIPTS = ("table.js", "curves.js", "pictures.js", "start.js")
FOLDER = Path(__file__).parent / "page"


def report(request: Request) -> int:
    """Returns the exit code. Raises UserError for a place without any run, and CannotWrite."""
    going = request.watch
    try:
        while True:
            found, sweeps = views(request.of), sweeps_of(request.of)
            going = going and (any(view.status == "running" for view in found) or any(map(at_work, sweeps)))
            write(request, found, sweeps, watching=going)
            if not going:
                return 0
            time.sleep(request.every)
    except KeyboardInterrupt:
        if going:
            last = replace(request, neighbours=None)  # which would take a while
            write(last, views(request.of), sweeps_of(request.of), watching=False)  # the open page stops loading
        return 130


def write(request: Request, found: list[View], sweeps: list[Path], *, watching: bool) -> None:
    page = rendered(request, found, sweeps, watching)
    with replacing(request.out, sync=not watching) as file:
        file.write(page.encode("utf-8", errors="replace"))


def rendered(request: Request, found: list[View], sweeps: list[Path], watching: bool) -> str:
    """The page. Nearest neighbours are sought for the last one alone: they take longer than the rest."""
    copied = [] if watching else neighbours(request, found)
    about = {
        "title": title(request, found),
        "mark": MARK,
        "watching": watching,
        "every": f"{request.every:g}",
        "copies": copied,
        "sweeps": [of_sweep(sweep, found) for sweep in sweeps],
        "style": text_of("style.css"),
        "script": "\n".join(map(text_of, SCRIPTS)),
    }
    bare = fill(content(found, [{}] * len(found)) | about | {"fewer": ""})
    files = [pictures_of(view.record.grids(), view.record.run.samples / "final.png") for view in found]
    room = request.megabytes * 1e6 - len(bare.encode("utf-8", errors="replace")) - 2000 * len(found)
    shown, kept = fitted(files, room * most_of(files, request.grids), request.grids)
    return fill(content(found, shown) | about | {"fewer": fewer(request, files, kept)})


def most_of(files: list[dict[int, Path]], grids: int) -> float:
    """The share of the room that is left to sliders: each run's last picture stands in the page a second time, the
    best run's a third time."""
    total = sum(min(len(each), grids) for each in files)
    twice = sum(bool(each) for each in files) + 1
    return total / (total + twice)


def fewer(request: Request, files: list[dict[int, Path]], kept: int) -> str:
    most = max(map(len, files), default=0)
    if most <= kept or not kept:
        return ""
    why = "" if kept == request.grids else f", so that the page stays under {request.megabytes:g} MB"
    return f"At most {kept} evenly spaced pictures of each run{why}; the longest has {most}."


def fill(about: dict[str, Any]) -> str:
    loader = PackageLoader("ganrun.commands.report", "page")
    page = Environment(loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    return page.get_template("page.html").render(about)


def text_of(name: str) -> str:
    return (FOLDER / name).read_text(encoding="utf-8")


def title(request: Request, found: list[View]) -> str:
    if len(found) == 1:
        return found[0].name
    return " and ".join(Path(place).expanduser().absolute().name for place in request.of)


def of_sweep(sweep: Path, found: list[View]) -> dict[str, Any]:
    """A sweep in words, with the commands that go on with it."""
    jobs = [view for view in found if view.path.resolve().parent == sweep.resolve()]
    failed = sum(view.status == "failed" for view in jobs)
    left = sum(view.status not in ("finished", "collapsed", "pruned", "failed", "running") for view in jobs)
    text = f"{len(jobs)} jobs: {failed} failed, {left} cut off or not started."
    commands = {"Go on with what is left": command(f"resume={sweep}")} if left else {}
    if failed:
        commands["Try failed jobs again"] = command(f"resume={sweep}", "sweep.retry_failed=true")
    return {"name": sweep.absolute().name, "text": text, "commands": commands}


def neighbours(request: Request, found: list[View]) -> list[dict[str, Any]]:
    """What each asked run says to the question whether it copies."""
    if request.neighbours is None:
        return []
    made = [view for view in found if view.record.run.generator.exists() or view.record.run.saved_checkpoints()]
    if request.neighbours == "best" and len(made) > 1:
        best = [best for name in metrics_of(made) if (best := best_of(made, name))]
        made = best[:1] or made[:1]
    if not made:
        return []
    print(f"seeking the nearest training images: {', '.join(str(view.path) for view in made)}", file=sys.stderr)
    from ganrun.commands.report.copies import copies  # imports torch

    asked = [(view, copies(view.record, trust=request.trust, data_dir=request.data_dir)) for view in made]
    return [{"number": view.number, "name": view.name, **recorded(view, one._asdict())} for view, one in asked]


def recorded(view: View, one: dict[str, Any]) -> dict[str, Any]:
    """With the memorisation score that the run itself has, if it was ever computed."""
    score = view.scores.get("memorisation")
    if score is None:
        return one
    floor = "" if score.floor is None else f", where unseen real images score {score.floor:.3g}"
    return one | {"lines": [f"Its memorisation score is {score}{floor} ({score.made}).", *one["lines"]]}
