"""What a metric is to the rest: which features it looks at, what it keeps of a side, and the score of two sides."""

from abc import ABC, abstractmethod
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ganrun.data.base import Data
from ganrun.metrics.features import Features, Values
from ganrun.metrics.summaries import Kept, Summary


class Score(NamedTuple):
    """std: of the value over subsets or splits, for metrics that are defined so."""

    value: float
    std: float | None = None


class Setting(NamedTuple):
    """What a metric is to score. labels: (num_fake,) what fakes are made for, None = nothing, or not known.

    conditional: are they made for labels? paired: has each of them a true counterpart, its target?
    """

    data: Data
    num_real: int
    num_fake: int
    conditional: bool
    device: torch.device = torch.device("cpu")
    labels: Tensor | None = None
    paired: bool = False

    def smaller_side(self, max_samples: int | None) -> int:
        """Samples of the smaller side, of which at most so many are looked at."""
        return min(self.num_real, self.num_fake, max_samples or self.num_fake)


class Metric(ABC):
    """Scores fakes against reals. features: None = the samples' own values.

    A metric of your own defines `summary` and `score`, and in `protocol` whatever else decides its value.
    """

    lower_is_better = True
    needs_real = True
    needs_pairs = False  # does it compare each fake with its own target?
    needs_all_reals = False  # or do as many as fakes tell as much, where a score in training names no number?
    max_samples: int | None = None  # samples of a side that it looks at; None = all

    def __init__(self, *, features: Features | None = None):
        self.features = features or Values()

    def check(self, setting: Setting) -> None:  # noqa: B027, most can score anything
        """Raises UserError for what it cannot score, as far as that is known before features are loaded or trained."""

    def prepare(self, setting: Setting) -> None:
        """Loads or trains what it needs. Raises UserError for what it cannot score."""
        self.check(setting)
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


class OfKept(Metric):
    """Looks at the first `max_samples` samples of a side themselves, which come shuffled; None = all."""

    def __init__(self, *, max_samples: int | None = None, features: Features | None = None):
        super().__init__(features=features)
        if max_samples is not None and max_samples < 2:
            raise ValueError(f"max_samples={max_samples}; expected at least 2 samples, or null = all")
        self.max_samples = max_samples

    def summary(self) -> Summary:
        return Kept(self.max_samples)
