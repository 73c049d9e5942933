"""The generator's noise. It lives beside the generator and travels with it."""

from abc import ABC, abstractmethod

import torch
from torch import Generator, Tensor, nn

from ganrun.errors import require
from ganrun.game import Batch


class Noise(nn.Module, ABC):
    """Draws z (num, z_dim) from `rng`; given labels travel along in the batch."""

    def __init__(self, z_dim: int):
        super().__init__()
        require(1, z_dim=z_dim)
        self.z_dim = z_dim

    def forward(self, num: int, rng: Generator, label: Tensor | None = None) -> Batch:
        batch = {"z": self.draw(num, rng)}
        return batch if label is None else batch | {"label": label}

    @abstractmethod
    def draw(self, num: int, rng: Generator) -> Tensor:
        """(num, z_dim)"""


class Normal(Noise):
    """z ~ N(0, I)."""

    def draw(self, num, rng):
        return torch.randn(num, self.z_dim, generator=rng)


class Uniform(Noise):
    """z ~ U(-1, 1) in each coordinate (DCGAN, arXiv 1511.06434, section 4)."""

    def draw(self, num, rng):
        return torch.rand(num, self.z_dim, generator=rng) * 2 - 1
