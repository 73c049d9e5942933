"""FastGAN's blocks: Liu et al. 2021, arXiv 2101.04775, section 3, and the authors' code for what it does not say."""

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from ganrun.networks.layers import activation, squash
from ganrun.networks.spectral import spectral_normalise

SLOPE = 0.2  # of LeakyReLU


class Excitation(nn.Module):
    """A small map (batch, channels_in, h, w) scales the channels of a large one (batch, channels_out, H, W); eq. 1.

    The paper has LeakyReLU between the convolutions; the authors' code, which is followed here, SiLU.
    """

    def __init__(self, channels_in: int, channels_out: int):
        super().__init__()
        self.layers = nn.Sequential(
            nn.AdaptiveAvgPool2d(4),
            nn.Conv2d(channels_in, channels_out, 4, bias=False),
            nn.SiLU(),
            conv(channels_out, channels_out, 1),
            nn.Sigmoid(),
        )

    def forward(self, small: Tensor, large: Tensor) -> Tensor:
        return large * self.layers(small)


class Noise(nn.Module):
    """Adds N(0, 1) noise, one number a pixel, times a learnt weight that begins at 0. In eval mode always the same."""

    def __init__(self, size: tuple[int, int]):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))
        self.register_buffer("fixed", torch.randn(1, 1, *size))

    def forward(self, x: Tensor) -> Tensor:
        noise = torch.randn_like(x[:, :1]) if self.training else self.fixed
        return x + self.weight * noise


class Downscaling(nn.Module):
    """(batch, channels_in, 2H, 2W) -> (batch, channels_out, H, W): the mean of two convolutions and of a short way."""

    def __init__(self, channels_in: int, channels_out: int):
        super().__init__()
        self.main = nn.Sequential(
            halving(channels_in, channels_out),
            *leaky(channels_out),
            conv(channels_out, channels_out, 3),
            *leaky(channels_out),
        )
        self.direct = nn.Sequential(nn.AvgPool2d(2), conv(channels_in, channels_out, 1), *leaky(channels_out))

    def forward(self, x: Tensor) -> Tensor:
        return (self.main(x) + self.direct(x)) / 2


def conv(channels_in: int, channels_out: int, side: int) -> nn.Conv2d:
    """Keeps the size."""
    return nn.Conv2d(channels_in, channels_out, side, padding=side // 2, bias=False)


def halving(channels_in: int, channels_out: int) -> nn.Conv2d:
    return nn.Conv2d(channels_in, channels_out, 4, stride=2, padding=1, bias=False)


def leaky(channels: int) -> list[nn.Module]:
    return [nn.BatchNorm2d(channels), activation(SLOPE)]


def gated(channels_in: int, channels_out: int, noise: tuple[int, int] | None = None) -> list[nn.Module]:
    """3 x 3, noise if it has a size, batch norm; half of the channels gate the others."""
    more = [Noise(noise)] if noise else []
    return [conv(channels_in, 2 * channels_out, 3), *more, nn.BatchNorm2d(2 * channels_out), nn.GLU(1)]


def upscaling(channels_in: int, channels_out: int, noise: tuple[int, int] | None = None) -> nn.Sequential:
    """Doubles the size. noise: the new size, for a stage with a second convolution, and noise after both."""
    more = gated(channels_out, channels_out, noise) if noise else []
    return nn.Sequential(nn.Upsample(scale_factor=2), *gated(channels_in, channels_out, noise), *more)


def excitations(small: Sequence[int], widths: Sequence[int], reach: int) -> nn.ModuleList:
    """Of the map with number i, one for the map i + reach. small: channels of the maps that excite others."""
    return nn.ModuleList(Excitation(a, b) for a, b in zip(small, widths[reach:], strict=False))


def excited(x: Tensor, maps: Sequence[Tensor], layers: nn.ModuleList, reach: int) -> Tensor:
    """The map that follows `maps`, scaled by that of `reach` before it, if there is such a layer."""
    first = len(maps) - reach
    return layers[first](maps[first], x) if 0 <= first < len(layers) else x


def decoder(
    widths: Sequence[int], channels: int, base: tuple[int, int], value_range: Sequence[float] | None
) -> nn.Sequential:
    """A map -> images of 128 pixels (from a base of 4), or of the images' own size if that is smaller."""
    return nn.Sequential(
        nn.AdaptiveAvgPool2d([2 * side for side in base]),
        *(upscaling(a, b) for a, b in pairwise(widths)),
        conv(widths[-1], channels, 3),
        squash(value_range),
    )


def initialise(network: nn.Module) -> None:
    """Batch norm's scales from N(1, 0.02), then spectral norm everywhere. Convolutions stay as torch begins them: the
    authors' N(0, 0.02) does not reach weights under spectral norm.
    """
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.weight, 1.0, 0.02)
    spectral_normalise(network)
