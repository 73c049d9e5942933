"""The progress bar: step, losses, images/s, time left. Silent when output is not a terminal."""

import pytorch_lightning as pl
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from ganrun.callbacks.log import Log


class ProgressBar(pl.Callback):
    """Shows what `scalars` last read; reads nothing itself."""

    def __init__(self, scalars: Log, console: Console):
        self.scalars = scalars
        self.console = console

    def on_train_start(self, trainer, pl_module) -> None:
        shown = self.console.is_terminal and trainer.is_global_zero
        columns = [BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[text]}"), TimeRemainingColumn()]
        self.bar = Progress(*columns, console=self.console, disable=not shown, transient=True)
        self.task = self.bar.add_task("", total=trainer.max_steps, completed=trainer.global_step, text="")
        self.bar.start()

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx) -> None:
        latest = self.scalars.latest
        text = "  ".join(
            f"{k.split('/')[0][0].upper()} {v:.3f}" for k, v in latest.items() if k.endswith("adversarial")
        )
        rate = f"  {latest['images_per_second']:,.0f} images/s" if latest else ""
        self.bar.update(self.task, completed=trainer.global_step, text=text + rate)

    def teardown(self, trainer, pl_module, stage) -> None:
        if hasattr(self, "bar"):
            self.bar.stop()
