"""Overrides from Python: keyword arguments become the words that a command line would have, to the letter."""

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ganrun.cli import check_system
from ganrun.config.choices import chosen, refuse_spaces
from ganrun.config.groups import add_modules
from ganrun.config.places import quote, quoted
from ganrun.errors import UserError

KEY = re.compile(r"[+~]{0,2}[\w.@/:-]+")
KEY_IN_DICT = re.compile(r"[A-Za-z_][\w.-]*")
OTHERWISE = re.compile(r"null", re.I)  # text that the grammar reads as something else, besides what `quote` knows
KINDS = "None, True, False, a number, text, a path, or a list or dict of these"


def words_of(command: str, words: Iterable[str], keys: Mapping[str, Any], config_dir: str | Path | None) -> list[str]:
    """What the command line `words` and keyword arguments stand for, ready for Hydra.

    words: as typed in a shell, after its own quotes. keys: by name; `__` in a name is a dot. config_dir: a folder of
    configs and modules of one's own. Raises UserError.
    """
    given = [checked(word) for word in words] + [override(name, value) for name, value in keys.items()]
    refuse_spaces(given)
    check_system()
    folder = [] if config_dir is None else ["--config-dir", str(Path(config_dir).expanduser())]
    add_modules([Path(name) for name in folder[1:]])
    return chosen([*folder, *quoted(given)], command)


def checked(word: Any) -> str:
    """One word. Raises UserError for anything but key=value; flags are for the command line."""
    if not isinstance(word, str):
        raise UserError(f"{word!r}: expected text, as in 'loss=hinge', or keywords, as in loss='hinge'")
    if word.startswith("-"):
        raise UserError(f"{word}: flags are for the command line; config_dir= names a folder of your own configs")
    if "=" not in word and not word.startswith("~"):
        raise UserError(f"{word}: expected key=value")
    return word


def override(name: str, value: Any) -> str:
    """lr=1e-4 as an override. Raises UserError."""
    key = name.replace("__", ".")
    if not KEY.fullmatch(key):
        raise UserError(f"{name}: it cannot be a key; expected names as in batch_size, optimizer.lr or optimizer__lr")
    return f"{key}={written(value, key)}"


def written(value: Any, key: str) -> str:
    """A value as Hydra's grammar reads it, so that exactly this value arrives. Raises UserError.

    Text is literal, but `${key}` in it refers to another key, as in the YAML files; a Path is literal altogether.
    """
    if hasattr(value, "tolist"):  # of NumPy or torch
        value = value.tolist()
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, int | float):
        return number(value)
    if isinstance(value, Path):
        return text(str(value).replace("${", r"\${"))
    if isinstance(value, str):
        return text(value)
    if isinstance(value, Mapping):
        return "{" + ",".join(f"{key_of(k, key)}:{written(v, key)}" for k, v in value.items()) + "}"
    if isinstance(value, Sequence) and not isinstance(value, bytes):
        return "[" + ",".join(written(each, key) for each in value) + "]"
    raise UserError(f"{key}: got a {type(value).__name__}; expected {KINDS}")


def number(value: int | float) -> str:
    if isinstance(value, int) or math.isfinite(value):
        return repr(value)
    return "nan" if math.isnan(value) else "inf" if value > 0 else "-inf"


def text(value: str) -> str:
    return f"'{value}'" if OTHERWISE.fullmatch(value) else quote(value)


def key_of(key: Any, where: str) -> str:
    if isinstance(key, str) and KEY_IN_DICT.fullmatch(key):
        return key
    raise UserError(f"{where}: {key!r} cannot be a key of a dict here; expected a plain name")
