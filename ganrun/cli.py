"""The console entry: picks the command and turns errors into one line. Does not import torch or Hydra itself."""

import ast
import os
import re
import sys
from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec
from typing import Any, TextIO

from ganrun import __version__
from ganrun.config.choices import chosen, is_key, refuse_spaces
from ganrun.config.groups import (
    LAUNCHERS,
    MAIN_GROUPS,
    OF_A_SWEEP,
    PACKAGE,
    add_modules,
    config_dir,
    config_dirs_of,
    defaults,
    groups,
    keys,
    options,
)
from ganrun.config.places import quoted
from ganrun.errors import Failure, UserError, one_of

EXAMPLES = """\
  ganrun model=dcgan loss=wgan-gp                     train; the run lands in outputs/
  ganrun -m loss=wgan-gp,hinge seed=1,2               a sweep over all combinations
  ganrun resume=outputs/digits/... steps=4000         go on with a run, for longer"""

FLAGS = """\
  -m, --multirun        sweep over comma-separated values
  --cfg job             print the composed config and stop
  --config-dir DIR      add your own groups, options and Python modules
  --shell-completion    -sc install=bash|zsh|fish
  --hydra-help          Hydra's own flags
  --version             print the version"""


def main() -> None:
    for number in range(3):  # a closed descriptor would be reused for a file of the run
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
    sys.stdout = Unbreakable(sys.stdout or os.fdopen(1, "w"))
    sys.exit(run(sys.argv[1:]))


class Unbreakable:
    """A text stream that may break, as a closed pipe does, without ending the run: later output is dropped."""

    def __init__(self, stream: TextIO):
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        return self._unless_lost(self._stream.write, text) or 0

    def flush(self) -> None:
        self._unless_lost(self._stream.flush)

    def _unless_lost(self, act: Callable[..., Any], *args: str) -> Any:
        try:
            return act(*args)
        except OSError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), self._stream.fileno())


def run(argv: list[str]) -> int:
    """Runs one command line and returns its exit code: 2 for a user's mistake, reported in one line; see errors.py."""
    try:
        refuse_spaces(argv)
        command, args = pick(quoted(argv))
        add_modules(config_dirs_of(args))
        if {"-h", "--help"} & set(args):
            print(help_text(args) if command == "train" else command_help(command))
            return 0
        if "--version" in args:
            print(f"ganrun {__version__}")
            return 0
        check_system()
        return import_module(f"ganrun.commands.{command}").run(chosen(args, command))
    except Failure as error:
        if "debug=true" in (arg.lower() for arg in argv):
            raise
        print(f"ganrun: {as_typed(' '.join(str(error).split()))}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        return 130


def check_system() -> None:
    """Raises UserError on systems without the record locks and POSIX signals that exact resumes need."""
    if find_spec("fcntl") is None:
        here = "from Python, ganrun.load_generator works here"
        raise UserError(f"{sys.platform}: the command needs Linux or macOS; on Windows run it in WSL; {here}")


def as_typed(text: str) -> str:
    """Values written as on a command line, not as in Python."""
    return re.sub(r"=(None|True|False)\b", lambda found: "=" + {"None": "null"}.get(found[1], found[1].lower()), text)


def pick(argv: list[str]) -> tuple[str, list[str]]:
    """The command, `train` unless the first word names another, and its arguments."""
    if not argv or argv[0].startswith(("-", "+", "~")) or "=" in argv[0]:
        return "train", argv
    if argv[0] in ("help", "version"):
        command, args = pick(argv[1:])
        return command, [f"--{argv[0]}", *args]
    if argv[0] not in commands():
        if is_key(argv[0]):
            raise UserError(f"{argv[0]}: expected {argv[0]}=<value>")
        raise UserError(f"{argv[0]}: there is no such command; {one_of(commands(), argv[0])}; overrides are key=value")
    return argv[0], argv[1:]


def commands() -> dict[str, str]:
    """Maps each command to the first line of its docstring, without importing it."""
    names = sorted(file.parent.name for file in (PACKAGE / "commands").glob("*/__init__.py"))
    return {name: docstring(name).splitlines()[0] for name in names}


def docstring(command: str) -> str:
    source = (PACKAGE / "commands" / command / "__init__.py").read_text(encoding="utf-8")
    return ast.get_docstring(ast.parse(source)) or ""


def command_help(command: str) -> str:
    """What a command does, and its keys, read from its YAML."""
    lines = [f"usage: ganrun {command} [key=value ...]", "", docstring(command)]
    if (config_dir() / f"{command}.yaml").exists():
        lines += ["", "keys:", *(f"  {key:<20} {comment}" for key, comment in keys(command).items())]
    return "\n".join(lines)


def help_text(args: list[str]) -> str:
    """Commands, groups with all options, examples: read from the YAML files themselves."""
    extra = config_dirs_of(args)
    chosen = defaults()
    lines = ["usage: ganrun [command] [group=option ...] [key=value ...]", "", "commands:"]
    lines += [f"  {name:<20}{text}" for name, text in commands().items()]
    for group in groups(extra):
        if group == MAIN_GROUPS[0]:
            lines += ["", "groups of every experiment (* is the default):"]
        elif group == groups(extra)[len(MAIN_GROUPS)]:
            lines += ["", "further groups; group=[a,b] selects several where the default is a list:"]
        lines.append(f"  {group}=" + ("" if chosen.get(group, "null") != "[]" else "[...]"))
        for name, text in options(group, extra).items():
            star = "*" if name in chosen.get(group, "").strip("[]").split(",") else " "
            lines.append(f"   {star} {name:<20} {text}")
    lines += ["", "sweeps, with -m: key=a,b; range(0,3); interval(0,1) where a sweeper proposes the values:"]
    for group in ("hydra/sweeper", "sweep"):
        lines += [f"  {group}=", *(f"     {name:<20} {text}" for name, text in options(group, extra).items())]
    lines += ["  hydra/launcher=", *(f"     {name:<20} {text}" for name, (text, _) in LAUNCHERS.items())]
    lines += [f"  sweep.{name:<20} {text}" for name, text in OF_A_SWEEP.items()]
    lines += ["", "keys: ganrun --cfg job prints them all; each is explained in its YAML", "", "flags:", FLAGS]
    return "\n".join([*lines, "", "examples:", EXAMPLES])
