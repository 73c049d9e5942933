"""How a command fails: a user's mistake, a file that cannot be written, numbers that are no longer finite."""

from collections.abc import Iterable
from difflib import get_close_matches
from importlib.util import find_spec
from pathlib import Path
from typing import Any


class Failure(Exception):
    """An error that the command prints as one line before it ends with `exit_code`.

    run_dir: of the run that failed, None if there is none. run: the same as a ganrun.Run, in calls from Python.
    """

    exit_code = 1
    run_dir: Path | None = None
    run: Any = None


class UserError(Failure, ValueError):
    """Bad input."""

    exit_code = 2


class CannotWrite(Failure):
    """A file of a run could not be written: the disk is full, read-only or gone."""

    @classmethod
    def of(cls, path: str | Path, error: OSError) -> "CannotWrite":
        return cls(f"cannot write {path}: {error.strerror or error}")


class NotFinite(Failure):
    """NaN or infinity in a loss, a gradient or a weight."""

    exit_code = 3


class OutOfMemory(Failure):
    """A step needs more memory than the device or the machine has left."""


NO_MEMORY = ("can't allocate memory", "Storage size calculation overflowed", "out of memory")  # as torch says it
COLLAPSED = 4  # exit code of a run ended by on_collapse=stop; it is saved and does not count as a failure


def reason_of(error: BaseException) -> str:
    """The reason to record for a failure."""
    return str(error) if isinstance(error, Failure) else f"{type(error).__name__}: {error}"


def first_line(error: BaseException) -> str:
    """The first line of an error's text, or its type if it has no text."""
    return (str(error).splitlines() or [type(error).__name__])[0]


def is_out_of_memory(error: BaseException) -> bool:
    """Is it Python's MemoryError, or one of torch's errors, which only their texts identify?"""
    return isinstance(error, MemoryError) or any(text in str(error) for text in NO_MEMORY)


def require(least: int, **values: int) -> None:
    """Raises UserError for the first value below `least`."""
    for name, value in values.items():
        if value < least:
            raise UserError(f"{name}={value}; expected at least {least}")


def require_extra(what: str, extra: str, *packages: str) -> None:
    """Raises UserError if packages of an extra, by the names they are imported by, are not installed."""
    missing = [package for package in packages if find_spec(package) is None]
    if missing:
        raise UserError(f'{what} needs {", ".join(missing)}: pip install "ganrun[{extra}]"')


MOST_NAMED = 48  # valid names in one line


def one_of(valid: Iterable[str], got: str) -> str:
    """Lists the valid names, those nearest to `got` first, whatever their case; never `got` itself."""
    valid = sorted({str(name) for name in valid} - {got})
    near = [
        name
        for form in get_close_matches(_form(got), map(_form, valid), n=3, cutoff=0.5)
        for name in valid
        if _form(name) == form
    ]
    near = list(dict.fromkeys(near)) + [
        name for name in valid if got and _form(got) in _form(name) and name not in near
    ]
    names = near + [name for name in valid if name not in near]
    hint = f"did you mean {' or '.join(near[:3])}? " if near else ""
    more = len(names) - MOST_NAMED
    return f"{hint}valid: {', '.join(names[:MOST_NAMED])}" + (f" and {more} more" if more > 0 else "")


def _form(name: str) -> str:
    """The same text for names that differ only in case or in dashes."""
    return name.casefold().replace("_", "-")
