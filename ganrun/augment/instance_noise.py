"""Instance noise: Gaussian noise on everything the discriminator sees, fading over training."""

import torch
from torch import Tensor

from ganrun.game import Timed


class InstanceNoise(Timed):
    """Adds N(0, std^2), std falling linearly to 0: Sønderby et al. 2017, arXiv 1610.04490, section 3.

    std: standard deviation at step 0, in units of the data's value range. decay_steps: steps until it is 0.
    """

    def __init__(self, std: float, decay_steps: int):
        super().__init__()
        if std <= 0 or decay_steps < 1:
            raise ValueError(f"std={std}, decay_steps={decay_steps}; expected std > 0 and at least 1 step")
        self.std = std
        self.decay_steps = decay_steps

    def forward(self, x: Tensor) -> Tensor:
        std = self.std * max(0.0, 1 - self.now.step / self.decay_steps)
        return x + std * torch.randn_like(x)

    def observe(self, real_logits: Tensor) -> None:
        """Nothing to adapt to."""
