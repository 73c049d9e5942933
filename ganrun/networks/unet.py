"""The U-Net of pix2pix: Isola et al. 2017, arXiv 1611.07004, section 6.1.1.

An encoder halves the image, a decoder doubles it again, and the decoder also gets the encoder's output at each size.
"""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

from ganrun.errors import UserError, require
from ganrun.networks.layers import Output, activation, check_sides, has_bias, image_size, norm_layers, normal_init

DEEPEST = 8  # halvings, as published for 256 pixels
MOST = 14  # halvings of the largest image
DROPPED = 3  # decoder blocks with dropout, the innermost ones


def halvings(size: tuple[int, int], depth: int | None) -> int:
    """How often an image (H, W) is halved. depth: the user's choice, None = down to one pixel, at most 8 times.

    Raises UserError for sides that cannot be halved that often.
    """
    if depth is not None:
        require(1, depth=depth)
        if depth > MOST:
            raise UserError(f"depth={depth}; expected at most {MOST}: no image is larger")
        check_sides(f"unet with depth={depth}", size, multiple=2**depth, least=2**depth)
        return depth
    found = 0
    while found < DEEPEST and all(side % 2 ** (found + 1) == 0 for side in size):
        found += 1
    if found < DEEPEST and min(size) != 2**found:
        advice = f"generator.depth={found}, which is less deep" if found else "dataset.resolution=32"
        raise UserError(
            f"resolution={size[0]}x{size[1]}: unet cannot halve both sides down to one pixel; "
            f"valid: 32, 64, 128, 256, multiples of 256; or try {advice}"
        )
    return found


class Generator(nn.Module):
    """Image (batch, source_channels, H, W) -> image (batch, channels, H, W) in value_range.

    Takes images whose sides are both multiples of 2^depth, whatever `resolution` it is built for.

    channels:        of the output, 1 = grey, 3 = RGB
    source_channels: of the input
    resolution:      N or (H, W) in pixels
    value_range:     (low, high) of the output; None = unbounded
    width:           channels of the first layer, doubled at each of the next three
    depth:           halvings; None = down to one pixel, at most 8: 5 at 32 pixels, 7 at 128, 8 at 256
    norm:            batch, layer, instance, instance-plain or none; never after the first and the last convolution of
                     the encoder and the last one of the decoder
    dropout:         share of features dropped in the three innermost decoder blocks, as far as they are 8 * width wide;
                     0 = off
    residual:        True = the output is added to the source, see `Output`

    In eval mode nothing is dropped and batch norm takes its running statistics. The paper drops in tests too and takes
    the statistics of the test batch. Raises UserError for sizes that do not fit and for vector data.

    Example:
        generator = Generator(channels=3, source_channels=1, resolution=32)
        images = generator(sources)  # (batch, 1, 32, 32) -> (batch, 3, 32, 32) in [-1, 1]
    """

    def __init__(
        self,
        *,
        channels: int,
        source_channels: int,
        resolution: int | Sequence[int] | None,
        value_range: Sequence[float] | None = (-1, 1),
        width: int = 64,
        depth: int | None = None,
        norm: str = "batch",
        dropout: float = 0.5,
        residual: bool = False,
    ):
        super().__init__()
        require(1, width=width, source_channels=source_channels)
        depth = halvings(image_size("unet", resolution), depth)
        self.multiple = self.least = 2**depth  # of both sides, in pixels
        widths = [width * 2 ** min(level, 3) for level in range(depth)]
        self.encoder = nn.ModuleList(_down(source_channels, widths, norm))
        self.decoder = nn.ModuleList(_up(widths, norm, dropout))
        last = nn.ConvTranspose2d(widths[0] if depth == 1 else 2 * widths[0], channels, 4, 2, 1)
        self.to_image = nn.Sequential(activation(0.0), last)
        self.output = Output(source_channels, channels, value_range, residual=residual)
        self.apply(normal_init)

    def forward(self, image: Tensor) -> Tensor:
        check_sides("this unet", image.shape[2:], multiple=self.multiple, least=self.least)
        levels, x = [], image
        for block in self.encoder:
            x = block(x)
            levels.append(x)  # the next block's LeakyReLU acts in place; the decoder's ReLU of it is the same
        levels.pop()
        for block in self.decoder:
            x = torch.cat([levels.pop(), block(x)], 1)
        return self.output(self.to_image(x), image)


def _down(source_channels: int, widths: list[int], norm: str) -> Iterator[nn.Module]:
    """The encoder's blocks; each halves the image."""
    for level, width in enumerate(widths):
        inner = 0 < level < len(widths) - 1
        convolution = nn.Conv2d([source_channels, *widths][level], width, 4, 2, 1, bias=has_bias(norm))
        before, after = [activation(0.2)] if level else [], norm_layers(norm, width) if inner else []
        yield nn.Sequential(*before, convolution, *after)


def _up(widths: list[int], norm: str, dropout: float) -> Iterator[nn.Module]:
    """The decoder's blocks but the last, from the innermost on; each doubles the image."""
    for level in range(len(widths) - 1, 0, -1):
        innermost = level == len(widths) - 1
        taken, width = widths[level] * (1 if innermost else 2), widths[level - 1]  # twice: with the encoder's output
        convolution = nn.ConvTranspose2d(taken, width, 4, 2, 1, bias=has_bias(norm))
        drops = dropout and level >= len(widths) - DROPPED and width == 8 * widths[0]
        after = [nn.Dropout(dropout)] if drops else []
        yield nn.Sequential(activation(0.0), convolution, *norm_layers(norm, width), *after)
