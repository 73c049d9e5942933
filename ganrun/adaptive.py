"""A probability that rises while the discriminator overfits: the rule that ADA and APA share."""

import torch
from torch import Tensor

from ganrun.errors import UserError, require
from ganrun.game import Now, Timed
from ganrun.ramps import Ramp, at, bounds


class Adaptive(Timed):
    """Something that acts with probability p: a number, a ramp, or by default one that follows the discriminator.

    Every `every` steps p grows by (images seen meanwhile)/over if r > target and shrinks by as much if r < target, but
    not below 0; r is the mean sign of the discriminator's logits of reals, from all steps since the last change and all
    processes: Karras et al. 2020, arXiv 2006.06676, section 3.1. p has no upper limit, as in the authors' code. Unlike
    there, logits that only a penalty evaluates do not count; they belong to the same images.

    p:      fixed, or a ramp; None = adaptive, which the settings below are for
    start:  p at step 0
    target: the r that is aimed at; 0 = half of the reals look fake, 1 = none
    over:   images in which p goes from 0 to 1 at the fastest; the authors' ada_kimg * 1000
    every:  steps from one change to the next
    """

    def __init__(
        self,
        p: float | Ramp | None = None,
        *,
        start: float = 0.0,
        target: float = 0.6,
        over: int = 500_000,
        every: int = 4,
    ):
        super().__init__()
        require(1, over=over, every=every)
        low, high = bounds(start if p is None else p)
        if low < 0 or high > 1:
            raise UserError(f"{'start' if p is None else 'p'}={start if p is None else p}; expected 0 to 1")
        if not -1 < target < 1:
            raise UserError(f"target={target}; expected more than -1 and less than 1")
        if p is not None and (start, target, over, every) != (0.0, 0.6, 500_000, 4):
            raise UserError(
                f"p={p}: start, target, over and every act only where p adapts; leave them out, or leave p out"
            )
        self.p, self.start, self.target, self.over, self.every = p, start, target, over, every
        if p is None:  # counted in images, since whole numbers are the same in all processes
            self.register_buffer("level", torch.tensor(round(start * over)))
            self.register_buffer("signs", torch.zeros(2))  # since the last change: sum of means, number of batches

    @property
    def adapts(self) -> bool:
        return self.p is None

    @property
    def probability(self) -> float | Tensor:
        """The current p; one that adapts stays on the device, a scalar."""
        return self.level / self.over if self.adapts else at(self.p, self.now)

    def observe(self, real_logits: Tensor) -> dict[str, Tensor]:
        """Takes note of (batch, *patches) logits, 0 = undecided. Returns what is logged: p, and r of this batch."""
        sign = real_logits.float().sign().mean()
        if self.adapts:
            self.signs += torch.stack([sign, torch.ones_like(sign)])
        return {"p": self.probability if self.adapts else torch.full_like(sign, self.probability), "sign": sign}

    @torch.no_grad()
    def end_round(self, now: Now) -> None:
        if self.adapts and now.step % self.every == 0:
            total, num = self.signs
            up = torch.sign(total - self.target * num).to(self.level.dtype)
            self.level.add_(up * (now.images // now.step * self.every)).clamp_(min=0)
            self.signs.zero_()

    def restart(self) -> None:
        """p is as at step 0, for a run that starts from another one's weights."""
        if self.adapts:
            self.level.fill_(round(self.start * self.over))
            self.signs.zero_()
