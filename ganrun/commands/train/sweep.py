"""Sweeps: one directory of runs, a table of how they ended, and no job that takes the others down.

A sweep goes on where it was cut off: jobs that are over are left out, others are resumed or started.
"""

import os
import shutil
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from hydra.core.override_parser.types import Override
from hydra.core.plugins import Plugins
from omegaconf import DictConfig

from ganrun.commands.train.jobs import (
    FILE,
    Job,
    axes_of,
    check_extends,
    identity,
    is_launching,
    is_over,
    jobs_of,
    name_of,
    overrides_of,
    read_lines,
    searches,
    shown,
    write_lines,
)
from ganrun.commands.train.table import (
    print_seeds,
    print_table,
    print_what_is_left,
    so_far,
    update_results,
)
from ganrun.commands.train.workers import (
    OF_THIS_PROCESS,
    STOP,
    cut_off,
    give_back,
    heed,
    passing_on,
    share_gpus,
    visible_gpus,
)
from ganrun.config.groups import LAUNCHERS, add_modules, config_dir, config_dirs_of, options
from ganrun.config.hydra_main import refuse_flags, run_hydra
from ganrun.config.places import quote, unquoted
from ganrun.errors import CannotWrite, UserError, one_of
from ganrun.files.run_dir import RunDir, make_named, make_unique
from ganrun.files.storage import owning
from ganrun.signals import Signals

SUBMITIT = ".submitit"  # in a sweep's directory: a queue's logs of its jobs
BEFORE_JOBS = {".lock", STOP, SUBMITIT, "multirun.yaml", "optuna.db", "search.json"}  # there before the first job
BASIC = "hydra._internal.core_plugins.basic_sweeper.BasicSweeper"
DEATHS = 2  # of a job's process, after which the job counts as failed
_first: list[Signals] = []  # in the process that the user has started, those of its sweep


class Settings(NamedTuple):
    """`sweep.<key>=` on the command line of a sweep; they are for this command and no part of a job."""

    retry_failed: bool = False  # try failed jobs again
    retry: int = 0  # times that a job which runs out of memory is tried with the next smaller micro batch


class Sweep(NamedTuple):
    """What a job's process needs to know of its sweep."""

    directory: Path
    cwd: str  # which names of files on the command line are seen from
    args: list[str]  # of that line
    jobs: list[Job]  # empty where Hydra finds them as it goes
    axes: set[str]
    settings: Settings

    def path_of(self, overrides: list[str]) -> Path:
        known = {identity(job.overrides): job.path for job in self.jobs}
        return known.get(identity(overrides), self.directory / name_of(overrides, self.axes))

    def is_left(self, overrides: list[str]) -> bool:
        """Has a job something to do?"""
        own = [text for text in overrides if not is_launching(text)]
        return not is_over(RunDir(self.path_of(own)), self.settings.retry_failed)


Task = Callable[[DictConfig, RunDir, Settings, list[Any]], dict[str, Any]]


def run(args: list[str], task: Task, overrides_now: Callable[[], list[str]]) -> tuple[Path, int]:
    """Runs every combination of the comma-separated values; returns the directory and the exit code.

    The code is 1 if a job failed, 128 + n after signal n.

    task: trains one job in its directory, with further callbacks. overrides_now: of the job that Hydra has composed.
    """
    settings, args = settings_of(with_space(args))
    refuse_flags(args)
    check_installed(args)
    if os.environ.get("WORLD_SIZE", "1") not in ("", "1"):
        raise UserError("-m under torchrun: a sweep starts the processes of its jobs itself; run ganrun -m alone")
    named = [arg.partition("=")[2] for arg in args if arg.lstrip("+").startswith("run_dir=")]
    args = [arg for arg in args if not arg.lstrip("+").startswith("run_dir=")]
    directory = directory_of(unquoted(named[-1]) if named else None, args)
    return directory, train_all(directory, [args], task, overrides_now, settings)


def resume(path: Path, words: list[str], task: Task, overrides_now: Callable[[], list[str]]) -> tuple[Path, int]:
    """Goes on with all of a sweep's command lines; returns its directory and the exit code."""
    settings, words = settings_of(words)
    if words:
        raise UserError(f"resume={path}: a sweep goes on as it is; got {words[0]}; valid: {valid_settings()}")
    lines = read_lines(path)
    here = lines[-1]["cwd"]
    if here != os.getcwd():  # files may have been named as they are seen from there
        path = path.absolute()
        try:
            os.chdir(here)
        except OSError as error:
            raise UserError(f"resume={path}: it was started in {here}: {error.strerror}") from error
    for line in lines:
        add_modules(config_dirs_of(line["args"]))
    return path, train_all(path, [line["args"] for line in lines], task, overrides_now, settings)


def check_installed(args: list[str]) -> None:
    """Raises UserError for a launcher that has a config here, but no plugin."""
    chosen = {shown(each) for each in overrides_of(args) if each.key_or_group == "hydra/launcher"}
    if "ray" in chosen and find_spec("hydra_plugins.hydra_ray_launcher") is None:
        raise UserError(f"hydra/launcher=ray: not installed; pip install 'ganrun[{LAUNCHERS['ray'][1]}]'")


def is_sweep(path: Path) -> bool:
    return (path / FILE).is_file()


def valid_settings() -> str:
    return ", ".join(f"sweep.{name}=" for name in Settings._fields)


def with_space(args: list[str]) -> list[str]:
    """With `sweep=<name>` replaced by what that YAML puts on the axes; what is typed wins."""
    named = [arg for arg in args if arg.startswith("sweep=")]
    rest = [arg for arg in args if arg not in named]
    typed = {arg.lstrip("+").partition("=")[0] for arg in rest}
    found: dict[str, Any] = {}
    for word in named:
        name, extra = word.removeprefix("sweep="), config_dirs_of(args)
        files = [root / "sweep" / f"{name}.yaml" for root in (config_dir(), *extra)]
        file = next((file for file in files if file.is_file()), None)
        if file is None:
            raise UserError(f"{word}: there is no such search space; {one_of(options('sweep', extra), name)}")
        content = yaml.safe_load(file.read_text(encoding="utf-8"))
        if not isinstance(content, dict):
            raise UserError(f"{file}: expected a key and its values on each line")
        found |= content
    return [*rest, *(f"{key}={value}" for key, value in found.items() if key not in typed)]


def settings_of(args: list[str]) -> tuple[Settings, list[str]]:
    """What is said of the sweep itself, and all other words."""
    found: dict[str, Any] = {}
    for word in (word for word in args if word.lstrip("+").startswith("sweep.")):
        key, _, value = word.lstrip("+").removeprefix("sweep.").partition("=")
        if key not in Settings._fields:
            raise UserError(f"{word}: there is no such key; {one_of((f'sweep.{k}' for k in Settings._fields), key)}")
        if key == "retry" and not value.isdecimal():
            raise UserError(f"{word}: expected how often, such as 2")
        if key == "retry_failed" and value.lower() not in ("true", "false"):
            raise UserError(f"{word}: expected true or false")
        found[key] = int(value) if key == "retry" else value.lower() == "true"
    return Settings(**found), [word for word in args if not word.lstrip("+").startswith("sweep.")]


def directory_of(named: str | None, args: list[str]) -> Path:
    """That of a new sweep, made; or of one that `args` extend."""
    if named is None:
        return make_unique(Path("outputs/sweeps") / datetime.now().strftime("%Y-%m-%d_%H-%M-%S"))
    place = Path(named).expanduser()
    lines = read_lines(place)
    if not lines and place.is_dir() and {path.name for path in place.iterdir()} <= BEFORE_JOBS:
        return place  # killed before its first job
    if not lines:
        return make_named(place)
    check_extends(place, lines[-1]["args"], args)
    return place


def train_all(
    directory: Path, lines: list[list[str]], task: Task, overrides_now: Callable[[], list[str]], settings: Settings
) -> int:
    """Starts, resumes or leaves out each job of each line, then tells how all of them ended."""
    with owning(directory), Signals() as signals:
        early = False
        _first.append(signals)
        try:
            for args in lines:
                early |= train_line(directory, args, task, overrides_now, settings, signals)
        except KeyboardInterrupt:
            pass
        finally:
            _first.remove(signals)
        jobs = [job for args in lines for job in jobs_of(args, directory)]
    rows = update_results(directory, list({job.path: job for job in jobs}.values()))
    print_table(rows)
    print_seeds(rows)
    if any(map(searches, lines)):
        from ganrun.commands.train import search

        search.print_best(directory)
    print_what_is_left(rows, directory)
    if len(rows) == 1:
        print("note: -m without comma-separated values is a sweep of one run", file=sys.stderr)
    print(directory)
    failed = early or any(row["status"] not in ("finished", "pruned") for row in rows)
    return 128 + signals.received if signals.received else int(failed)


def remember(directory: Path, args: list[str]) -> None:
    """Writes down a command line that the sweep consists of, once; a sweep is one from its first job on."""
    known = read_lines(directory)
    if args not in [line["args"] for line in known]:
        write_lines(directory, [*known, {"args": args, "cwd": os.getcwd()}])


def train_line(
    directory: Path,
    args: list[str],
    task: Task,
    overrides_now: Callable[[], list[str]],
    settings: Settings,
    signals: Signals,
) -> bool:
    """All jobs of one line, again after a launcher's process died. Did it end before its last job for good?"""
    deaths: dict[Path, int] = {}
    while True:
        sweep = Sweep(directory, os.getcwd(), args, jobs_of(args, directory), axes_of(args), settings)
        one = partial(run_one, task, overrides_now, sweep)
        try:
            with passing_on(signals, directory), known_to_hydra(sweep):
                run_hydra("train", [*args, f"hydra.sweep.dir={quote(str(directory))}"], one)
            if not sweep_has_begun(directory):
                raise UserError("-m: the values make no combination, so nothing can run; glob() is for groups alone")
            return False
        except UserError as error:
            if not sweep_has_begun(directory):  # refused before its first job
                if not (directory / SUBMITIT).exists():  # with the logs of a queue
                    remove_new(directory)
                raise
            print(f"a launcher's process died: {' '.join(str(error).split())}", file=sys.stderr)
        if signals.received or not goes_on(sweep, deaths):
            return True


def goes_on(sweep: Sweep, deaths: dict[Path, int]) -> bool:
    """Is it worth another try? A job whose process has died too often is written down as failed and left out."""
    ended = cut_off(sweep.directory)
    for path in ended:
        deaths[path] = deaths.get(path, 0) + 1
        if deaths[path] == DEATHS:
            why = f"its process died {DEATHS} times, such as by a kill for memory"
            RunDir(path).write_result(RunDir(path).read_result() | {"status": "failed", "reason": why})
    return bool(ended) and all(number <= DEATHS for number in deaths.values())


def sweep_has_begun(directory: Path) -> bool:
    return (directory / FILE).exists() or any(directory.glob("*/.hydra"))


def remove_new(directory: Path) -> None:
    """Removes the directory of a sweep that was refused, and those above it that are empty now."""
    shutil.rmtree(directory)
    folder = directory.parent
    while folder != folder.parent and folder.name and not any(folder.iterdir()):
        folder.rmdir()
        folder = folder.parent


@contextmanager
def known_to_hydra(sweep: Sweep) -> Iterator[None]:
    """Within it Hydra's own sweeper launches only jobs that have something left to do, and Hydra knows Search."""
    if searches(sweep.args):
        from ganrun.commands.train import search

        search.register(sweep.directory, sweep.path_of)
    basic = Plugins.instance().class_name_to_class[BASIC]
    split = basic.split_arguments

    def left(overrides: list[Override], max_batch_size: int | None) -> list[list[list[str]]]:
        batches = [[job for job in batch if sweep.is_left(job)] for batch in split(overrides, max_batch_size)]
        return [batch for batch in batches if batch]

    basic.split_arguments = staticmethod(left)
    try:
        yield
    finally:
        basic.split_arguments = staticmethod(split)


def run_one(task: Task, overrides_now: Callable[[], list[str]], sweep: Sweep, cfg: DictConfig) -> None:
    """One job, unless it is over; then the table so far. A signal is meant for the whole sweep.

    A launcher may run jobs in processes of its own: each of them leaves out the further jobs that it is given then.
    """
    signals = _first[0] if _first else OF_THIS_PROCESS
    if not _first:
        enter(sweep, cfg)
    remember(sweep.directory, sweep.args)
    run = RunDir(sweep.path_of(overrides_now()))
    if not signals.received and not is_over(run, sweep.settings.retry_failed):
        result = task(cfg, run, sweep.settings, callbacks(sweep, cfg, overrides_now()))
        if not _first and result.get("signal") and not signals.received:  # it came from a queue, not from the sweep
            give_back(result["signal"])
        signals.received = signals.received or result.get("signal")
        with suppress(CannotWrite):  # the next job may find room; the last word is said after it
            print(so_far(update_results(sweep.directory, sweep.jobs)), flush=True)
    if signals.received and _first:
        raise KeyboardInterrupt


def enter(sweep: Sweep, cfg: DictConfig) -> None:
    """Prepares a process that a launcher has started, perhaps on another machine, for the jobs of a sweep."""
    from ganrun.training.trainer import num_devices, picked

    try:
        os.chdir(sweep.cwd)
    except OSError as error:
        print(f"{socket.gethostname()}: {sweep.cwd}: {error.strerror}; jobs need the sweep's folders", file=sys.stderr)
        sys.exit(2)  # the launcher tells of it
    heed(sweep.directory, OF_THIS_PROCESS)
    each = None if picked(cfg.trainer.devices) else num_devices(cfg.trainer.devices)
    if each and not {"trainer", "trainer.devices"} & sweep.axes:
        share_gpus(sweep.directory, visible_gpus(), each)


def callbacks(sweep: Sweep, cfg: DictConfig, overrides: list[str]) -> list[Any]:
    """What a job has beside the callbacks of its config."""
    if not searches(sweep.args):
        return []
    from ganrun.commands.train import search

    return search.callbacks(cfg, sweep.directory, overrides)
