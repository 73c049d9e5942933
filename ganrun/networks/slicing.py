"""SAN: the last layer's direction learns to part reals from fakes, the features learn the loss."""

import torch
from torch import Tensor

from ganrun.game import Verdict, at_least_float32
from ganrun.networks.heads import Changed


class Slicing(Changed):
    """Logits <w, |a| h> + b of a head <a, h> + b with the direction w = a / |a|: the same values, other gradients.

    Takida et al. 2024, arXiv 2301.12811, section 6. `logits` leave w as it is. `direction`, <w, |a| h> with h as it is,
    teaches w alone: the loss on it is `AdversarialLoss.direction`. |a| counts as a part of h, as in the authors' code
    (sony/san, simple-san). With a projection each class has its own direction.
    """

    outer = True

    def forward(self, features: Tensor, label: Tensor | None = None) -> Verdict:
        verdict = self.head(features, label)
        with torch.autocast(features.device.type, enabled=False):
            h, weight, bias = self.head.affine(at_least_float32(features), label)
            length = weight.norm(dim=1, keepdim=True).clamp_min(torch.finfo(weight.dtype).tiny)
            h, w = h * length, weight / length
            logits, direction = (h * w.detach()).sum(1) + bias, (h.detach() * w).sum(1)
        return verdict._replace(logits=logits, direction=direction)
