"""Distributions of points in one or two dimensions, where a collapse is easy to see."""

import math
from abc import abstractmethod
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from ganrun.data.base import Data, limited
from ganrun.errors import UserError
from ganrun.pictures import scatter
from ganrun.seeding import rng_for


@dataclass(kw_only=True)
class Vectors(Data):
    """`num` points (num, channels), drawn once from a fixed seed and held in memory.

    channels: dimensions. z_dim: a suitable number of noise dimensions, for generators to read. resolution and
    value_range are None: points are not images and are unbounded.
    """

    channels: int
    num: int = 100_000
    z_dim: int = 2
    resolution: None = None
    value_range: None = None

    def open(self) -> None:
        if self.num < 1:
            raise UserError(f"dataset.num={self.num}; expected at least 1")
        points, labels = self.points(rng_for(self.name))
        points, labels = limited(self.limit, points, labels)
        self.held = {"real": points.float()} | ({} if labels is None else {"label": labels})

    def held_out(self):
        return replace(self, name=f"{self.name}, drawn again")

    @abstractmethod
    def points(self, rng: torch.Generator) -> tuple[Tensor, Tensor | None]:
        """Points (num, channels), and the modes as labels (num,), if it has any."""

    @property
    def shape(self) -> tuple[int, ...]:
        return (self.channels,)

    def __len__(self) -> int:
        return len(self.held["real"])

    def picture(self, fake, real, *, columns, names=None):
        return scatter(fake.float(), real)


@dataclass(kw_only=True)
class Gaussian(Vectors):
    """N(mean, std^2) in one dimension: Goodfellow et al. 2014, figure 1."""

    mean: float = 4.0
    std: float = 1.25

    def points(self, rng):
        return self.mean + self.std * torch.randn(self.num, 1, generator=rng), None


@dataclass(kw_only=True)
class Mixture(Vectors):
    """Gaussians of standard deviation `std` around equally likely centres."""

    std: float

    def open(self) -> None:
        super().open()
        self.classes = [str(i) for i in range(len(self.centres()))]

    @abstractmethod
    def centres(self) -> Tensor:
        """(modes, 2)"""

    def points(self, rng):
        centres = self.centres()
        labels = torch.randint(len(centres), (self.num,), generator=rng)
        return centres[labels] + self.std * torch.randn(self.num, 2, generator=rng), labels


@dataclass(kw_only=True)
class Ring(Mixture):
    """`modes` Gaussians on a circle: Metz et al. 2017, arXiv 1611.02163, figure 2."""

    modes: int = 8
    radius: float = 2.0
    std: float = 0.02

    def centres(self):
        angles = torch.arange(self.modes) * (2 * math.pi / self.modes)
        return self.radius * torch.stack([angles.cos(), angles.sin()], 1)


@dataclass(kw_only=True)
class Grid(Mixture):
    """side x side Gaussians, `spacing` apart, centred: Lin et al. 2018 (PacGAN), arXiv 1712.04086, section 4.1."""

    side: int = 5
    spacing: float = 2.0
    std: float = 0.05

    def centres(self):
        ticks = (torch.arange(self.side) - (self.side - 1) / 2) * self.spacing
        return torch.cartesian_prod(ticks, ticks)


@dataclass(kw_only=True)
class SwissRoll(Vectors):
    """scikit-learn's swiss roll seen from its end and scaled to about [-2, 2]: Gulrajani et al. 2017, figure 1."""

    noise: float = 0.25  # of the unscaled roll, whose radius is about 14

    def points(self, rng):
        from sklearn.datasets import make_swiss_roll

        points, _ = make_swiss_roll(self.num, noise=self.noise, random_state=rng.initial_seed() % 2**32)
        return torch.from_numpy(points[:, [0, 2]].astype(np.float32) / 7.5), None
