"""Lightning imports all of torchmetrics for two of its classes, and with it torchvision and much of SciPy: a fifth of
the time in which a command starts. Here it gets these two, and the rest is imported when it is asked for."""

import logging
import sys
from importlib import import_module, metadata, util
from types import ModuleType
from typing import Any

LIGHT = {"Metric": "torchmetrics.metric", "MetricCollection": "torchmetrics.collections"}


class Torchmetrics(ModuleType):
    """The package before its own code has run, which anything but `LIGHT` makes it do."""

    def __getattr__(self, name: str) -> Any:
        if name == "__version__":
            return metadata.version("torchmetrics")
        if name == "_logger":
            return logging.getLogger("torchmetrics")
        if name in LIGHT:
            import_module("torchmetrics.utilities")  # before the others, as the package itself does
            return getattr(import_module(LIGHT[name]), name)
        if name.startswith("__"):
            raise AttributeError(name)
        self.__class__ = ModuleType
        self.__spec__.loader.exec_module(self)
        return getattr(self, name)


def lighten() -> None:
    """Acts on imports of torchmetrics from now on, unless it is imported already."""
    spec = None if "torchmetrics" in sys.modules else util.find_spec("torchmetrics")
    if spec is not None:
        package = util.module_from_spec(spec)
        package.__class__ = Torchmetrics
        sys.modules["torchmetrics"] = package
