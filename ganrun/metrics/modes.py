"""For mixtures with known modes: how many samples are near one, and how many modes have samples."""

import torch
from torch import Tensor

from ganrun.errors import UserError
from ganrun.metrics.metric import OfKept, Score, Setting
from ganrun.metrics.summaries import Kept


def near_modes(samples: Tensor, centres: Tensor, radius: float) -> Tensor:
    """(modes,) number of samples (num, D) whose nearest mode this is, at a distance of at most `radius`."""
    distances, nearest = torch.cdist(samples, centres).min(1)
    return torch.bincount(nearest[distances <= radius], minlength=len(centres))


class Modes(OfKept):
    """Compares samples with modes. deviations: standard deviations from a mode within which a sample counts as near.

    Srivastava et al. 2017 (VEEGAN), arXiv 1705.07761, section 4.1; Lin et al. 2018 (PacGAN), arXiv 1712.04086.
    """

    lower_is_better = False
    needs_real = False

    def __init__(self, *, deviations: float = 3.0, **settings):
        super().__init__(**settings)
        if deviations <= 0:
            raise ValueError(f"deviations={deviations}; expected more than 0")
        self.deviations = deviations

    def check(self, setting: Setting) -> None:
        if not hasattr(setting.data, "centres"):
            raise UserError(f"metric={self.name}: dataset {setting.data.name} has no known modes; valid: ring, grid")

    def prepare(self, setting: Setting) -> None:
        super().prepare(setting)
        self._centres, self._radius = setting.data.centres(), self.deviations * setting.data.std

    def near(self, fake: Kept) -> Tensor:
        return near_modes(fake.values.cpu(), self._centres, self._radius)

    @property
    def protocol(self):
        return {"deviations": self.deviations}


class HighQuality(Modes):
    """Share of samples near a mode. In two dimensions 98.9 % of exact samples are within 3 deviations."""

    name = "high-quality"

    def score(self, real, fake):
        return Score(float(self.near(fake).sum() / fake.num))


class ModesCovered(Modes):
    """Number of modes with at least `min_samples` samples near them."""

    name = "modes-covered"

    def __init__(self, *, min_samples: int = 1, **settings):
        super().__init__(**settings)
        if min_samples < 1:
            raise ValueError(f"min_samples={min_samples}; expected at least 1")
        self.min_samples = min_samples

    def score(self, real, fake):
        return Score(float((self.near(fake) >= self.min_samples).sum()))

    @property
    def protocol(self):
        return super().protocol | {"min_samples": self.min_samples}
