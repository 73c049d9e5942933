"""The layout of a run directory, how one is made, and what a resume may change."""

import json
import os
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml

from ganrun.config.places import command
from ganrun.errors import UserError
from ganrun.files.storage import replacing

# What `ganrun resume=...` may change; a trailing dot means everything below.
RESUMABLE = ("steps", "log_every", "sample_every", "num_samples", "checkpoint.", "export.", "evaluate.", "trainer.",
             "precision", "tf32", "compile", "deterministic", "debug", "data_dir", "cache_dir", "dataset.path",
             "dataset.source", "dataset.labels", "dataset.cache", "dataset.num_workers", "dataset.shown",
             "on_collapse", "collapse.patience", "collapse.rollbacks")  # fmt: skip
FORMAT = 2  # of run directories; 1 had no protocols
LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # of configs that ganrun wrote: eight times as fast
NOT_RESUMABLE = ("trainer.devices", "trainer.num_nodes", "trainer.sync_batchnorm")  # exceptions: they change the draws


class RunDir:
    """The layout of one run. No other code builds these paths. job: its number in a sweep."""

    def __init__(self, path: str | Path, job: int | None = None):
        self.path = Path(path)
        self.job = job
        self.hydra = self.path / ".hydra"
        self.config = self.hydra / "config.yaml"  # written last in .hydra/: with it a run exists
        self.changes = self.hydra / "changes.yaml"  # what resumes have changed
        self.checkpoints = self.path / "checkpoints"
        self.samples = self.path / "samples"
        self.tensorboard = self.path / "tensorboard"
        self.log = self.path / "train.log"
        self.metrics = self.path / "metrics.jsonl"
        self.result = self.path / "result.json"
        self.generator = self.path / "generator.safetensors"
        self.best_generator = self.path / "best.safetensors"
        self.discriminator = self.path / "discriminator.safetensors"
        self.ema = self.path / "ema"  # snapshots of averages, for `ganrun ema`
        self.last = self.checkpoints / "last.ckpt"
        self.best = self.checkpoints / "best.ckpt"

    def make(self) -> None:
        """Makes the directories that files are written to."""
        for folder in (self.checkpoints, self.samples, self.tensorboard):
            folder.mkdir(parents=True, exist_ok=True)

    def clear(self) -> None:
        """Removes everything that training wrote, so that it can start anew; config and log stay."""
        for folder in (self.checkpoints, self.samples, self.tensorboard, self.ema):
            shutil.rmtree(folder, ignore_errors=True)
        exported = (self.generator, self.best_generator, self.discriminator)
        for file in (self.metrics, self.result, *exported, *(path.with_suffix(".yaml") for path in exported)):
            file.unlink(missing_ok=True)

    def step_checkpoint(self, step: int) -> Path:
        return self.checkpoints / f"step-{step:06d}.ckpt"

    def step_checkpoints(self) -> list[Path]:
        """Checkpoints of steps, oldest first. Files with names of another form belong to the user."""
        steps = {self.checkpoint_step(path) for path in self.checkpoints.glob("step-*.ckpt")}
        return [path for path in map(self.step_checkpoint, sorted(steps)) if path.exists()]

    @staticmethod
    def checkpoint_step(path: Path) -> int:
        """The step of a step-<n> file; -1 for other names."""
        digits = path.stem.removeprefix("step-")
        return int(digits) if digits.isdecimal() else -1

    def ema_snapshot(self, step: int) -> Path:
        return self.ema / f"step-{step:06d}.safetensors"

    def ema_snapshots(self) -> dict[int, Path]:
        """The snapshots of averages by their steps, in order."""
        steps = sorted(self.checkpoint_step(path) for path in self.ema.glob("step-*.safetensors"))
        return {step: self.ema_snapshot(step) for step in steps if self.ema_snapshot(step).exists()}

    def saved_checkpoints(self) -> list[Path]:
        """All existing checkpoints, the newest first."""
        every = [self.last, *reversed(self.step_checkpoints()), self.best]
        return [path for path in every if path.exists()]

    def step_samples(self, step: int) -> Path:
        return self.samples / f"step-{step:06d}.png"

    def read_result(self) -> dict[str, Any]:
        """The content of result.json; {} if there is none that can be read."""
        try:
            result = json.loads(self.result.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return result if isinstance(result, dict) else {}

    def write_result(self, result: dict[str, Any]) -> None:
        with replacing(self.result) as file:
            file.write((json.dumps(result, indent=2) + "\n").encode())


def make_unique(wanted: Path) -> Path:
    """Makes the directory `wanted`, or `wanted-2`, `-3`, ... if it is taken. Two processes never get the same."""
    try:
        wanted.parent.mkdir(parents=True, exist_ok=True)
        for suffix in ("", *(f"-{i}" for i in range(2, 10_000))):
            path = wanted.parent / (wanted.name + suffix)
            try:
                path.mkdir()
                return path
            except FileExistsError:
                continue
    except OSError as error:
        raise cannot_make(wanted, error) from error
    raise UserError(f"run_dir={wanted}: taken, and so are 9,999 names like it")


def make_named(path: Path) -> Path:
    """Makes the directory that the user named; refuses one that is not empty."""
    try:
        if path.exists() and (not path.is_dir() or (any(path.iterdir()) and not only_begun(path))):
            advice = f"go on with it: {command(f'resume={path}')}, or " if (path / ".hydra").exists() else ""
            raise UserError(f"run_dir={path} exists and is not empty; {advice}name another directory")
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise cannot_make(path, error) from error
    return path


def only_begun(path: Path) -> bool:
    """Does it hold only the first files of a run that was killed before its config was written?"""
    return {child.name for child in path.iterdir()} <= {".hydra", ".lock"} and not RunDir(path).config.exists()


def cannot_make(path: Path, error: OSError) -> UserError:
    advice = "run_dir=<folder> chooses another place"
    return UserError(f"run_dir={path}: cannot make this directory: {error.strerror}; {advice}")


def find_runs(of: str | Iterable[str]) -> list[RunDir]:
    """All runs at or below a place, or several, each once. Raises UserError for none, and for a place without any."""
    found: dict[Path, RunDir] = {}
    places = [of] if isinstance(of, str) else list(of)
    if not places:
        raise UserError("of=[]: it names no run; expected run directories, or folders that hold some")
    for place in map(Path, places):
        place = place.expanduser()
        configs = (
            [place / ".hydra" / "config.yaml"] if RunDir(place).config.exists() else place.rglob(".hydra/config.yaml")
        )
        here = [config.parent.parent for config in sorted(configs)]
        if not here:
            raise UserError(f"of={place}: no run there; expected run directories, or folders that hold some")
        for path in here:
            found.setdefault(path.resolve(), RunDir(path))  # the first name given for it
    return list(found.values())


def find_run(path: str, key: str = "resume") -> tuple[RunDir, Path | None]:
    """The run that a run directory or one of its checkpoints belongs to, and the checkpoint if one was named."""
    given = Path(os.path.expanduser(path))
    is_file = given.suffix == ".ckpt" and not given.is_dir()
    if is_file and len(given.parts) < 3:
        given = given.absolute()
    run = RunDir(given.parent.parent if is_file else given)
    try:
        there = given.exists()
    except (OSError, ValueError) as error:  # not a possible file name
        raise UserError(f"{key}={path}: {error}") from error
    if not there:
        raise UserError(f"{key}={path}: there is no such run directory or checkpoint")
    if not run.config.exists():
        if is_file:
            raise UserError(
                f"{key}={path}: a checkpoint needs its run, which says what networks it holds, and there is no "
                f"{run.config}; expected <run>/checkpoints/<name>.ckpt"
            )
        raise UserError(f"{key}={path}: not a run; expected a run directory or its checkpoints/<name>.ckpt")
    return run, given if is_file else None


def may_change(key: str) -> bool:
    """May a resume change this dotted key?"""
    allowed = any(key == name or (name.endswith(".") and key.startswith(name)) for name in RESUMABLE)
    return allowed and key not in NOT_RESUMABLE
