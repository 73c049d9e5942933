"""What a sweep leaves beside its runs: results.csv and results.json, a table, means over seeds, commands that go on."""

import csv
import io
import json
import sys
from collections.abc import Iterable
from datetime import timedelta
from pathlib import Path
from statistics import fmean, stdev
from typing import Any, NamedTuple

from ganrun.commands.train.jobs import OVER, Job, read_overrides
from ganrun.commands.train.significance import verdict
from ganrun.config.places import command
from ganrun.files.run_dir import RunDir
from ganrun.files.storage import is_owned, replacing

NOT_STARTED = "not started"
FIXED = ("overrides", "status", "seconds", "path", "reason")

Row = dict[str, Any]
_known: dict[Path, tuple[Any, Row]] = {}  # of each job: the state of result.json, and what it said


def collect(directory: Path, jobs: list[Job]) -> list[Row]:
    """A row for each job: those of `jobs` in their order, then others that lie in the directory."""
    started = {path.parent for path in directory.glob("*/.hydra")}
    rows = [
        row_of(RunDir(job.path))
        if job.path in started
        else {"overrides": " ".join(job.overrides), "status": NOT_STARTED, "path": str(job.path)}
        for job in jobs
    ]
    return rows + [row_of(RunDir(path)) for path in sorted(started - {job.path for job in jobs})]


def row_of(run: RunDir) -> Row:
    """What is known of a job; read again only once its result has changed, since all jobs are looked at after each."""
    try:
        about = run.result.stat()
    except OSError:
        return read_row(run)
    path, stamp = run.path.absolute(), (about.st_ino, about.st_mtime_ns, about.st_size)
    if _known.get(path, (None,))[0] != stamp:
        _known[path] = stamp, read_row(run)
    return _known[path][1]


def read_row(run: RunDir) -> Row:
    result = run.read_result() or {"status": "died", "reason": "no result.json; see train.log"}
    scores = {name: score["final"] for name, score in result.get("scores", {}).items()}
    overrides = " ".join(read_overrides(run.hydra / "overrides.yaml"))
    ended = {"seconds": result.get("seconds"), "path": str(run.path), "reason": result.get("reason")}
    return {"overrides": overrides, "status": result["status"], **scores, **ended}


def so_far(rows: list[Row]) -> str:
    """One line on a sweep that goes on: jobs done, failed and left, about how long that takes, and the best score."""
    done = [row for row in rows if row["status"] in OVER]
    failed = sum(row["status"] == "failed" for row in rows)
    running = sum(row["status"] == "running" and is_owned(Path(row["path"])) for row in rows)
    left = len(rows) - len(done) - failed
    text = f"{len(done)} of {len(rows)} jobs done, {failed} failed"
    text += f", {running} running" * bool(running) + f", {left - running} left"
    seconds = [row["seconds"] for row in done if row.get("seconds")]
    if left and seconds:
        text += f", about {timedelta(seconds=round(left * fmean(seconds)))} of training"
    score = next((key for key in columns_of(rows) if key not in FIXED), None)
    found = [row for row in done if score and row.get(score) is not None]
    if found:
        best = (min if lower_is_better(found[0]["path"], score) else max)(found, key=lambda row: row[score])
        text += f"; best {score} {best[score]:.5g}: {Path(best['path']).name}"
    return text


def lower_is_better(path: str, score: str) -> bool:
    """As a run's result says."""
    return RunDir(path).read_result().get("scores", {}).get(score, {}).get("better", "lower") == "lower"


def write_results(directory: Path, rows: list[Row]) -> None:
    columns = columns_of(rows)
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, columns)
    writer.writeheader()
    writer.writerows(rows)
    with replacing(directory / "results.csv") as file:
        file.write(text.getvalue().encode())
    with replacing(directory / "results.json") as file:
        file.write((json.dumps(rows, indent=1) + "\n").encode())


def update_results(directory: Path, jobs: list[Job]) -> list[Row]:
    """Writes the results so far. Jobs may end in several processes at once: the last of them writes what all know."""
    rows = collect(directory, jobs)
    while True:
        write_results(directory, rows)
        now = collect(directory, jobs)
        if now == rows:
            return rows
        rows = now


def columns_of(rows: list[Row]) -> list[str]:
    scores = dict.fromkeys(key for row in rows for key in row if key not in FIXED)
    return ["overrides", "status", *scores, "seconds", "path", "reason"]


def shared_words(rows: list[Row]) -> list[str]:
    """The overrides that all jobs have, in the order of the first; tables leave them out."""
    every = [row["overrides"].split() for row in rows]
    return [word for word in every[0] if all(word in words for words in every)] if len(rows) > 1 else []


def without(overrides: str, shared: Iterable[str]) -> str:
    return " ".join(word for word in overrides.split() if word not in shared)


def print_table(rows: list[Row]) -> None:
    columns = [column for column in columns_of(rows) if column not in ("path", "reason")]
    shared = shared_words(rows)
    named = [row | {"overrides": without(row["overrides"], shared)} for row in rows]
    caption = f"all with {' '.join(shared)}" if shared else ""
    show(columns, [[row.get(column) for column in columns] for row in named], caption)
    for row in named:
        if row.get("reason"):
            print(f"{row['overrides'] or row['path']}: {row['status']}: {row['reason']}", file=sys.stderr)


def show(columns: list[str], lines: Iterable[list[Any]], caption: str = "") -> None:
    from rich.table import Table

    from ganrun.progress import console

    table = Table(*columns, caption=caption or None, caption_justify="left")
    for cells in lines:
        table.add_row(*(f"{c:.5g}" if isinstance(c, float) else "" if c is None else str(c) for c in cells))
    console().print(table)


class Group(NamedTuple):
    """The finished jobs that differ in their seed alone."""

    overrides: str  # without the seed
    values: dict[str, list[float]]  # of each score
    path: str  # of one of them

    @property
    def n(self) -> int:
        return max(map(len, self.values.values()), default=0)

    def spread(self, score: str) -> str:
        """Mean and standard deviation."""
        values = self.values.get(score, [])
        if len(values) < 2:
            return f"{values[0]:.5g}" if values else ""
        return f"{fmean(values):.5g} ± {stdev(values):.2g}"


def over_seeds(rows: list[Row]) -> list[Group]:
    """The groups, in the order of their first job; none where no seed was swept."""
    shared = shared_words(rows)
    seeds = [[word for word in row["overrides"].split() if word.startswith("seed=")] for row in rows]
    if len({tuple(seed) for seed in seeds}) < 2:
        return []
    groups: dict[str, Group] = {}
    for row in rows:
        if row["status"] == "finished":
            words = without(row["overrides"], shared).split()
            name = " ".join(word for word in words if not word.startswith("seed="))
            group = groups.setdefault(name, Group(name, {}, row["path"]))
            for key in row.keys() - set(FIXED):
                group.values.setdefault(key, []).append(row[key])
    return list(groups.values())


def print_seeds(rows: list[Row]) -> None:
    """A line for each setting, with mean and standard deviation over its seeds; and do the two best differ?"""
    groups = over_seeds(rows)
    scores = [key for key in columns_of(rows) if key not in FIXED]
    if not groups or not scores:
        return
    show(["over seeds", "n", *scores], ([g.overrides or "all", g.n, *map(g.spread, scores)] for g in groups))
    sign = 1 if lower_is_better(groups[0].path, scores[0]) else -1
    ranked = sorted((g for g in groups if g.values.get(scores[0])), key=lambda g: sign * fmean(g.values[scores[0]]))
    if len(ranked) > 1:
        print(verdict(scores[0], *((group.overrides or "all", group.values[scores[0]]) for group in ranked[:2])))


def print_what_is_left(rows: list[Row], directory: Path) -> None:
    """How many jobs were cut off, never started or failed, and the commands that go on with them."""
    left = [row for row in rows if row["status"] not in (*OVER, "failed")]
    failed = sum(row["status"] == "failed" for row in rows)
    if left:
        go_on = command(f"resume={directory}")
        print(f"{len(left)} of {len(rows)} jobs are left; go on with: {go_on}", file=sys.stderr)
    if failed:
        again = command(f"resume={directory}", "sweep.retry_failed=true")
        print(f"{failed} of {len(rows)} jobs failed; try them again with: {again}", file=sys.stderr)
