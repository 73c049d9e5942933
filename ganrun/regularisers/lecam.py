"""LeCam: the discriminator's logits stay near their own moving averages."""

import torch
from torch import Tensor
from torch.nn.functional import relu

from ganrun.adversary import Judge
from ganrun.errors import UserError, require
from ganrun.penalties import Penalty
from ganrun.ramps import Ramp


def lecam(real: Tensor, fake: Tensor, real_mean: Tensor, fake_mean: Tensor) -> Tensor:
    """E relu(D(x) - m_fake)^2 + E relu(m_real - D(G(z)))^2 of logits (batch, *patches).

    The paper's formula (Tseng et al. 2021, arXiv 2104.03310) has no relu; the authors' code has.
    """
    return relu(real - fake_mean).square().mean() + relu(real_mean - fake).square().mean()


class LeCam(Penalty):
    """LeCam regularisation, for few images: Tseng et al. 2021, arXiv 2104.03310.

    The averages take in each pass's own logits first, and are corrected for their start at 0. They are averaged over
    processes at the end of a round, saved and resumed.

    decay: share of an average that stays after a pass; 0 = the latest logits alone. start: steps in which it only
    averages; 0 = it acts from the beginning.

    Example:
        adversary = Adversary(discriminator, Hinge(), penalties={"lecam": LeCam(0.3)})
    """

    per_sample = False
    judged = True

    def __init__(self, weight: float | Ramp = 0.3, decay: float = 0.99, start: int = 0, every: int = 1):
        super().__init__(weight, every)
        require(0, start=start)
        if not 0 <= decay < 1:
            raise UserError(f"decay={decay}; expected at least 0 and less than 1")
        self.decay, self.start = decay, start
        self.register_buffer("means", torch.zeros(2))  # of reals and of fakes, not corrected
        self.register_buffer("filled", torch.zeros(()))  # 1 - decay^passes, which corrects them

    def penalty(self, judge: Judge, real: Tensor, fake: Tensor) -> Tensor:
        real, fake = judge(real).logits, judge(fake).logits
        real_mean, fake_mean = self._averages(real.detach(), fake.detach())
        return float(self.now.step >= self.start) * lecam(real, fake, real_mean, fake_mean)

    @torch.no_grad()
    def _averages(self, real: Tensor, fake: Tensor) -> Tensor:
        """(2,): takes in the latest logits."""
        self.means.lerp_(torch.stack([real.mean(), fake.mean()]).to(self.means.dtype), 1 - self.decay)
        self.filled.lerp_(torch.ones_like(self.filled), 1 - self.decay)
        return self.means / self.filled
