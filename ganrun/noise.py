"""The generator's noise. It lives beside the generator and travels with it."""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import Generator, Tensor, nn
from torch.nn.functional import one_hot

from ganrun.errors import UserError, require
from ganrun.game import Batch

PARALLEL = 1e-4  # sine of the angle below which slerp would divide by almost zero


def truncated_normal(uniform: Tensor, truncation: float) -> Tensor:
    """N(0, 1) within +-truncation, from `uniform` in [0, 1) of the same shape, by the inverse distribution function.

    The truncation trick: Brock et al. 2019, arXiv 1809.11096, section 3.1. They redraw whatever falls outside. Here
    each number of `uniform` gives exactly one value, so that a sample depends on its own seed alone.
    """
    mass = math.erf(truncation / math.sqrt(2))  # of N(0, 1) within +-truncation
    z = math.sqrt(2) * torch.erfinv(mass * (2 * uniform.double() - 1))
    return z.clamp(-truncation, truncation).float()  # erfinv(-1) is infinite


def slerp(a: Tensor, b: Tensor, t: float) -> Tensor:
    """Spherical interpolation of vectors (..., D): a at t = 0, b at t = 1, along the arc between them.

    White 2016, arXiv 1609.04468, section 2.1. A straight line passes through short vectors, which N(0, I) hardly ever
    draws in many dimensions. Nearly parallel or opposite vectors have no usable arc and are joined by a straight line.
    """
    lengths = a.norm(dim=-1, keepdim=True) * b.norm(dim=-1, keepdim=True)
    cosine = (a * b).sum(-1, keepdim=True) / lengths.clamp(min=torch.finfo(a.dtype).tiny)
    angle = torch.acos(cosine.clamp(-1, 1))
    sine = angle.sin()
    arc = (((1 - t) * angle).sin() * a + (t * angle).sin() * b) / sine.clamp(min=PARALLEL)
    return torch.where((sine > PARALLEL) & (lengths > 0), arc, torch.lerp(a, b, t))


class Noise(nn.Module, ABC):
    """Draws z (num, z_dim) from `rng`.

    Example:
        noise = Normal(z_dim=100)
        z = noise(16, torch.Generator().manual_seed(0), truncation=0.7)["z"]  # (16, 100)
    """

    def __init__(self, z_dim: int):
        super().__init__()
        require(1, z_dim=z_dim)
        self.z_dim = z_dim

    def forward(self, num: int, rng: Generator, truncation: float | None = None) -> Batch:
        """truncation: largest absolute value of a coordinate, None = off. Raises UserError for noise without tails."""
        return {"z": self.draw(num, rng) if truncation is None else self.draw_truncated(num, rng, truncation)}

    @abstractmethod
    def draw(self, num: int, rng: Generator) -> Tensor:
        """(num, z_dim)"""

    def draw_truncated(self, num: int, rng: Generator, truncation: float) -> Tensor:
        """(num, z_dim), with the tails beyond +-truncation cut off."""
        raise UserError(f"truncation={truncation}: {type(self).__name__} noise has no tails to cut off; leave it out")

    def energy(self, z: Tensor) -> Tensor:
        """z (num, z_dim) -> minus its log density, up to a constant; (num,). Raises UserError without a smooth one."""
        raise UserError(f"{type(self).__name__} noise has no smooth density, along which sampler=ddls could move")

    def confined(self, z: Tensor, start: Tensor) -> Tensor:
        """The nearest noise to z (num, z_dim) that could be drawn, where a search moved it from `start`."""
        return z

    def between(self, a: Tensor, b: Tensor, t: float) -> Tensor:
        """The point at t in [0, 1] of a path from a to b, (..., z_dim), that runs through likely noise."""
        return torch.lerp(a, b, t)


class Normal(Noise):
    """z ~ N(0, I)."""

    def draw(self, num, rng):
        return torch.randn(num, self.z_dim, generator=rng)

    def draw_truncated(self, num, rng, truncation):
        if not truncation > 0:
            raise UserError(f"truncation={truncation}; expected more than 0, or null for none")
        return truncated_normal(torch.rand(num, self.z_dim, generator=rng, dtype=torch.float64), truncation)

    def energy(self, z):
        return z.square().sum(1) / 2

    def between(self, a, b, t):
        return slerp(a, b, t)


class Uniform(Noise):
    """z ~ U(-1, 1) in each coordinate (DCGAN, arXiv 1511.06434, section 4)."""

    def draw(self, num, rng):
        return torch.rand(num, self.z_dim, generator=rng) * 2 - 1

    def confined(self, z, start):
        return z.clamp(-1, 1)


class Codes(Normal):
    """z ends in a code, which the batch also has as `code`: Chen et al. 2016, arXiv 1606.03657 (InfoGAN).

    First N(0, I), then each categorical code as a one-hot vector of equally likely values, then the continuous codes,
    U(-1, 1). Truncation leaves the code as it is.

    z_dim: all numbers in z. categorical: values of each categorical code. continuous: how many continuous codes
    """

    def __init__(self, z_dim: int, categorical: Sequence[int], continuous: int):
        super().__init__(z_dim)
        require(0, continuous=continuous)
        if any(type(num) is not int or num < 2 for num in categorical):
            raise UserError(f"noise.categorical={list(categorical)}; expected numbers of values, each at least 2")
        self.categorical, self.continuous = list(categorical), continuous
        self.width = sum(categorical) + continuous  # numbers of the code
        self.sizes = [*categorical, *[1] * continuous]  # of each code
        self.names = [f"c{i + 1}" for i in range(len(self.sizes))]
        if not 0 < self.width < z_dim:
            raise UserError(f"z_dim={z_dim}: the code has {self.width} of these numbers; expected 1 to {z_dim - 1}")

    def forward(self, num: int, rng: Generator, truncation: float | None = None) -> Batch:
        drawn = super().forward(num, rng, truncation)
        return drawn | {"code": drawn["z"][:, -self.width :]}

    def draw(self, num, rng):
        z = super().draw(num, rng)
        z[:, -self.width :] = self._code(num, rng)
        return z

    def draw_truncated(self, num, rng, truncation):
        z = super().draw_truncated(num, rng, truncation)
        z[:, -self.width :] = self._code(num, rng)
        return z

    def _code(self, num: int, rng: Generator) -> Tensor:
        parts = [one_hot(torch.randint(each, (num,), generator=rng), each).float() for each in self.categorical]
        return torch.cat([*parts, torch.rand(num, self.continuous, generator=rng) * 2 - 1], 1)

    def confined(self, z, start):
        """Categorical codes stay as they were: between two values there is none."""
        free, values = z[:, : -self.width], start[:, -self.width : z.shape[1] - self.continuous]
        return torch.cat([free, values, z[:, z.shape[1] - self.continuous :].clamp(-1, 1)], 1)

    def energy(self, z):
        return Noise.energy(self, z)  # a code has no smooth density

    def between(self, a, b, t):
        free = super().between(a[..., : -self.width], b[..., : -self.width], t)
        return torch.cat([free, torch.lerp(a[..., -self.width :], b[..., -self.width :], t)], -1)
