"""Sample pictures of one fixed noise through time, as PNG files and in TensorBoard."""

from pathlib import Path

import numpy as np
import pytorch_lightning as pl
import torch
from PIL import Image
from torch import Tensor

from ganrun.classes import by_number, spaced
from ganrun.data.base import Data
from ganrun.data.datamodule import GANDataModule
from ganrun.pictures import heads, most_classes
from ganrun.run_dir import RunDir
from ganrun.seeding import generator
from ganrun.storage import replacing

POINTS = 2000  # generated vectors in a scatter plot


class Samples(pl.Callback):
    """Draws every `every` steps (0 = only at the end). num: images in a grid.

    conditional: a column for each class in classes_in_grid.
    """

    def __init__(self, run: RunDir, datamodule: GANDataModule, *, every: int, num: int, conditional: bool):
        self.run = run
        self.data = datamodule.data
        self.every = every
        shown = classes_in_grid(self.data, num) if conditional else []
        self.names = heads(self.data.classes, shown) or None
        self.real: Tensor = datamodule.reals(POINTS)["real"] if len(self.data.shape) == 1 else torch.empty(0)
        self.columns = len(self.names) if self.names else max(1, round(num**0.5))
        self.num = POINTS if len(self.data.shape) == 1 else max(1, num // self.columns) * self.columns
        self._last: Image.Image | None = None  # the newest picture and the step it shows
        self._last_step = -1
        self.label = torch.tensor(shown)[torch.arange(self.num) % self.columns] if shown else None  # a column a class

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx) -> None:
        if trainer.is_global_zero and self.every and trainer.global_step % self.every == 0:
            save_png(self._draw(trainer, pl_module), self.run.step_samples(trainer.global_step))

    def on_train_end(self, trainer, pl_module) -> None:
        if trainer.is_global_zero:
            drawn = self._last if self._last_step == trainer.global_step else self._draw(trainer, pl_module)
            save_png(drawn, self.run.samples / "final.png")

    def _draw(self, trainer, pl_module) -> Image.Image:
        noise = pl_module.noise(self.num, generator(pl_module.seed, "samples"), self.label)
        fake = pl_module.show(noise)["fake"].cpu()
        self._last = self.data.picture(fake, self.real, columns=self.columns, names=self.names)
        self._last_step = trainer.global_step
        board = trainer.logger.experiment  # the first logger is TensorBoard's
        board.add_image("samples", np.asarray(self._last), trainer.global_step, dataformats="HWC")
        return self._last


def classes_in_grid(data: Data, num: int) -> list[int]:
    """The classes that have a column in a grid of about `num` images, in their order; of many those evenly spaced."""
    order = by_number(data.classes)
    return spaced(order, most_classes(num, data.shape[-2:])) if len(data.shape) == 3 else order


def save_png(picture: Image.Image, path: Path) -> None:
    with replacing(path) as file:
        picture.save(file, format="PNG")
