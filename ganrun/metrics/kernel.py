"""KID: the kernel distance."""

import torch
from torch import Tensor

from ganrun.errors import UserError
from ganrun.metrics.metric import OfKept, Score, Setting
from ganrun.seeding import rng_for


def polynomial_kernel(x: Tensor, y: Tensor) -> Tensor:
    """(xy / F + 1)^3 for features (num, F): Binkowski et al. 2018, arXiv 1801.01401, section 4."""
    return (x @ y.T / x.shape[1] + 1) ** 3


def squared_mmd(real: Tensor, fake: Tensor) -> Tensor:
    """Unbiased estimate of the squared maximum mean discrepancy: Gretton et al. 2012, lemma 6. It may be negative."""
    across = polynomial_kernel(real, fake).mean()
    return mean_within(real) + mean_within(fake) - 2 * across


def mean_within(features: Tensor) -> Tensor:
    """The mean of the kernel over all pairs of different samples."""
    kernel = polynomial_kernel(features, features)
    return (kernel.sum() - kernel.trace()) / (len(kernel) * (len(kernel) - 1))


class KID(OfKept):
    """Mean and (as published, the population's) deviation of the squared MMD over random subsets.

    The subsets are the same for every evaluation.
    """

    def __init__(self, *, num_subsets: int = 100, subset_size: int = 1000, **settings):
        super().__init__(**settings)
        if num_subsets < 1 or subset_size < 2:
            raise ValueError(f"num_subsets={num_subsets}, subset_size={subset_size}; expected at least 1 and 2")
        self.num_subsets = num_subsets
        self.subset_size = subset_size

    def check(self, setting: Setting) -> None:
        num = setting.smaller_side(self.max_samples)
        if num < self.subset_size:
            more = f"{setting.more(self.max_samples)}, or smaller subsets by metric.kid.subset_size={num}"
            raise UserError(f"metric=kid: subsets of {self.subset_size} from {num} samples; {more}")

    def score(self, real, fake):
        rng, values = rng_for("kid"), []
        for _ in range(self.num_subsets):
            values.append(squared_mmd(*(some(side.values, self.subset_size, rng).double() for side in (real, fake))))
        values = torch.stack(values)
        return Score(float(values.mean()), float(values.std(correction=0)))

    @property
    def protocol(self):
        return {"num_subsets": self.num_subsets, "subset_size": self.subset_size}


def some(values: Tensor, num: int, rng: torch.Generator) -> Tensor:
    """`num` random rows, none twice."""
    return values[torch.randperm(len(values), generator=rng)[:num].to(values.device)]
