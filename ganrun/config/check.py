"""Checks a composed config, so that no key is silently ignored; errors name the key, the value and what is valid."""

import inspect
import logging
import re
from collections.abc import Iterable
from dataclasses import fields
from typing import Any, get_type_hints

from hydra.utils import get_object
from omegaconf import DictConfig, ListConfig, OmegaConf

from ganrun.config import rules  # noqa: F401  its resolvers
from ganrun.config.groups import bringers, comes_with, config_dir, groups, options
from ganrun.config.settings import Settings, check_values
from ganrun.config.typed import check_finite, check_place, check_type, is_ramp, players_of, spelt
from ganrun.errors import UserError, one_of

MULTI_SELECT = ("penalty", "augment", "presentation", "head", "term", "metric", "callbacks", "logger")
NEEDED = ("dataset", "pairs", "generator", "discriminator", "loss", "optimizer", "recipe", "noise", "schedule",
          "conditional", "ema", "trainer", *MULTI_SELECT)  # fmt: skip
PLACES = ("run_dir", "data_dir", "cache_dir", "init_from", "dataset.path", "dataset.source", "dataset.labels",
          "dataset.cache")  # fmt: skip
PLAIN = ("optimizer", "critic", "conditional")  # nodes whose keys act only where another node reads them


def check(cfg: DictConfig, overrides: Iterable[str] = ()) -> list[str]:
    """Raises UserError for the first error; drops leftovers of presets; returns warnings.

    overrides: what the user typed, such as "optimizer.lr=1e-4".
    """
    overrides = list(overrides)
    typed = {key.lstrip("+~"): value for key, _, value in (override.partition("=") for override in overrides)}
    OmegaConf.set_struct(cfg, False)
    for name in NEEDED:
        if not isinstance(cfg.get(name), DictConfig):
            raise UserError(no_option(name, cfg.get(name)))
    if cfg.get("resume"):  # otherwise it is handled before Hydra
        raise UserError(f"resume={cfg.resume}: give it bare, as resume=<run directory or .ckpt>")
    refuse_lists(overrides)
    if cfg.ema and not is_option(cfg.ema):
        raise UserError(f"ema={OmegaConf.to_container(cfg.ema)}: ema is off; choose ema=average to set its keys")
    if cfg.pairs and not is_option(cfg.pairs):
        raise UserError(f"pairs={OmegaConf.to_container(cfg.pairs)}: pairs is off; choose pairs=colorize or another")
    drop_leftovers(cfg, typed)
    check_settings(cfg)
    for name in cfg:
        if isinstance(cfg[name], DictConfig):
            check_targets(cfg[name], name)
    check_finite(OmegaConf.to_container(cfg, resolve=True))
    check_labels(cfg)
    check_heads(cfg)
    check_generator_batch(cfg)
    return check_unread(cfg, typed) + check_shadowed(cfg, typed) + check_stale(cfg, typed)


def no_option(name: str, got: Any) -> str:
    """What is wrong with a group that is not composed."""
    if got is None:
        return f"{name} is missing; choose one: {name}=<option>; {one_of(options(name), '')}"
    if got in options(name):
        return f"{name}={got}: in a YAML an option is chosen in the defaults list, as `- override /{name}: {got}`"
    return f"{name}={got}; expected the keys of an option; {one_of(options(name), '')}"


def recheck(cfg: DictConfig) -> None:
    """Checks types and smallest values of a saved config with changed values; it has no interpolations left."""
    check_values(cfg)
    for name in cfg:
        if isinstance(cfg[name], DictConfig):
            check_targets(cfg[name], name)


def refuse_lists(overrides: Iterable[str]) -> None:
    """Refuses lists such as loss=[hinge,wgan], which Hydra would merge."""
    single = set(groups()) - set(MULTI_SELECT)
    for override in overrides:
        group, _, value = override.lstrip("+").partition("=")
        if group in single and value.startswith("["):
            raise UserError(f"{override}: {group} takes one option; to sweep over several: -m {group}={value[1:-1]}")


def drop_leftovers(cfg: DictConfig, typed: dict[str, str], of: Iterable[str] = MULTI_SELECT) -> None:
    """Drops a preset's values for options, such as penalties, no longer selected; refuses values typed for them."""
    for group in of:
        if typed.get(group, "").lstrip().startswith("{"):
            raise UserError(f"{group}={typed[group]}: name options, as in {group}=[{next(iter(options(group)))}]")
        for name in [name for name, node in cfg[group].items() if not is_option(node)]:
            if options(f"{group}/{name}"):
                got = cfg[group][name]
                valid = one_of(options(f"{group}/{name}"), str(got))
                raise UserError(f"{group}.{name}={got}: it is chosen by {group}/{name}=<option>; {valid}")
            if f"{group}.{name}" in typed and name in typed.get(group, ""):
                raise UserError(
                    f"{group}.{name}={cfg[group][name]}; expected one of its keys: {group}.{name}.<key>=<value>"
                )
            if any(f"{key}.".startswith(f"{group}.{name}.") for key in typed):
                raise UserError(f"{group}.{name}: {name} is not selected; add {group}=[{name}] to the command")
            del cfg[group][name]


def is_option(node: Any) -> bool:
    return isinstance(node, DictConfig) and "_target_" in node


def check_settings(cfg: DictConfig) -> None:
    """Checks the top level: known keys, their types and smallest values."""
    known = {field.name for field in fields(Settings)} | set(NEEDED) | {"critic"}
    read = _references(OmegaConf.to_container(cfg, resolve=False))
    for name in cfg:
        if name not in known and not any(path.split(".")[0] == name for path in read):
            if brought := bringers(str(name)):
                raise UserError(comes_with(str(name), brought))
            raise UserError(f"{name}: there is no such key; {one_of(known | set(groups()), str(name))}")
    check_values(cfg)
    for key in PLACES:
        check_place(key, OmegaConf.select(cfg, key))


def check_targets(node: DictConfig, path: str) -> None:
    """Checks that each key of a node with `_target_`, and below, is a parameter of the class and has its type."""
    if "_target_" in node:
        check_parameters(node, path)
    for key in node:
        if OmegaConf.is_missing(node, key) or OmegaConf.is_interpolation(node, key):
            continue
        below = node[key] if isinstance(node[key], ListConfig) else [node[key]]  # such as betas with a ramp
        for each in below:
            if isinstance(each, DictConfig):
                check_targets(each, f"{path}.{key}")


def check_parameters(node: DictConfig, path: str) -> None:
    parameters, hints, any_key = signature(node._target_, path)
    for key in (key for key in node if not str(key).startswith("_")):
        if key not in parameters and not any_key:
            raise UserError(f"{path}.{key}: there is no such key; {one_of(parameters, str(key))}")
        name = source_of(node, key) or f"{path}.{key}"
        if OmegaConf.is_missing(node, key):
            raise UserError(f"{path}.{key} must be given: {path}.{key}=<value>")
        value = node[key]
        found_later = value is None and OmegaConf.is_interpolation(node, key)  # such as an image folder's classes
        built = is_option(value) and not is_ramp(value)
        if key in hints and not built and not found_later:
            check_type(name, value, hints[key])


def source_of(node: DictConfig, key: str) -> str | None:
    """The key of the whole config from which a node's key takes its value, if it only refers to it."""
    raw = node._get_node(key)
    found = re.fullmatch(r"\$\{(\w+(?:\.[\w-]+)*)\}", str(raw._value())) if raw is not None else None
    return found[1] if found else None


def signature(target: str, path: str) -> tuple[list[str], dict[str, Any], bool]:
    """Parameter names and types of a `_target_`, and does it take any other keyword?"""
    logging.getLogger("hydra.utils").setLevel(logging.CRITICAL)  # it would print the same as the error below
    try:
        found = get_object(target)
        parameters = inspect.signature(found).parameters
        hints = get_type_hints(found.__init__ if isinstance(found, type) else found)
    except (ImportError, AttributeError, ValueError, TypeError, NameError) as error:
        raise UserError(f"{path}._target_={target} cannot be imported: {' '.join(str(error).split())}") from error
    names = [name for name, p in parameters.items() if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
    return names, hints, any(p.kind == p.VAR_KEYWORD for p in parameters.values())


def check_labels(cfg: DictConfig) -> None:
    """Raises UserError for labels that neither a network nor a recipe takes."""
    read = _references(OmegaConf.to_container(cfg, resolve=False))
    if cfg.conditional.key is not None and not any(path.startswith("conditional.") for path in read):
        raise UserError(f"conditional={cfg.conditional.key}: nothing in this experiment takes labels; leave it out")
    head = cfg.conditional.get("head", "concatenate")
    if head != "concatenate" and "conditional.head" not in read:
        raise UserError(
            f"conditional: this discriminator has no {head} of the label; try model=resnet or conditional=label"
        )
    if cfg.conditional.get("terms") and "conditional.terms" not in read:
        kind = cfg.recipe._target_.rpartition(".")[2]
        raise UserError(
            f"conditional: {kind} takes no loss on classes, {', '.join(cfg.conditional.terms)}; leave it out"
        )


def check_heads(cfg: DictConfig) -> None:
    """Raises UserError for layers beside the discriminator's last one in a recipe that does not read them."""
    if cfg.head and "head" not in _references(OmegaConf.to_container(cfg.recipe, resolve=False)):
        kind = cfg.recipe._target_.rpartition(".")[2]
        got = f"head=[{','.join(cfg.head)}]"
        if cfg.recipe._target_.startswith("ganrun."):
            raise UserError(f"{got}: the discriminator of recipe={kind.lower()} takes none; leave it out")
        raise UserError(f"{got}: {kind} does not read it; its adversary needs heads: ${{head}}")


def check_unread(cfg: DictConfig, typed: dict[str, str]) -> list[str]:
    """Values of plain nodes that nothing reads: refused if typed, else a warning about a preset's leftover."""
    warnings = []
    read = _references(OmegaConf.to_container(cfg, resolve=False))
    for group in PLAIN:
        for key in [key for key, value in cfg[group].items() if is_ramp(value) or not isinstance(value, DictConfig)]:
            path = f"{group}.{key}"
            if path in read:
                continue
            if path in typed:
                valid = options(path.replace(".", "/"))
                if valid:
                    raise UserError(f"{path}: it is chosen by {group}/{key}=<option>; {one_of(valid, '')}")
                siblings = [name for name in read if name.startswith(f"{group}.")]
                advice = f"; {one_of(siblings, path)}" if siblings else ""
                raise UserError(f"{path}: nothing in this experiment reads it{advice}")
            if group == "optimizer":
                warnings.append(f"{path}={cfg[group][key]} comes from a preset and does not act with this optimizer")
    return warnings


def _references(node: Any) -> set[str]:
    """All keys that `${key}` or `${oc.select:key,default}` name anywhere in a raw config."""
    if isinstance(node, dict):
        return set().union(*map(_references, node.values()))
    if isinstance(node, list):
        return set().union(*map(_references, node))
    if not isinstance(node, str) or "${" not in node:
        return set()
    return {part.split("}")[0].split(",")[0].removeprefix("oc.select:").strip() for part in node.split("${")[1:]}


def check_generator_batch(cfg: DictConfig) -> None:
    """Raises UserError for a number of fakes that a generator's move cannot have."""
    got = cfg.schedule.get("generator_batch")
    if got is not None and (type(got) is not int or got < cfg.batch_size):
        least = f"at least batch_size={cfg.batch_size}, the fakes that the other players see"
        raise UserError(f"schedule.generator_batch={spelt(got)}; expected {least}, or null for as many")


def check_stale(cfg: DictConfig, typed: dict[str, str]) -> list[str]:
    """With micro_batch or generator_batch each move generates anew; a schedule that reuses is refused if typed, else a
    warning.
    """
    sizes = {"micro_batch": cfg.micro_batch, "schedule.generator_batch": cfg.schedule.get("generator_batch")}
    given = [f"{key}={value}" for key, value in sizes.items() if value]
    if not (given and cfg.schedule.get("reuse_stale") is True):
        return []
    text = f"schedule.reuse_stale=true does not act with {given[0]}: each move generates anew"
    if "schedule.reuse_stale" in typed:
        raise UserError(text)
    return [text]


def check_shadowed(cfg: DictConfig, typed: dict[str, str]) -> list[str]:
    """Warnings about optimizer values of a preset that override what the user typed."""
    warnings = []
    option = config_dir() / "optimizer" / f"{typed.get('optimizer')}.yaml"
    own = {f"optimizer.{name}.lr" for name in ("generator", "discriminator")}
    if (
        option.exists()
        and "optimizer.lr" not in typed
        and not own <= typed.keys()
        and cfg.optimizer.lr != OmegaConf.load(option).lr
    ):
        warnings.append(
            f"optimizer.lr={cfg.optimizer.lr} comes from a preset, not from optimizer={typed['optimizer']} "
            f"({OmegaConf.load(option).lr}); give optimizer.lr= to choose"
        )
    players = {name: cfg.optimizer[name] for name in players_of(cfg)}
    for key in [path.removeprefix("optimizer.") for path in typed if path.startswith("optimizer.")]:
        for player in [name for name in players if key in players[name] and f"optimizer.{name}.{key}" not in typed]:
            if players[player][key] != cfg.optimizer[key]:
                warnings.append(
                    f"optimizer.{player}.{key}={players[player][key]} is set by a preset; optimizer.{key}="
                    f"{cfg.optimizer[key]} does not reach it: give optimizer.{player}.{key}="
                )
    return warnings
