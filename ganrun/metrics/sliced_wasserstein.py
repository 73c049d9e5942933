"""Sliced Wasserstein distance: needs no trained network, works for images and vectors."""

from typing import Any

import torch
from torch import Tensor

from ganrun.seeding import generator


def sliced_wasserstein(real: Tensor, fake: Tensor, directions: Tensor) -> Tensor:
    """Mean over unit directions (F, K) of the 1-D Wasserstein-1 distance of real and fake (num, F).

    In units of the data's value range; 0 for equal sets. Rabin et al. 2012, "Wasserstein barycenter and its
    application to texture mixing", with W1 in place of W2.
    """
    sorted_real, sorted_fake = ((directions.T @ samples.T).sort(dim=1).values for samples in (real, fake))
    return (sorted_real - sorted_fake).abs().mean()


class SlicedWasserstein:
    """num_projections: random directions, the same for every evaluation."""

    def __init__(self, num_projections: int = 512):
        if num_projections < 1:
            raise ValueError(f"num_projections={num_projections}; expected at least 1")
        self.num_projections = num_projections

    def __call__(self, real: Tensor, fake: Tensor) -> float:
        """Equally many real and fake samples (num, ...), any shape."""
        if real.shape != fake.shape:
            raise ValueError(f"real {tuple(real.shape)} and fake {tuple(fake.shape)} differ; expected equally many")
        real, fake = real.flatten(1).float(), fake.flatten(1).float()
        directions = torch.randn(real.shape[1], self.num_projections, generator=generator("directions"))
        directions = directions / directions.norm(dim=0)
        return float(sliced_wasserstein(real, fake, directions.to(real.device)))

    @property
    def protocol(self) -> dict[str, Any]:
        return {"features": "raw values", "order": 1, "num_projections": self.num_projections}
