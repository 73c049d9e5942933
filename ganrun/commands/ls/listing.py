"""What `ganrun ls` says of each run: read from its files, whatever state they are in."""

import time
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from omegaconf import DictConfig, OmegaConf

from ganrun.config.typed import check_known, check_types
from ganrun.errors import UserError, one_of
from ganrun.files.run_dir import RunDir, find_runs

KEYS = {"of": str | list[str], "sort": str}
UNITS = (("d", 86400), ("h", 3600), ("min", 60), ("s", 1))


class Row(NamedTuple):
    """score: the final one of the run's first metric, with its name. seconds: since the run last wrote its result."""

    path: Path
    status: str
    steps: int | None
    goal: int | None
    score: str
    seconds: float
    bytes: int


SORTS = {"path": lambda row: str(row.path), "age": lambda row: row.seconds, "size": lambda row: -row.bytes}


def listed(cfg: DictConfig) -> list[Row]:
    """The runs below `of`. Raises UserError for a place without any."""
    OmegaConf.set_struct(cfg, False)
    check_known(cfg, KEYS)
    check_types(cfg, KEYS)
    if cfg.sort not in SORTS:
        raise UserError(f"sort={cfg.sort}; {one_of(SORTS, str(cfg.sort))}")
    now = time.time()
    runs = find_runs(cfg.of)
    return sorted((row_of(run, now) for run in runs), key=SORTS[cfg.sort])


def row_of(run: RunDir, now: float) -> Row:
    result = run.read_result()
    touched = next(file for file in (run.result, run.config, run.path) if file.exists())
    steps, goal = (n if isinstance(n := result.get(key), int) else None for key in ("steps", "goal"))
    status = str(result.get("status", "no result"))
    seconds = max(0.0, now - touched.stat().st_mtime)
    return Row(run.path, status, steps, None if steps == goal else goal, score_of(result), seconds, bytes_of(run.path))


def score_of(result: dict) -> str:
    """Empty where there is none, or none that can be read."""
    with suppress(AttributeError, KeyError, TypeError, ValueError):
        for name, score in result.get("scores", {}).items():
            return f"{name} {score['final']:.5g}"
    return ""


def bytes_of(folder: Path) -> int:
    """Of all files below a folder; a file with several names counts once."""
    found = {}
    for path in folder.rglob("*"):
        with suppress(OSError):  # gone meanwhile
            about = path.lstat()
            found[about.st_dev, about.st_ino] = about.st_size if path.is_file() else 0
    return sum(found.values())


def age(seconds: float) -> str:
    unit, length = next(((unit, length) for unit, length in UNITS if seconds >= length), UNITS[-1])
    return f"{seconds / length:.0f} {unit}"


def size(number: int) -> str:
    for unit in ("B", "KiB", "MiB", "GiB"):
        if number < 1024 or unit == "GiB":
            return f"{number:.0f} {unit}" if unit == "B" else f"{number:.1f} {unit}"
        number /= 1024
    raise AssertionError("the last unit takes any number")
