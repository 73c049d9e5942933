"""DiffAugment: a few differentiable changes, on every sample that the discriminator sees."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ganrun.augment.drawing import Draw, in_unit_range, over, range_of
from ganrun.errors import UserError, one_of

BRIGHTNESS = 0.5  # largest change, where the value range is [-1, 1]
SATURATION, CONTRAST = (0.0, 2.0), (0.5, 1.5)  # factors
SHIFT = 1 / 8  # largest shift, as a share of the side
CUTOUT = 1 / 2  # side of the rectangle, as a share of the image's


def color(images: Tensor, draw: Draw) -> Tensor:
    """Brightness, then saturation about the mean of the channels, then contrast about the mean of the image."""
    images = images + over(draw.uniform(-BRIGHTNESS, BRIGHTNESS))
    images = scaled(images, draw.uniform(*SATURATION), (1,)) if images.shape[1] > 1 else images
    return scaled(images, draw.uniform(*CONTRAST), (1, 2, 3))


def scaled(images: Tensor, factors: Tensor, dims: tuple[int, ...]) -> Tensor:
    """Distances from the mean over `dims`, multiplied by each sample's factor."""
    mean = images.mean(dims, keepdim=True)
    return mean + over(factors) * (images - mean)


def translation(images: Tensor, draw: Draw) -> Tensor:
    """A shift by whole pixels along both sides; what comes in is 0."""
    for dim in (2, 3):
        side = images.shape[dim]
        reach = int(side * SHIFT + 0.5)
        source = torch.arange(side, device=images.device) - (draw.below(2 * reach + 1) - reach).long()[:, None]
        source = source[:, None, :, None] if dim == 2 else source[:, None, None, :]
        inside = (source >= 0) & (source < side)
        images = images.gather(dim, source.clamp(0, side - 1).expand_as(images)).masked_fill(~inside, 0)
    return images


def cutout(images: Tensor, draw: Draw) -> Tensor:
    """0 within a rectangle of half the sides, which may reach over the edges."""
    inside = []
    for side in images.shape[2:]:
        size = int(side * CUTOUT + 0.5)
        first = draw.below(side + 1 - size % 2) - size // 2
        away = torch.arange(side, device=images.device) - first[:, None]
        inside.append((away >= 0) & (away < size))
    rows, columns = inside
    return images.masked_fill(rows[:, None, :, None] & columns[:, None, None, :], 0)


CHANGES = {"color": color, "translation": translation, "cutout": cutout}


class DiffAugment(nn.Module):
    """The changes named by `policy`, in that order: Zhao et al. 2020, arXiv 2006.10738, section 3 and appendix.

    value_range: of the images. Constants are those of the authors' code.

    Example:
        augment = DiffAugment(["color", "translation", "cutout"])
        changed = augment(images)  # (batch, C, H, W); 0 is mid-grey
    """

    def __init__(
        self,
        policy: Sequence[str],
        value_range: Sequence[float] | None = (-1.0, 1.0),
    ):
        super().__init__()
        for name in policy:
            if name not in CHANGES:
                raise UserError(f"policy={name}: there is no such change; {one_of(CHANGES, str(name))}")
        if not policy or len(set(policy)) < len(policy):
            raise UserError(f"policy={list(policy)}; expected each of one or more changes once: {', '.join(CHANGES)}")
        self.policy = tuple(policy)
        self.value_range = range_of(value_range)

    def forward(self, x: Tensor) -> Tensor:
        return in_unit_range(self.changed, x, self.value_range)

    def changed(self, images: Tensor) -> Tensor:
        draw = Draw.like(images)
        for name in self.policy:
            images = CHANGES[name](images, draw)
        return images
