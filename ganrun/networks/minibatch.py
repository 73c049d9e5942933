"""Minibatch discrimination: the discriminator also sees how near its samples lie to each other."""

import torch
from torch import Tensor, nn

from ganrun.errors import UserError, require
from ganrun.game import Verdict, at_least_float32
from ganrun.networks.heads import Affine, Changed


def closeness(projected: Tensor) -> Tensor:
    """M (batch, B, C) -> o (batch, B): sum over j of exp(-|M_i,b - M_j,b|_1), with itself 1.

    Salimans et al. 2016, arXiv 1606.03498, section 3.2.
    """
    distances = (projected[:, None] - projected[None]).abs().sum(3)  # (batch, batch, B)
    return torch.exp(-distances).sum(1)


class MinibatchDiscrimination(Changed):
    """Adds a learnt sum of the closeness to the logit: the last layer's input is the features and o.

    kernels: B. dimensions: C; both by default those of the authors' code. T starts with columns of about length 1, as
    theirs do, and the sum with 0, so that training starts from the network without it. Classes and embeddings do not
    see o. The batch is what one pass of the discriminator sees, either reals or fakes: with micro_batch, or in each of
    several processes, those rows alone. Its memory grows with the square of the batch.

    Example:
        discriminator.head = MinibatchDiscrimination(discriminator.head, kernels=100, dimensions=5)
    """

    def __init__(self, head: nn.Module, *, kernels: int = 100, dimensions: int = 5):
        super().__init__(head)
        require(1, kernels=kernels, dimensions=dimensions)
        if self.condition == "classes-and-fake":
            raise UserError("head.minibatch: with conditional=multi-hinge no loss looks at the logit that it adds to")
        self.kernels = kernels
        self.project = nn.Linear(self.in_features, kernels * dimensions, bias=False)  # T
        self.sum = nn.Linear(kernels, 1, bias=False)
        nn.init.normal_(self.project.weight, 0.0, self.in_features**-0.5)
        nn.init.zeros_(self.sum.weight)

    def forward(self, features: Tensor, label: Tensor | None = None) -> Verdict:
        verdict = self.head(features, label)
        added = self.sum(self.closeness(features)).squeeze(1)
        return verdict._replace(logits=at_least_float32(verdict.logits) + at_least_float32(added))

    def affine(self, features: Tensor, label: Tensor | None = None) -> Affine:
        inner = self.head.affine(features, label)
        weight = self.sum.weight.expand(len(inner.weight), -1)
        return Affine(
            torch.cat([inner.features, self.closeness(features)], 1), torch.cat([inner.weight, weight], 1), inner.bias
        )

    def closeness(self, features: Tensor) -> Tensor:
        """features (batch, F) -> o (batch, B) in float32: an exponential of a sum of differences needs its digits."""
        with torch.autocast(features.device.type, enabled=False):
            return closeness(self.project(features.to(self.project.weight.dtype)).unflatten(1, (self.kernels, -1)))
