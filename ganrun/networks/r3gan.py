"""R3GAN's networks: ResNeXt blocks without normalisation: Huang et al. 2024, arXiv 2501.05441, section 4.

A side is base * 2^n with base 4, 5, 6 or 7, as for dcgan: 8, 16, 32, 48, 64, 128, 256, ...
"""

from collections.abc import Sequence
from itertools import pairwise
from math import sqrt

import torch
from torch import Tensor, nn
from torch.nn.functional import leaky_relu

from ganrun.errors import UserError, require
from ganrun.game import Verdict
from ganrun.networks.dcgan import pyramid
from ganrun.networks.heads import CONDITIONS, Affine, Head, appended_classes
from ganrun.networks.layers import append_label, as_vector, chosen, squash
from ganrun.networks.resampling import Downsample, Upsample
from ganrun.networks.resnet import scaled

SLOPE = 0.2  # of LeakyReLU
GAIN = sqrt(2 / (1 + SLOPE**2))  # keeps the second moment through LeakyReLU: He et al. 2015, arXiv 1502.01852, eq. 15


class Generator(nn.Module):
    """z (batch, z_dim), label (batch,) or None -> images (batch, channels, H, W), unbounded if value_range is None.

    A label may also be a vector of attributes, (batch, num_classes).

    width:       channels that `widths` are multiples of
    widths:      of each stage from the base up; None = 1 up to the fourth, then half at each further one, as for FFHQ
    blocks:      in each stage
    expansion:   channels inside a block, in multiples of the stage's
    group_width: channels in a group of the 3 x 3 convolutions, at most; expansion * width / group_width is the paper's
                 cardinality
    embedding:   numbers that the label becomes beside z
    value_range: (low, high) of the pixels, by tanh or sigmoid; None = not squashed, as published

    Example:
        generator = Generator(z_dim=64, channels=3, resolution=32, num_classes=10)
        images = generator(torch.randn(16, 64), torch.arange(16) % 10)  # (16, 3, 32, 32)
    """

    def __init__(
        self,
        *,
        z_dim: int,
        channels: int,
        resolution: int | Sequence[int] | None,
        width: int = 768,
        widths: Sequence[float] | None = None,
        blocks: int = 2,
        expansion: int = 2,
        group_width: int = 16,
        embedding: int = 64,
        value_range: Sequence[float] | None = None,
        num_classes: int = 0,
    ):
        super().__init__()
        require(1, z_dim=z_dim, embedding=embedding)
        settings = {"blocks": blocks, "expansion": expansion, "group_width": group_width}
        widths, base = planned(resolution, width, widths, settings, "generator")
        self.num_classes = num_classes
        self.embed = nn.Linear(num_classes, embedding, bias=False) if num_classes else None
        self.basis = Basis(z_dim + (embedding if num_classes else 0), widths[0], base)
        self.stem = stage(widths[0], **settings)
        self.stages = nn.ModuleList(
            nn.Sequential(*pointwise(a, b), Upsample(), *stage(b, **settings)) for a, b in pairwise(widths)
        )
        self.to_image = nn.Conv2d(widths[-1], channels, 1, bias=False)
        self.squash = squash(value_range)
        initialise(self)

    def forward(self, z: Tensor, label: Tensor | None = None) -> Tensor:
        with torch.autocast(z.device.type, enabled=False):  # bfloat16 begins after the smallest stage, as published
            if self.embed is not None:
                z = torch.cat([z, self.embed(as_vector(label, self.num_classes, z.dtype))], 1)
            x = self.stem(self.basis(z))
        for blocks in self.stages:
            x = blocks(x)
        return self.squash(self.to_image(x).to(z.dtype))  # R2 looks at fakes in full precision


class Discriminator(nn.Module):
    """Images (batch, channels, H, W), condition as the generator's label -> one logit each.

    width, widths, blocks, expansion, group_width: as for the generator, whose stages it has in reverse
    condition: what is done with the label, see heads.py; projection is the paper's
    embedding: numbers of the head's embedding, for the conditions that have one

    Example:
        discriminator = Discriminator(channels=3, resolution=32, num_classes=10, condition="projection")
        logits = discriminator(images, labels).logits  # images (batch, 3, 32, 32) -> (batch,)
    """

    from_image_on = ("stages",)  # lists of stages whose first one is the nearest to the image

    def __init__(
        self,
        *,
        channels: int,
        resolution: int | Sequence[int] | None,
        width: int = 768,
        widths: Sequence[float] | None = None,
        blocks: int = 2,
        expansion: int = 2,
        group_width: int = 16,
        condition: str = "concatenate",
        embedding: int = 512,
        num_classes: int = 0,
    ):
        super().__init__()
        require(1, embedding=embedding)
        chosen("discriminator.condition", condition, CONDITIONS)
        settings = {"blocks": blocks, "expansion": expansion, "group_width": group_width}
        widths, base = planned(resolution, width, widths, settings, "discriminator")
        widths.reverse()
        self.appended = appended_classes(condition, num_classes)
        self.from_image = nn.Conv2d(channels + self.appended, widths[0], 1, bias=False)
        self.stages = nn.ModuleList(
            nn.Sequential(*stage(a, **settings), Downsample(), *pointwise(a, b)) for a, b in pairwise(widths)
        )
        self.stem = stage(widths[-1], **settings)
        self.basis = nn.Conv2d(widths[-1], widths[-1], base, groups=widths[-1], bias=False)  # one number a channel
        by_class = condition == "projection" and num_classes
        self.head = (
            Projection(widths[-1], num_classes)
            if by_class
            else Head(widths[-1], condition, num_classes, embedding, bias=False)
        )
        initialise(self)

    def forward(self, x: Tensor, condition: Tensor | None = None) -> Verdict:
        x = self.from_image(append_label(x, condition, self.appended))
        for blocks in self.stages:
            x = blocks(x)
        with torch.autocast(x.device.type, enabled=False):  # the smallest stage and what follows
            return self.head(self.basis(self.stem(x.to(self.basis.weight.dtype))).flatten(1), condition)


class Block(nn.Module):
    """x (batch, width, H, W) -> the same shape: 1 x 1, 3 x 3 in groups, 1 x 1, the first two before LeakyReLUs."""

    def __init__(self, width: int, *, expansion: int, group_width: int):
        super().__init__()
        hidden = expansion * width
        groups = max(1, hidden // group_width)
        self.convs = nn.ModuleList([
            nn.Conv2d(width, hidden, 1),
            nn.Conv2d(hidden, hidden, 3, padding=1, groups=groups),
            nn.Conv2d(hidden, width, 1, bias=False),
        ])  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        h = x
        for layer in self.convs[:2]:
            h = leaky_relu(layer(h), SLOPE)
        return x + self.convs[2](h)


class Basis(nn.Module):
    """z (batch, F) -> (batch, width, H, W): a learnt map for each channel, times a linear function of z."""

    def __init__(self, features: int, width: int, size: tuple[int, int]):
        super().__init__()
        self.maps = nn.Parameter(torch.randn(width, *size))
        self.scale = nn.Linear(features, width, bias=False)

    def forward(self, z: Tensor) -> Tensor:
        return self.maps * self.scale(z)[:, :, None, None]


class Projection(nn.Module):
    """features (batch, F), label (batch,) -> logit <embedded label, W features>, of which no part is of all classes."""

    def __init__(self, features: int, num_classes: int):
        super().__init__()
        self.in_features = features
        self.linear = nn.Linear(features, features, bias=False)
        self.embed = nn.Linear(num_classes, features, bias=False)

    def forward(self, features: Tensor, label: Tensor | None = None) -> Verdict:
        embedded = self.embed(as_vector(label, self.embed.in_features, features.dtype))
        return Verdict((self.linear(features) * embedded).sum(1), features)

    def affine(self, features: Tensor, label: Tensor | None = None) -> Affine:
        embedded = self.embed(as_vector(label, self.embed.in_features, features.dtype))
        return Affine(features, embedded @ self.linear.weight, 0.0)


def planned(
    resolution: int | Sequence[int] | None, width: int, widths: Sequence[float] | None, settings: dict, which: str
) -> tuple[list[int], tuple[int, int]]:
    """(channels of each stage from the base up, base size). Raises UserError for settings that do not go together."""
    require(1, width=width, **settings)
    doublings, base = pyramid(resolution, "r3gan")
    channels = scaled(width, widths or [min(1.0, 2.0 ** (3 - i)) for i in range(doublings + 1)], doublings + 1, which)
    expansion, group = settings["expansion"], settings["group_width"]
    for each in channels:
        if each * expansion > group and each * expansion % group:
            raise UserError(
                f"{which}.group_width={group} does not divide the {each * expansion} channels inside a block "
                f"(expansion {expansion} times {each}); try {which}.width={-(-width // group) * group}"
            )
    return channels, base


def stage(width: int, *, blocks: int, expansion: int, group_width: int) -> nn.Sequential:
    """The blocks of one size."""
    return nn.Sequential(*(Block(width, expansion=expansion, group_width=group_width) for _ in range(blocks)))


def pointwise(channels_in: int, channels_out: int) -> list[nn.Module]:
    """A 1 x 1 convolution where the width changes; else nothing."""
    return [nn.Conv2d(channels_in, channels_out, 1, bias=False)] if channels_in != channels_out else []


@torch.no_grad()
def initialise(network: nn.Module) -> None:
    """N(0, gain^2 / inputs) for all layers. Each block starts as the identity: its last layer is 0, and with L blocks
    the gain of the two before is L^(-1/4) times that of LeakyReLU: Fixup, Zhang et al. 2019, arXiv 1901.09321.
    """
    blocks = [module for module in network.modules() if isinstance(module, Block)]
    gains = {}
    for block in blocks:
        gains |= dict(zip(block.convs, (GAIN * len(blocks) ** -0.25, GAIN * len(blocks) ** -0.25, 0.0), strict=True))
    for module in network.modules():
        if isinstance(module, Projection):
            gains[module.embed] = 1 / sqrt(module.embed.out_features)
        if isinstance(module, (nn.Conv2d, nn.Linear)):
            nn.init.normal_(module.weight, 0.0, gains.get(module, 1.0) / sqrt(module.weight[0].numel()))
            if module.bias is not None:
                nn.init.zeros_(module.bias)
