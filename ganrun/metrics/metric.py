"""What a metric is to the rest: which features it looks at, what it keeps of a side, and the score of two sides."""

from abc import ABC, abstractmethod
from typing import Any, NamedTuple

import torch

from ganrun.data.base import Data
from ganrun.metrics.features import Features, Values
from ganrun.metrics.summaries import Summary


class Score(NamedTuple):
    """std: of the value over subsets or splits, for metrics that are defined so."""

    value: float
    std: float | None = None


class Setting(NamedTuple):
    """What a metric is to score. conditional: are the fakes made for labels?"""

    data: Data
    num_real: int
    num_fake: int
    conditional: bool
    device: torch.device = torch.device("cpu")


class Metric(ABC):
    """Scores fakes against reals. features: None = the samples' own values. most: samples of a side that it looks at.

    A metric of your own defines `summary` and `score`, and in `protocol` whatever else decides its value.
    """

    lower_is_better = True
    needs_real = True

    def __init__(self, *, features: Features | None = None, most: int | None = None):
        if most is not None and most < 2:
            raise ValueError(f"most={most}; expected at least 2 samples, or null = all")
        self.features = features or Values()
        self.most = most

    def prepare(self, setting: Setting) -> None:
        """Loads or trains what it needs. Raises UserError for what it cannot score."""
        self.features.prepare(setting.data, setting.device)

    @abstractmethod
    def summary(self) -> Summary:
        """An empty one, of a side."""

    @abstractmethod
    def score(self, real: Any, fake: Any) -> Score:
        """Of the summaries of both sides; `real` is None unless `needs_real`."""

    @property
    def protocol(self) -> dict[str, Any]:
        """Settings of its own that decide its value."""
        return {}
