"""The jobs of a sweep: which there are, what their directories are called, and how far each has come."""

import hashlib
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException

from ganrun import __version__
from ganrun.config.hydra_main import parsed
from ganrun.config.places import key_of
from ganrun.errors import UserError
from ganrun.files.run_dir import LOADER, RunDir
from ganrun.files.storage import replacing

FILE = "sweep.yaml"  # in a sweep's directory: the command lines that it was made by
FORMAT = 1
LONGEST = 120  # characters of a job's name
OVER = ("finished", "collapsed", "pruned")  # statuses of jobs that a sweep leaves alone


class Job(NamedTuple):
    overrides: list[str]
    path: Path


def overrides_of(args: list[str]) -> list[Override]:
    return OverridesParser.create().parse_overrides(parsed(args).overrides)


def is_launching(key: str) -> bool:
    """Does a key say how jobs are started, and not what they are?"""
    return bool(re.match(r"hydra[./]", key))


def axes_of(args: list[str]) -> set[str]:
    """The keys that take several values."""
    return {each.key_or_group for each in overrides_of(args) if each.is_sweep_override()}


def searches(args: list[str]) -> bool:
    """Is the next job chosen by how earlier ones ended?"""
    words = [shown(each) for each in overrides_of(args) if each.key_or_group == "hydra/sweeper"]
    return bool(words) and words[-1] != "basic"


def combinations(args: list[str]) -> list[list[str]]:
    """The overrides of each job, in the order in which they run; empty where Hydra finds them as it goes."""
    if searches(args):
        return []
    try:
        (jobs,) = BasicSweeper.split_arguments(overrides_of(args), max_batch_size=None)
    except HydraException:  # glob() needs to know the groups, and interval() is refused
        return []
    return [[text for text in job if not is_launching(text)] for job in jobs]


def identity(overrides: Iterable[str]) -> tuple[str, ...]:
    """What tells a job from the others, in whatever order it was typed."""
    return tuple(sorted(overrides))


def name_of(overrides: Sequence[str], axes: Iterable[str]) -> str:
    """A job's directory: its values on the axes, hashed where a file name cannot hold them."""
    axes = set(axes)
    words = [text.partition("=") for text in overrides if key_of(text) in axes]
    exact = ",".join(f"{key.replace('/', '.')}={value}" for key, _, value in words) or "run"
    safe = re.sub(r"[^\w.,=+-]", "_", exact, flags=re.ASCII)
    if safe == exact and len(exact) <= LONGEST:
        return exact
    return f"{safe[: LONGEST - 9]}-{hashlib.blake2b(exact.encode(), digest_size=4).hexdigest()}"


def known_jobs(directory: Path) -> dict[tuple[str, ...], Path]:
    """The directories of jobs that have been started, by what tells these apart."""
    found = {}
    for file in sorted(directory.glob("*/.hydra/overrides.yaml")):
        found[identity(read_overrides(file))] = file.parent.parent
    return found


def jobs_of(args: list[str], directory: Path) -> list[Job]:
    """Those that `args` ask for, each with the directory that it has or will have."""
    known, axes = known_jobs(directory), axes_of(args)
    return [
        Job(overrides, known.get(identity(overrides), directory / name_of(overrides, axes)))
        for overrides in combinations(args)
    ]


def read_overrides(file: Path) -> list[str]:
    try:
        content = yaml.load(file.read_text(encoding="utf-8"), LOADER)
    except (OSError, UnicodeDecodeError, yaml.YAMLError):
        return []
    return [str(text) for text in content] if isinstance(content, list) else []


def is_over(run: RunDir, retry_failed: bool) -> bool:
    """Has a job nothing left to do? A failed one only if failed jobs are not to be tried again."""
    status = run.read_result().get("status")
    return status in OVER or (status == "failed" and not retry_failed)


def read_lines(directory: Path) -> list[dict[str, Any]]:
    """The command lines of a sweep so far; none of a new one. Raises UserError for a file that is no such list."""
    file = directory / FILE
    if not file.exists():
        return []
    try:
        content = yaml.safe_load(file.read_text(encoding="utf-8"))
        if content["format"] != FORMAT:
            raise UserError(f"{file}: sweep of format {content['format']}; this ganrun reads format {FORMAT}")
        return [{"args": [str(w) for w in line["args"]], "cwd": str(line["cwd"])} for line in content["lines"]]
    except (OSError, UnicodeDecodeError, yaml.YAMLError, KeyError, TypeError) as error:
        raise UserError(f"{file}: cannot be read: {' '.join(str(error).split())}") from error


def write_lines(directory: Path, lines: list[dict[str, Any]]) -> None:
    with replacing(directory / FILE) as file:
        content = {"format": FORMAT, "version": __version__, "lines": lines}
        file.write(yaml.safe_dump(content, sort_keys=False).encode())


def check_extends(directory: Path, before: list[str], args: list[str]) -> None:
    """Raises UserError unless `args` only put other values on the axes of the sweep that `before` made."""
    had, got = (
        {each.key_or_group: each for each in overrides_of(words) if not is_launching(each.key_or_group)}
        for words in (before, args)
    )
    differ = [key for key in (*had, *(key for key in got if key not in had)) if not extends(had.get(key), got.get(key))]
    if differ:
        told = "; ".join(f"{key}: got {shown(got.get(key))}, had {shown(had.get(key))}" for key in differ)
        raise UserError(
            f"run_dir={directory}: its jobs differ from these in {told}; only a key with several values may take "
            "others: name another directory"
        )


def extends(had: Override | None, got: Override | None) -> bool:
    if had is None or got is None:
        return False
    return had.is_sweep_override() or got.is_sweep_override() or shown(had) == shown(got)


def shown(override: Override | None) -> str:
    return "nothing" if override is None else override.input_line.partition("=")[2]
