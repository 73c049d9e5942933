"""Checks a composed config, so that no key is ignored in silence: names the key, what was got and what is valid."""

import inspect
import logging
import math
import types
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from hydra.utils import get_object
from omegaconf import DictConfig, ListConfig, OmegaConf

from ganrun.configs import config_dir, groups, options
from ganrun.errors import UserError, one_of

MULTI_SELECT = ("penalty", "augment", "term", "metric")
NEEDED = ("dataset", "generator", "discriminator", "loss", "optimizer", "recipe", "noise", "schedule", "conditional",
          "ema", "trainer", *MULTI_SELECT)  # fmt: skip
PLACES = ("run_dir", "data_dir", "cache_dir", "init_from", "dataset.path", "dataset.cache")
PLAIN = ("optimizer", "critic", "conditional")  # nodes whose keys act only where another node reads them


@dataclass
class CheckpointSettings:
    every: int
    keep: int | None


@dataclass
class EvaluateSettings:
    every: int
    num_samples: int
    num_real: int | None
    best_by: str | None
    patience: int | None


@dataclass
class CollapseSettings:
    every: int
    num_samples: int
    patience: int
    rollbacks: int
    lr_factor: float


@dataclass
class Settings:
    """The top level of train.yaml, besides the groups."""

    seed: int
    steps: int
    batch_size: int
    micro_batch: int | None
    data_dir: str
    cache_dir: str
    run_dir: str
    resume: str | None
    init_from: str | None
    deterministic: bool
    debug: bool
    log_every: int
    sample_every: int
    num_samples: int
    precision: str | int | None
    tf32: bool
    compile: bool | str | int | None
    channels_last: bool
    checkpoint: CheckpointSettings
    evaluate: EvaluateSettings
    on_collapse: Literal["warn", "stop", "rollback"] | None
    collapse: CollapseSettings


MINIMUM = {"seed": 0, "steps": 1, "batch_size": 1, "micro_batch": 1, "log_every": 1, "sample_every": 0,
           "num_samples": 1, "checkpoint.every": 0, "checkpoint.keep": 0, "evaluate.every": 0,
           "evaluate.num_samples": 1, "evaluate.num_real": 1, "evaluate.patience": 1, "collapse.every": 1,
           "collapse.num_samples": 16, "collapse.patience": 1, "collapse.rollbacks": 0}  # fmt: skip


def check(cfg: DictConfig, overrides: Iterable[str] = ()) -> list[str]:
    """Raises UserError for the first thing wrong; drops presets' leftovers; returns warnings.

    overrides: what the user typed, such as "optimizer.lr=1e-4".
    """
    overrides = list(overrides)
    typed = {key.lstrip("+~"): value for key, _, value in (override.partition("=") for override in overrides)}
    OmegaConf.set_struct(cfg, False)
    for name in NEEDED:
        if not isinstance(cfg.get(name), DictConfig):
            raise UserError(f"{name} is missing: {name}={cfg.get(name)}; {one_of(options(name), '')}")
    if cfg.get("resume"):  # else taken before Hydra
        raise UserError(f"resume={cfg.resume}: give it bare, as resume=<run directory or .ckpt>")
    refuse_lists(overrides)
    if cfg.ema and not is_option(cfg.ema):
        raise UserError(f"ema={OmegaConf.to_container(cfg.ema)}: ema is off; choose ema=average to set its keys")
    drop_leftovers(cfg, typed)
    check_settings(cfg)
    for name in cfg:
        if isinstance(cfg[name], DictConfig):
            check_targets(cfg[name], name)
    check_finite(OmegaConf.to_container(cfg, resolve=True))
    return check_unread(cfg, typed) + check_shadowed(cfg, typed)


def recheck(cfg: DictConfig) -> None:
    """A saved config with changed values: interpolations are gone, so only types and smallest values are checked."""
    check_values(cfg)
    for name in cfg:
        if isinstance(cfg[name], DictConfig):
            check_targets(cfg[name], name)


def refuse_lists(overrides: Iterable[str]) -> None:
    """Hydra would take loss=[hinge,wgan] and merge the two."""
    for override in overrides:
        group, _, value = override.lstrip("+").partition("=")
        if group in set(groups()) - set(MULTI_SELECT) and value.startswith("["):
            raise UserError(f"{override}: {group} takes one option; to sweep over several: -m {group}={value[1:-1]}")


def drop_leftovers(cfg: DictConfig, typed: dict[str, str], of: Iterable[str] = MULTI_SELECT) -> None:
    """A preset's values for a penalty that is no longer selected go; values that the user typed are refused."""
    for group in of:
        if typed.get(group, "").lstrip().startswith("{"):
            raise UserError(f"{group}={typed[group]}: name options, as in {group}=[{next(iter(options(group)))}]")
        for name in [name for name, node in cfg[group].items() if not is_option(node)]:
            if options(f"{group}/{name}"):
                got = cfg[group][name]
                valid = one_of(options(f"{group}/{name}"), str(got))
                raise UserError(f"{group}.{name}={got}: it is chosen by {group}/{name}=<option>; {valid}")
            if any(f"{key}.".startswith(f"{group}.{name}.") for key in typed):
                raise UserError(f"{group}.{name}: {name} is not selected; add {group}=[{name}] to the command")
            del cfg[group][name]


def is_option(node: Any) -> bool:
    return isinstance(node, DictConfig) and "_target_" in node


def check_settings(cfg: DictConfig) -> None:
    """The top level: known keys, their types and smallest values."""
    known = {field.name for field in fields(Settings)} | set(NEEDED) | {"critic"}
    read = _references(OmegaConf.to_container(cfg, resolve=False))
    for name in cfg:
        if name not in known and not any(path.split(".")[0] == name for path in read):
            raise UserError(f"{name}: there is no such key; {one_of(known | set(groups()), str(name))}")
    check_values(cfg)
    names = [str(name) for name in cfg.metric if name != "features"]
    if cfg.evaluate.best_by not in (None, *names):
        raise UserError(f"evaluate.best_by={cfg.evaluate.best_by}; {one_of(names, cfg.evaluate.best_by)}")
    for key in PLACES:
        check_place(key, OmegaConf.select(cfg, key))


def check_place(key: str, path: Any) -> None:
    """Refuses what cannot name a file, before a folder is made for a run."""
    try:
        Path(path or ".").expanduser().exists()
    except (OSError, RuntimeError, TypeError, ValueError) as error:  # too long, no such home, no text
        raise UserError(f"{key}={path}: {getattr(error, 'strerror', None) or error}; name another place") from error


def check_values(cfg: DictConfig) -> None:
    check_types(cfg, get_type_hints(Settings))
    check_minimum(cfg, MINIMUM)


def check_minimum(cfg: DictConfig, minimum: dict[str, int]) -> None:
    for key, least in minimum.items():
        value = OmegaConf.select(cfg, key)
        if value is not None and value < least:
            raise UserError(f"{key}={value}; expected at least {least}")
    check_collapse(cfg)


def check_collapse(cfg: DictConfig) -> None:
    if not 0 < cfg.collapse.lr_factor <= 1:
        raise UserError(f"collapse.lr_factor={cfg.collapse.lr_factor}; expected more than 0, up to 1 (1 = off)")
    metrics = [name for name in cfg.metric if name != "features"]
    if cfg.on_collapse == "rollback" and not (metrics and cfg.evaluate.every):
        got = f"evaluate.every={cfg.evaluate.every}" if metrics else "metric=[]"
        raise UserError(f"on_collapse=rollback goes back to the best score, and {got} gives none; or on_collapse=stop")


def check_known(node: DictConfig, known: Iterable[str], prefix: str = "") -> None:
    """No key but those."""
    for name in node:
        if name not in known:
            raise UserError(f"{prefix}{name}: there is no such key; {one_of(known, str(name))}")


def check_types(node: DictConfig, types_by_name: dict[str, Any], prefix: str = "") -> None:
    """Each of these keys is there and of its type; a dataclass stands for the keys of a node below."""
    for name, annotation in types_by_name.items():
        if OmegaConf.is_missing(node, name):
            raise UserError(f"{prefix}{name} must be given: {prefix}{name}=<value>")
        if name not in node:
            raise UserError(f"{prefix}{name} is missing; it cannot be removed")
        if is_dataclass(annotation):
            below = get_type_hints(annotation)
            if not isinstance(node[name], DictConfig):
                raise UserError(f"{name}={node[name]}; expected its keys: {one_of(below, '')}")
            check_known(node[name], below, f"{prefix}{name}.")
            check_types(node[name], below, f"{prefix}{name}.")
        else:
            check_type(f"{prefix}{name}", node[name], annotation)


def check_targets(node: DictConfig, path: str) -> None:
    """Every key of a node with `_target_`, and of the nodes below it, is a parameter of that class, of its type."""
    if "_target_" in node:
        check_parameters(node, path)
    for key in node:
        plain = not OmegaConf.is_missing(node, key) and not OmegaConf.is_interpolation(node, key)
        if plain and isinstance(node[key], DictConfig):
            check_targets(node[key], f"{path}.{key}")


def check_parameters(node: DictConfig, path: str) -> None:
    parameters, hints, any_key = signature(node._target_, path)
    for key in (key for key in node if not str(key).startswith("_")):
        if key not in parameters and not any_key:
            raise UserError(f"{path}.{key}: there is no such key; {one_of(parameters, str(key))}")
        if OmegaConf.is_missing(node, key):
            raise UserError(f"{path}.{key} must be given: {path}.{key}=<value>")
        found_later = node[key] is None and OmegaConf.is_interpolation(node, key)  # as an image folder's classes
        if key in hints and not is_option(node[key]) and not found_later:
            check_type(f"{path}.{key}", node[key], hints[key])


def signature(target: str, path: str) -> tuple[list[str], dict[str, Any], bool]:
    """Parameter names and types of a `_target_`, and whether it takes any other keyword too."""
    logging.getLogger("hydra.utils").setLevel(logging.CRITICAL)  # it would print what is told below
    try:
        found = get_object(target)
        parameters = inspect.signature(found).parameters
        hints = get_type_hints(found.__init__ if isinstance(found, type) else found)
    except (ImportError, AttributeError, ValueError, TypeError, NameError) as error:
        raise UserError(f"{path}._target_={target} cannot be imported: {' '.join(str(error).split())}") from error
    names = [name for name, p in parameters.items() if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
    return names, hints, any(p.kind == p.VAR_KEYWORD for p in parameters.values())


def check_type(key: str, value: Any, annotation: Any) -> None:
    if not matches(value, annotation):
        raise UserError(f"{key}={value}; expected {readable(annotation)}")


def matches(value: Any, annotation: Any) -> bool:
    """Is a config value of that type? Annotations that configs cannot hold, such as modules, match anything."""
    origin, args = get_origin(annotation), get_args(annotation)
    if origin in (Union, types.UnionType):
        return any(matches(value, arg) for arg in args)
    if origin is Literal:
        return value in args
    if annotation is type(None):
        return value is None
    if origin in (list, tuple, Sequence):
        element = args[0] if args else Any
        return isinstance(value, (list, tuple, ListConfig)) and all(matches(v, element) for v in value)
    if origin in (dict, Mapping):
        return isinstance(value, (dict, DictConfig))
    held = {float: (int, float), int: int, bool: bool, str: str}.get(annotation, object)
    return isinstance(value, held) and not (isinstance(value, bool) and annotation in (int, float))


def readable(annotation: Any) -> str:
    names = {int: "an integer", float: "a number", bool: "true or false", str: "text", type(None): "null"}
    args = get_args(annotation)
    if get_origin(annotation) in (Union, types.UnionType):
        return " or ".join(readable(arg) for arg in args)
    if get_origin(annotation) is Literal:
        return "one of " + ", ".join(map(str, args))
    if get_origin(annotation) in (list, tuple, Sequence):
        return f"a list of {readable(args[0]).removeprefix('a ').removeprefix('an ')}s" if args else "a list"
    return names.get(annotation, getattr(annotation, "__name__", str(annotation)))


def check_finite(node: Any, path: str = "") -> None:
    """No number is NaN or infinite: it would pass many a comparison and spoil the weights later."""
    if isinstance(node, float) and not math.isfinite(node):
        raise UserError(f"{path}={node}; expected a finite number")
    children = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for key, child in children:
        check_finite(child, f"{path}.{key}".lstrip("."))


def check_unread(cfg: DictConfig, typed: dict[str, str]) -> list[str]:
    """Values of plain nodes that nothing reads: refused if typed, else a preset's leftover worth a warning."""
    warnings = []
    read = _references(OmegaConf.to_container(cfg, resolve=False))
    for group in PLAIN:
        for key in [key for key, value in cfg[group].items() if not isinstance(value, DictConfig)]:
            path = f"{group}.{key}"
            if path in read:
                continue
            if path in typed:
                siblings = [name for name in read if name.startswith(f"{group}.")]
                advice = f"; {one_of(siblings, path)}" if siblings else ""
                raise UserError(f"{path}: nothing in this experiment reads it{advice}")
            if group == "optimizer":
                warnings.append(f"{path}={cfg[group][key]} comes from a preset and does not act with this optimizer")
    return warnings


def _references(node: Any) -> set[str]:
    """All keys that `${key}` or `${oc.select:key,default}` name somewhere in a raw config."""
    if isinstance(node, dict):
        return set().union(*map(_references, node.values()))
    if isinstance(node, list):
        return set().union(*map(_references, node))
    if not isinstance(node, str) or "${" not in node:
        return set()
    return {part.split("}")[0].split(",")[0].removeprefix("oc.select:").strip() for part in node.split("${")[1:]}


def check_shadowed(cfg: DictConfig, typed: dict[str, str]) -> list[str]:
    """Optimizer values that a preset holds against what the user typed."""
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
    players = {name: node for name, node in cfg.optimizer.items() if isinstance(node, DictConfig)}
    for key in [path.removeprefix("optimizer.") for path in typed if path.startswith("optimizer.")]:
        for player in [name for name in players if key in players[name] and f"optimizer.{name}.{key}" not in typed]:
            if players[player][key] != cfg.optimizer[key]:
                warnings.append(
                    f"optimizer.{player}.{key}={players[player][key]} is set by a preset; optimizer.{key}="
                    f"{cfg.optimizer[key]} does not reach it: give optimizer.{player}.{key}="
                )
    return warnings
