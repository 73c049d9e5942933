"""What a class refuses, told with the key that its user has set."""

import re
from collections.abc import Callable
from typing import Any

from omegaconf import DictConfig, OmegaConf

from ganrun.errors import UserError, first_line, is_out_of_memory

GROUPS = {"penalties": "penalty", "presentations": "presentation", "terms": "term", "heads": "head",
          "augment": "augment", "conditioning": "conditional.terms", "loss": "loss", "discriminator": "discriminator",
          "generator": "generator", "a2b": "generator", "b2a": "generator"}  # fmt: skip
METRIC_FEATURES = re.compile(r"metric\.[\w-]+\.features\b")  # shared by all metrics


class Refusal(UserError):
    """One that names its key in full."""


def refusing(key: str, make: Callable[..., Any], root: DictConfig | None = None) -> Callable[..., Any]:
    """`make`, but whatever it raises becomes a UserError that names the key. root: the whole config, or None."""

    def made(*args: Any, **kwargs: Any) -> Any:
        try:
            return make(*args, **kwargs)
        except Refusal:
            raise
        except Exception as error:  # a class may refuse its arguments with any exception
            where = re.search(r"full_key: (\S+)$", str(error), re.M)  # the nested part that refused
            raise Refusal(told(known_as(where[1], root) if where else key, innermost(error))) from error

    return made


def told(key: str, reason: str) -> str:
    """The reason with its key in full: weight=-1; ... of penalty.r1 -> penalty.r1.weight=-1; ..."""
    if re.match(rf"{re.escape(key.partition('.')[0])}\b|[\w-]+(\.[\w-]+)+[=:]", reason):
        return reason
    return f"{key}.{reason}" if re.match(r"[a-z_]\w*=", reason) else f"{key}: {reason}"


def known_as(key: str, root: DictConfig | None) -> str:
    """The key by which a user sets a node that the recipe refers to: recipe.terms.l1 -> term.l1."""
    if METRIC_FEATURES.match(key):
        return METRIC_FEATURES.sub("metric.features", key)
    parts = key.split(".")
    for i in range(1, len(parts)):
        group = GROUPS.get(parts[i])
        if group and (
            root is None or OmegaConf.select(root, group) == OmegaConf.select(root, ".".join(parts[: i + 1]))
        ):
            return ".".join([group, *parts[i + 1 :]])
    return key


def innermost(error: BaseException) -> str:
    """The first line of the exception that began a chain, or of the first one written for the user."""
    while error.__cause__ is not None and not isinstance(error, UserError):
        error = error.__cause__
    if is_out_of_memory(error):
        return "so large a tensor needs more memory than there is"
    return first_line(error)
