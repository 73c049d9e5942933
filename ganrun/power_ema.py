"""Averages of power functions, any length of which can be made after training (Karras et al. 2024, arXiv 2312.02696).

The weights after step tau enter an average over t steps by the profile p(tau) = (gamma + 1) tau^gamma / t^(gamma + 1).
Its length is told by the profile's standard deviation, std: .05 = 5 % of training. Weighted sums of the averages that a
run has kept have profiles of their own, so that almost any other average can be made of them afterwards.
"""

import math

import torch
from torch import Tensor, nn

from ganrun.ema import EMA
from ganrun.errors import UserError
from ganrun.game import Now

LONGEST = 0.5 / math.sqrt(3)  # the std of gamma = 0, which weighs all steps alike


def std_of(gamma: float) -> float:
    """The standard deviation of the profile, as a share of its steps: arXiv 2312.02696, section 3.1."""
    return math.sqrt((gamma + 1) / ((gamma + 2) ** 2 * (gamma + 3)))


def gamma_of(std: float) -> float:
    """The exponent of the profile with this relative standard deviation; the inverse of `std_of`.

    The largest root of std^2 (gamma + 2)^2 (gamma + 3) = gamma + 1. Raises UserError outside of (0, 0.288].
    """
    if not 0 < std <= LONGEST:
        raise UserError(f"std={std}; expected more than 0, up to 0.288, a share of the training such as 0.05")
    low, high = 0.0, 2.0 / std  # std_of falls with gamma, and std_of(gamma) < 1 / gamma
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (middle, high) if std_of(middle) > std else (low, middle)
    return (low + high) / 2


def decay_of(gamma: float, step: int) -> float:
    """Weight of the old average after step `step`, counted from 1: arXiv 2312.02696, section 3.1."""
    return (1 - 1 / step) ** (gamma + 1)


class PowerEMA(EMA):
    """An average by a power function: its length grows with training, so that no half-life has to be chosen for it.

    std:   length, as a share of all steps so far; .05 and .10 suit most runs
    gamma: the function's exponent, instead of std; None = by std
    standing, statistics: see EMA

    Example:
        ema = PowerEMA((generator,), std=0.05)  # gamma 16.97
        ema.update(step=0, batch_size=64)
    """

    def __init__(
        self,
        networks: tuple[nn.Module, ...],
        *,
        std: float | None = 0.05,
        gamma: float | None = None,
        standing: int = 0,
        statistics: str = "copied",
    ):
        super().__init__(networks, standing=standing, statistics=statistics)
        if (std is None) == (gamma is None):
            raise UserError(f"ema.std={std} ema.gamma={gamma}; expected one of them, and null for the other")
        if gamma is not None and not gamma >= 0:
            raise UserError(f"ema.gamma={gamma}; expected at least 0, at which all steps weigh alike")
        self.gamma = gamma_of(std) if gamma is None else gamma

    def _decay(self, now: Now, batch_size: int) -> float:
        return decay_of(self.gamma, now.step + 1)


def products(steps_a: Tensor, gammas_a: Tensor, steps_b: Tensor, gammas_b: Tensor) -> Tensor:
    """Integrals over tau of the products of two profiles, (a, b) float64.

    steps_a, gammas_a: (a,), the last step and the exponent of each profile; steps_b, gammas_b: (b,).
    """
    ta, ga, tb, gb = steps_a[:, None], gammas_a[:, None], steps_b[None], gammas_b[None]
    shorter, longer = torch.minimum(ta, tb), torch.maximum(ta, tb)
    exponent = torch.where(ta < tb, gb, ga)  # of the longer profile, which the shorter one ends
    return (ga + 1) * (gb + 1) / (ga + gb + 1) * (shorter / longer) ** exponent / longer


def weights_for(snapshots: list[tuple[int, float]], step: int, std: float) -> Tensor:
    """What to multiply each snapshot by to make the average of length `std` over `step` steps; (num,) float64.

    The sum of their profiles is the closest to the wanted one, by least squares: section 3.2 of the paper. They sum to
    1, so that what does not move in training stays as it is. snapshots: (step, gamma) of each
    """
    steps, gammas = profiles_of(snapshots, step)
    wanted = profiles_of([(step, gamma_of(std))], step)
    ones = torch.ones(len(snapshots), 1, dtype=torch.float64)
    above = torch.cat([products(steps, gammas, steps, gammas), ones], 1)
    below = torch.cat([ones.T, torch.zeros(1, 1, dtype=torch.float64)], 1)  # a Lagrange multiplier holds the sum
    right = torch.cat([products(steps, gammas, *wanted), ones[:1]])
    return torch.linalg.lstsq(torch.cat([above, below]), right, driver="gelsd").solution[:-1, 0]


def misfit(snapshots: list[tuple[int, float]], weights: Tensor, step: int, std: float) -> float:
    """Distance of a sum of profiles from the wanted one, relative to its norm: 0 = the same average."""
    steps, gammas = profiles_of(snapshots, step)
    wanted = profiles_of([(step, gamma_of(std))], step)
    norm = products(*wanted, *wanted).item()
    square = weights @ products(steps, gammas, steps, gammas) @ weights
    square = square - 2 * weights @ products(steps, gammas, *wanted).squeeze(1) + norm
    return math.sqrt(max(0.0, square.item()) / norm)


def profiles_of(snapshots: list[tuple[int, float]], step: int) -> tuple[Tensor, Tensor]:
    """Last steps, as shares of `step`, and exponents, each (num,) float64."""
    steps, gammas = torch.tensor(snapshots, dtype=torch.float64).unbind(1)
    return steps / step, gammas
