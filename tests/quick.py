"""What one test process need not do again and again: parse the same text, list the same packages, train for long.

Nothing that is asserted depends on it: the same text is parsed to the same tree, configs are composed and copied as by
OmegaConf and Hydra in half the time, and a classifier of 100 steps is right about more than 90 % of the digits.
"""

import copy
import io
import sys
from abc import ABCMeta
from functools import cache
from importlib import metadata
from typing import Any
from unittest.mock import patch

import yaml

CLASSIFIER_STEPS = 100  # of the network whose features scores are taken in; 600 for users


def start() -> None:
    """Until this process and its forks end."""
    import lightning_fabric.utilities.registry as registry
    import omegaconf
    from omegaconf import OmegaConf, grammar_parser
    from sklearn import datasets

    from ganrun.metrics import classifier

    parse = cache(grammar_parser.parse)
    for module in (grammar_parser, omegaconf.base, omegaconf._utils):
        patch.object(module, "parse", parse).start()
    patch.object(OmegaConf, "load", staticmethod(loading(OmegaConf.load))).start()
    patch.object(registry, "entry_points", cache(metadata.entry_points)).start()
    patch.object(classifier, "STEPS", CLASSIFIER_STEPS).start()
    read_digits = cache(datasets.load_digits)
    patch.object(datasets, "load_digits", lambda: copy.deepcopy(read_digits())).start()
    compose_quickly()


def loading(load: Any) -> Any:
    """OmegaConf.load, which reads an open file of the same text only once."""
    parsed = cache(lambda text: load(io.StringIO(text)))

    def found(file: Any) -> Any:
        if not hasattr(file, "read"):
            return load(file)
        text = file.read()
        try:
            return copy.deepcopy(parsed(text))
        except yaml.YAMLError:
            file.seek(0)
            return load(file)  # its error names the file

    return found


def compose_quickly() -> None:
    """What Hydra and OmegaConf spend half of their time on: copies, questions about types, an unread map."""
    import hydra.version
    from hydra._internal import defaults_list
    from omegaconf import AnyNode, DictConfig, ListConfig, OmegaConf, ValueNode, _utils, base
    from omegaconf.basecontainer import BaseContainer

    for kind in (base.Metadata, base.ContainerMetadata):
        kind.__deepcopy__ = copied_metadata
    AnyNode.__deepcopy__ = copied_node
    DictConfig.__deepcopy__ = copied_dict
    BaseContainer._re_parent = re_parent
    for kind in (base.Node, base.Box, base.Container, base.UnionNode, BaseContainer, DictConfig, ListConfig, ValueNode):
        kind.__class__ = Concrete  # the question whether a value is of it takes a fifth of the time
    structured = _utils.is_structured_config
    by_type = cache(lambda kind: structured(kind))
    for module in [module for name, module in sys.modules.items() if name.partition(".")[0] == "omegaconf"]:
        if getattr(module, "is_structured_config", None) is structured:
            module.is_structured_config = lambda found: by_type(found if isinstance(found, type) else type(found))
    hydra.version._get_version = cache(hydra.version._get_version)
    mapped = defaults_list._create_interpolation_map

    def mapped_if_read(overrides: Any, defaults: list, self_added: bool) -> DictConfig:
        read = any(default.is_interpolation() for default in defaults)
        return mapped(overrides, defaults, self_added) if read else OmegaConf.create()

    defaults_list._create_interpolation_map = mapped_if_read


class Concrete(ABCMeta):
    """Of classes that nothing is registered for."""

    __instancecheck__ = type.__instancecheck__


def re_parent(node: Any) -> None:
    """Tells all that is in it what it is in."""
    content = node.__dict__["_content"]
    for value in content.values() if isinstance(content, dict) else content if isinstance(content, list) else ():
        if value is not None:
            value._set_parent(node)
            if "_content" in value.__dict__:
                value._re_parent()


def copied_metadata(metadata: Any, memo: dict) -> Any:
    new = object.__new__(type(metadata))
    new.__dict__.update(metadata.__dict__, flags=copy.copy(metadata.flags))
    if getattr(metadata, "resolver_cache", None) is not None:
        new.resolver_cache = copy.deepcopy(metadata.resolver_cache, memo)
    return new


def copied_node(node: Any, memo: dict) -> Any:
    new = object.__new__(type(node))
    new.__dict__.update(node.__dict__, _metadata=copy.deepcopy(node._metadata, memo))
    return new


def copied_dict(node: Any, memo: dict) -> Any:
    """Its parent is kept; it is that of what is in it."""
    new = copied_node(node, memo)
    content = node.__dict__["_content"]
    if isinstance(content, dict):
        new.__dict__["_content"] = copies = {}
        for key, value in content.items():
            copies[key] = each = copy.deepcopy(value, memo)
            each.__dict__["_parent"] = new
    return new
