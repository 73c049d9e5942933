"""Instance noise: Gaussian noise on everything the discriminator sees, fading over training."""

import torch
from torch import Tensor

from ganrun.errors import UserError
from ganrun.game import Timed
from ganrun.ramps import Ramp, at, bounds


class InstanceNoise(Timed):
    """Adds N(0, std^2), std falling linearly to 0: Sønderby et al. 2017, arXiv 1610.04490, section 3.

    std: standard deviation at step 0, in units of the data's value range. decay_steps: steps until it is 0; None = std
    stays constant, or follows its own ramp.

    Example:
        noise = InstanceNoise(std=0.1, decay_steps=2000)
        noisy = noise(images)  # (batch, C, H, W); the training module tells it the step
    """

    def __init__(self, std: float | Ramp, decay_steps: int | None):
        super().__init__()
        low, high = bounds(std)
        if low < 0 or high <= 0 or (decay_steps is not None and decay_steps < 1):
            raise ValueError(f"std={std}, decay_steps={decay_steps}; expected std > 0 and at least 1 step")
        if isinstance(std, Ramp) and decay_steps is not None:
            raise UserError(f"std={std}: a ramp has a course of its own; add decay_steps=null")
        self.std = std
        self.decay_steps = decay_steps

    def forward(self, x: Tensor) -> Tensor:
        fade = 1.0 if self.decay_steps is None else max(0.0, 1 - self.now.step / self.decay_steps)
        return x + at(self.std, self.now) * fade * torch.randn_like(x)
