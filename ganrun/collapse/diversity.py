"""How diverse fakes are compared with reals: spread, near twins, reach. Pure functions; no trained network."""

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import adaptive_avg_pool2d, leaky_relu

from ganrun.seeding import rng_for

SIDE = 32  # pixels; larger images are shrunk to this side
NEAR = 0.25  # of the reals' typical distance to their nearest neighbour; samples nearer than that are twins


class Diversity(NamedTuple):
    """The diversity of fakes, compared with as many reals."""

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

    Also 1 if all reals are alike, since nothing can be said then.
    """
    own = total_variance(real)
    return torch.where(own > 0, (total_variance(fake) / own).sqrt(), torch.ones_like(own))


def distances(x: Tensor, y: Tensor) -> Tensor:
    """Euclidean distances (num x, num y). In fp64, whose products are exact enough for nearly equal rows."""
    return torch.cdist(x.double(), y.double(), compute_mode="use_mm_for_euclid_dist").float()


def neighbour_distance(x: Tensor) -> Tensor:
    """Distance of each row of x (num, F) to its nearest other row, (num,)."""
    return distances(x, x).fill_diagonal_(math.inf).min(1).values


def twins(x: Tensor, near: Tensor | float) -> Tensor:
    """Share of the rows of x (num, F) that have another row nearer than `near`."""
    return (neighbour_distance(x) < near).float().mean()


def reach(real: Tensor, nearest: Tensor) -> Tensor:
    """Share of the variance of real (num, F) that their nearest fakes explain; at most 1.

    nearest: distance of each real to its nearest fake, (num,). The result is 0 for a single fake at the reals' mean,
    less for fakes farther off, and falls with each lost mode. It is R^2 of a vector quantiser with the fakes as
    codebook. 0 if all reals are alike.
    """
    own = total_variance(real)
    return torch.where(own > 0, 1 - nearest.square().mean() / own, torch.zeros_like(own))


def random_features(x: Tensor, width: int = 32) -> Tensor:
    """Images (num, C, H, W) -> (num, F): three convolutions with random weights, the same in every run.

    They see edges and their places, which is enough to recognise similar images. Vectors are returned as they are.
    """
    if x.dim() != 4:
        return x
    rng = rng_for("random features")
    for size in (width, 2 * width, 4 * width):
        weight = torch.randn(size, x.shape[1], 3, 3, generator=rng) * math.sqrt(2 / (9 * x.shape[1]))
        x = leaky_relu(nn.functional.conv2d(x, weight.to(x.device), stride=2, padding=1), 0.2)
    return adaptive_avg_pool2d(x, [min(2, side) for side in x.shape[-2:]]).flatten(1)


def shrunk(images: Tensor) -> Tensor:
    """Images (num, C, H, W) averaged down to at most SIDE pixels a side; vectors as they are. In fp32."""
    if images.dim() != 4:
        return images.float()
    return adaptive_avg_pool2d(images.float(), [min(SIDE, side) for side in images.shape[-2:]])


class Reals:
    """Reals (num, ...), at least two, with the numbers that fakes are compared with."""

    def __init__(self, real: Tensor):
        real = shrunk(real)
        self.pixels, self.features = real.flatten(1), random_features(real)
        nearest = neighbour_distance(self.pixels)
        self.near = NEAR * nearest.median()
        self.twins = twins(self.pixels, self.near)
        self.reach = reach(self.pixels, nearest)

    def compare(self, fake: Tensor) -> Diversity:
        """Compares fakes (num, ...), already `shrunk`. Reads six numbers to the host, all at once."""
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
