"""Where everything of a run lies, how such a directory is made, and what a resume may change."""

import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ganrun.errors import UserError

# What `ganrun resume=...` may change; a trailing dot means everything below.
RESUMABLE = ("steps", "log_every", "sample_every", "num_samples", "checkpoint.", "evaluate.", "trainer.",
             "dataset.num_workers", "debug", "data_dir", "dataset.path")  # fmt: skip
CHILD = "GANRUN_RUN_DIR"  # tells the processes that Lightning starts which run they belong to
NOT_RESUMABLE = ("trainer.devices", "trainer.num_nodes")  # exceptions to it: they enter every draw


class RunDir:
    """The layout of one run. Nothing else in the code joins these names."""

    def __init__(self, path: str | Path):
        self.path = Path(path)
        self.hydra = self.path / ".hydra"
        self.checkpoints = self.path / "checkpoints"
        self.samples = self.path / "samples"
        self.tensorboard = self.path / "tensorboard"
        self.log = self.path / "train.log"
        self.metrics = self.path / "metrics.jsonl"
        self.result = self.path / "result.json"
        self.generator = self.path / "generator.safetensors"
        self.last = self.checkpoints / "last.ckpt"
        self.best = self.checkpoints / "best.ckpt"

    def step_checkpoint(self, step: int) -> Path:
        return self.checkpoints / f"step-{step:06d}.ckpt"

    def step_checkpoints(self) -> list[Path]:
        """Oldest first."""
        return sorted(self.checkpoints.glob("step-*.ckpt"), key=lambda path: int(path.stem.removeprefix("step-")))

    def step_samples(self, step: int) -> Path:
        return self.samples / f"step-{step:06d}.png"

    def read_result(self) -> dict[str, Any]:
        return json.loads(self.result.read_text(encoding="utf-8")) if self.result.exists() else {}

    def write_result(self, result: dict[str, Any]) -> None:
        with replacing(self.result) as file:
            file.write((json.dumps(result, indent=2) + "\n").encode())


def make_unique(wanted: Path) -> Path:
    """Makes the directory `wanted`, or `wanted-2`, `-3`, ... if it is taken. Two processes never get the same one."""
    wanted.parent.mkdir(parents=True, exist_ok=True)
    for suffix in ("", *(f"-{i}" for i in range(2, 10_000))):
        path = wanted.with_name(wanted.name + suffix)
        try:
            path.mkdir()
            return path
        except FileExistsError:
            continue
    raise UserError(f"run_dir={wanted}: taken, and so are 9,999 names like it")


def make_named(path: Path) -> Path:
    """Makes the directory that the user named; refuses one that holds something."""
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        advice = f"go on with it by resume={path}, or " if (path / ".hydra").exists() else ""
        raise UserError(f"run_dir={path} exists and is not empty; {advice}name another directory")
    path.mkdir(parents=True, exist_ok=True)
    return path


def find_run(path: str, key: str = "resume") -> tuple[RunDir, Path]:
    """The run that a run directory or one of its checkpoints belongs to, and the checkpoint to start from."""
    given = Path(path).expanduser()
    run = RunDir(given.parent.parent if given.suffix == ".ckpt" else given)
    if not given.exists():
        raise UserError(f"{key}={path}: there is no such run directory or checkpoint")
    if not (run.hydra / "config.yaml").exists():
        raise UserError(f"{key}={path}: not a run; expected a run directory or its checkpoints/<name>.ckpt")
    checkpoint = given if given.suffix == ".ckpt" else run.last
    if not checkpoint.exists():
        raise UserError(f"{key}={path}: the run has no checkpoint yet (checkpoints/last.ckpt is missing)")
    return run, checkpoint


def may_change(key: str) -> bool:
    """May a resume change this dotted key?"""
    allowed = any(key == name or (name.endswith(".") and key.startswith(name)) for name in RESUMABLE)
    return allowed and key not in NOT_RESUMABLE


@contextmanager
def replacing(path: Path) -> Iterator[Any]:
    """A binary file that takes the place of `path` whole, or not at all: written beside it, synced, renamed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o666 & ~_umask())
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
