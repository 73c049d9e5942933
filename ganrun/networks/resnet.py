"""Residual networks: SNGAN, SAGAN, BigGAN and BigGAN-deep are settings of one generator and one discriminator.

A side is base * 2^n with base 4, 5, 6 or 7, as for dcgan: 8, 16, 32, 48, 64, 128, 256, ...
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import relu

from ganrun.errors import UserError, one_of, require
from ganrun.game import Verdict
from ganrun.networks.attention import SelfAttention, attention_index
from ganrun.networks.dcgan import pyramid
from ganrun.networks.heads import CONDITIONS, Head, appended_classes
from ganrun.networks.layers import ConditionalBatchNorm, append_label, as_vector, chosen, conditional_norm, squash
from ganrun.networks.residual import (
    DeepDiscriminatorBlock,
    DeepGeneratorBlock,
    DiscriminatorBlock,
    GeneratorBlock,
    conv,
    initialise,
)
from ganrun.networks.spectral import spectral_normalise

# Channels, in multiples of `width`, at each resolution from the base up; by the number of doublings
_HIGH = {5: (16, 16, 8, 4, 2, 1), 6: (16, 16, 8, 8, 4, 2, 1)}
GENERATOR = {
    "sngan": {1: (4, 4), 2: (4, 4, 4), 3: (4, 4, 4, 4), 4: (16, 8, 4, 2, 1), **_HIGH},
    "biggan": {1: (4, 4), 2: (4, 4, 4), 3: (4, 4, 4, 4), 4: (16, 16, 8, 4, 2), **_HIGH},
}
GENERATOR["biggan-deep"] = GENERATOR["biggan"]
# After each block; and how many of these halve the size
_HIGH = {5: ((1, 2, 4, 8, 16, 16), 5), 6: ((1, 2, 4, 8, 8, 16, 16), 6)}
DISCRIMINATOR = {
    "sngan": {1: ((2, 2, 2), 1), 2: ((2, 2, 2), 1), 3: ((2, 2, 2, 2), 2), 4: ((1, 2, 4, 8, 16), 5), **_HIGH},
    "biggan": {1: ((2, 2, 2), 1), 2: ((2, 2, 2), 1), 3: ((2, 2, 2, 2), 2), 4: ((1, 2, 4, 8, 16), 4), **_HIGH},
    "biggan-deep": {1: ((4, 4), 1), 2: ((4, 4, 4), 1), 3: ((4, 4, 4, 4), 2), 4: ((1, 2, 4, 8, 16), 4), **_HIGH},
}
PYRAMID = {"generator": (8, 4, 2, 1), "discriminator": ((1, 2, 4, 8, 16), 4)}  # of 48 x 48 and other bases, n = 3
LATENTS = ("first", "chunks", "whole")


def planned(plans: dict, plan: str, resolution: int | Sequence[int], which: str) -> tuple:
    """The published widths of a resolution. Raises UserError where there are none."""
    if plan not in plans:
        raise UserError(f"{which}.plan={plan}; {one_of(plans, plan)}")
    doublings, base = pyramid(resolution, "resnet")
    if doublings == 3 and min(base) > 4:
        return PYRAMID[which]
    if doublings not in plans[plan]:
        raise UserError(f"resolution={resolution}: nobody has published widths for it; give {which}.widths=[16,8,...]")
    return plans[plan][doublings]


class Generator(nn.Module):
    """z (batch, z_dim), label (batch,) or None -> images (batch, channels, H, W) in value_range.

    A label may also be a vector of attributes, (batch, num_classes).

    width:     channels that `plan` and `widths` are multiples of
    plan:      sngan, biggan or biggan-deep: whose widths
    widths:    of each resolution from the base up, in multiples of width; None = the plan's
    depth:     0 = SNGAN's blocks; else so many of BigGAN-deep's at each resolution
    norm:      batch, layer, instance, instance-plain or none; of batch norm `eps` is added to the variance
    spectral:  also divide each weight by its largest singular value, but for the shared embedding
    condition: how the label enters: batch-norm, or concatenate to z
    embedding: numbers that the label becomes for all of batch norm, which share them; 0 = one for each class
    latents:   where z enters: in the first layer, or also in batch norm, as equal chunks or as a whole
    attention: height in pixels after whose block there is self-attention; half = of the image's; None = off
    init:      normal, orthogonal, xavier or msr

    Example:
        generator = Generator(z_dim=128, channels=3, resolution=32, num_classes=10)
        images = generator(torch.randn(16, 128), torch.arange(16) % 10)  # (16, 3, 32, 32) in [-1, 1]
    """

    def __init__(
        self,
        *,
        z_dim: int,
        channels: int,
        resolution: int | Sequence[int] | None,
        width: int = 64,
        plan: str = "sngan",
        widths: Sequence[float] | None = None,
        depth: int = 0,
        norm: str = "batch",
        eps: float = 1e-5,
        spectral: bool = False,
        condition: str = "batch-norm",
        embedding: int = 0,
        latents: str = "first",
        attention: int | str | None = None,
        init: str = "orthogonal",
        value_range: Sequence[float] | None = (-1, 1),
        num_classes: int = 0,
    ):
        super().__init__()
        require(1, z_dim=z_dim, width=width)
        require(0, depth=depth, embedding=embedding)
        doublings, (height, breadth) = pyramid(resolution, "resnet")
        widths = scaled(width, widths or planned(GENERATOR, plan, resolution, "generator"), doublings + 1, "generator")
        for name, value, valid in (
            ("condition", condition, ("batch-norm", "concatenate")),
            ("latents", latents, LATENTS),
        ):
            if value not in valid:
                raise UserError(f"generator.{name}={value}; {one_of(valid, value)}")
        by_norm = num_classes if condition == "batch-norm" else 0
        self.appended = num_classes - by_norm  # classes that are concatenated to z
        self.num_classes = num_classes
        self.embed = nn.Linear(by_norm, embedding, bias=False) if embedding and by_norm else None
        embedded = embedding if self.embed else by_norm
        self.chunks = z_dim // (doublings + 1) if latents == "chunks" else 0
        if self.chunks and z_dim % (doublings + 1):
            raise UserError(f"generator.latents=chunks: z_dim={z_dim} has no {doublings + 1} equal parts")
        self.latents, self.base = latents, (widths[0], height, breadth)
        whole = z_dim + embedded if latents == "whole" else 0
        self.stem = nn.Linear((self.chunks or whole or z_dim) + self.appended, widths[0] * height * breadth)
        features = whole or embedded + self.chunks
        settings = {"norm": norm, "features": features, "eps": eps}
        stages = [stage(widths[i], widths[i + 1], depth, settings) for i in range(doublings)]
        self.stages = nn.ModuleList(stages)
        sides = [height * 2 ** (i + 1) for i in range(doublings)]
        self.attention = attention_at(attention, sides[-1], sides, widths[1:], "generator")
        self.norm = nn.Sequential(*conditional_norm(norm, widths[-1], 0, eps))
        self.to_image = conv(widths[-1], channels, 3)
        self.squash = squash(value_range)
        initialise(self, init)
        if spectral:
            spectral_normalise(self, without=self.embed)  # as BigGAN-PyTorch and StudioGAN do

    def forward(self, z: Tensor, label: Tensor | None = None) -> Tensor:
        parts = z.split(self.chunks, 1) if self.chunks else [z] * (len(self.stages) + 1)
        y = self._embedded(label, z)
        first = torch.cat([z, y], 1) if self.latents == "whole" and y is not None else parts[0]
        x = self.stem(append_label(first, label, self.appended)).unflatten(1, self.base)
        for i, blocks in enumerate(self.stages):
            given = [part for part in (y, parts[i + 1] if self.latents != "first" else None) if part is not None]
            condition = torch.cat(given, 1) if given else None
            for block in blocks:
                x = block(x, condition)
            if str(i) in self.attention:
                x = self.attention[str(i)](x)
        return self.squash(self.to_image(relu(self.norm(x))))

    @property
    def embeddings(self) -> list[nn.Linear]:
        """The layers that are given one-hot labels alone."""
        if self.embed or self.latents != "first" or self.num_classes == self.appended:
            return [self.embed] if self.embed else []
        norms = [module for module in self.modules() if isinstance(module, ConditionalBatchNorm)]
        return [layer for norm in norms for layer in (norm.scale, norm.shift)]

    def _embedded(self, label: Tensor | None, z: Tensor) -> Tensor | None:
        """What batch norm is given of the label; None if that is nothing."""
        if self.num_classes == self.appended:
            return None
        vector = as_vector(label, self.num_classes, z.dtype)
        return self.embed(vector) if self.embed else vector


class Discriminator(nn.Module):
    """Images (batch, channels, H, W), condition as the generator's label -> one logit each.

    width, plan, depth, attention, init: as for the generator
    widths:    after each block, in multiples of width, and with `depth` first that before all blocks; None = the plan's
    downs:     how many blocks, the first ones, halve the size; None = the plan's
    hidden:    channels inside a block: out = as many as it puts out ("wide"), in = as many as it takes ("thin")
    norm:      spectral, batch, layer, instance or none; of batch norm `eps` is added to the variance
    pool:      over space, before the last layer: sum, as SNGAN; or mean, as WGAN-GP
    condition: what is done with the label, see heads.py
    embedding: numbers of the head's embedding, for the conditions that have one

    Example:
        discriminator = Discriminator(channels=3, resolution=32, num_classes=10, condition="projection")
        logits = discriminator(images, labels).logits  # images (batch, 3, 32, 32) -> (batch,)
    """

    def __init__(
        self,
        *,
        channels: int,
        resolution: int | Sequence[int] | None,
        width: int = 64,
        plan: str = "sngan",
        widths: Sequence[float] | None = None,
        downs: int | None = None,
        depth: int = 0,
        hidden: str = "out",
        norm: str = "spectral",
        eps: float = 1e-5,
        pool: str = "sum",
        attention: int | str | None = None,
        condition: str = "concatenate",
        embedding: int = 512,
        init: str = "orthogonal",
        num_classes: int = 0,
    ):
        super().__init__()
        require(1, width=width, embedding=embedding)
        require(0, depth=depth)
        doublings, (height, breadth) = pyramid(resolution, "resnet")
        chosen("discriminator.hidden", hidden, ("in", "out"))
        chosen("discriminator.pool", pool, ("sum", "mean"))
        chosen("discriminator.condition", condition, CONDITIONS)
        planned_downs = doublings
        if widths is None:
            widths, planned_downs = planned(DISCRIMINATOR, plan, resolution, "discriminator")
            planned_downs = min(planned_downs, doublings + (height % 2 == breadth % 2 == 0))  # an odd side has no half
        widths = scaled(width, widths, None, "discriminator")
        most = len(widths) - bool(depth)  # as many as there are blocks
        downs = min(planned_downs, most) if downs is None else downs
        if not 0 <= downs <= most:
            raise UserError(f"discriminator.downs={downs}; expected 0 to {most}, the number of blocks")
        self.appended = appended_classes(condition, num_classes)
        settings = {"norm": "none" if norm == "spectral" else norm, "eps": eps}
        self.stem = conv(channels + self.appended, widths.pop(0), 3) if depth else None
        sizes = [self.stem.out_channels if depth else channels + self.appended, *widths]
        shapes = [(sizes[i], sizes[i + 1], i < downs) for i in range(len(widths))]
        if depth:
            blocks = [deep_stage(*shape, depth, settings) for shape in shapes]
        else:
            blocks = [thin_or_wide(*shape, i, hidden, settings) for i, shape in enumerate(shapes)]
        sides = [max(1, height * 2**doublings // 2 ** min(i + 1, downs)) for i in range(len(widths))]
        self.stages, self.pool = nn.ModuleList(blocks), pool
        self.attention = attention_at(attention, height * 2**doublings, sides, widths, "discriminator")
        self.head = Head(widths[-1], condition, num_classes, embedding)
        initialise(self, init)
        if norm == "spectral":
            spectral_normalise(self)

    def forward(self, x: Tensor, condition: Tensor | None = None) -> Verdict:
        x = append_label(x, condition, self.appended)
        x = x if self.stem is None else self.stem(x)
        for i, blocks in enumerate(self.stages):
            x = blocks(x)
            if str(i) in self.attention:
                x = self.attention[str(i)](x)
        x = relu(x)
        return self.head(x.sum((2, 3)) if self.pool == "sum" else x.mean((2, 3)), condition)


def scaled(width: int, widths: Sequence[float], number: int | None, which: str) -> list[int]:
    """Channels. number: of entries that there must be; None = any."""
    if not widths or (number is not None and len(widths) != number) or min(widths) <= 0:
        wanted = f"{number} numbers above 0" if number else "numbers above 0"
        raise UserError(f"{which}.widths={list(widths)}; expected {wanted}, in multiples of {which}.width")
    return [max(1, round(width * each)) for each in widths]


def stage(channels_in: int, channels_out: int, depth: int, settings: dict) -> nn.ModuleList:
    """The blocks of one doubling."""
    if not depth:
        return nn.ModuleList([GeneratorBlock(channels_in, channels_out, **settings)])
    keep = [DeepGeneratorBlock(channels_in, channels_in, up=False, **settings) for _ in range(depth - 1)]
    return nn.ModuleList([*keep, DeepGeneratorBlock(channels_in, channels_out, up=True, **settings)])


def thin_or_wide(
    channels_in: int, channels_out: int, down: bool, number: int, hidden: str, settings: dict
) -> DiscriminatorBlock:
    inner = channels_in if hidden == "in" and number > 0 else channels_out
    return DiscriminatorBlock(channels_in, channels_out, hidden=inner, down=down, first=number == 0, **settings)


def deep_stage(channels_in: int, channels_out: int, down: bool, depth: int, settings: dict) -> nn.Sequential:
    """`depth` blocks, of which the first changes the channels and the size."""
    more = [DeepDiscriminatorBlock(channels_out, channels_out, down=False, **settings) for _ in range(depth - 1)]
    return nn.Sequential(DeepDiscriminatorBlock(channels_in, channels_out, down=down, **settings), *more)


def attention_at(
    side: int | str | None, height: int, sides: Sequence[int], channels: Sequence[int], which: str
) -> nn.ModuleDict:
    """Self-attention by the number of the stage that it follows."""
    at = attention_index(side, height, sides, which)
    return nn.ModuleDict({} if at is None else {str(at): SelfAttention(channels[at])})
