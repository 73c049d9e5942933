"""What one test process need not do again and again: parse the same text, list the same packages, train for long.

Nothing that is asserted depends on it: the same text is parsed to the same tree, and a classifier of 100 steps is right
about more than 90 % of the digits.
"""

import copy
import io
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

    from ganrun.metrics import classifier

    parse = cache(grammar_parser.parse)
    for module in (grammar_parser, omegaconf.base, omegaconf._utils):
        patch.object(module, "parse", parse).start()
    patch.object(OmegaConf, "load", staticmethod(loading(OmegaConf.load))).start()
    patch.object(registry, "entry_points", cache(metadata.entry_points)).start()
    patch.object(classifier, "STEPS", CLASSIFIER_STEPS).start()


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
