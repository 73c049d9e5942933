"""Sweeps: one directory of runs, a table of how they ended, and no job that takes the others down."""

import csv
import io
import os
import re
import shutil
import sys
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

import yaml
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import DictConfig

from ganrun.config.groups import config_dirs_of
from ganrun.config.hydra_main import parsed, refuse_flags, run_hydra
from ganrun.config.places import command, quote, unquoted
from ganrun.errors import CannotWrite, UserError
from ganrun.files.run_dir import RunDir, make_named, make_unique
from ganrun.files.storage import replacing
from ganrun.signals import Signals

NOT_STARTED = "not started"
SHOWN = 10  # most commands that are printed
OF_THIS_PROCESS = Signals()  # in a process that a launcher started


def run(args: list[str], job: Callable[[DictConfig], dict[str, Any]]) -> int:
    """Runs every combination of the comma-separated values. Exit code 1 if a job failed, 128 + n after signal n."""
    refuse_flags(args)
    if os.environ.get("WORLD_SIZE", "1") not in ("", "1"):
        raise UserError("-m under torchrun: a sweep starts the processes of its jobs itself; run ganrun -m alone")
    named = [arg.partition("=")[2] for arg in args if arg.lstrip("+").startswith("run_dir=")]
    args = [arg for arg in args if not arg.lstrip("+").startswith("run_dir=")]
    stamp = datetime.now().strftime("%Y-%m-%d_%H-%M-%S")
    place = Path(unquoted(named[-1]) if named else f"outputs/sweeps/{stamp}").expanduser()
    directory = make_named(place) if named else make_unique(place)
    early, jobs = False, jobs_of(args)
    with Signals() as signals:
        try:
            one = partial(run_one, job, directory, jobs, signals)
            run_hydra("train", [*args, f"hydra.sweep.dir={quote(str(directory))}"], one)
            if not any(path.is_dir() for path in directory.iterdir()):
                raise UserError("-m: the values make no combination, so nothing can run; glob() is for groups alone")
        except UserError as error:
            if not any(path.is_dir() for path in directory.iterdir()):  # refused before its first job
                shutil.rmtree(directory)
                remove_empty(directory.parent)
                raise
            print(
                f"the sweep ended early: {' '.join(str(error).split())}", file=sys.stderr
            )  # a launcher's process died
            early = True
        except KeyboardInterrupt:
            pass
    rows = collect(directory, jobs)
    write_csv(rows, directory / "results.csv")
    print_table(rows)
    print_what_is_left(rows, jobs, config_dirs_of(args))
    if len(rows) == 1:
        print("note: -m without comma-separated values is a sweep of one run", file=sys.stderr)
    print(directory)
    failed = early or any(row["status"] != "finished" for row in rows)
    return 128 + signals.received if signals.received else int(failed)


def jobs_of(args: list[str]) -> list[list[str]]:
    """The overrides of each job, in order; empty if Hydra determines them during the sweep."""
    overrides = OverridesParser.create().parse_overrides(parsed(args).overrides)
    if any(each.key_or_group == "hydra/sweeper" for each in overrides):
        return []
    try:
        (jobs,) = BasicSweeper.split_arguments(overrides, max_batch_size=None)
    except HydraException:  # glob() needs to know the groups, and interval() is refused
        return []
    return [[text for text in job if not re.match(r"hydra[./]", text)] for job in jobs]


def run_one(
    job: Callable[[DictConfig], dict[str, Any]],
    directory: Path,
    jobs: list[list[str]],
    signals: Signals,
    cfg: DictConfig,
) -> None:
    """Runs one job, then updates the table. A signal, during a job or between two, stops the whole sweep.

    A launcher may run jobs in its own processes: after a signal, each of them skips the jobs that it still gets.
    """
    here = os.getpid() == signals.pid
    signals = signals if here else OF_THIS_PROCESS
    if not signals.received:
        result = job(cfg)
        signals.received = signals.received or result.get("signal")
        with suppress(CannotWrite):  # the next job may find room; the final table reports an error
            write_csv(collect(directory, jobs), directory / "results.csv")
    if signals.received and here:
        raise KeyboardInterrupt


def remove_empty(folder: Path) -> None:
    """Removes a folder and those above it that a refused command has left empty."""
    while folder != folder.parent and folder.name and not any(folder.iterdir()):
        folder.rmdir()
        folder = folder.parent


def collect(directory: Path, jobs: list[list[str]]) -> list[dict[str, Any]]:
    """A row for each job, in order: started jobs, read from their directories, then the others."""
    rows = []
    started = [path.parent for path in directory.glob("*/.hydra")]
    for path in sorted(started, key=lambda p: (len(p.name), p.name)):
        run = RunDir(path)
        result = run.read_result() or {"status": "died", "reason": "no result.json; see train.log"}
        overrides = yaml.safe_load((run.hydra / "overrides.yaml").read_text(encoding="utf-8")) or []
        scores = {name: score["final"] for name, score in result.get("scores", {}).items()}
        rows.append(
            {"overrides": " ".join(overrides), "status": result["status"], **scores}
            | {"seconds": result.get("seconds"), "path": str(path), "reason": result.get("reason")}
        )
    missing = {number: job for number, job in enumerate(jobs) if directory / str(number) not in started}
    return rows + [
        {"overrides": " ".join(job), "status": NOT_STARTED, "path": str(directory / str(number))}
        for number, job in missing.items()
    ]


def write_csv(rows: list[dict[str, Any]], path: Path) -> None:
    columns = _columns(rows)
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, columns)
    writer.writeheader()
    writer.writerows(rows)
    with replacing(path) as file:
        file.write(text.getvalue().encode())


def _columns(rows: list[dict[str, Any]]) -> list[str]:
    fixed = ("overrides", "status", "seconds", "path", "reason")
    scores = dict.fromkeys(key for row in rows for key in row if key not in fixed)
    return ["overrides", "status", *scores, "seconds", "path", "reason"]


def print_table(rows: list[dict[str, Any]]) -> None:
    from rich.table import Table

    from ganrun.training.report import console

    columns = [column for column in _columns(rows) if column not in ("path", "reason")]
    table = Table(*columns)
    for row in rows:
        cells = [row.get(column) for column in columns]
        table.add_row(*(f"{c:.5g}" if isinstance(c, float) else "" if c is None else str(c) for c in cells))
    screen = console()
    screen.print(table)
    for row in rows:
        if row.get("reason"):
            print(f"{row['overrides']}: {row['status']}: {row['reason']}", file=sys.stderr)


def print_what_is_left(rows: list[dict[str, Any]], jobs: list[list[str]], config_dirs: list[Path]) -> None:
    """Prints the commands that continue stopped jobs and start the jobs that never began."""
    flags = [word for folder in config_dirs for word in ("--config-dir", str(folder))]
    left = []
    for row in rows:
        if row["status"].startswith("stopped by"):
            left.append("go on with: " + command(*flags, "resume=" + row["path"]))
        elif row["status"] == NOT_STARTED:
            overrides = jobs[int(Path(row["path"]).name)]
            left.append("not started: " + command(*flags, *overrides, "run_dir=" + row["path"]))
    for line in left[:SHOWN]:
        print(line, file=sys.stderr)
    if len(left) > SHOWN:
        print(f"and {len(left) - SHOWN} more, listed in results.csv", file=sys.stderr)
