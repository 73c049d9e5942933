"""Runs Hydra, and turns what it refuses into one line that names the nearest valid choice."""

import io
import os
import re
import sys
from argparse import Namespace
from collections.abc import Callable
from contextlib import nullcontext, redirect_stderr
from typing import Any, NoReturn

import hydra
from hydra import compose, initialize_config_dir
from hydra._internal.utils import get_args_parser
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, QuotedString
from hydra.errors import (
    MissingConfigException,
    OverrideParseException,
)
from omegaconf import DictConfig, OmegaConf

from ganrun.configs import config_dir, config_dirs_of, defaults, groups, options
from ganrun.errors import UserError, one_of

FLAGS = ("-m", "--multirun", "-c", "--cfg", "-p", "--package", "-r", "--run", "--resolve", "-cd", "--config-dir", "-sc",
         "--shell-completion", "-i", "--info", "--hydra-help")  # fmt: skip
PLUGINS = {"joblib": "hydra-joblib-launcher", "submitit_local": "hydra-submitit-launcher",
           "submitit_slurm": "hydra-submitit-launcher"}  # fmt: skip
OPEN = ("launcher", "sweeper")  # what of Hydra's own config does not decide where and how ganrun writes


def run_hydra(config_name: str, args: list[str], task: Callable[[DictConfig], None]) -> None:
    """Composes the config that `args` ask for and calls `task` with it: once, or for each job of a sweep.

    Raises UserError for what cannot be composed; whatever `task` raises passes through.
    """
    os.environ["HYDRA_FULL_ERROR"] = "1"  # exceptions come through as they are
    argv, sys.argv = sys.argv, [sys.argv[0], *ordered(args)]
    raised: list[Exception] = []

    def guarded(cfg: DictConfig) -> None:
        try:
            task(cfg)
        except Exception as error:  # kept from Hydra, which would print about it; raised again below
            raised.append(error)

    said = redirect_stderr(io.StringIO()) if parsed(args).cfg else nullcontext()
    try:
        with said as words:
            hydra.main(version_base="1.3", config_path=str(config_dir()), config_name=config_name)(guarded)()
    except SystemExit as ended:
        if ended.code and words:
            raise UserError(words.getvalue()) from ended
        raise
    except Exception as error:  # Hydra's own: the task's are kept
        raise UserError(explain(error, config_name, args)) from error
    finally:
        sys.argv = argv
        GlobalHydra.instance().clear()
    if raised:
        raise raised[0]


def refuse_flags(args: list[str], *, sweeps: bool = True) -> None:
    """Refuses flags that do not exist or do nothing. sweeps: does the command run -m?"""
    for arg in args:
        if any("\ud800" <= character <= "\udfff" for character in arg):
            raise UserError(f"{arg!a}: not UTF-8, in which a run's config is written")
        if arg.startswith("-") and arg.partition("=")[0] not in FLAGS:
            raise UserError(f"{arg}: there is no such flag; {one_of(FLAGS, arg)}; keys have no dashes: key=value")
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


def refuse_sweep(flags: Namespace, overrides: list[Override]) -> None:
    """Refuses, for a command that does one thing at a time, all that would make or steer a sweep."""
    if flags.multirun:
        raise UserError("-m: this command does one thing at a time; leave it out")
    for override in overrides:
        if override.is_sweep_override():
            raise UserError(f"{override.input_line}: expected one value; a list goes in brackets: key=[a,b]")
        if re.split(r"[./]", override.key_or_group)[0] == "hydra":
            raise UserError(f"{override.input_line}: there is no such key")


def refuse_override(override: Override, multirun: bool) -> None:
    """Refuses lists of anything but names for a group, and what would change where and how ganrun writes."""
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
    """Overrides first, then flags: Hydra's parser takes no override after a flag that follows one."""
    overrides, flags = parsed(args).overrides, [*args]
    for override in overrides:
        flags.remove(override)
    parsed([*overrides, *flags])
    return [*overrides, *flags]


def parsed(args: list[str]) -> Namespace:
    """By Hydra's parser, which would print its usage. Raises UserError."""
    parser = get_args_parser()
    parser.error = _refuse
    return parser.parse_intermixed_args(args)


def _refuse(message: str) -> NoReturn:
    raise UserError(f"{message}; see ganrun --help")


def explain(error: Exception, config_name: str, args: list[str]) -> str:
    """One line: what was got, what is valid, nearest first."""
    if isinstance(error, MissingConfigException) and error.missing_cfg_file:
        group, _, option = str(error.missing_cfg_file).rpartition("/")
        if group == "hydra/launcher" and option in PLUGINS:
            return f"{group}={option}: not installed; pip install {PLUGINS[option]}"
        valid = options(group, config_dirs_of(args)) or error.options or []
        return f"{group}={option}: there is no such option; {one_of(valid, option)}"
    if isinstance(error, OverrideParseException):
        return (
            f"{error.override}: not an override; expected group=option or key=value (+key=value adds a key, ~key "
            "removes it); a value with special characters goes in quotes of its own: \"key='...'\""
        )
    text = str(error)
    told = "; ".join(line.strip() for line in text.splitlines() if line.strip())
    if "Config group override must be" in text:
        wrong = [arg for arg in args if arg.partition("=")[0] in groups()] or [a for a in args if a.startswith("=")]
        return f"{', '.join(wrong) or text}: a group takes the name of an option; see ganrun --help"
    override = re.search(r"Could not (?:override|append|delete|set) '([^']+)'", text)
    key = re.search(r"Key '([^']+)' is not in struct\s+full_key: (\S+)", text)
    if key:
        return _unknown(key[2], config_name, args) or told
    if override:
        return _unknown(override[1].split("=")[0].split("@")[0], config_name, args) or told
    return told


def _unknown(key: str, config_name: str, args: list[str]) -> str | None:
    """A key that does not exist with the options that `args` choose: the nearest ones that do, and the groups.

    None if it does exist, so that something else about it is wrong.
    """
    group, _, rest = key.partition(".")
    name = rest.split(".")[0]
    if rest and options(key.replace(".", "/")):
        return f"{key}: it is chosen by {group}/{rest}=<option>; {one_of(options(key.replace('.', '/')), '')}"
    own = set(groups()) if config_name == "train" else set(defaults(config_name))  # sampling, say, takes none
    pairs = [arg.partition("=") for arg in args]
    chosen = [f"{group}={option}" for group, _, option in pairs if group in own and is_choice(group, option)]
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(config_dir()), version_base="1.3"):
        known = own | set(flat_keys(compose(config_name, chosen)))
    if rest and f"{group}.{name}" not in known:
        if name in options(group):
            return f"{key}: {name} is not selected; add {group}=[{name}] to the command"
        if options(f"{group}/{name}"):
            return f"{key}: choose {group}/{name}=<option> too; {one_of(options(f'{group}/{name}'), '')}"
    if key in known:
        return None
    head, _, leaf = key.rpartition(".")
    siblings = {name for name in known if name.startswith(f"{head}.")} if head else {k for k in known if "." not in k}
    same_leaf = {name for name in known if name.rpartition(".")[2] == leaf}
    nearest = f"did you mean {' or '.join(sorted(same_leaf)[:3])}? " if same_leaf and key not in same_leaf else ""
    return f"{key}: there is no such key; {nearest}{one_of(siblings or known, key)}"


def is_choice(group: str, value: str) -> bool:
    """Options that exist, one or a list."""
    return set(value.strip("[]").split(",")) <= {*options(group), ""}


def flat_keys(node: DictConfig, prefix: str = "") -> list[str]:
    """All dotted keys below a node."""
    keys = []
    for key in node:
        keys.append(f"{prefix}{key}")
        if OmegaConf.is_dict(node._get_node(key)):
            keys += flat_keys(node[key], f"{prefix}{key}.")
    return [key for key in keys if not key.rpartition(".")[2].startswith("_")]
