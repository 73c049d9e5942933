"""Runs Hydra, and turns what it refuses into one line that names the nearest valid choice."""

import os
import re
import sys
from collections.abc import Callable
from typing import NoReturn

import hydra
from hydra import compose, initialize_config_dir
from hydra._internal.utils import get_args_parser
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import (
    MissingConfigException,
    OverrideParseException,
)
from omegaconf import DictConfig, OmegaConf

from ganrun.configs import config_dir, config_dirs_of, groups, options
from ganrun.errors import UserError, one_of

FLAGS = ("-m", "--multirun", "-c", "--cfg", "-p", "--package", "-r", "--run", "--resolve", "-cd", "--config-dir", "-sc",
         "--shell-completion", "-i", "--info", "--hydra-help")  # fmt: skip
OPEN = ("launcher", "sweeper")  # what of Hydra's own config does not decide where and how ganrun writes


def run_hydra(config_name: str, args: list[str], task: Callable[[DictConfig], None]) -> None:
    """Composes the config that `args` ask for and calls `task` with it: once, or for each job of a sweep.

    Raises UserError for what cannot be composed; whatever `task` raises passes through.
    """
    os.environ["HYDRA_FULL_ERROR"] = "1"  # exceptions come through as they are
    argv, sys.argv = sys.argv, [sys.argv[0], *args]
    raised: list[Exception] = []

    def guarded(cfg: DictConfig) -> None:
        try:
            task(cfg)
        except Exception as error:  # kept from Hydra, which would print about it; raised again below
            raised.append(error)

    try:
        hydra.main(version_base="1.3", config_path=str(config_dir()), config_name=config_name)(guarded)()
    except Exception as error:  # Hydra's own: the task's are kept
        raise UserError(explain(error, config_name, args)) from error
    finally:
        sys.argv = argv
        GlobalHydra.instance().clear()
    if raised:
        raise raised[0]


def refuse_flags(args: list[str]) -> None:
    for arg in args:
        if arg.startswith("-") and arg.partition("=")[0] not in FLAGS:
            raise UserError(f"{arg}: there is no such flag; {one_of(FLAGS, arg)}; keys have no dashes: key=value")
    parser = get_args_parser()
    parser.error = _refuse  # argparse would print its usage
    try:
        overrides = OverridesParser.create().parse_overrides(parser.parse_args(args).overrides)
    except Exception as error:  # Hydra's grammar raises more than its own exceptions
        raise UserError(explain(error, "", args)) from error
    for override in overrides:
        head, *rest = re.split(r"[./]", override.key_or_group)
        if head == "hydra" and rest[:1] not in ([name] for name in OPEN):
            raise UserError(
                f"{override.input_line}: ganrun sets it; use run_dir=<directory> for where a run lies; open are "
                f"{', '.join(f'hydra/{name} and hydra.{name}.*' for name in OPEN)}"
            )


def _refuse(message: str) -> NoReturn:
    raise UserError(f"{message}; see ganrun --help")


def explain(error: Exception, config_name: str, args: list[str]) -> str:
    """One line: what was got, what is valid, nearest first."""
    if isinstance(error, MissingConfigException) and error.missing_cfg_file:
        group, _, option = str(error.missing_cfg_file).rpartition("/")
        valid = options(group, config_dirs_of(args)) or error.options or []
        return f"{group}={option}: there is no such option; {one_of(valid, option)}"
    if isinstance(error, OverrideParseException):
        advice = "" if "=" in error.override else "; expected key=value or group=option"
        return f"{error.override}: not an override{advice}; {str(error).splitlines()[0]}"
    text = str(error)
    if "Config group override must be" in text:
        wrong = [arg for arg in args if arg.partition("=")[0] in groups()] or [a for a in args if a.startswith("=")]
        return f"{', '.join(wrong) or text}: a group takes the name of an option; see ganrun --help"
    override = re.search(r"Could not (?:override|append|delete|set) '([^']+)'", text)
    key = re.search(r"Key '([^']+)' is not in struct\s+full_key: (\S+)", text)
    if key:
        return _unknown(key[2], config_name, args)
    if override:
        return _unknown(override[1].split("=")[0].split("@")[0], config_name, args)
    return "; ".join(line.strip() for line in text.splitlines() if line.strip())


def _unknown(key: str, config_name: str, args: list[str]) -> str:
    """A key that does not exist with the options that `args` choose: the nearest ones that do, and the groups."""
    group, _, rest = key.partition(".")
    if rest and rest.split(".")[0] in options(group):
        name = rest.split(".")[0]
        return f"{key}: {name} is not selected; add {group}=[{name}] to the command"
    pairs = [arg.partition("=") for arg in args]
    chosen = [f"{group}={option}" for group, _, option in pairs if group in groups() and option in options(group)]
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(config_dir()), version_base="1.3"):
        known = set(groups()) | set(flat_keys(compose(config_name, chosen)))
    head, _, leaf = key.rpartition(".")
    siblings = {name for name in known if name.startswith(f"{head}.")} if head else {k for k in known if "." not in k}
    same_leaf = {name for name in known if name.rpartition(".")[2] == leaf}
    nearest = f"did you mean {' or '.join(sorted(same_leaf)[:3])}? " if same_leaf and key not in same_leaf else ""
    return f"{key}: there is no such key; {nearest}{one_of(siblings or known, key)}"


def flat_keys(node: DictConfig, prefix: str = "") -> list[str]:
    """All dotted keys below a node."""
    keys = []
    for key in node:
        keys.append(f"{prefix}{key}")
        if OmegaConf.is_dict(node._get_node(key)):
            keys += flat_keys(node[key], f"{prefix}{key}.")
    return [key for key in keys if not key.rpartition(".")[2].startswith("_")]
