"""Logs the numbers that change by themselves: learning rates, ramps, the average's decay."""

from collections import Counter

import pytorch_lightning as pl
from torch import nn

from ganrun.game import Timed
from ganrun.ramps import Ramp


class Rates(pl.Callback):
    """Every `every` steps logs the values used in this round: <player>/lr, <part>/<name of a ramp>, ema/decay."""

    def __init__(self, every: int):
        self.every = every

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx) -> None:
        step = trainer.global_step
        if step % self.every and step != trainer.max_steps:
            return
        numbers = {f"{name}/lr": p.optimizer.param_groups[0]["lr"] for name, p in pl_module.player_optimizers.items()}
        numbers |= ramps(pl_module.recipe)
        if pl_module.ema:
            numbers["ema/decay"] = pl_module.ema.decay_at(step - 1, pl_module.batch_size)
        for logger in trainer.loggers:
            logger.log_metrics(numbers, step)


def ramps(recipe: nn.Module) -> dict[str, float]:
    """The current value of each ramp by its part's name, such as r1/weight; by the full path if names clash."""
    parts = [(path, module) for path, module in recipe.named_modules() if isinstance(module, Timed)]
    times = Counter(path.rpartition(".")[2] for path, _ in parts)
    return {
        f"{path.rpartition('.')[2] if times[path.rpartition('.')[2]] == 1 else path}/{name}": ramp.at(module.now)
        for path, module in parts
        for name, ramp in vars(module).items()
        if isinstance(ramp, Ramp)
    }
