"""From nodes of a config to objects, and to the data of a run. What cannot be made is reported in one line."""

from typing import Any, TypeVar

from hydra.utils import instantiate
from omegaconf import DictConfig

from ganrun.data.base import Data
from ganrun.errors import UserError
from ganrun.training.refusing import refusing

Kind = TypeVar("Kind")


def build_node(cfg: DictConfig, key: str, prefix: str = "") -> Any:
    """Instantiates cfg[key]; None for a node without `_target_`, an option that composes nothing.

    prefix: of the key, for messages. Raises UserError with the reason when the class refuses its arguments.
    """
    node = cfg[key]
    if "_target_" not in node:
        return None
    return refusing(f"{prefix}{key}", instantiate, node._get_root())(node, _convert_="all")


def build_all(kind: type[Kind] | tuple[type, ...], cfg: DictConfig, group: str) -> list[Kind]:
    """Builds all options of a group of several; [] for a config saved before the group existed."""
    node = cfg.get(group) or {}
    return [build_as(kind, node, name, f"{group}.") for name in node]


def build_as(kind: type[Kind] | tuple[type, ...], cfg: DictConfig, key: str, prefix: str = "") -> Kind:
    """Instantiates cfg[key], which must make a `kind`, or one of several. prefix: of the key, for messages."""
    made = build_node(cfg, key, prefix)
    if not isinstance(made, kind):
        got = f"{cfg[key]._target_} makes a {type(made).__name__}" if "_target_" in cfg[key] else "it has no _target_"
        wanted = " or ".join(f"{k.__module__}.{k.__name__}" for k in (kind if isinstance(kind, tuple) else (kind,)))
        raise UserError(f"{prefix}{key}: {got}; expected a {wanted}")
    return made


def open_data(cfg: DictConfig) -> Data:
    """Opens cfg.dataset, and completes it by what is found; `pairs`, if chosen, gives it a source and a real side."""
    data = build_as(Data, cfg, "dataset")
    cfg.dataset.num_classes = data.num_classes
    if data.attributes:
        cfg.dataset.num_attributes = len(data.attributes)
    pairs = build_node(cfg, "pairs") if cfg.get("pairs") else None
    return refusing("pairs", pairs)(data) if pairs else data


def with_hidden_labels(cfg: DictConfig, data: Data) -> Data:
    """The data with those labels hidden that cfg.conditional hides, if any."""
    if cfg.conditional.get("labels") is None:
        return data
    if cfg.conditional.key is not None:
        raise UserError(
            f"conditional.key={cfg.conditional.key}: few labels are known, so none are given; expected null"
        )
    return refusing("labelled", build_node(cfg.conditional, "labels", "conditional."))(data)
