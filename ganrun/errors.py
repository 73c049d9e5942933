"""What a user did wrong, said in one line."""

from collections.abc import Iterable
from difflib import get_close_matches


class UserError(ValueError):
    """Bad input: the command prints its text as one line and ends with exit code 2."""


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
