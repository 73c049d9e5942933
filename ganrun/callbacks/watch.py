"""What ends training between two steps: a signal, or numbers that are not finite; the same in all processes."""

from typing import NamedTuple

import pytorch_lightning as pl
import torch
from torch import Tensor, distributed

from ganrun.errors import NotFinite
from ganrun.signals import Signals


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


class Watch(pl.Callback):
    """Stops after the step in which `signals` noted one; raises NotFinite for NaN and infinity, before all else.

    intervals: steps between logs, pictures, scores and checkpoints, 0 = never. Only in those steps, before they happen,
    does the host wait for a step's numbers. On a GPU it thus learns of bad numbers a few steps late, but nothing is
    saved in between. Weights are checked in those steps alone, losses and gradients in all: the effect of a bad weight
    on a gradient is seen one step later. Processes agree over a group of their own, on the CPU.
    """

    def __init__(self, signals: Signals, intervals: tuple[int, ...]):
        self.signals = signals
        self.intervals = intervals
        self.sent: list[Sent] = []
        self.due = False  # does this step log, draw, score or save?
        self._group = None

    def setup(self, trainer, pl_module, stage) -> None:
        trainer._signal_connector.register_signal_handlers = lambda: None  # Lightning's would end a run at other points
        if trainer.world_size > 1:
            self._group = distributed.new_group(backend="gloo")

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx) -> None:
        step = trainer.global_step + 1
        self.due = step == trainer.max_steps or any(every and step % every == 0 for every in self.intervals)
        pl_module.log_weight_norm = self.due

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx) -> None:
        self.sent.append(send(trainer.global_step, pl_module.numbers))
        if self._heed(wait=self.due):
            trainer.should_stop = True

    def on_train_end(self, trainer, pl_module) -> None:
        if not self.due:  # a signal ended it in a step that did not check the weights
            norms = {f"{player}/weight_norm": pl_module.weight_norm(player) for player in pl_module.players}
            self.sent.append(send(trainer.global_step, norms))
        self._heed(wait=True)

    def _heed(self, *, wait: bool) -> bool:
        """Has any process received a signal? Raises NotFinite if any of them has found a bad number."""
        found, received = self.look(wait=wait), self.signals.received
        if self._group is not None:
            seen = torch.tensor([received or 0, found is not None])
            distributed.all_reduce(seen, distributed.ReduceOp.MAX, group=self._group)
            received = int(seen[0]) or None
            self.signals.received = self.signals.received or received  # a newer signal is agreed on in the next step
            if seen[1]:
                every: list[str | None] = [None] * distributed.get_world_size()
                distributed.all_gather_object(every, found, group=self._group)
                found = next(text for text in every if text)
        if found:
            raise NotFinite(found)
        return received is not None

    def look(self, *, wait: bool) -> str | None:
        """The first number that is not finite, among those that have arrived. wait: True = among all."""
        while self.sent and (wait or self.sent[0].is_here):
            step, names, values, arrived = self.sent.pop(0)
            if arrived:
                arrived.synchronize()
            bad = (~values.isfinite()).nonzero()
            if len(bad):
                return f"{names[bad[0]]} is {values[bad[0]].item()} at step {step}"
        return None


def send(step: int, numbers: dict[str, Tensor]) -> Sent:
    """Starts copying scalars to the host."""
    values = torch.stack([value.detach().float() for value in numbers.values()])
    if not values.is_cuda:
        return Sent(step, list(numbers), values, None)
    values, arrived = values.to("cpu", non_blocking=True), torch.cuda.Event()
    arrived.record()
    return Sent(step, list(numbers), values, arrived)
