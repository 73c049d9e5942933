"""The calls that compose, train and look for runs."""

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ganrun.api.run import Run
from ganrun.api.words import words_of
from ganrun.cli import as_typed
from ganrun.errors import Failure, UserError, reason_of
from ganrun.files.run_dir import RunDir, find_runs
from ganrun.signals import name, raising

if TYPE_CHECKING:
    from omegaconf import DictConfig

_turn = threading.Lock()  # torch's random numbers and Hydra's state are one for all threads
_whose: list[int] = []  # the thread that has it


class Interrupted(KeyboardInterrupt):
    """Ctrl-C, or a notebook's stop button, has ended a training; the run is saved, and `run.resume()` goes on with it.

    run: the ganrun.Run; None for a sweep.
    """

    def __init__(self, text: str, run: Run | None = None):
        super().__init__(text)
        self.run = run


def train(*overrides: str, config_dir: str | Path | None = None, **keys: Any) -> Run:
    """Trains a GAN, exactly as `ganrun <overrides>` does, and returns its Run.

    Example:
        run = ganrun.train("model=dcgan", "loss=wgan-gp", steps=500, optimizer__lr=1e-4, penalty=["r1"])
        run.scores, run.grid(), run.sample(16)

    overrides: words of the command line. config_dir: as --config-dir. `resume=<run>` goes on with a run, as Run.resume.
    keys: overrides whose values arrive as they are, also None, lists, dicts, paths and text with commas. `__` in a name
    is a dot; names with other characters go in a dict, as `**{"optimizer/discriminator": "rmsprop"}`. In text, but not
    in a Path, "${steps}" refers to another key, as in a YAML.

    Calls in several threads wait for each other. Afterwards the process is as before: torch's settings and random
    numbers, warnings, loggers, environment variables, sys.path, working directory.

    Raises ganrun.UserError for a mistake, before anything is written; ganrun.Error if training fails, with the run as
    its `run`; ganrun.Interrupted, a KeyboardInterrupt, after Ctrl-C, once the run is saved.
    """
    with called():
        from ganrun.commands.train import is_of_sweep, start

        args = words_of("train", overrides, keys, config_dir)
        if is_of_sweep(args):
            raise UserError("resume=: it names a sweep; expected ganrun.sweep(resume=...)")
        result, directory = start(args)
        run = Run(directory.path)
        ended_by(result.get("signal"), f"ganrun.Run({str(run.path)!r}).resume()", run)
        return run


def sweep(*overrides: str, config_dir: str | Path | None = None, **keys: Any) -> list[Run]:
    """Trains every combination of the comma-separated values, as `ganrun -m <overrides>`; returns the runs.

    Example:
        runs = ganrun.sweep("loss=wgan-gp,hinge", "seed=1,2", steps=500)
        min(runs, key=lambda run: run.scores["sliced-wasserstein"])

    Values that vary are words; keyword arguments are the same in all jobs, see train. A job that fails does not raise:
    its `status` is failed, and its `reason` says why. `resume=<directory>` goes on with a sweep.
    """
    with called():
        from ganrun.commands.train import start_sweep

        args = words_of("train", overrides, keys, config_dir)
        directory, code = start_sweep(args if any(arg.startswith("resume=") for arg in args) else ["-m", *args])
        ended_by(code - 128, f"ganrun.sweep(resume={str(directory)!r})")
        return [Run(run.path) for run in find_runs(str(directory))]


def compose(*overrides: str, config_dir: str | Path | None = None, **keys: Any) -> "DictConfig":
    """The checked config of a run, with all values final; nothing is built, trained or written. Arguments as of train.

    Example:
        config = ganrun.compose("loss=wgan-gp", steps=500)
        config.optimizer.lr, config.schedule.discriminator

    Raises ganrun.UserError for what can be refused before networks are built.
    """
    with called():
        from ganrun.commands.train import composed

        return composed(words_of("train", overrides, keys, config_dir))


def runs(of: str | Path | list[str | Path] = "outputs") -> list[Run]:
    """All runs in a folder, or in several, the oldest first: `ganrun.runs()[-1]` is the newest.

    Raises ganrun.UserError for a folder without any.
    """
    found = find_runs(map(str, of if isinstance(of, list) else [of]))
    return [Run(run.path) for run in sorted(found, key=started)]


def started(run: RunDir) -> float:
    try:
        return run.config.stat().st_mtime
    except OSError:  # removed meanwhile
        return 0.0


def ended_by(signal: int | None, go_on: str, run: Run | None = None) -> None:
    """Raises Interrupted after Ctrl-C, and SystemExit after another signal; a number below 1 is none."""
    if not signal or signal < 1:
        return
    if name(signal) != "SIGINT":
        raise SystemExit(128 + signal)
    raise Interrupted(f"stopped and saved; go on with {go_on}", run)


@contextmanager
def called() -> Iterator[None]:
    """What each call that composes needs: its turn, a process left as it was, and one class of errors."""
    with turn(), raising():
        environ = dict(os.environ)  # once no other thread is changing it
        from ganrun.training.as_before import as_before

        with as_before(environ), told():
            yield


@contextmanager
def turn() -> Iterator[None]:
    """Waits until no other thread composes or trains. Raises UserError within such a call of the same thread."""
    if threading.get_ident() in _whose:
        raise UserError("a call of ganrun within another one: torch's random numbers are one for both; use a process")
    with _turn:
        _whose.append(threading.get_ident())
        try:
            yield
        finally:
            _whose.clear()


def failed(error: Exception) -> Run | None:
    """The run that an error is about; None if it is about none, or if its directory is gone."""
    try:
        return error.run_dir and Run(error.run_dir)
    except UserError:
        return None


@contextmanager
def told() -> Iterator[None]:
    """Errors with the run that they are about, in one line; what a user's own class raises becomes a Failure."""
    try:
        yield
    except Failure as error:
        error.args = (as_typed(" ".join(str(error).split())),)
        error.run = failed(error)
        raise
    except Exception as error:
        if not hasattr(error, "run_dir"):
            raise
        from ganrun.training.failing import what_now

        failure = Failure(" ".join(f"{reason_of(error)}; {what_now(RunDir(error.run_dir), error)}".split()))
        failure.run = failed(error)
        raise failure from error
    except SystemExit as error:
        if isinstance(error.__context__, KeyboardInterrupt):  # the second Ctrl-C: so Lightning ends
            raise KeyboardInterrupt from None
        raise
