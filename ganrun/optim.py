"""One player's optimizer: a torch optimizer, its learning-rate schedule, gradient clipping and weight projection."""

import inspect
import math
from collections.abc import Callable, Iterable
from importlib import import_module

import torch
from torch import Tensor, nn

from ganrun.errors import UserError, one_of, require

LR_SCHEDULES: dict[str, Callable[[float], float]] = {  # t: share of decay_steps that has passed, in [0, 1]
    "constant": lambda t: 1.0,
    "linear": lambda t: 1 - t,  # to 0: SNGAN, WGAN-GP
    "cosine": lambda t: (1 + math.cos(math.pi * t)) / 2,  # to 0: Loshchilov and Hutter 2017, arXiv 1608.03983
}


@torch.no_grad()
def total_norm(tensors: list[Tensor]) -> Tensor:
    """Euclidean norm of all entries together; not finite if one entry is not."""
    return torch.stack(torch._foreach_norm(tensors)).norm() if tensors else torch.zeros(())


def in_one_go(cls: type[torch.optim.Optimizer], settings: Iterable[str]) -> dict[str, bool]:
    """The setting with which an optimizer moves all parameters at once: fused where it can, else foreach.

    torch's own default is a loop over them on CPUs. The formula is the same. settings: the user's own, which win.
    """
    if {"fused", "foreach", "differentiable"} & set(settings):
        return {}
    if cls in (torch.optim.Adam, torch.optim.AdamW, torch.optim.SGD):  # on CPUs and GPUs alike
        return {"fused": True}
    return {"foreach": True} if "foreach" in inspect.signature(cls).parameters else {}


class PlayerOptimizer:
    """Steps one player's parameters.

    optimizer: dotted name of a torch optimizer class; `settings` are its own arguments.
    lr: learning rate at step 0. lr_schedule: its course over decay_steps: constant, linear (to 0), cosine (to 0).
    clip_weights: after each step parameters are clamped to [-c, c] (WGAN, arXiv 1701.07875, algorithm 1).
    clip_gradients: largest norm of the player's gradient. None = off for both.
    """

    def __init__(
        self,
        parameters: Iterable[nn.Parameter],
        *,
        optimizer: str,
        lr: float,
        lr_schedule: str = "constant",
        decay_steps: int = 1,
        clip_weights: float | None = None,
        clip_gradients: float | None = None,
        **settings,
    ):
        if lr_schedule not in LR_SCHEDULES:
            raise UserError(f"lr_schedule={lr_schedule}; {one_of(LR_SCHEDULES, lr_schedule)}")
        for name, value in {"lr": lr, "clip_weights": clip_weights, "clip_gradients": clip_gradients}.items():
            if value is not None and not 0 < value < math.inf:
                raise UserError(f"{name}={value}; expected more than 0" + ("" if name == "lr" else " (null = off)"))
        require(1, decay_steps=decay_steps)
        self.parameters = list(parameters)
        self.lr = lr
        self.factor = 1.0  # what rollbacks have left of the learning rate: derived from their number, never saved
        self.lr_schedule = LR_SCHEDULES[lr_schedule]
        self.decay_steps = decay_steps
        self.clip_weights = clip_weights
        self.clip_gradients = clip_gradients
        settings = {k: tuple(map(float, v)) if isinstance(v, list) else v for k, v in settings.items()}  # betas
        module, _, name = optimizer.rpartition(".")
        cls: type[torch.optim.Optimizer] = getattr(import_module(module), name)
        self.optimizer = cls(self.parameters, lr=lr, **in_one_go(cls, settings), **settings)

    def lr_at(self, step: int) -> float:
        """The learning rate of step `step`, a function of the step alone: nothing to save, nothing to replay."""
        return self.factor * self.lr * self.lr_schedule(min(1.0, step / self.decay_steps))

    def before_step(self, step: int) -> Tensor:
        """Sets the learning rate, clips the gradient and returns its norm before that."""
        for group in self.optimizer.param_groups:
            group["lr"] = self.lr_at(step)
        if self.clip_gradients is not None:
            return nn.utils.clip_grad_norm_(self.parameters, self.clip_gradients)
        return total_norm([p.grad for p in self.parameters if p.grad is not None])

    @torch.no_grad()
    def after_step(self) -> None:
        """Projects the weights."""
        if self.clip_weights is not None:
            torch._foreach_clamp_min_(self.parameters, -self.clip_weights)
            torch._foreach_clamp_max_(self.parameters, self.clip_weights)
