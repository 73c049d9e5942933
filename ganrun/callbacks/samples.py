"""Sample pictures of one fixed noise through time, as PNG files and in TensorBoard."""

from pathlib import Path

import numpy as np
import pytorch_lightning as pl
import torch
from PIL import Image
from torch import Tensor

from ganrun.attributes import KEY as ATTRIBUTES
from ganrun.attributes import as_seen, asked, headings
from ganrun.classes import by_number, spaced
from ganrun.data.base import Data
from ganrun.data.datamodule import GANDataModule
from ganrun.depth import largest
from ganrun.files.run_dir import RunDir
from ganrun.files.storage import replacing
from ganrun.game import Batch
from ganrun.pictures import heads, most_classes, side_by_side, visible

POINTS = 2000  # generated vectors in a scatter plot
CHUNK = 64  # examples a pass


class Samples(pl.Callback):
    """Draws every `every` steps (0 = only at the end). num: images in a grid.

    condition: the key of the labels that the generator is given, None = none; a column for each class in
    classes_in_grid, or for each of several values of the first attribute.
    """

    def __init__(self, run: RunDir, datamodule: GANDataModule, *, every: int, num: int, condition: str | None):
        self.run = run
        self.datamodule = datamodule
        self.data = datamodule.data
        self.every = every
        labels, self.names = self._in_columns(condition, num)
        self.real: Tensor = datamodule.reals(POINTS)["real"] if len(self.data.shape) == 1 else torch.empty(0)
        self.columns = len(self.names) if self.names else max(1, round(num**0.5))
        self.num = POINTS if len(self.data.shape) == 1 else max(1, num // self.columns) * self.columns
        self._given: list[Batch] = []  # examples that panels show
        self._last: Image.Image | None = None  # the newest picture and the step it shows
        self._last_step = -1
        given = None if labels is None else labels[torch.arange(self.num) % self.columns]
        self.given: list[Batch] | None = None if given is None else [{condition: given}]

    def _in_columns(self, condition: str | None, num: int) -> tuple[Tensor | None, list[str] | None]:
        """The label of each column, None = there are none, and the columns' names."""
        if condition == ATTRIBUTES:
            values = asked(None, self.data.attributes)
            values = values[spaced(range(len(values)), num)]
            return as_seen(values, self.data.attributes), headings(values)
        shown = classes_in_grid(self.data, num) if condition else []
        return (torch.tensor(shown), heads(self.data.classes, shown)) if shown else (None, None)

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx) -> None:
        if trainer.is_global_zero and self.every and trainer.global_step % self.every == 0:
            save_png(self._draw(trainer, pl_module), self.run.step_samples(trainer.global_step))

    def on_train_end(self, trainer, pl_module) -> None:
        if trainer.is_global_zero:
            drawn = self._last if self._last_step == trainer.global_step else self._draw(trainer, pl_module)
            save_png(drawn, self.run.samples / "final.png")

    def _draw(self, trainer, pl_module) -> Image.Image:
        recipe = pl_module.recipe
        self._last = self._panels(pl_module) if recipe.needs or len(recipe.panels) > 1 else self._grid(pl_module)
        self._last_step = trainer.global_step
        board = trainer.logger.experiment  # the first logger is TensorBoard's
        board.add_image("samples", np.asarray(self._last), trainer.global_step, dataformats="HWC")
        return self._last

    def _grid(self, pl_module) -> Image.Image:
        (shown,) = pl_module.look(self.num, "samples", self.given, chunk=self.num)
        fake = shown[next(iter(pl_module.recipe.panels))].cpu()
        return self.data.picture(fake, self.real, columns=self.columns, names=self.names)

    def _panels(self, pl_module) -> Image.Image:
        """A few examples, each as a group of images side by side: the input, the output, the target."""
        panels = pl_module.recipe.panels
        num = min(len(self.data), max(1, self.num // len(panels)))
        self._given = self._given or list(self.datamodule.examples(num, CHUNK))
        shown = list(pl_module.look(num, "samples", self._given, chunk=CHUNK))
        images = [torch.cat([self.data.as_stored(part[key].cpu()) for part in shown]) for key in panels]
        return side_by_side([self._visible(each) for each in images], list(panels.values()))

    def _visible(self, pixels: Tensor) -> Tensor:
        shown = self.data.shown if pixels.shape[1] == self.data.shape[0] else None  # a source may have other channels
        return visible(pixels.float() / largest(pixels), shown)


def classes_in_grid(data: Data, num: int) -> list[int]:
    """The classes with a column in a grid of about `num` images, in order; evenly spaced ones if there are many."""
    order = by_number(data.classes)
    return spaced(order, most_classes(num, data.shape[-2:])) if len(data.shape) == 3 else order


def save_png(picture: Image.Image, path: Path) -> None:
    with replacing(path) as file:
        picture.save(file, format="PNG")
