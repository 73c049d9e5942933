"""How far training is: a bar on a terminal or in a notebook, lines elsewhere, and the same lines in train.log."""

import logging
import time
from collections.abc import Callable, Mapping

import pytorch_lightning as pl
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from ganrun.callbacks.log import Log
from ganrun.progress import OFTEN, Cell, Clock, Pace, time_left

log = logging.getLogger("ganrun")


class ShowProgress(pl.Callback):
    """Shows what `scalars` last read. It reads nothing itself, and prints lines only in steps that log.

    scores: returns the last scores, by name. job: text at the start of each line, used in sweeps.
    """

    def __init__(
        self, scalars: Log, console: Console, *, scores: Callable[[], Mapping[str, float]], job: str = "",
        clock: Clock = time.monotonic,
    ):  # fmt: skip
        self.scalars = scalars
        self.console = console
        self.scores = scores
        self.job = job
        self.clock = clock

    def on_train_start(self, trainer, pl_module) -> None:
        shown = self.console.is_terminal and trainer.is_global_zero
        columns = [BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[text]}"), TimeRemainingColumn()]
        self.bar = Progress(*columns, console=self.console, disable=not shown, transient=True)
        self.task = self.bar.add_task("", total=trainer.max_steps, completed=trainer.global_step, text="")
        self.bar.start()
        in_notebook = self.console.is_jupyter and trainer.is_global_zero
        self.cell = Cell(Pace(self.clock, seconds=OFTEN, first=True)) if in_notebook else None
        self.pace = Pace(self.clock, first=True)
        self.began = self.clock(), trainer.global_step

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx) -> None:
        step, latest = trainer.global_step, self.scalars.latest
        text = "  ".join(f"{name[0].upper()} {value:.3f}" for name, value in adversarial(latest).items())
        rate = f"  {latest['images_per_second']:,.0f} images/s" if latest else ""
        self.bar.update(self.task, completed=step, text=text + rate)
        last = step == trainer.max_steps
        if self.cell and (self.cell.pace.is_due() or last):
            self.cell.show(step, trainer.max_steps, self.line(step, trainer.max_steps))
        if trainer.is_global_zero and self.scalars.step == step and (self.pace.is_due() or last):
            self._write(self.line(step, trainer.max_steps))

    def line(self, step: int, steps: int) -> str:
        """step 20 of 200: discriminator 1.211, generator 0.753; 960 images/s; 0:00:12 left; sliced-wasserstein 0.31"""
        seconds = self.clock() - self.began[0]
        done = step - self.began[1]
        latest = self.scalars.latest
        losses = ", ".join(f"{name} {value:.4g}" for name, value in adversarial(latest).items())
        parts = [
            f"{self.job}step {step:,} of {steps:,}" + (f": {losses}" if losses else ""),
            f"{latest['images_per_second']:,.0f} images/s" if latest else "",
            f"{time_left(done, done + steps - step, seconds)} left",
            ", ".join(f"{name} {value:.4g}" for name, value in self.scores().items() if name != "step"),
        ]
        return "; ".join(part for part in parts if part)

    def _write(self, line: str) -> None:
        log.info(line)
        if not self.console.is_terminal and not self.cell:
            print(line, file=self.console.file, flush=True)

    def teardown(self, trainer, pl_module, stage) -> None:
        if hasattr(self, "bar"):
            self.bar.stop()


def adversarial(scalars: Mapping[str, float]) -> dict[str, float]:
    """Each player's adversarial loss, summed over its games."""
    found: dict[str, float] = {}
    for key, value in scalars.items():
        player, _, term = key.partition("/")
        if term.startswith("adversarial"):
            found[player] = found.get(player, 0.0) + value
    return found
