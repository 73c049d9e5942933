"""Scores in training, and the best checkpoint by the first of them."""

import math
from collections.abc import Callable
from typing import Any

import pytorch_lightning as pl
import torch

from ganrun.data.datamodule import GANDataModule
from ganrun.run_dir import RunDir
from ganrun.seeding import generator

CHUNK = 256  # samples a forward pass


class Evaluate(pl.Callback):
    """Every `every` steps (0 = only at the end) scores `num` samples against `num` fixed reals; lower is better.

    Keeps checkpoints/best.ckpt by the first metric. Changes no weight and no draw of the training.
    """

    def __init__(self, run: RunDir, datamodule: GANDataModule, metrics: dict[str, Callable], *, every: int, num: int):
        self.run = run
        self.every = every
        self.metrics = metrics
        self.num = min(num, len(datamodule.data))
        self.datamodule = datamodule
        self.last: dict[str, Any] = {}
        self.best: dict[str, Any] = {}

    def state_dict(self) -> dict[str, Any]:
        return {"last": self.last, "best": self.best}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.last, self.best = state["last"], state["best"]

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx) -> None:
        step = trainer.global_step
        due = (self.every and step % self.every == 0) or step == trainer.max_steps
        if not self.metrics or not due:
            return
        self.last = {"step": step, **self._scores(pl_module)}
        for logger in trainer.loggers:
            logger.log_metrics({f"score/{name}": self.last[name] for name in self.metrics}, step)
        first = next(iter(self.metrics))
        value, best = self.last[first], self.best.get(first, math.inf)
        better = value < best or not self.best or math.isnan(best)
        if trainer.strategy.broadcast(better):  # all ranks save, or none
            self.best = dict(self.last)
            trainer.save_checkpoint(self.run.best)

    def on_train_end(self, trainer, pl_module) -> None:
        finals = {f"hp/{name}": self.last[name] for name in self.metrics if self.last}
        trainer.logger.log_metrics(finals, trainer.global_step)  # TensorBoard's: the values beside the hparams

    def _scores(self, pl_module) -> dict[str, float]:
        real = self.datamodule.reals(self.num)
        noise = pl_module.noise(self.num, generator(pl_module.seed, "evaluate"), real.get("label"))
        chunks = [{key: value[i : i + CHUNK] for key, value in noise.items()} for i in range(0, self.num, CHUNK)]
        fake = torch.cat([pl_module.show(chunk)["fake"] for chunk in chunks])
        return {name: metric(real["real"].to(fake.device), fake) for name, metric in self.metrics.items()}

    @property
    def protocol(self) -> dict[str, Any]:
        """What made the scores; scores of unlike protocols do not compare."""
        shared = {"num_real": self.num, "num_fake": self.num, "split": "training data", "quantised": False}
        return {name: shared | getattr(metric, "protocol", {}) for name, metric in self.metrics.items()}
