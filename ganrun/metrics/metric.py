"""The interface of a metric: its features, the summary that it keeps of each side, and the score of two sides."""

import math
from abc import ABC, abstractmethod
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ganrun.data.base import Data
from ganrun.metrics.features import Features, Values
from ganrun.metrics.summaries import Kept, Summary


class Score(NamedTuple):
    """A metric's value. std: over subsets or splits, for metrics that define one."""

    value: float
    std: float | None = None


FOR_LABELS = "it needs fakes that are made for classes, by a generator trained with conditional=label or the like"


class Setting(NamedTuple):
    """What a metric has to score. labels: (num_fake,) labels that the fakes are made for, None = none, or unknown.

    conditional: are the fakes made for labels? paired: has each of them a true counterpart, its target?
    discriminates: is there a discriminator, as in training?
    """

    data: Data
    num_real: int
    num_fake: int
    conditional: bool
    device: torch.device = torch.device("cpu")
    labels: Tensor | None = None
    paired: bool = False
    discriminates: bool = False

    def more(self, max_samples: int | None = None, *, fakes: bool = False) -> str:
        """What to do about too few samples, of at most `max_samples` of each side. fakes: too few of these alone?"""
        few_reals = not fakes and self.num_real < self.num_fake
        if (max_samples or math.inf) < (self.num_real if few_reals else self.num_fake):
            return "max_samples= of this metric leaves no more"
        if few_reals and self.num_real == len(self.data):
            return f"dataset {self.data.name} has no more"
        name = "num_real" if few_reals else "num_samples"
        return f"give more by {'evaluate.' if self.discriminates else ''}{name}="

    def smaller_side(self, max_samples: int | None) -> int:
        """Samples of the smaller side, if at most `max_samples` are used of each."""
        return min(self.num_real, self.num_fake, max_samples or self.num_fake)


class Metric(ABC):
    """Scores fakes against reals. features: None = the samples' own values.

    Your own metric defines `summary` and `score`, and in `protocol` every other setting that decides its value. Most
    metrics need only `score`, as a subclass of OfKept.
    """

    lower_is_better = True
    needs_real = True
    needs_pairs = False  # does it compare each fake with its own target?
    of_discriminator = False  # does it score the discriminator, with no fakes? then `seen` gives what it summarises
    needs_all_reals = False  # False = a score in training, if not told a number, uses as many reals as fakes
    max_samples: int | None = None  # samples of a side that it uses; None = all

    def __init__(self, *, features: Features | None = None):
        self.features = features or Values()

    def check(self, setting: Setting) -> None:  # noqa: B027, most can score anything
        """Raises UserError for what it cannot score, as far as is known before features are loaded or trained."""

    def prepare(self, setting: Setting) -> None:
        """Loads or trains what it needs. Raises UserError for what it cannot score."""
        self.check(setting)
        self.features.check(setting.data)
        self.features.prepare(setting.data, setting.device)

    @abstractmethod
    def summary(self) -> Summary:
        """A new, empty summary for one side."""

    @abstractmethod
    def score(self, real: Any, fake: Any) -> Score:
        """The score, from the summaries of both sides; `real` is None unless `needs_real`."""

    @property
    def protocol(self) -> dict[str, Any]:
        """The metric's own settings that decide its value."""
        return {}


class OfKept(Metric):
    """Scores the first `max_samples` samples of each side, which come shuffled; None = all.

    Example:
        class MeanDistance(OfKept):
            def score(self, real, fake):
                return Score(float((real.values.mean(0) - fake.values.mean(0)).norm()))
    """

    def __init__(self, *, max_samples: int | None = None, features: Features | None = None):
        super().__init__(features=features)
        if max_samples is not None and max_samples < 2:
            raise ValueError(f"max_samples={max_samples}; expected at least 2 samples, or null = all")
        self.max_samples = max_samples

    def summary(self) -> Summary:
        return Kept(self.max_samples)
