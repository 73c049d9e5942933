"""Checks config values against types and smallest values; each error is one line: got and expected."""

import math
import types
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import is_dataclass
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from hydra.utils import get_object
from omegaconf import DictConfig, ListConfig, OmegaConf

from ganrun.errors import CannotWrite, UserError, one_of


def check_known(node: DictConfig, known: Iterable[str], prefix: str = "") -> None:
    """Raises UserError for any key that is not in `known`."""
    for name in node:
        if name not in known:
            raise UserError(f"{prefix}{name}: there is no such key; {one_of(known, str(name))}")


def check_types(node: DictConfig, types_by_name: dict[str, Any], prefix: str = "") -> None:
    """Checks that each of these keys exists and has its type; a dataclass stands for the keys of a node below."""
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


def check_minimum(cfg: DictConfig, minimum: dict[str, int]) -> None:
    for key, least in minimum.items():
        value = OmegaConf.select(cfg, key)
        if value is not None and value < least:
            raise UserError(f"{key}={value}; expected at least {least}")


def check_maximum(cfg: DictConfig, maximum: dict[str, int]) -> None:
    for key, most in maximum.items():
        value = OmegaConf.select(cfg, key)
        if value is not None and value > most:
            raise UserError(f"{key}={value}; expected at most {most:,}")


def check_place(key: str, path: Any) -> None:
    """Refuses values that cannot name a file, before a folder is made for a run."""
    try:
        Path(path or ".").expanduser().exists()
    except (OSError, RuntimeError, TypeError, ValueError) as error:  # too long, no such home, not text
        raise UserError(f"{key}={path}: {getattr(error, 'strerror', None) or error}; name another place") from error


def check_parent(out: Path) -> None:
    """Refuses a place whose folder is not there or cannot be written to, before anything is computed."""
    if not out.parent.is_dir():
        raise UserError(f"out={out}: there is no folder {out.parent} to put it in")
    folder = out if out.is_dir() else out.parent
    try:
        with TemporaryFile(dir=folder):
            pass
    except OSError as error:
        text = f"cannot write in {folder.absolute()}: {error.strerror or error}; out=<path> names another place"
        raise CannotWrite(f"out={out}: {text}") from error


def check_type(key: str, value: Any, annotation: Any) -> None:
    if not matches(value, annotation):
        whole = isinstance(value, float) and value.is_integer() and matches(int(value), annotation)
        advice = f", as {key}={int(value)}" if whole else ""
        advice = ", not a ramp" if is_ramp(value) else advice
        if not isinstance(value, DictConfig | ListConfig) and value is not None and matches([value], annotation):
            advice = f", as {key}=[{spelt(value)}]"
        raise UserError(f"{key}={spelt(value)}; expected {readable(annotation)}{advice}")


def is_ramp(value: Any) -> bool:
    """Is it the node of a ramp?"""
    if not isinstance(value, DictConfig) or "_target_" not in value:
        return False
    try:
        found = get_object(value._target_)
    except Exception:  # whatever a module raises; the node's own check reports it
        return False
    return isinstance(found, type) and any(map(stands_for_ramp, found.__mro__))


def stands_for_ramp(annotation: Any) -> bool:
    """Is it ganrun.ramps.Ramp? Compared by name: importing it needs torch, which a command may not use."""
    return (getattr(annotation, "__module__", ""), getattr(annotation, "__name__", "")) == ("ganrun.ramps", "Ramp")


def spelt(value: Any) -> str:
    """A value as typed on a command line."""
    return str(value).lower() if isinstance(value, bool) else "null" if value is None else str(value)


def players_of(cfg: DictConfig) -> list[str]:
    """Names of the players with an optimizer; the other keys of `optimizer` are values that they share."""
    return [name for name, node in cfg.optimizer.items() if isinstance(node, DictConfig) and not is_ramp(node)]


def matches(value: Any, annotation: Any) -> bool:
    """Does a config value have this type? Annotations that configs cannot hold, such as modules, match anything."""
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
    if stands_for_ramp(annotation):
        return is_ramp(value)
    held = {float: (int, float), int: int, bool: bool, str: str}.get(annotation, object)
    return isinstance(value, held) and not (isinstance(value, bool) and annotation in (int, float))


def readable(annotation: Any) -> str:
    if stands_for_ramp(annotation):
        return "a ramp"
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
    """Refuses NaN and infinite numbers, which would pass many comparisons and spoil the weights later."""
    if isinstance(node, float) and not math.isfinite(node):
        raise UserError(f"{path}={node}; expected a finite number")
    children = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for key, child in children:
        check_finite(child, f"{path}.{key}".lstrip("."))
