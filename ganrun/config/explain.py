"""Explains Hydra's errors in one line: the value got, what is valid, nearest first, and what to type instead."""

import re
import shlex
from collections.abc import Callable
from pathlib import Path

import yaml
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import MissingConfigException, OverrideParseException
from omegaconf import DictConfig, OmegaConf

from ganrun.config.choices import FROM_OTHERS
from ganrun.config.groups import (
    LAUNCHERS,
    bringers,
    comes_with,
    config_dir,
    config_dirs_of,
    defaults,
    groups,
    keys,
    options,
)
from ganrun.config.own_configs import told
from ganrun.config.places import quote
from ganrun.errors import one_of

NAMED = re.compile(r"Could not (?:override|append|delete|set) (?:from config\. )?'([^']+)'")


def explain(error: Exception, config_name: str, args: list[str]) -> str:
    """The line for one of Hydra's errors."""
    if isinstance(error, MissingConfigException) and error.missing_cfg_file:
        return missing(error, args)
    if isinstance(error, OverrideParseException):
        if found := re.match(r"([+~]*[\w.-]+)\.(\d[\w-]*(?:\.[\w-]+)*)=(.*)", error.override, re.S):
            name, *below = found[2].split(".")
            node = f"{name}: " + "".join(f"{{{key}: " for key in below) + found[3] + "}" * len(below)
            line = shlex.quote(f"{found[1]}={{{node}}}")
            return f"{error.override}: a name in a key cannot begin with a digit here; give {line}"
        return (
            f"{error.override}: not an override; expected group=option or key=value (+key=value adds a key, ~key "
            "removes it); a value with special characters goes in quotes of its own: \"key='...'\""
        )
    if isinstance(error, yaml.YAMLError):
        return told(error)
    text = " ".join(str(error).split())
    for pattern, tell in TOLD:
        found = re.search(pattern, text)
        if found:
            return tell(found, config_name, args) or text
    return "; ".join(line.strip() for line in str(error).splitlines() if line.strip())


def missing(error: MissingConfigException, args: list[str]) -> str:
    """The line for an option that does not exist."""
    group, _, option = str(error.missing_cfg_file).rpartition("/")
    extra = config_dirs_of(args)
    typed = next((arg.partition("=")[2] for arg in args if arg.startswith("dataset=")), "")
    if group.startswith("dataset") and typed.endswith(option) and Path(typed).expanduser().exists():
        return f"dataset={typed}: a place is no option; give dataset=image-folder dataset.path={quote(typed)}"
    if group == "hydra/launcher" and option in LAUNCHERS:
        return f"{group}={option}: not installed; pip install 'ganrun[{LAUNCHERS[option][1]}]'"
    if group.startswith("dataset/") and "/" in typed and typed.endswith(option):
        return f"dataset={typed}: there is no such option, and no such folder; {one_of(options('dataset', extra), '')}"
    place = re.match(r"In '([^']+)'", str(error))
    where = f" (in the defaults of {place[1]}.yaml)" if place and place[1] not in ("train", "evaluate") else ""
    valid = ["basic", *LAUNCHERS] if group == "hydra/launcher" else options(group, extra) or error.options or []
    if not valid:
        return f"{group}={option}: there is no such group{where}; {one_of(groups(extra), group)}"
    file = next((file for folder in extra if (file := folder / group / f"{option}.yml").exists()), None)
    if file:
        return f"{group}={option}: {file} must end in .yaml; rename it"
    return f"{group}={option}: there is no such option{where}; {one_of(valid, option.removesuffix('.yaml'))}"


def several_values(found: re.Match, config_name: str, args: list[str]) -> str:
    key, _, value = found[1].partition("=")
    sweep = f"to sweep over them add -m: ganrun -m {found[1]}; " if config_name == "train" else ""
    return f"{found[1]}: expected one value; {sweep}a list goes in brackets: {key}=[{value}]"


def no_option(found: re.Match, config_name: str, args: list[str]) -> str | None:
    wrong = [arg for arg in args if arg.partition("=")[0] in groups()] or [a for a in args if a.startswith("=")]
    if len(wrong) != 1 or not options(wrong[0].partition("=")[0]):
        return f"{', '.join(wrong)}: a group takes the name of an option; see ganrun --help" if wrong else None
    group, _, value = wrong[0].partition("=")
    return f"{wrong[0]}: a group takes the name of an option; {one_of(options(group), value)}"


def is_there(found: re.Match, config_name: str, args: list[str]) -> str:
    typed = next((arg for arg in args if arg.startswith(f"+{found[1]}=")), f"+{found[1]}=")
    return f"{typed}: {found[1]} is there already; leave out the +: {typed[1:]}"


def not_chosen(found: re.Match, config_name: str, args: list[str]) -> str | None:
    group = found[1]
    if defaults().get(group, "").startswith("["):
        return f"~{group}: it is a list; {group}=[] selects none"
    return _unknown(group.partition("=")[0].partition("@")[0], config_name, args)


def no_key(found: re.Match, config_name: str, args: list[str]) -> str | None:
    return _unknown(found[1].split("=")[0].split("@")[0], config_name, args)


def leads_nowhere(found: re.Match, config_name: str, args: list[str]) -> str:
    key, reader = found[1], found[2]
    if f"~{key}" in [arg.partition("=")[0] for arg in args]:
        return f"~{key}: it cannot be removed, {reader} is taken from it; give {key}=<value>"
    known = set(groups()) | {name.partition("=")[0] for name in keys(config_name or "train")}
    return f"{reader}=${{{key}}}: there is no key {key}; {one_of(known, key)}"


TOLD: list[tuple[str, Callable[[re.Match, str, list[str]], str | None]]] = [
    (r"Ambiguous value for argument '(.+?)' 1\.", several_values),
    (r"Config group override must be", no_option),
    (r"An item is already at '([^']+)'", is_there),
    (r"Multiple values for ([^ ]+)\. To override", is_there),
    (r"Could not delete '([^']+)'\. No match", not_chosen),
    (r"Could not delete from config\. '([^']+)' does not exist", no_key),
    (r"Key '[^']+' is not in struct full_key: (\S+)", no_key),
    (r"Interpolation key '([^']+)' not found full_key: (\S+)", leads_nowhere),
    (NAMED.pattern, no_key),
]


def known_keys(config_name: str, args: list[str]) -> list[str]:
    """All dotted keys, given ganrun's own options that the command line chooses."""
    own = set(groups()) if config_name == "train" else set(defaults(config_name))  # `sample`, say, takes none
    pairs = [arg.partition("=") for arg in args]
    chosen = [f"{group}={option}" for group, _, option in pairs if group in own and is_choice(group, option)]
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(config_dir()), version_base="1.3"):
        return flat_keys(compose(config_name, chosen))


def _unknown(key: str, config_name: str, args: list[str]) -> str | None:
    """The line for a key that does not exist with the options in `args`: the nearest keys, and the groups.

    None if the key exists, so that something else is wrong.
    """
    group, _, rest = key.partition(".")
    name = rest.split(".")[0]
    if rest and options(key.replace(".", "/")):
        return f"{key}: it is chosen by {group}/{rest}=<option>; {one_of(options(key.replace('.', '/')), '')}"
    own = set(groups()) if config_name == "train" else set(defaults(config_name))
    known = own | set(known_keys(config_name, args))
    if rest and f"{group}.{name}" not in known:
        if name in options(group):
            return f"{key}: {name} is not selected; add {group}=[{name}] to the command"
        if options(f"{group}/{name}"):
            return f"{key}: choose {group}/{name}=<option> too; {one_of(options(f'{group}/{name}'), '')}"
    if config_name == "train" and key not in known and (brought := bringers(key)):
        return comes_with(key, brought)
    return None if key in known else _nearest(key, known)


def _nearest(key: str, known: set[str]) -> str:
    head, _, leaf = key.rpartition(".")
    siblings = {name for name in known if name.startswith(f"{head}.")} if head else {k for k in known if "." not in k}
    if head in groups() and not siblings:
        return f"{key}: there is no such key; choose an option first, as in {_first(head, leaf)}"
    same_leaf = sorted(name for name in known if name.rpartition(".")[2] == leaf and name != key)
    elsewhere = [FROM_OTHERS[key]] if FROM_OTHERS.get(key) in known else same_leaf[:3]
    if elsewhere:
        return f"{key}: there is no such key; did you mean {' or '.join(elsewhere)}? {one_of(siblings or known, '')}"
    return f"{key}: there is no such key; {one_of(siblings or known, key)}"


def _first(group: str, leaf: str) -> str:
    """Words that choose an option, one with this key if possible, and set the key."""
    if defaults().get(group, "").startswith("["):
        example = next(iter(options(group)), "")
        return f"{group}=[{example}] {group}.{example}.{leaf}="
    having = [name for name in options(group) if leaf in OmegaConf.load(config_dir() / group / f"{name}.yaml")]
    return f"{group}={next(iter([*having, *options(group)]), '')} {group}.{leaf}="


def is_choice(group: str, value: str) -> bool:
    """Is the value an existing option, or a list of them?"""
    return set(value.strip("[]").split(",")) <= {*options(group), ""}


def flat_keys(node: DictConfig, prefix: str = "") -> list[str]:
    """All dotted keys below a node."""
    found = []
    for key in node:
        found.append(f"{prefix}{key}")
        if OmegaConf.is_dict(node._get_node(key)):
            found += flat_keys(node[key], f"{prefix}{key}.")
    return [key for key in found if not key.rpartition(".")[2].startswith("_")]
