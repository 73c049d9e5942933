"""Scalars: the only place that reads losses to the host, every `log_every` steps."""

import json
import os
import time
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.loggers import TensorBoardLogger
from pytorch_lightning.loggers.logger import Logger
from pytorch_lightning.utilities import rank_zero_only

from ganrun.files.storage import replacing, writing


class TensorBoard(TensorBoardLogger):
    """Keeps the folder's name as it is: Lightning's own logger expands `$HOME` and `~` in it."""

    @property
    def log_dir(self) -> str:
        return os.path.join(self.root_dir, self.version)


class MetricsFile(Logger):
    """metrics.jsonl: one line for each logged step and each evaluation.

    start: step that a resumed run starts from; later lines are dropped, since they will be written again.
    """

    name = version = None

    def __init__(self, path: Path, start: int):
        super().__init__()
        self.path = path
        self._rewind(start)

    @rank_zero_only
    def _rewind(self, start: int) -> None:
        lines = self.path.read_text(encoding="utf-8", errors="replace").splitlines() if self.path.exists() else []
        kept = [line for line in lines if 0 <= step_of(line) <= start]
        with replacing(self.path) as file:
            file.write("".join(f"{line}\n" for line in kept).encode())

    @rank_zero_only
    def log_hyperparams(self, *args: Any, **kwargs: Any) -> None:
        """The run's config lies in .hydra/config.yaml."""

    @rank_zero_only
    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        with writing(self.path), self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"step": step, **metrics}) + "\n")


def step_of(line: str) -> int:
    """The step of a line of metrics.jsonl; -1 if the line is cut off or not ganrun's."""
    try:
        return int(json.loads(line)["step"])
    except (ValueError, TypeError, KeyError):
        return -1


class Log(pl.Callback):
    """Logs every player's terms and the images/s, which counts real images used for training, over all devices."""

    def __init__(self, every: int):
        self.every = every
        self.latest: dict[str, float] = {}
        self.step = 0  # of `latest`
        self.images_per_second = 0.0  # since the start
        self._mark: tuple[float, int] | None = None
        self._begin = (0.0, 0)

    def on_train_start(self, trainer, pl_module) -> None:
        self._mark = self._begin = time.perf_counter(), trainer.global_step

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx) -> None:
        step = trainer.global_step
        if step % self.every and step != trainer.max_steps:
            return
        values = torch.stack([value.float() for value in pl_module.terms.values()]).tolist()
        self.step = step
        self.latest = dict(zip(pl_module.terms, values, strict=True))
        self.latest["images_per_second"] = self._rate(pl_module, self._mark, step)
        self.images_per_second = self._rate(pl_module, self._begin, step)
        self._mark = time.perf_counter(), step
        for logger in trainer.loggers:
            logger.log_metrics(self.latest, step)

    def on_train_end(self, trainer, pl_module) -> None:
        self.images_per_second = self._rate(pl_module, self._begin, trainer.global_step)

    @staticmethod
    def _rate(pl_module, since: tuple[float, int], step: int) -> float:
        images = (step - since[1]) * (pl_module.num_batches * pl_module.batch_size + sum(pl_module.further))
        return images / max(1e-9, time.perf_counter() - since[0])
