"""Projected GAN's discriminator, on features of a frozen network: Sauer et al. 2021, arXiv 2111.01007."""

from collections.abc import Sequence
from itertools import pairwise
from math import sqrt

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d, interpolate, leaky_relu

from ganrun.errors import UserError, require
from ganrun.game import Verdict
from ganrun.networks.excitation import SLOPE, halving, leaky
from ganrun.networks.frozen import LITE0, FrozenFeatures, resized
from ganrun.networks.layers import as_vector, chosen, image_size
from ganrun.networks.spectral import spectral_normalise

HEADS = 4  # one for each of the frozen network's maps at strides of 4, 8, 16 and 32
MIXED = (1, 2, 4, 8)  # channels after mixing those of each map, in multiples of `width`
SCALED = (1, 1, 2, 4)  # after also mixing scales
HALVED = (1, 2, 4, 8)  # of a head, after each halving but the first head's; each head begins with its own map
CONDITIONS = ("concatenate", "projection")
EMBEDDED, MATCHED = 128, 64  # numbers of a class's embedding, and of those that it is multiplied with


class Discriminator(nn.Module):
    """Images (batch, 1 or 3, H, W), condition (batch,) or None -> Verdict with the logits of four heads.

    Images are resized and go through the frozen network. Random convolutions, which are never moved either, mix the
    channels of its maps and then neighbouring maps. A head looks at each: convolutions with spectral norm, which halve
    it, and logits of as many patches from each head. Their mean is the mean over heads.
    Gradient penalties are not needed, and would have to differentiate the frozen network twice.

    resolution: of the data, for the checks
    width:      channels that those of mixtures and heads are multiples of
    side:       pixels to which images are resized, a multiple of 32 from 64 up; None = not. The authors resize smaller
                ones to 224
    features:   efficientnet-lite0, or a network of torchvision by its name there; weights: see FrozenFeatures
    condition:  projection = by the embedded label, as published; without classes, it does nothing

    Example:
        discriminator = Discriminator(channels=3, resolution=32)
        logits = discriminator(images).logits  # images (4, 3, 32, 32) -> (4, 4 * 4 * 4): heads of 4 x 4 patches
    """

    def __init__(
        self,
        *,
        channels: int,
        resolution: int | Sequence[int] | None,
        width: int = 64,
        side: int | None = 224,
        features: str = LITE0,
        weights: str | None = None,
        value_range: Sequence[float] | None = (-1, 1),
        condition: str = "concatenate",
        num_classes: int = 0,
    ):
        super().__init__()
        require(1, width=width)
        downs = halvings(side, image_size("projected", resolution))
        if channels not in (1, 3):
            raise UserError(f"channels={channels}: the frozen network sees images of 1 or 3 channels")
        chosen("discriminator.condition", condition, CONDITIONS)
        if num_classes and condition == "concatenate":
            raise UserError("discriminator.condition=concatenate: no label enters the frozen network; "
                            "expected conditional=projection")  # fmt: skip
        self.side = side
        self.features = FrozenFeatures(features, weights, value_range=value_range)
        self.mixing = Mixing(channels_of(self.features), width)
        self.heads = nn.ModuleList(
            Head([width * SCALED[i], *(width * each for each in HALVED[i : i + downs - i])], num_classes)
            for i in range(HEADS)
        )
        for head in self.heads:
            spectral_normalise(head.layers)
            spectral_normalise(head.last)

    def forward(self, x: Tensor, condition: Tensor | None = None) -> Verdict:
        maps = self.mixing(self.features(resized(x, self.side))[1:])
        verdicts = [head(each, condition) for head, each in zip(self.heads, maps, strict=True)]
        logits, features = (torch.cat(each, 1) for each in zip(*verdicts, strict=True))
        return Verdict(logits, features)


class Head(nn.Module):
    """A map (batch, channels[0], H, W) -> logits (batch, patches), and its features' means (batch, channels[-1])."""

    def __init__(self, channels: Sequence[int], num_classes: int):
        super().__init__()
        blocks = [nn.Sequential(halving(a, b), *leaky(b)) for a, b in pairwise(channels)]
        self.layers = nn.Sequential(*blocks)
        self.last = nn.Conv2d(channels[-1], MATCHED if num_classes else 1, 4, bias=False)
        self.embed = nn.Linear(num_classes, EMBEDDED, bias=False) if num_classes else None
        self.match = nn.Linear(EMBEDDED, MATCHED) if num_classes else None
        if num_classes:
            nn.init.normal_(self.embed.weight)

    def forward(self, x: Tensor, label: Tensor | None) -> tuple[Tensor, Tensor]:
        x = self.layers(x)
        logits, features = self.last(x), x.mean((2, 3))
        if self.embed is not None:
            embedded = self.embed(as_vector(label, self.embed.in_features, x.dtype))
            wanted = leaky_relu(self.match(embedded), SLOPE)
            logits = (logits * wanted[:, :, None, None]).sum(1) / sqrt(MATCHED)
        return logits.flatten(1), features


class Mixing(nn.Module):
    """Maps at strides of 4, 8, 16 and 32 -> as many, each twice as large and mixed with the smaller ones; section 3.2.

    Random 1 x 1 convolutions mix the channels of each map. From the smallest map on, the mixture so far is added to
    the next map, enlarged and mixed again. The weights are buffers: no player moves them, and checkpoints keep them.
    """

    def __init__(self, channels: Sequence[int], width: int):
        super().__init__()
        mixed = [width * each for each in MIXED]
        self.of_channels = nn.ModuleList(Fixed(a, b) for a, b in zip(channels, mixed, strict=True))
        self.of_scales = nn.ModuleList(Fixed(a, width * b) for a, b in zip(mixed, SCALED, strict=True))

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        mixed = [mix(x) for mix, x in zip(self.of_channels, maps, strict=True)]
        found: list[Tensor] = []
        for mix, x in zip(reversed(self.of_scales), reversed(mixed), strict=True):
            x = x + found[-1] if found else x
            found.append(mix(interpolate(x, scale_factor=2, mode="bilinear", align_corners=True)))
        return found[::-1]


class Fixed(nn.Module):
    """A 1 x 1 convolution with the weights that torch draws at first, as buffers."""

    def __init__(self, channels_in: int, channels_out: int):
        super().__init__()
        drawn = nn.Conv2d(channels_in, channels_out, 1)
        self.register_buffer("weight", drawn.weight.detach())
        self.register_buffer("bias", drawn.bias.detach())

    def forward(self, x: Tensor) -> Tensor:
        return conv2d(x, self.weight, self.bias)


@torch.no_grad()
def channels_of(features: FrozenFeatures) -> list[int]:
    """Of its maps at strides from 4 up."""
    with torch.device("cpu"):
        return [x.shape[1] for x in features(torch.zeros(1, 3, 64, 64))[1:]]


def halvings(side: int | None, size: Sequence[int]) -> int:
    """Of the first head; each further one has one less. Raises UserError for images that the heads cannot look at."""
    for each in size if side is None else (side,):
        if each < 64 or each % 32:
            raise UserError(f"discriminator.side={side} for images of {size[0]}x{size[1]}; expected a multiple of 32 "
                            "from 64 up; 224 as published")  # fmt: skip
    return 4 if min(size if side is None else (side,)) >= 128 else 3  # at least 4 x 4 are left
