"""How diverse fakes are beside reals: spread, near twins, reach. Pure functions of vectors; no trained network."""

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import adaptive_avg_pool2d, leaky_relu

from ganrun.seeding import rng_for

SIDE = 32  # pixels; larger images are looked at this small
NEAR = 0.25  # of the reals' typical distance to their nearest neighbour: nearer ones are twins


class Diversity(NamedTuple):
    """Of fakes beside as many reals."""

    pixel_spread: float
    feature_spread: float
    twins: float
    real_twins: float
    reach: float
    real_reach: float


def total_variance(x: Tensor) -> Tensor:
    """Mean squared distance of the rows of x (num, F) from their mean: the trace of the covariance."""
    return (x - x.mean(0)).square().sum(1).mean()


def spread(real: Tensor, fake: Tensor) -> Tensor:
    """Root of the fakes' total variance over the reals'; 1 = as diverse, 0 = one image. real, fake: (num, F).

    1 where the reals are all alike, so that nothing can be said.
    """
    own = total_variance(real)
    return torch.where(own > 0, (total_variance(fake) / own).sqrt(), torch.ones_like(own))


def distances(x: Tensor, y: Tensor) -> Tensor:
    """Euclidean, (num x num y). In fp64, where a matrix product is exact enough for rows that are nearly equal."""
    return torch.cdist(x.double(), y.double(), compute_mode="use_mm_for_euclid_dist").float()


def neighbour_distance(x: Tensor) -> Tensor:
    """Distance of each row of x (num, F) to its nearest other row, (num,)."""
    return distances(x, x).fill_diagonal_(math.inf).min(1).values


def twins(x: Tensor, near: Tensor | float) -> Tensor:
    """Share of the rows of x (num, F) that have another one nearer than `near`."""
    return (neighbour_distance(x) < near).float().mean()


def reach(real: Tensor, nearest: Tensor) -> Tensor:
    """Share of the variance of real (num, F) that is gone when each is measured from its nearest fake; at most 1.

    nearest: those distances, (num,). 0 for a single fake at the reals' mean, less for fakes that are farther off; it
    falls with each mode that is lost. That is R^2 of a vector quantiser with the fakes as codebook. 0 where the reals
    are all alike.
    """
    own = total_variance(real)
    return torch.where(own > 0, 1 - nearest.square().mean() / own, torch.zeros_like(own))


def random_features(x: Tensor, width: int = 32) -> Tensor:
    """Images (num, C, H, W) -> (num, F): three convolutions with random weights, the same in every run.

    They see edges and where they lie, enough to tell images that are alike. Vectors stay what they are.
    """
    if x.dim() != 4:
        return x
    rng = rng_for("random features")
    for size in (width, 2 * width, 4 * width):
        weight = torch.randn(size, x.shape[1], 3, 3, generator=rng) * math.sqrt(2 / (9 * x.shape[1]))
        x = leaky_relu(nn.functional.conv2d(x, weight.to(x.device), stride=2, padding=1), 0.2)
    return adaptive_avg_pool2d(x, [min(2, side) for side in x.shape[-2:]]).flatten(1)


def shrunk(images: Tensor) -> Tensor:
    """Images (num, C, H, W) with means over pixels, at most SIDE a side; vectors as they are. In fp32."""
    if images.dim() != 4:
        return images.float()
    return adaptive_avg_pool2d(images.float(), [min(SIDE, side) for side in images.shape[-2:]])


class Reals:
    """Reals (num, ...), at least two, and what fakes are compared with."""

    def __init__(self, real: Tensor):
        real = shrunk(real)
        self.pixels, self.features = real.flatten(1), random_features(real)
        nearest = neighbour_distance(self.pixels)
        self.near = NEAR * nearest.median()
        self.twins = twins(self.pixels, self.near)
        self.reach = reach(self.pixels, nearest)

    def compare(self, fake: Tensor) -> Diversity:
        """fake (num, ...), already `shrunk`. Reads six numbers to the host, at once."""
        pixels = fake.flatten(1)
        values = (
            spread(self.pixels, pixels),
            spread(self.features, random_features(fake)),
            twins(pixels, self.near),
            self.twins,
            reach(self.pixels, distances(self.pixels, pixels).min(1).values),
            self.reach,
        )
        return Diversity(*torch.stack(values).tolist())
