"""Paths as people type them: they need no quotes except the shell's own, in input and in output."""

import re
import shlex
from collections.abc import Iterable
from os.path import expanduser, lexists

NAMES = ("from", "input", "out", "of", "resume", "init_from", "cache", "weights", "labels")
CONFIG_DIR = ("--config-dir", "-cd")  # no shell expands a ~ after their =
ENDING = re.compile(r"(^|[_-])(path|dir|folder|file)s?$")
LISTS = re.compile(r"of|.+s")  # keys that take several: there brackets hold a list, elsewhere they belong to the name
VALUES = re.compile(r"true|false|\[.*|[-+.\d]*", re.I | re.S)  # other values of cache and weights in a user's own class
PLAIN = re.compile(r"(?!(?:true|false|nan|inf)$)(?:\.{0,2}/|[a-z_])[\w./+%@-]*", re.A | re.I)  # unquoted for Hydra
QUOTED = re.compile(r"""'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*\"""", re.S)
SWEEP = re.compile(r"(choice|range|interval|glob|sort|shuffle|tag)\(.*\)", re.S)
ELEMENT = re.compile(rf"\s*((?:{QUOTED.pattern})(?=\s*(?:,|$))|(?:\$\{{[^}}]*\}}|[^,])+)\s*(?:,|$)", re.S)


def key_of(override: str) -> str:
    """The key of an override, without Hydra's signs before it."""
    return override.lstrip("+~").partition("=")[0]


def quoted(args: Iterable[str]) -> list[str]:
    """A command line in which every value that is a path is quoted for Hydra's grammar, if it needs to be.

    A path is taken literally; a leading ~ is expanded as in a shell. `null`, `${...}` and values in the user's own
    quotes keep Hydra's meaning. So do commas with -m, unless a file has that name.
    """
    args = list(args)
    sweep = bool({"-m", "--multirun"} & set(args))
    return [_quoted_word(arg, sweep) for arg in args]


def as_text(word: str) -> str:
    """key=value, or key=[a,b], quoted so that Hydra takes values as text, such as 003, true, 1e3, ü; but not null."""
    key, _, value = word.partition("=")
    if value.lower() in ("", "null"):
        return word
    if value.startswith("[") and value.endswith("]"):
        return f"{key}=[{','.join(map(_as_text, ELEMENT.findall(value[1:-1])))}]"
    return f"{key}={_as_text(value)}"


def _as_text(text: str) -> str:
    return text if QUOTED.fullmatch(text) else quote(text.replace("${", r"\${"))


def _quoted_word(word: str, sweep: bool) -> str:
    key, equals, value = word.partition("=")
    name = re.split(r"[./]", key.lstrip("+"))[-1]
    settles = name in ("cache", "weights") and VALUES.fullmatch(value)
    if key in CONFIG_DIR:
        return key + equals + expanduser(value)
    if not is_place(key.lstrip("+")) or value.lower() in ("", "null") or settles:
        return word
    return key + equals + _quoted_value(value, sweep and name != "run_dir", bool(LISTS.fullmatch(name)))


def _quoted_value(value: str, sweep: bool, several: bool) -> str:
    if is_there(expanduser(value)):
        return quote(expanduser(value))
    if several and value.startswith("[") and value.endswith("]"):
        return f"[{','.join(map(_quoted_element, ELEMENT.findall(value[1:-1])))}]"
    if not sweep:
        return _quoted_element(value)
    return value if SWEEP.fullmatch(value) else ",".join(map(_quoted_element, ELEMENT.findall(value)))


def _quoted_element(text: str) -> str:
    return text if QUOTED.fullmatch(text) else quote(expanduser(text))


def is_place(key: str) -> bool:
    """Does a dotted key name a file or folder? Its last part decides, but generator.latents is no file."""
    name = key.rpartition(".")[2]
    return not key.startswith("hydra") and (key == "latents" or name in NAMES or ENDING.search(name) is not None)


def quote(text: str) -> str:
    """Text quoted for Hydra's grammar, if necessary; there a backslash is special only before a quote."""
    if PLAIN.fullmatch(text):
        return text
    return "'" + re.sub(r"(\\*)('|\Z)", lambda found: found[1] * 2 + found[2].replace("'", "\\'"), text) + "'"


def unquoted(text: str) -> str:
    """The text that a quoted value stands for in Hydra's grammar; other values stay as they are."""
    if not QUOTED.fullmatch(text):
        return text
    mark = text[0]
    return re.sub(rf"(\\+)({mark}|\Z)", lambda found: "\\" * (len(found[1]) // 2) + found[2], text[1:-1])


def command(*words: str) -> str:
    """A ganrun command that can be pasted into a shell."""
    return shlex.join(["ganrun", *words])


def is_there(path: str) -> bool:
    """Does the path exist? False if it cannot name a file."""
    try:
        return lexists(path)
    except ValueError:
        return False
