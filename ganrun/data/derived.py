"""Two-sided data derived from any set of images: a source is made of each real image when a batch is read."""

from abc import ABC, abstractmethod
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from ganrun.data.base import Data
from ganrun.data.filters import bicubic, luma, shrunk, sobel, with_hole, with_noise
from ganrun.data.identity import identity_of
from ganrun.data.sides import TwoSided, View
from ganrun.errors import UserError
from ganrun.game import Batch
from ganrun.seeding import derive, uniform_at

VERSION = 1  # raise it whenever the same image may give another source
OF_INDEX = derive("pairs")  # the seed of what is drawn for a sample outside of training, by its number


@dataclass(frozen=True, kw_only=True)
class Derivation(ABC):
    """How a source is made of a real image; called with data it gives them two sides.

    source_channels: of the source, which networks read in the config.
    """

    source_channels: int
    name: ClassVar[str]  # of the option
    drawn: ClassVar[tuple[str, ...]] = ()  # names of what `draw` draws

    def __call__(self, data: Data) -> "Derived":
        """Raises UserError for data that nothing can be derived from."""
        check_images(data, self.name)
        self.check(data.shape)
        return Derived(data, self)

    def check(self, shape: tuple[int, int, int]) -> None:
        """Raises UserError for real images (C, H, W) that do not suit."""
        check_channels(self.source_channels, shape[0], self.name)

    @abstractmethod
    def derive(self, real: Tensor, drawn: Batch) -> Tensor:
        """uint8 (batch, C, H, W) -> uint8 (batch, source_channels, H, W)."""

    def draw(self, positions: np.ndarray, seed: int, shape: tuple[int, int, int]) -> Batch:
        """What is left to chance, (batch, ...), by position alone; shape: of a real image."""
        return {}

    @property
    def settings(self) -> dict[str, Any]:
        """All that decides the source of a real image."""
        return {"pairs": self.name} | {key: value for key, value in asdict(self).items() if key != "source_channels"}


def check_images(data: Data, name: str) -> None:
    """Raises UserError unless data are images with one side."""
    if len(data.shape) != 3:
        raise UserError(f"pairs={name}: dataset {data.name} has points; expected images")
    if len(data.sides) > 1:
        raise UserError(f"pairs={name}: dataset {data.name} has two sides already; expected pairs=none")


def check_channels(got: int, expected: int, name: str) -> None:
    if got != expected:
        raise UserError(f"pairs.source_channels={got}; expected {expected}, of which pairs={name} makes a source here")


class Derived(TwoSided):
    """Real images of `base`, each with a source that is derived from it once it is flipped and cropped."""

    paired = True

    def __init__(self, base: Data, derivation: Derivation):
        self.base, self.derivation = base, derivation
        self.value_range = base.value_range
        self._sides = {"source": DerivedSource(base, derivation), "real": base}
        super().__init__(name=base.name, limit=base.limit, num_workers=base.num_workers)

    def open(self) -> None:
        self.classes = list(self.base.classes)
        self.skipped, self.notes = list(self.base.skipped), list(self.base.notes)

    @property
    def stores(self):
        return [self.base]

    @property
    def described(self) -> dict[str, Any]:
        return self.base.described | self.derivation.settings

    def read(self, indices: Tensor) -> Batch:
        return with_source(self.base.read(indices), self.derivation, at=indices)

    def carried(self, indices: Tensor, only_index: bool) -> Batch:
        return self.base.carried(indices, only_index)

    def draw(self, positions: np.ndarray, seed: int) -> Batch:
        return self.sides["source"].draw(positions, seed)

    def complete(self, batch: Batch) -> Batch:
        if any("/" in name for name in batch):  # each side by itself
            return super().complete(batch)
        return with_source(self.base.complete(batch), self.derivation)

    def held_out(self) -> "Derived | None":
        found = self.base.held_out()
        return None if found is None else self.derivation(found)


class DerivedSource(View):
    """The sources alone."""

    def __init__(self, base: Data, derivation: Derivation):
        self.derivation = derivation
        super().__init__(base, f"{base.name}, source")

    @property
    def shape(self) -> tuple[int, ...]:
        return (self.derivation.source_channels, *self.base.shape[1:])

    @property
    def described(self) -> dict[str, Any]:
        return self.base.described | {"channels": self.shape[0]} | self.derivation.settings

    def __len__(self) -> int:
        return len(self.base)

    def read(self, indices: Tensor) -> Batch:
        return as_real(with_source(self.base.read(indices), self.derivation, at=indices))

    def carried(self, indices: Tensor, only_index: bool) -> Batch:
        return self.base.carried(indices, only_index)

    def draw(self, positions: np.ndarray, seed: int) -> Batch:
        return self.base.draw(positions, seed) | self.derivation.draw(positions, seed, self.base.shape)

    def complete(self, batch: Batch) -> Batch:
        return as_real(with_source(self.base.complete(batch), self.derivation))

    @property
    def labels(self) -> Tensor | None:
        return self.base.labels

    def digest(self) -> str:
        """Of the real images and what is done to them: the same sources, known without making them."""
        made = {"version": VERSION, **self.derivation.settings}
        return identity_of({"real": self.base.fingerprint["samples"], "made": made})


def with_source(batch: Batch, derivation: Derivation, at: Tensor | None = None) -> Batch:
    """Adds the source to a batch that has real images and what is drawn; at: draws by these indices instead."""
    real = batch["real"]
    drawn = {name: batch[name] for name in derivation.drawn if name in batch}
    if at is not None:
        by_index = derivation.draw(at.cpu().numpy(), OF_INDEX, tuple(real.shape[1:]))
        drawn = {name: value.to(real.device) for name, value in by_index.items()}
    others = {name: value for name, value in batch.items() if name not in derivation.drawn}
    return {"source": derivation.derive(real, drawn)} | others


def as_real(batch: Batch) -> Batch:
    """The source in the place of the real images."""
    others = {name: value for name, value in batch.items() if name != "source"}
    return others | {"real": batch["source"]}


@dataclass(frozen=True, kw_only=True)
class Colorize(Derivation):
    """Grey by ITU-R BT.601 luma, to be given colours: Isola et al. 2017 (arXiv 1611.07004), section 4."""

    name = "colorize"

    def check(self, shape):
        check_channels(self.source_channels, 1, self.name)
        if shape[0] == 1:
            raise UserError("pairs=colorize: the data set is grey; expected colours (dataset.channels=3)")

    def derive(self, real, drawn):
        return luma(real)


@dataclass(frozen=True, kw_only=True)
class Edges(Derivation):
    """The strength of edges by Sobel's masks, see filters.sobel."""

    name = "edges"

    def check(self, shape):
        check_channels(self.source_channels, 1, self.name)

    def derive(self, real, drawn):
        return sobel(real)


@dataclass(frozen=True, kw_only=True)
class SuperResolution(Derivation):
    """The image shrunk by area to 1 / factor of its sides, in 8 bits, and enlarged again bicubically: the baseline."""

    name = "super-resolution"
    factor: int = 2

    def check(self, shape):
        super().check(shape)
        height, width = shape[1:]
        if self.factor < 2 or height % self.factor or width % self.factor:
            raise UserError(f"pairs.factor={self.factor}; expected at least 2, and a divisor of {height} and {width}")

    def derive(self, real, drawn):
        return bicubic(shrunk(real, self.factor), self.factor)


@dataclass(frozen=True, kw_only=True)
class Inpaint(Derivation):
    """A mid-grey hole at a random place, `share` of each side: Pathak et al. 2016 (arXiv 1604.07379), section 3.3."""

    name = "inpaint"
    drawn = ("hole",)
    share: float = 0.5

    def check(self, shape):
        super().check(shape)
        if not 0 < self.share < 1:
            raise UserError(f"pairs.share={self.share}; expected more than 0 and less than 1")

    def size(self, height: int, width: int) -> tuple[int, int]:
        """Of the hole, in pixels."""
        return max(1, round(height * self.share)), max(1, round(width * self.share))

    def draw(self, positions, seed, shape):
        size = self.size(*shape[1:])
        places = [
            np.floor(uniform_at(positions, derive(seed, "hole", axis)) * (whole - side + 1))
            for axis, whole, side in zip(("top", "left"), shape[1:], size, strict=True)
        ]
        return {"hole": torch.from_numpy(np.stack(places, 1).astype(np.int64))}

    def derive(self, real, drawn):
        return with_hole(real, drawn["hole"], self.size(*real.shape[2:]))


@dataclass(frozen=True, kw_only=True)
class Denoise(Derivation):
    """White Gaussian noise of standard deviation `std`, of the value range, clipped."""

    name = "denoise"
    drawn = ("noise",)
    std: float = 0.2

    def check(self, shape):
        super().check(shape)
        if not 0 < self.std <= 10:
            raise UserError(f"pairs.std={self.std}; expected more than 0, and at most 10")

    def draw(self, positions, seed, shape):
        return {"noise": torch.from_numpy((uniform_at(positions, derive(seed, "noise")) * 2**53).astype(np.int64))}

    def derive(self, real, drawn):
        return with_noise(real, drawn["noise"], self.std * 255)


@dataclass(frozen=True, kw_only=True)
class Invert(Derivation):
    """The negative: a task that any translation must learn."""

    name = "invert"

    def derive(self, real, drawn):
        return 255 - real
