"""Penalties on the critic's gradient at its input: formulas first, then the classes that weigh and time them.

A critic maps (batch, ...) to logits (batch, *patches). Gradients are per sample, (batch, F); a network that mixes
the samples of a batch (batch norm) has no per-sample gradient, so critics under a penalty should not use it.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import ClassVar

import torch
from torch import Tensor

from ganrun.game import at_least_float32
from ganrun.lazy import Lazy

Critic = Callable[[Tensor], Tensor]


def input_gradient(critic: Critic, x: Tensor) -> Tensor:
    """Gradient of each sample's summed logits at `x`, (batch, F), differentiable in the critic's weights.

    In float32 at least, also at fakes that a generator under autocast made in bfloat16. At a leaf whose logits the
    critic has already given, see Judge.differentiable, no further pass is made.
    """
    if not (x.is_leaf and x.requires_grad):
        x = at_least_float32(x.detach()).requires_grad_()
    (gradient,) = torch.autograd.grad(critic(x).sum(), x, create_graph=True)
    return gradient.flatten(1)


def unit_norm(gradient: Tensor) -> Tensor:
    """E (|g| - 1)^2 over samples: Gulrajani et al. 2017, arXiv 1704.00028, eq. 3."""
    return (gradient.norm(dim=1) - 1).square().mean()


def zero_centred(gradient: Tensor) -> Tensor:
    """1/2 E |g|^2 over samples: Mescheder et al. 2018, arXiv 1801.04406, eq. 9 without gamma."""
    return gradient.square().sum(1).mean() / 2


def largest(gradient: Tensor) -> Tensor:
    """max |g|^2 over samples: Zhou et al. 2019, arXiv 1902.05687."""
    return gradient.square().sum(1).amax()


def per_sample_uniform(like: Tensor) -> Tensor:
    """One number in [0, 1) for each sample, shaped to broadcast over `like` (batch, ...)."""
    return torch.rand(len(like), *[1] * (like.dim() - 1), device=like.device, dtype=like.dtype)


def between(real: Tensor, fake: Tensor) -> Tensor:
    """A point between each real and its fake, uniform on the line: one epsilon a sample."""
    epsilon = per_sample_uniform(real)
    return epsilon * real + (1 - epsilon) * fake


class Penalty(Lazy, ABC):
    """A penalty added to the discriminator's loss.

    It may have check(discriminator), which raises UserError for a network that it cannot go with.

    Example:
        penalty = R1(weight=10.0, every=16)
        penalty(lambda x: x.sum(1), real, fake)  # scalar: 10/2 * 16 * mean squared gradient norm at the reals
    """

    at: ClassVar[Sequence[str]] = ()  # "real", "fake": where it takes the gradient, in the pass that the loss makes
    per_sample = True  # does it need the critic's answer to single samples, which batch norm would mix?
    judged = False  # is it given the judge, whose passes are shared and compiled, in place of the critic?

    def forward(self, critic: Critic, real: Tensor, fake: Tensor) -> Tensor:
        """(batch, ...) reals and fakes -> scalar."""
        return self.strength * self.penalty(critic, real, fake)

    @abstractmethod
    def penalty(self, critic: Critic, real: Tensor, fake: Tensor) -> Tensor:
        """The formula, unweighted."""


class GradientPenalty(Penalty):
    """WGAN-GP: unit gradient norm between reals and fakes, one epsilon a sample (Gulrajani et al. 2017)."""

    def penalty(self, critic, real, fake):
        return unit_norm(input_gradient(critic, between(real, fake)))


class ZeroCentred(Penalty):
    """0-GP: lambda E |g|^2 between reals and fakes (Thanh-Tung et al. 2019, arXiv 1902.03984)."""

    def penalty(self, critic, real, fake):
        return 2 * zero_centred(input_gradient(critic, between(real, fake)))


class MaxGradient(Penalty):
    """LGAN: lambda max |g|^2 between reals and fakes (Zhou et al. 2019, arXiv 1902.05687).

    The largest gradient stands for the critic's Lipschitz constant. With micro_batch or several processes each pass has
    its own.
    """

    def penalty(self, critic, real, fake):
        return largest(input_gradient(critic, between(real, fake)))


class Dragan(Penalty):
    """Unit gradient norm around the data: Kodali et al. 2017, arXiv 1705.07215.

    At x + alpha * noise, as in the authors' code: one alpha ~ U[0, 1) a sample; the noise of each coordinate is
    0.5 std(x) U[0, 1), with one standard deviation over the whole pass. The paper's formula differs: its noise is
    N(0, c I), and the gradient is taken at x + noise.
    """

    def penalty(self, critic, real, fake):
        noise = 0.5 * real.std(correction=0) * torch.rand_like(real)
        return unit_norm(input_gradient(critic, real + per_sample_uniform(real) * noise))


class R1(Penalty):
    """gamma/2 E |grad D(real)|^2, weight = gamma (Mescheder et al. 2018, eq. 9)."""

    at = ("real",)
    needs_generated = False

    def penalty(self, critic, real, fake):
        return zero_centred(input_gradient(critic, real))


class R2(Penalty):
    """gamma/2 E |grad D(fake)|^2, weight = gamma (Mescheder et al. 2018, eq. 10)."""

    at = ("fake",)

    def penalty(self, critic, real, fake):
        return zero_centred(input_gradient(critic, fake))
