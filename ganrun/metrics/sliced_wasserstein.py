"""Sliced Wasserstein distance: needs no trained network, works for images and vectors."""

import torch
from torch import Tensor

from ganrun.metrics.metric import OfKept, Score
from ganrun.seeding import rng_for

CHUNK = 64  # directions at once


def wasserstein(real: Tensor, fake: Tensor) -> Tensor:
    """(K,) Wasserstein-1 distances in one dimension, of the rows of real (K, n) and fake (K, m).

    The area between the distribution functions; for n = m it is the mean distance of the sorted values.
    """
    real, fake = real.sort(1).values, fake.sort(1).values
    if real.shape == fake.shape:
        return (real - fake).abs().mean(1)
    values = torch.cat([real, fake], 1).sort(1).values
    steps = values.diff(dim=1)
    values = values[:, :-1].contiguous()
    below = [torch.searchsorted(side, values, right=True) / side.shape[1] for side in (real, fake)]
    return ((below[0] - below[1]).abs() * steps).sum(1)


def sliced_wasserstein(real: Tensor, fake: Tensor, directions: Tensor) -> Tensor:
    """Mean over unit directions (F, K) of the 1-D Wasserstein-1 distance of real (n, F) and fake (m, F).

    In units of the features; 0 for equal sets. Rabin et al. 2012, "Wasserstein barycenter and its application to
    texture mixing", with W1 in place of W2.
    """
    some = directions.split(CHUNK, dim=1)
    return torch.cat([wasserstein(part.T @ real.T, part.T @ fake.T) for part in some]).mean()


class SlicedWasserstein(OfKept):
    """Sliced Wasserstein-1 distance. num_projections: random directions, the same for every evaluation."""

    def __init__(self, *, num_projections: int = 512, **settings):
        super().__init__(**settings)
        if num_projections < 1:
            raise ValueError(f"num_projections={num_projections}; expected at least 1")
        self.num_projections = num_projections

    def score(self, real, fake):
        real, fake = real.values, fake.values
        directions = torch.randn(real.shape[1], self.num_projections, generator=rng_for("directions"))
        directions = directions / directions.norm(dim=0)
        return Score(float(sliced_wasserstein(real, fake, directions.to(real.device))))

    @property
    def protocol(self):
        return {"order": 1, "num_projections": self.num_projections}
