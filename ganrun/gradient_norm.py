"""Gradient normalisation: logits of any discriminator, divided by the length of their own gradient plus their size."""

from collections.abc import Callable

import torch
from torch import Tensor

from ganrun.game import Verdict, at_least_float32

LEAST = 1e-12  # of the divisor, for a critic that is flat and 0


def gradient_normalised(logits: Tensor, gradient: Tensor) -> Tensor:
    """f / (|grad f| + |f|), in [-1, 1]: Wu et al. 2021, arXiv 2109.02235.

    logits: (batch, *patches). gradient: (batch, F), of each sample's summed logits; with one logit a sample the result
    has a gradient no longer than 1.
    """
    length = gradient.norm(dim=1).view(-1, *[1] * (logits.dim() - 1))
    return logits / (length + logits.abs()).clamp_min(LEAST)


def with_gradient_norm(discriminator: Callable[..., Verdict], x: Tensor, *given: Tensor | None) -> Verdict:
    """The verdict on x (batch, ...) with normalised logits, in float32; features and classes stay as they are.

    discriminator: not compiled, since it is differentiated twice. given: what it takes beside x.
    """
    with torch.enable_grad():
        x = at_least_float32(x)
        x = x if x.requires_grad else x.detach().requires_grad_()
        verdict = discriminator(x, *given)
        logits = at_least_float32(verdict.logits)
        (gradient,) = torch.autograd.grad(logits.sum(), x, create_graph=True)
        return verdict._replace(logits=gradient_normalised(logits, gradient.flatten(1)))
