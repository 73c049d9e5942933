"""Stops a run whose numbers are no longer finite."""

from typing import NamedTuple

import pytorch_lightning as pl
import torch
from torch import Tensor

from ganrun.errors import NotFinite


class Sent(NamedTuple):
    """One step's numbers on their way to the host."""

    step: int
    names: list[str]
    values: Tensor
    arrived: "torch.cuda.Event | None"

    @property
    def is_here(self) -> bool:
        """Can they be read without waiting?"""
        return self.arrived.query() if self.arrived else self.values.device.type == "cpu"


class Finite(pl.Callback):
    """Raises NotFinite for the first loss term, gradient or weight that is NaN or infinite, naming step and player.

    The host never waits for a step's numbers, except in steps that log, draw, score or save (intervals: how often, 0 =
    never), before they do. On a GPU it thus learns of them a few steps late, but nothing is saved meanwhile.
    """

    def __init__(self, intervals: tuple[int, ...]):
        self.intervals = intervals
        self.sent: list[Sent] = []

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx) -> None:
        step = trainer.global_step
        self.sent.append(send(step, pl_module.numbers))
        due = any(every and step % every == 0 for every in self.intervals)
        self.look(wait=due or step == trainer.max_steps)

    def on_train_end(self, trainer, pl_module) -> None:
        self.look(wait=True)

    def look(self, *, wait: bool) -> None:
        while self.sent and (wait or self.sent[0].is_here):
            step, names, values, arrived = self.sent.pop(0)
            if arrived:
                arrived.synchronize()
            bad = (~values.isfinite()).nonzero()
            if len(bad):
                raise NotFinite(f"{names[bad[0]]} is {values[bad[0]].item()} at step {step}")


def send(step: int, numbers: dict[str, Tensor]) -> Sent:
    """Starts copying scalars to the host."""
    values = torch.stack([value.detach().float() for value in numbers.values()])
    if not values.is_cuda:
        return Sent(step, list(numbers), values, None)
    values, arrived = values.to("cpu", non_blocking=True), torch.cuda.Event()
    arrived.record()
    return Sent(step, list(numbers), values, arrived)
