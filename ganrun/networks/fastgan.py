"""FastGAN's networks: Liu et al. 2021, arXiv 2101.04775. Skip-layer excitation, and a discriminator that decodes.

A side is base * 2^n with base 4, 5, 6 or 7 and n from 3 to 8: 32, 48, 64, 128, 256, 512, 1024, ... The authors have
256, 512 and 1024. Smaller images leave out the last stages of both networks, and with them those excitations that
reach further than there are stages, at 32 x 32 all of them: a smaller `reach` brings some back.
"""

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from ganrun.errors import UserError, require
from ganrun.game import Verdict
from ganrun.networks.dcgan import pyramid
from ganrun.networks.excitation import (
    SLOPE,
    Downscaling,
    conv,
    decoder,
    excitations,
    excited,
    halving,
    initialise,
    leaky,
    upscaling,
)
from ganrun.networks.layers import activation, append_label, squash
from ganrun.networks.resnet import scaled

GENERATOR = (16, 8, 4, 2, 2, 1, 0.5, 0.25, 0.125)  # channels from the base up, in multiples of `width`
DISCRIMINATOR = (8, 4, 2, 1, 0.5, 0.25, 0.125)  # from twice the base up
DECODER = (2, 1, 1, 0.5)  # of each stage
MOST = 4  # maps of the generator excite others, the smallest ones; of the discriminator one less
FULL = 6  # doublings of the base at which the discriminator's blocks begin, at most: larger images are halved first
SMALL = 5  # doublings of the base that make the second, smaller image, at most: 128 from a base of 4


class Generator(nn.Module):
    """z (batch, z_dim), label (batch,) or None -> images (batch, channels, H, W); a label is concatenated to z.

    forward(z, label, both=True) gives (images, the same at a smaller size), for recipe=fastgan: 128 pixels, or half of
    images that are no larger than that.

    width:       channels that `widths` are multiples of
    widths:      of each size from the base up; None = the paper's
    reach:       doublings from a stage to the one that it excites; the paper has 4
    small:       is there a second output?
    value_range: (low, high) of the pixels, by tanh or sigmoid; None = not squashed, as in the authors' code up to 512

    In training, noise is added in every other stage; in eval mode it is always the same.

    Example:
        generator = Generator(z_dim=256, channels=3, resolution=256)
        images = generator(torch.randn(4, 256))  # (4, 3, 256, 256) in [-1, 1]
    """

    def __init__(
        self,
        *,
        z_dim: int,
        channels: int,
        resolution: int | Sequence[int] | None,
        width: int = 64,
        widths: Sequence[float] | None = None,
        reach: int = 4,
        small: bool = True,
        value_range: Sequence[float] | None = (-1, 1),
        num_classes: int = 0,
    ):
        super().__init__()
        require(1, z_dim=z_dim, width=width, reach=reach)
        doublings, base = planned(resolution)
        widths = scaled(width, widths or GENERATOR[: doublings + 1], doublings + 1, "generator")
        self.num_classes, self.reach = num_classes, reach
        first = nn.ConvTranspose2d(z_dim + num_classes, 2 * widths[0], base, bias=False)
        self.stem = nn.Sequential(first, nn.BatchNorm2d(2 * widths[0]), nn.GLU(1))
        noises = [tuple(side << i for side in base) if i % 2 else None for i in range(1, doublings + 1)]
        self.stages = nn.ModuleList(upscaling(a, b, n) for (a, b), n in zip(pairwise(widths), noises, strict=True))
        self.excitations = excitations(widths[:MOST], widths, reach)
        self.to_image = conv(widths[-1], channels, 3)
        self.halfway = min(SMALL, doublings - 1)
        self.to_small = conv(widths[self.halfway], channels, 1) if small else None
        self.squash = squash(value_range)
        initialise(self)

    def forward(self, z: Tensor, label: Tensor | None = None, *, both: bool = False) -> Tensor | tuple[Tensor, Tensor]:
        maps = [self.stem(append_label(z, label, self.num_classes)[:, :, None, None])]
        for stage in self.stages:
            maps.append(excited(stage(maps[-1]), maps, self.excitations, self.reach))
        images = self.squash(self.to_image(maps[-1]))
        return (images, self.squash(self.to_small(maps[self.halfway]))) if both else images


class Discriminator(nn.Module):
    """Images (batch, channels, H, W) -> Verdict, whose logits are patches of the image and of its smaller version.

    forward(x, condition, small) is given that smaller version; otherwise it takes pixels of x. A label is concatenated
    to both as maps. `rebuilt` decodes what the network has seen, which term=reconstruction learns from.

    width:       channels that `widths` are multiples of
    widths:      of each size from twice the base up; None = the authors'
    reach:       blocks from a map to the one that it excites; the authors have 3
    value_range: of the images, and so of what is decoded

    Example:
        discriminator = Discriminator(channels=3, resolution=256)
        verdict = discriminator(images)  # images (4, 3, 256, 256) -> logits (4, 5 * 5 + 5 * 5)
        pairs = discriminator.rebuilt(verdict.maps)  # three (target, reconstruction), each (4, 3, 128, 128)
    """

    from_image_on = ("blocks", "small_blocks")  # lists of stages whose first one is the nearest to the image

    def __init__(
        self,
        *,
        channels: int,
        resolution: int | Sequence[int] | None,
        width: int = 64,
        widths: Sequence[float] | None = None,
        reach: int = 3,
        value_range: Sequence[float] | None = (-1, 1),
        num_classes: int = 0,
    ):
        super().__init__()
        require(1, width=width, reach=reach)
        doublings, base = planned(resolution)
        num = min(doublings, max(FULL, doublings - 1))
        widths = scaled(width, widths or DISCRIMINATOR[:num], num, "discriminator")
        seen = channels + num_classes
        self.num_classes, self.reach = num_classes, reach
        self.stem = stem(seen, widths, doublings)
        down = widths[min(num, FULL) - 1 :: -1]
        self.blocks = nn.ModuleList(Downscaling(a, b) for a, b in pairwise(down))
        self.excitations = excitations(down[: MOST - 1], down, reach)
        self.head = nn.Sequential(
            conv(down[-1], 2 * down[-1], 1), *leaky(2 * down[-1]), nn.Conv2d(2 * down[-1], 1, 4, bias=False)
        )
        halvings = min(SMALL, doublings - 1)
        self.small = tuple(side << halvings for side in base)
        down = widths[halvings - 1 : 0 : -1]
        self.small_stem = nn.Sequential(halving(seen, down[0]), activation(SLOPE))
        self.small_blocks = nn.Sequential(*(nn.Sequential(halving(a, b), *leaky(b)) for a, b in pairwise(down)))
        self.small_head = nn.Conv2d(down[-1], 1, 4, bias=False)
        decoded = scaled(width, DECODER[: doublings - 1], None, "discriminator")
        inputs = (widths[0], widths[1], down[-1])
        self.decoders = nn.ModuleList(decoder([c, *decoded], channels, base, value_range) for c in inputs)
        initialise(self)

    def forward(self, x: Tensor, condition: Tensor | None = None, small: Tensor | None = None) -> Verdict:
        small = interpolate(x, size=self.small) if small is None else small
        maps = [self.stem(append_label(x, condition, self.num_classes))]
        for block in self.blocks:
            maps.append(excited(block(maps[-1]), maps, self.excitations, self.reach))
        of_small = self.small_blocks(self.small_stem(append_label(small, condition, self.num_classes)))
        logits = [self.head(maps[-1]), self.small_head(of_small)]
        features = [each.mean((2, 3)) for each in (maps[-1], of_small)]
        return Verdict(
            torch.cat([each.flatten(1) for each in logits], 1),
            torch.cat(features, 1),
            maps=(x, maps[-1], maps[-2], of_small),
        )

    def rebuilt(self, maps: tuple[Tensor, ...]) -> list[tuple[Tensor, Tensor]]:
        """A verdict's maps -> (target, reconstruction) of the image, of a random quarter, and of the smaller version.

        All have the size of the reconstruction, and so have the targets, of which pixels are taken.
        """
        image, *seen = maps
        quarter = int(torch.randint(4, ()))  # the same for the whole batch; drawn on the CPU, which nothing waits for
        parts = [seen[0], quarter_of(seen[1], quarter), seen[2]]
        targets = [image, quarter_of(image, quarter), image]
        decoded = [decode(part) for decode, part in zip(self.decoders, parts, strict=True)]
        return [(interpolate(x, size=y.shape[2:]), y) for x, y in zip(targets, decoded, strict=True)]


def planned(resolution: int | Sequence[int] | None) -> tuple[int, tuple[int, int]]:
    """(doublings, base size). Raises UserError for a size that is too small or too large."""
    doublings, base = pyramid(resolution, "fastgan")
    if not 3 <= doublings <= 8:
        sides = ", ".join(str(min(base) << i) for i in range(3, 9))
        raise UserError(f"resolution={resolution}: fastgan cannot build it; valid: {sides}; try dataset.resolution=32")
    return doublings, base


def stem(channels: int, widths: Sequence[int], doublings: int) -> nn.Sequential:
    """The discriminator's first layers: one that keeps the size, or for large images some that halve it."""
    if doublings <= FULL:
        return nn.Sequential(conv(channels, widths[-1], 3), activation(SLOPE))
    down = widths[: FULL - 2 : -1]
    more = [layer for a, b in pairwise(down) for layer in (halving(a, b), *leaky(b))]
    return nn.Sequential(halving(channels, down[0]), activation(SLOPE), *more)


def quarter_of(x: Tensor, number: int) -> Tensor:
    """(batch, C, 2H, 2W) -> (batch, C, H, W); number 0 to 3, row by row."""
    return x.chunk(2, 2)[number // 2].chunk(2, 3)[number % 2]
