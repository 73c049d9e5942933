"""R1 and R2 without a gradient at the input: how far a small random step moves the logits."""

import torch
from torch import Tensor, nn
from torch.nn.modules.dropout import _DropoutNd

from ganrun.adversary import Judge
from ganrun.errors import UserError
from ganrun.game import at_least_float32
from ganrun.penalties import Penalty
from ganrun.ramps import Ramp


def finite_difference(logits: Tensor, moved: Tensor, epsilon: float) -> Tensor:
    """1/2 E ((D(x + epsilon n) - D(x)) / epsilon)^2, of logits (batch, *patches) that are summed over patches.

    With n ~ N(0, I) and a small epsilon its expectation is 1/2 E |grad D(x)|^2, as of R1. Approximated R1: Lin et al.
    2025, arXiv 2501.08316, without the division by epsilon.
    """
    return ((moved - logits).reshape(len(logits), -1).sum(1) / epsilon).square().mean() / 2


class FiniteR1(Penalty):
    """R1 by a finite difference along one random direction a sample; weight = gamma, as for R1.

    Needs no second derivative, so that a compiled discriminator stays compiled. It costs a pass over 2 * share of the
    batch: with share=0.5 no compilation for another batch size. For a smooth discriminator its expected gradient is
    R1's, with more noise. One of straight pieces, as ReLU makes it, changes its gradient where a piece ends: R1's own
    gradient does not see these borders move, and this one does.

    epsilon: the step, in units of the value range. share: of the batch that it looks at, more than 0 to 1.
    """

    judged = True

    def __init__(self, weight: float | Ramp = 10.0, epsilon: float = 0.01, share: float = 0.25, every: int = 1):
        super().__init__(weight, every)
        if epsilon <= 0:
            raise UserError(f"epsilon={epsilon}; expected more than 0")
        if not 0 < share <= 1:
            raise UserError(f"share={share}; expected more than 0 and at most 1 (1 = the whole batch)")
        self.epsilon, self.share = epsilon, share

    def check(self, discriminator: nn.Module) -> None:
        """Raises UserError for dropout, which would make most of the difference."""
        if any(isinstance(module, _DropoutNd) and module.p for module in discriminator.modules()):
            raise UserError(
                "penalty: a finite difference cannot tell the step from dropout; add discriminator.dropout=0, or take "
                "r1 and r2"
            )

    def penalty(self, judge: Judge, real: Tensor, fake: Tensor) -> Tensor:
        return self.around(judge, real)

    def around(self, judge: Judge, x: Tensor) -> Tensor:
        x = at_least_float32(x.detach()[: max(1, round(self.share * len(x)))])
        return finite_difference(*judge.pair(x, x + self.epsilon * torch.randn_like(x)), self.epsilon)


class FiniteR2(FiniteR1):
    """R2 by a finite difference: the same at fakes."""

    def penalty(self, judge: Judge, real: Tensor, fake: Tensor) -> Tensor:
        return self.around(judge, fake)
