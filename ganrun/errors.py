"""How a command fails: a user's mistake, a file that cannot be written, numbers that are no longer finite."""

from collections.abc import Iterable
from difflib import get_close_matches
from pathlib import Path


class Failure(Exception):
    """The command prints its text as one line and ends with `exit_code`."""

    exit_code = 1


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


COLLAPSED = 4  # exit code of a run that on_collapse=stop ended; it is saved and no failure


def reason_of(error: BaseException) -> str:
    """What to write down about a failure."""
    return str(error) if isinstance(error, Failure) else f"{type(error).__name__}: {error}"


def require(least: int, **values: int) -> None:
    """Raises UserError for the first value below `least`."""
    for name, value in values.items():
        if value < least:
            raise UserError(f"{name}={value}; expected at least {least}")


def one_of(valid: Iterable[str], got: str) -> str:
    """Says what is valid, nearest to `got` first."""
    valid = sorted(map(str, valid))
    near = get_close_matches(got, valid, n=3, cutoff=0.5)
    near += [name for name in valid if got and got in name and name not in near]
    rest = [name for name in valid if name not in near]
    hint = f"did you mean {' or '.join(near)}? " if near else ""
    return f"{hint}valid: {', '.join(near + rest)}"
