"""The available derivations: ways to make the source from a real image, which a network translates back."""

from dataclasses import dataclass

import numpy as np
import torch

from ganrun.data.derivation import Derivation, check_channels
from ganrun.data.filters import bicubic, luma, shrunk, sobel, with_hole, with_noise
from ganrun.depth import largest
from ganrun.errors import UserError
from ganrun.seeding import derive, uniform_at


@dataclass(frozen=True, kw_only=True)
class Colorize(Derivation):
    """Grey by ITU-R BT.601 luma, to be coloured: Isola et al. 2017 (arXiv 1611.07004), section 4."""

    name = "colorize"

    def check(self, shape):
        check_channels(self.source_channels, 1, self.name)
        if shape[0] == 1:
            raise UserError("pairs=colorize: the data set is grey; expected colours (dataset.channels=3)")
        check_luma(self.name, shape[0])

    def derive(self, real, drawn):
        return luma(real)


@dataclass(frozen=True, kw_only=True)
class Edges(Derivation):
    """The strength of edges by Sobel's masks, see filters.sobel."""

    name = "edges"

    def check(self, shape):
        check_channels(self.source_channels, 1, self.name)
        check_luma(self.name, shape[0])

    def derive(self, real, drawn):
        return sobel(real)


@dataclass(frozen=True, kw_only=True)
class SuperResolution(Derivation):
    """The image shrunk by area to 1 / factor of its sides, rounded, and enlarged again bicubically: the baseline."""

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
        """Height and width of the hole, in pixels."""
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
    """White Gaussian noise of standard deviation `std`, as a share of the value range, clipped."""

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
        return with_noise(real, drawn["noise"], self.std * largest(real))


@dataclass(frozen=True, kw_only=True)
class Invert(Derivation):
    """The negative: a task that any translation must learn."""

    name = "invert"

    def derive(self, real, drawn):
        return (largest(real) - (real if real.dtype == torch.uint8 else real.int())).to(real.dtype)


def check_luma(name: str, channels: int) -> None:
    """Raises UserError for images that have no luma."""
    if channels not in (1, 3):
        raise UserError(f"pairs={name} needs images of 1 or 3 channels; dataset.channels={channels}")
