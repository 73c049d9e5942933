"""One player's optimizer: a torch optimizer, its learning-rate schedule, gradient clipping and weight projection."""

import inspect
import math
from collections.abc import Callable, Iterable
from importlib import import_module
from typing import Any

import torch
from torch import Tensor, nn

from ganrun.errors import UserError, one_of, require
from ganrun.game import Now
from ganrun.ramps import FIRST, LAST, Ramp, at, bounds

LR_SCHEDULES: dict[str, Callable[[float, float], float]] = {  # of shares of decay_steps in [0, 1]: passed, start
    "constant": lambda t, start: 1.0,
    "linear": lambda t, start: 1 - t,  # to 0: SNGAN, WGAN-GP
    "cosine": lambda t, start: (1 + math.cos(math.pi * t)) / 2,  # to 0: Loshchilov and Hutter 2017, arXiv 1608.03983
    "constant-then-linear": lambda t, start: 1 - max(0.0, t - start) / (1 - start),  # to 0: CycleGAN, arXiv 1703.10593
}


@torch.no_grad()
def total_norm(tensors: list[Tensor]) -> Tensor:
    """Euclidean norm of all entries together; not finite if one entry is not."""
    return torch.stack(torch._foreach_norm(tensors)).norm() if tensors else torch.zeros(())


def in_one_go(cls: type[torch.optim.Optimizer], settings: Iterable[str]) -> dict[str, bool]:
    """The setting that makes an optimizer move all parameters at once: fused where available, else foreach.

    On CPUs torch's default is a loop over the parameters; the formula is the same. settings: the user's, which win.
    """
    if {"fused", "foreach", "differentiable"} & set(settings):
        return {}
    if cls in (torch.optim.Adam, torch.optim.AdamW, torch.optim.SGD):  # on CPUs and GPUs alike
        return {"fused": True}
    return {"foreach": True} if "foreach" in inspect.signature(cls).parameters else {}


def check_rate(lr: float | Ramp, lr_schedule: str, decay_steps: int, decay_start: int | None) -> None:
    """Raises UserError for an impossible learning rate or schedule."""
    if lr_schedule not in LR_SCHEDULES:
        raise UserError(f"lr_schedule={lr_schedule}; {one_of(LR_SCHEDULES, lr_schedule)}")
    low, high = bounds(lr)
    if not 0 <= low <= high < math.inf or high == 0:
        raise UserError(f"lr={lr}; expected more than 0")
    require(1, decay_steps=decay_steps)
    if decay_start is not None and lr_schedule != "constant-then-linear":
        raise UserError(f"decay_start={decay_start}: lr_schedule={lr_schedule} has none (null = off)")
    if decay_start is not None and not 0 <= decay_start < decay_steps:
        raise UserError(f"decay_start={decay_start}; expected at least 0 and less than decay_steps={decay_steps}")


def setting_at(value: Any, now: Now) -> Any:
    """The current value of an optimizer's own setting; in a list, such as Adam's betas, each entry may be a ramp."""
    return tuple(float(at(each, now)) for each in value) if isinstance(value, list) else at(value, now)


def has_ramp(value: Any) -> bool:
    return any(isinstance(each, Ramp) for each in (value if isinstance(value, list) else [value]))


class PlayerOptimizer:
    """Steps one player's parameters.

    optimizer:      dotted name of a torch optimizer class
    lr:             learning rate, a value or a ramp
    lr_schedule:    multiplies lr: constant, linear (to 0), cosine (to 0), constant-then-linear (to 0)
    decay_steps:    steps until a schedule reaches 0
    decay_start:    step from which constant-then-linear falls; None = half of decay_steps
    clip_weights:   after each step parameters are clamped to [-c, c] (WGAN, arXiv 1701.07875, algorithm 1); None = off
    clip_gradients: largest norm of the player's gradient; None = off
    lazy:           steps from one lazy move to the next, see Schedule. i steps make i + 1 moves, so Adam's lr and betas
                    become c lr and beta^c, with c = i / (i + 1): Karras et al. 2020, arXiv 1912.04958, appendix B;
                    None = off
    settings:       the optimizer's own arguments, each a value or a ramp

    Example:
        optimizer = PlayerOptimizer(network.parameters(), optimizer="torch.optim.Adam", lr=2e-4, betas=[0.5, 0.999])
        norm = optimizer.before_step(Now(step=0, move=0, images=0))  # of the gradient; sets the learning rate
    """

    def __init__(
        self,
        parameters: Iterable[nn.Parameter],
        *,
        optimizer: str,
        lr: float | Ramp,
        lr_schedule: str = "constant",
        decay_steps: int = 1,
        decay_start: int | None = None,
        clip_weights: float | None = None,
        clip_gradients: float | None = None,
        lazy: int | None = None,
        **settings,
    ):
        check_rate(lr, lr_schedule, decay_steps, decay_start)
        for name, value in {"clip_weights": clip_weights, "clip_gradients": clip_gradients}.items():
            if value is not None and not 0 < value < math.inf:
                raise UserError(f"{name}={value}; expected more than 0 (null = off)")
        if lazy is not None:
            require(1, lazy=lazy)
            if "betas" not in settings:
                raise UserError(f"lazy={lazy}: it corrects Adam's betas, but {optimizer} is given none (null = off)")
        self.parameters = list(parameters)
        self.lr = lr
        self.share = 1.0 if lazy is None else lazy / (lazy + 1)
        self.factor = 1.0  # share of the learning rate left by rollbacks: derived from their number, never saved
        self.lr_schedule = LR_SCHEDULES[lr_schedule]
        self.decay_steps = decay_steps
        self.decay_start = 0.5 if decay_start is None else decay_start / decay_steps
        self.clip_weights = clip_weights
        self.clip_gradients = clip_gradients
        first, last = (self._settings_at(settings, now) for now in (FIRST, LAST))
        self.ramped = {name: value for name, value in settings.items() if has_ramp(value)}
        module, _, name = optimizer.rpartition(".")
        cls: type[torch.optim.Optimizer] = getattr(import_module(module), name)
        if self.ramped:
            cls([nn.Parameter(torch.zeros(1))], lr=at(lr, LAST), **last)  # refuses final values that are invalid
        self.optimizer = cls(self.parameters, lr=self.share * at(lr, FIRST), **in_one_go(cls, first), **first)

    def lr_at(self, now: Now) -> float:
        """The learning rate, a function of `now` alone: nothing to save, nothing to replay."""
        passed = min(1.0, now.step / self.decay_steps)
        return self.factor * self.share * at(self.lr, now) * self.lr_schedule(passed, self.decay_start)

    def _settings_at(self, settings: dict[str, Any], now: Now) -> dict[str, Any]:
        """The optimizer's own settings, with Adam's betas corrected for lazy moves."""
        found = {name: setting_at(value, now) for name, value in settings.items()}
        if self.share < 1 and "betas" in found:
            found["betas"] = tuple(beta**self.share for beta in found["betas"])
        return found

    def before_step(self, now: Now) -> Tensor:
        """Sets the learning rate and other ramped settings, clips the gradient, returns its norm before clipping."""
        for group in self.optimizer.param_groups:
            group["lr"] = self.lr_at(now)
            group.update(self._settings_at(self.ramped, now))
        if self.clip_gradients is not None:
            return nn.utils.clip_grad_norm_(self.parameters, self.clip_gradients)
        return total_norm([p.grad for p in self.parameters if p.grad is not None])

    @torch.no_grad()
    def after_step(self) -> None:
        """Clips the weights."""
        if self.clip_weights is not None:
            torch._foreach_clamp_min_(self.parameters, -self.clip_weights)
            torch._foreach_clamp_max_(self.parameters, self.clip_weights)
