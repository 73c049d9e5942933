"""Adaptive discriminator augmentation: one pipe of invertible changes, each drawn with probability p."""

from collections.abc import Sequence

import torch
from torch import Tensor

from ganrun.adaptive import Adaptive
from ganrun.augment.bands import amplified, gains
from ganrun.augment.color import color, recoloured
from ganrun.augment.drawing import Draw, in_unit_range, over, range_of
from ganrun.augment.geometry import blit, resample
from ganrun.augment.resampling import copied, warped
from ganrun.errors import UserError
from ganrun.ramps import Ramp

NOISE = 0.1  # deviation of the noise's deviation, in units of half the value range
CUTOUT = 0.5  # side of the rectangle, as a share of the image's


class ADA(Adaptive):
    """The pipe of ADA in its order: Karras et al. 2020, arXiv 2006.06676, appendix B.1.

    Every step is drawn for each sample anew, with probability p * multiplier. A sample that no step of a kind falls on
    passes through it unchanged, to the bit. Penalties see the image before the pipe, through the pipe.

    blit:     mirror, turn by right angles, shift by whole pixels up to 1/8 of the side
    geometry: scale, turn, stretch, turn again, shift by parts of pixels
    color:    brightness, contrast, luma flip, hue (of three channels), saturation
    filter:   four bands of frequencies made louder or softer
    noise:    Gaussian noise
    cutout:   a rectangle of half the side in mid-grey
    p, start, target, over, every: see Adaptive. value_range: of the images

    Example:
        augment = ADA(p=0.2, filter=1.0)
        changed = augment(images)  # (batch, C, H, W)
    """

    def __init__(
        self,
        p: float | Ramp | None = None,
        *,
        blit: float = 1.0,
        geometry: float = 1.0,
        color: float = 1.0,
        filter: float = 0.0,
        noise: float = 0.0,
        cutout: float = 0.0,
        start: float = 0.0,
        target: float = 0.6,
        over: int = 500_000,
        every: int = 4,
        value_range: Sequence[float] | None = (-1.0, 1.0),
    ):
        super().__init__(p, start=start, target=target, over=over, every=every)
        self.blit, self.geometry, self.color = blit, geometry, color
        self.filter, self.noise, self.cutout = filter, noise, cutout
        multipliers = (blit, geometry, color, filter, noise, cutout)
        if min(multipliers) < 0 or max(multipliers) == 0:
            raise UserError(f"multipliers {', '.join(map(str, multipliers))}; expected at least 0, and one above 0")
        self.value_range = range_of(value_range)
        self.channels = 0  # of the last images

    @property
    def notes(self) -> list[str]:
        """What of it does not act on the images that it has seen."""
        left_out = self.color and self.channels not in (0, 1, 3)
        return [f"no hue, which needs 3 channels; the discriminator sees {self.channels}"] if left_out else []

    def forward(self, x: Tensor) -> Tensor:
        p, self.channels = self.probability, x.shape[1]
        return in_unit_range(lambda images: self.changed(images, p), x, self.value_range)

    def changed(self, images: Tensor, p: float | Tensor) -> Tensor:
        """(batch, C, H, W) in [-1, 1] -> the same, out of that range where brightness or noise take it."""
        draw = Draw.like(images)
        images = self._moved(images, draw, p)
        if self.color:
            matrices, acts = color(draw, p * self.color, images.shape[1])
            images = torch.where(over(acts), recoloured(images, matrices), images)
        if self.filter:
            loudness, acts = gains(draw, p * self.filter)
            images = torch.where(over(acts), amplified(images, loudness), images)
        if self.noise:
            images = noisy(images, draw, p * self.noise)
        return cut_out(images, draw, p * self.cutout) if self.cutout else images

    def _moved(self, images: Tensor, draw: Draw, p: float | Tensor) -> Tensor:
        """Steps 1 to 8 as one map. Samples that only `blit` falls on keep their pixels' values."""
        size = images.shape[2:]
        maps = torch.eye(3, device=images.device, dtype=images.dtype).expand(len(images), 3, 3)
        exact = images
        if self.blit:
            maps, acts = blit(draw, p * self.blit, *size)
            exact = copied(images, maps)
        if not self.geometry:
            return exact
        further, acts = resample(draw, p * self.geometry, *size)
        maps = maps @ further
        if images.device.type != "cpu":  # where finding the samples would make the host wait
            return torch.where(over(acts), warped(images, maps), exact)
        found = acts.nonzero()[:, 0]
        return exact.index_copy(0, found, warped(images[found], maps[found])) if len(found) else exact


def noisy(images: Tensor, draw: Draw, p: float | Tensor) -> Tensor:
    """Step 15: noise of a deviation |N(0, 0.1^2)| for each sample."""
    acts = draw.happens(p)
    return torch.where(over(acts), images + over(draw.normal(NOISE).abs()) * torch.randn_like(images), images)


def cut_out(images: Tensor, draw: Draw, p: float | Tensor) -> Tensor:
    """Step 16: 0 within a rectangle of half the sides, centred anywhere in the image."""
    acts = draw.happens(p)
    near = [
        ((torch.arange(side, device=images.device) + 0.5) / side - draw.uniform(0, 1)[:, None]).abs() < CUTOUT / 2
        for side in images.shape[2:]
    ]  # rows (batch, H), columns (batch, W)
    inside = near[0][:, None, :, None] & near[1][:, None, None, :] & over(acts)
    return images.masked_fill(inside, 0)
