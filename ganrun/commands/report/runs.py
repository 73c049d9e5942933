"""What a report says of each run: read from its files, whatever state they are in."""

import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ganrun.commands.report.scores import Scores, settled
from ganrun.commands.train.jobs import FILE, jobs_of, read_lines
from ganrun.config.places import command, key_of
from ganrun.errors import CannotWrite, UserError
from ganrun.explaining.finding import Finding
from ganrun.explaining.findings import findings
from ganrun.files.record import Record
from ganrun.files.run_dir import RunDir, find_runs
from ganrun.files.storage import is_owned
from ganrun.training.changes import read_changes, said

CUT_OFF = "cut off"  # status of a run that says it is running, though no process has it
NOT_STARTED = "not started"


@dataclass
class View:
    """One row of the page. number: from 1, its name in curves. words: of its command line, by their keys.

    signs: of a collapse, noticed in training. explained: what its curves mean.
    """

    record: Record
    number: int
    name: str
    status: str
    reason: str = ""
    words: dict[str, str] = field(default_factory=dict)
    scores: Scores = field(default_factory=dict)
    signs: list[str] = field(default_factory=list)
    explained: list[Finding] = field(default_factory=list)
    changes: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    commands: dict[str, str] = field(default_factory=dict)

    @property
    def path(self) -> Path:
        return self.record.path

    @property
    def started(self) -> bool:
        return self.status != NOT_STARTED

    def number_of(self, key: str) -> float | None:
        """A number of result.json, such as `seconds`; None if it is none."""
        value = self.record.result.get(key)
        return value if isinstance(value, int | float) and not isinstance(value, bool) else None

    @property
    def translates(self) -> bool:
        """Does it turn images into images? Its sample pictures then show source, output and target."""
        recipe = self.record.config.get("recipe")
        return isinstance(recipe, dict) and str(recipe.get("_target_")).endswith(("Pix2Pix", "CycleGAN"))

    @property
    def data(self) -> str:
        dataset = self.record.config.get("dataset")
        return str(dataset.get("name", "")) if isinstance(dataset, dict) else ""


def views(places: Iterable[str]) -> list[View]:
    """All runs at or below the places, then the jobs of their sweeps that were never started. Raises UserError."""
    runs = find_runs(places)
    waiting, broken = not_started(sweeps_of(places))
    paths = [run.path for run in runs] + list(waiting)
    names = names_of(paths)
    found = [view_of(Record(run), i, names[run.path]) for i, run in enumerate(runs, 1)]
    for view, scores in zip(found, settled(view.record for view in found), strict=True):
        view.scores = scores
    for i, (path, words) in enumerate(waiting.items(), len(found) + 1):
        found.append(View(Record(path), i, names[path], NOT_STARTED, words=keyed(words)))
    for view in found:
        view.notes += [text for sweep, text in broken.items() if view.path.parent == sweep]
    return found


def view_of(record: Record, number: int, name: str) -> View:
    view = View(record, number, name, record.status, text_of(record.result.get("reason")), keyed(record.overrides))
    if view.status in ("running", "no result"):
        view.status = "running" if at_work(record.path) else CUT_OFF if view.status == "running" else view.status
    if view.status == CUT_OFF:
        view.reason = "no process trains it any more, and none has written how it ended; a resume goes on"
    view.reason = view.reason or text_of(record.result.get("ended"))
    view.signs = signs_of(record)
    view.explained = findings(record)
    view.notes = [text_of(note) for note in listed(record.result.get("notes"))]
    view.commands = commands_of(view)
    try:
        view.changes = [said(change) for change in read_changes(record.run)]
    except UserError as error:
        view.notes.append(str(error))
    return view


def signs_of(record: Record) -> list[str]:
    """Signs of a collapse, in words."""
    found = listed(record.result.get("collapse"))
    return [text_of(one.get("text")) for one in found if isinstance(one, dict) and one.get("text")]


def commands_of(view: View) -> dict[str, str]:
    """What to paste into a shell, by what it is for."""
    path, steps = str(view.path), view.number_of("steps")
    words = [word for word in view.record.overrides if key_of(word) != "run_dir"]
    found = {"Repeat it": command(*words)} if words or view.record.config else {}
    if view.status == "finished" and steps:
        found["Train it twice as long"] = command(f"resume={path}", f"steps={2 * int(steps)}")
    elif view.status != "running":
        found["Go on with it"] = command(f"resume={path}")
    if view.record.run.generator.exists() or view.record.run.saved_checkpoints():
        if view.translates:
            found["Translate a folder of images"] = command("translate", f"from={path}", "input=photos")
        else:
            found["Draw samples"] = command("sample", f"from={path}")
        found["Score it over three seeds"] = command("evaluate", f"from={path}", "seeds=3")
    return found


def sweeps_of(places: Iterable[str]) -> list[Path]:
    """The sweeps at or below the places, each once."""
    found = {}
    for place in map(Path, places):
        place = place.expanduser()
        for file in [place / FILE] if (place / FILE).is_file() else sorted(place.rglob(FILE)):
            if file.is_file():
                found.setdefault(file.parent.resolve(), file.parent)
    return list(found.values())


def not_started(sweeps: Iterable[Path]) -> tuple[dict[Path, list[str]], dict[Path, str]]:
    """The overrides of jobs that have no run yet, by the directory that they will have; what is wrong with a sweep."""
    waiting: dict[Path, list[str]] = {}
    broken: dict[Path, str] = {}
    for sweep in sweeps:
        try:
            jobs = [job for line in read_lines(sweep) for job in jobs_of(line["args"], sweep)]
        except Exception as error:  # a file that anybody may have edited, read by Hydra's grammar
            broken[sweep] = f"jobs that were not started are not known: {' '.join(str(error).split())}"
            continue
        waiting |= {job.path: job.overrides for job in jobs if not RunDir(job.path).config.exists()}
    return waiting, broken


def at_work(directory: Path) -> bool:
    """Does another process train a run, or a sweep, in this directory? Yes if that cannot be seen."""
    try:
        return is_owned(directory)
    except CannotWrite:  # someone else's directory, whose lock cannot be tried
        return True


def names_of(paths: list[Path]) -> dict[Path, str]:
    """The paths without the folders that all of them have."""
    if len(paths) == 1:
        return {paths[0]: paths[0].absolute().name}
    shared = os.path.commonpath([path.absolute() for path in paths])
    return {path: os.path.relpath(path.absolute(), shared) for path in paths}


def keyed(overrides: Iterable[str]) -> dict[str, str]:
    """The words of a command line by their keys, without the place of the run."""
    pairs = [word.lstrip("+").partition("=") for word in overrides]
    return {key: value for key, _, value in pairs if key != "run_dir"}


def differing(found: list[View]) -> tuple[list[str], dict[str, str]]:
    """The keys in whose values the runs differ, and the words that all runs share."""
    keys = list(dict.fromkeys(key for view in found for key in view.words))
    shared = {key: found[0].words[key] for key in keys if len({view.words.get(key) for view in found}) == 1}
    return [key for key in keys if key not in shared], shared


def listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def text_of(value: Any) -> str:
    return "" if value is None else " ".join(str(value).split())
