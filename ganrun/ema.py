"""Exponential moving average of networks: the weights that grids, scores and the exported generator use."""

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.nn.utils.parametrizations import _SpectralNorm
from torch.nn.utils.parametrize import ParametrizationList

from ganrun.errors import UserError, one_of
from ganrun.game import Now
from ganrun.ramps import Ramp, at, bounds
from ganrun.standing import batch_norms

STATISTICS = ("copied", "averaged")
POWER_STEPS = 15  # as many as torch takes for the weights that spectral norm starts with


class EMA(nn.Module):
    """Averages the parameters of `networks` and copies their buffers. The singular values of spectral norm are always
    those of the averages.

    decay: weight of the old average, after step t at most (1 + t) / (warmup + t), so that early averages are not
    dominated by the initial weights (warmup 1 = off). start: step before which the average is a copy of the networks,
    as in the code of BigGAN (Brock et al. 2019, arXiv 1809.11096); 0 = off. standing: batches over which batch norm's
    statistics are measured for the averages themselves, whenever these are used; 0 = off. statistics: batch norm's
    running ones are copied, or averaged with the same decay, as PyTorch-StudioGAN does.

    Example:
        ema = EMA((generator,), decay=0.999)
        ema.update(step=0, batch_size=64)  # after each step; `with ema.applied():` then uses the averages
    """

    def __init__(
        self,
        networks: tuple[nn.Module, ...],
        *,
        decay: float | Ramp = 0.999,
        warmup: int = 10,
        start: int = 0,
        standing: int = 0,
        statistics: str = "copied",
    ):
        super().__init__()
        check(networks, decay, warmup, start, standing, statistics)
        self.decay = decay
        self.warmup = warmup
        self.start = start
        self.standing = standing
        self.stands = False  # do the averages have statistics of their own by now?
        self.average = nn.ModuleList(copy.deepcopy(network) for network in networks).requires_grad_(False)
        self._live = tuple(networks)  # a tuple hides them from state_dict: the recipe saves them
        self._settled = False  # does spectral norm know the averages' singular values?
        self._parameters_of = [list(self.average.parameters()), [p for net in networks for p in net.parameters()]]
        averaged = statistics == "averaged"
        self._norms_of = [batch_norms(nets) if averaged else [] for nets in (self.average, networks)]

    def decay_at(self, step: int, batch_size: int) -> float:
        """Weight of the old average after step `step`, with batch_size images a move."""
        return self._decay(Now(step, 0, step * batch_size), batch_size) if step >= self.start else 0.0

    def _decay(self, now: Now, batch_size: int) -> float:
        return min(at(self.decay, now), (1 + now.step) / (self.warmup + now.step))

    @torch.no_grad()
    def update(self, step: int, batch_size: int) -> None:
        """Averages, once step `step` (counted from 0) has moved the networks with batch_size images a move."""
        self.forget()
        decay = self.decay_at(step, batch_size)
        statistics = [[x for norm in norms for x in (norm.running_mean, norm.running_var)] for norms in self._norms_of]
        for averages_and_live in (self._parameters_of, statistics):
            if averages_and_live[0]:
                torch._foreach_lerp_(*averages_and_live, 1 - decay)
        averaged = {id(x) for x in statistics[0]}  # found anew: buffers are other tensors once a network has moved
        for kept, buffer in self._pairs("buffers"):
            if id(kept) not in averaged:
                kept.copy_(buffer)

    def restart(self) -> None:
        """Sets the averages to the current values of the live networks."""
        self.forget()
        for average, live in zip(self.average, self._live, strict=True):
            average.load_state_dict(live.state_dict())

    def forget(self) -> None:
        """The averages are others now: what was found out about them no longer holds."""
        self.stands = self._settled = False

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Within it the live networks hold the averages."""
        if not self._settled:
            self._settle()
            self._settled = True
        self._swap()
        try:
            yield
        finally:
            self._swap()

    @torch.no_grad()
    def _settle(self) -> None:
        """Power steps on the averages, from the singular vectors of the live weights.

        With those vectors alone the singular values would be underestimated, and what is put out would be too large.
        """
        for own, live in self._pairs("modules"):
            for norm, of_live in zip(own, live, strict=True) if isinstance(own, ParametrizationList) else ():
                if isinstance(norm, _SpectralNorm):
                    norm._u.copy_(of_live._u)
                    norm._v.copy_(of_live._v)
        settle(self.average)

    def _swap(self) -> None:
        for a, b in [*self._pairs("parameters"), *self._pairs("buffers")]:
            a.data, b.data = b.data, a.data

    def _pairs(self, kind: str) -> Iterator[tuple[Any, Any]]:
        """The averages' parameters, buffers or modules, each with its live counterpart."""
        for average, live in zip(self.average, self._live, strict=True):
            yield from zip(getattr(average, kind)(), getattr(live, kind)(), strict=True)


def check(
    networks: tuple[nn.Module, ...], decay: float | Ramp, warmup: int, start: int, standing: int, statistics: str
) -> None:
    """Raises ValueError or UserError for settings of an average that make no sense."""
    low, high = bounds(decay)
    if not 0 <= low <= high < 1:
        raise ValueError(f"decay={decay}; expected 0 <= decay < 1; ema=none is off")
    if warmup < 1:
        raise ValueError(f"warmup={warmup}; expected at least 1 (1 = off)")
    if start < 0:
        raise ValueError(f"start={start}; expected at least 0 steps (0 = off)")
    if standing < 0:
        raise ValueError(f"standing={standing}; expected at least 0 batches (0 = off)")
    if standing and not batch_norms(networks):
        raise UserError(f"standing={standing}: the generator has no batch norm; expected ema.standing=0")
    if statistics not in STATISTICS:
        raise UserError(f"ema.statistics={statistics}; {one_of(STATISTICS, statistics)}")


@torch.no_grad()
def settle(network: nn.Module) -> None:
    """Has spectral norm find the singular values of the weights that a network has now, from the vectors it has."""
    for module in network.modules():
        for norm in module if isinstance(module, ParametrizationList) else ():
            if isinstance(norm, _SpectralNorm):
                norm._power_method(norm._reshape_weight_to_matrix(module.original), POWER_STEPS)


class HalfLifeEMA(EMA):
    """An average in which the weight of the past halves every `half_life` images, whatever the batch size.

    rampup: early on, the half-life is at most this share of the images seen so far; None = off. After n images
    the decay is 0.5^(batch_size / min(half_life, rampup n)), as in the code of Karras et al. 2020: arXiv 1912.04958
    uses 10,000 images, arXiv 2006.06676 also a rampup of 0.05. R3GAN's half-life is a ramp from 0: a copy at first.
    """

    def __init__(
        self,
        networks: tuple[nn.Module, ...],
        *,
        half_life: float | Ramp,
        rampup: float | None = 0.05,
        start: int = 0,
        standing: int = 0,
        statistics: str = "copied",
    ):
        super().__init__(networks, start=start, standing=standing, statistics=statistics)
        low, high = bounds(half_life)
        if low < 0 or high == 0:
            raise ValueError(f"half_life={half_life}; expected more than 0 images; ema=none is off")
        if rampup is not None and rampup <= 0:
            raise ValueError(f"rampup={rampup}; expected more than 0 (null = off)")
        self.half_life = half_life
        self.rampup = rampup

    def _decay(self, now: Now, batch_size: int) -> float:
        half_life = at(self.half_life, now)
        if self.rampup is not None:
            half_life = min(half_life, now.images * self.rampup)
        return 0.5 ** (batch_size / max(half_life, 1e-8))
