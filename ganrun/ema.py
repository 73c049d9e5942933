"""Exponential moving average of networks: the weights that grids, scores and the exported generator use."""

import copy
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn


class EMA(nn.Module):
    """Averages the parameters of `networks` and copies their buffers.

    decay: weight of the old average, after step t at most (1 + t) / (warmup + t), so that early averages are not
    dominated by the initial weights (warmup 1 = off).
    """

    def __init__(self, networks: tuple[nn.Module, ...], *, decay: float = 0.999, warmup: int = 10):
        super().__init__()
        if not 0 <= decay < 1:
            raise ValueError(f"decay={decay}; expected 0 <= decay < 1; ema=none is off")
        if warmup < 1:
            raise ValueError(f"warmup={warmup}; expected at least 1 (1 = off)")
        self.decay = decay
        self.warmup = warmup
        self.average = nn.ModuleList(copy.deepcopy(network) for network in networks).requires_grad_(False)
        self._live = tuple(networks)  # a tuple hides them from state_dict: the recipe saves them
        self._parameters_of = [list(self.average.parameters()), [p for net in networks for p in net.parameters()]]

    @torch.no_grad()
    def update(self, step: int) -> None:
        """After step `step` (counted from 0) has moved the networks."""
        decay = min(self.decay, (1 + step) / (self.warmup + step))
        if self._parameters_of[0]:
            torch._foreach_lerp_(*self._parameters_of, 1 - decay)
        for average, live in zip(self.average, self._live, strict=True):
            for kept, buffer in zip(average.buffers(), live.buffers(), strict=True):
                kept.copy_(buffer)

    def restart(self) -> None:
        """Sets the averages to the live networks' present values."""
        for average, live in zip(self.average, self._live, strict=True):
            average.load_state_dict(live.state_dict())

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Within it the live networks hold the averages."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    def _swap(self) -> None:
        for average, live in zip(self.average, self._live, strict=True):
            pairs = [*zip(average.parameters(), live.parameters(), strict=True)]
            pairs += [*zip(average.buffers(), live.buffers(), strict=True)]
            for a, b in pairs:
                a.data, b.data = b.data, a.data
