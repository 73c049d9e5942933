"""Runs Hydra, and turns its errors into one line that names the nearest valid choice."""

import io
import os
import re
import sys
from argparse import Namespace
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, redirect_stderr
from typing import Any, NoReturn

import hydra
from hydra._internal.hydra import Hydra
from hydra._internal.utils import get_args_parser
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, QuotedString
from omegaconf import DictConfig

from ganrun.config.choices import as_key
from ganrun.config.explain import explain
from ganrun.config.groups import config_dir, groups
from ganrun.config.own_configs import check_own
from ganrun.config.places import as_text
from ganrun.errors import UserError, one_of

FLAGS = ("-m", "--multirun", "-c", "--cfg", "-p", "--package", "-r", "--run", "--resolve", "-cd", "--config-dir", "-sc",
         "--shell-completion", "-i", "--info", "--hydra-help")  # fmt: skip
CONFIG_NAMES = ("--config-name", "-cn", "--config-path", "-cp")  # Hydra's own, for other programs
OPEN = ("launcher", "sweeper")  # the parts of Hydra's own config that do not decide where and how ganrun writes


def run_hydra(config_name: str, args: list[str], task: Callable[[DictConfig], None]) -> None:
    """Composes the config from `args` and calls `task` with it: once, or for each job of a sweep.

    Raises UserError if it cannot be composed; whatever `task` raises passes through.
    """
    os.environ["HYDRA_FULL_ERROR"] = "1"  # exceptions come through as they are
    argv, sys.argv = sys.argv, [sys.argv[0], *ordered(args)]
    raised: list[Exception] = []

    def guarded(cfg: DictConfig) -> None:
        try:
            task(cfg)
        except Exception as error:  # kept from Hydra, which would print it; raised again below
            raised.append(error)

    said = redirect_stderr(io.StringIO()) if parsed(args).cfg else nullcontext()
    try:
        with said as words, composing_once():
            hydra.main(version_base="1.3", config_path=str(config_dir()), config_name=config_name)(guarded)()
    except SystemExit as ended:
        if ended.code and words:
            raise UserError(words.getvalue()) from ended
        raise
    except Exception as error:  # one of Hydra's own: the task's errors are kept above
        raise UserError(explain(error, config_name, args)) from error
    finally:
        sys.argv = argv
        GlobalHydra.instance().clear()
    if raised:
        raise raised[0]


def composed(config_name: str, args: list[str]) -> DictConfig | None:
    """The config of a command that does one thing at a time; None = Hydra itself answered, as for --cfg job.

    Raises UserError if it cannot be composed.
    """
    args = [as_text(arg) if arg.startswith("label=") else arg for arg in args]  # a class may be named 003 or true
    refuse_flags(args, sweeps=False)
    found: list[DictConfig] = []
    run_hydra(config_name, args, found.append)
    return found[0] if found else None


@contextmanager
def composing_once() -> Iterator[None]:
    """Stops Hydra from composing the whole config again only to read hydra.mode; here -m alone decides it."""
    get_mode, Hydra.get_mode = Hydra.get_mode, lambda *args, **settings: None
    try:
        yield
    finally:
        Hydra.get_mode = get_mode


def refuse_flags(args: list[str], *, sweeps: bool = True) -> None:
    """Refuses flags that do not exist or do nothing. sweeps: does the command run -m?"""
    for arg, following in zip(args, [*args[1:], ""], strict=False):
        if any("\ud800" <= character <= "\udfff" for character in arg):
            raise UserError(f"{arg!a}: not UTF-8, in which a run's config is written")
        if arg.startswith("-") and arg.partition("=")[0] not in FLAGS:
            raise UserError(no_flag(arg, following))
    check_own(args)
    try:
        flags = parsed(args)
        overrides = OverridesParser.create().parse_overrides(flags.overrides)
    except Exception as error:  # Hydra's grammar raises more than its own exceptions
        raise UserError(explain(error, "", args)) from error
    if flags.package is not None and not flags.cfg:
        raise UserError(f"--package {flags.package}: it says what --cfg prints; expected --cfg job --package <key>")
    if not sweeps:
        refuse_sweep(flags, overrides)
    for override in overrides:
        refuse_override(override, flags.multirun)


def no_flag(arg: str, following: str) -> str:
    """What to type in place of a flag that does not exist."""
    flag, _, value = arg.partition("=")
    key = as_key(flag)
    if flag in CONFIG_NAMES:
        return f"{flag}: experiment=<name> chooses a setup; --config-dir <folder> adds configs of your own"
    if key:
        value = value or (following if following and not following.startswith("-") else "<value>")
        return f"{flag}: there is no such flag; keys have no dashes: {key}={value}"
    return f"{flag}: there is no such flag; {one_of(FLAGS, flag)}; keys have no dashes: key=value"


def refuse_sweep(flags: Namespace, overrides: list[Override]) -> None:
    """Refuses everything that would start or control a sweep, for a command without sweeps."""
    if flags.multirun:
        raise UserError("-m: this command does one thing at a time; leave it out")
    for override in overrides:
        if override.is_sweep_override():
            raise UserError(f"{override.input_line}: expected one value; a list goes in brackets: key=[a,b]")
        if re.split(r"[./]", override.key_or_group)[0] == "hydra":
            raise UserError(f"{override.input_line}: there is no such key")


def refuse_override(override: Override, multirun: bool) -> None:
    """Refuses lists that are not option names of a group, and overrides of where and how ganrun writes."""
    value = override.value()
    if override.key_or_group in groups() and isinstance(value, list) and not all(map(is_text, value)):
        raise UserError(f"{override.input_line}: a group takes the names of options; see ganrun --help")
    head, *rest = re.split(r"[./]", override.key_or_group)
    if head == "hydra" and rest[:1] not in ([name] for name in OPEN):
        raise UserError(
            f"{override.input_line}: ganrun sets it; use run_dir=<directory> for where a run lies; open are "
            f"{', '.join(f'hydra/{name} and hydra.{name}.*' for name in OPEN)}"
        )
    if override.key_or_group.startswith("hydra") and not multirun:
        raise UserError(f"{override.input_line}: it acts in sweeps; add -m, or leave it out")


def is_text(value: Any) -> bool:
    return isinstance(value, str | QuotedString)


def ordered(args: list[str]) -> list[str]:
    """Overrides first, then flags: Hydra's parser rejects overrides on both sides of a flag."""
    overrides, flags = parsed(args).overrides, [*args]
    for override in overrides:
        flags.remove(override)
    parsed([*overrides, *flags])
    return [*overrides, *flags]


def parsed(args: list[str]) -> Namespace:
    """The result of Hydra's parser, without its usage message. Raises UserError."""
    parser = get_args_parser()
    parser.error = _refuse
    return parser.parse_intermixed_args(args)


def _refuse(message: str) -> NoReturn:
    raise UserError(f"{message}; see ganrun --help")
