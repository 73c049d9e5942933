"""The residual generator of CycleGAN: Zhu et al. 2017, arXiv 1703.10593, section 7.2, after Johnson et al. 2016.

In the notation of Johnson et al., arXiv 1603.08155: c7s1-64, d128, d256, R256 for each block, u128, u64, c7s1-3.
"""

from collections.abc import Sequence

from torch import Tensor, nn

from ganrun.errors import UserError, require
from ganrun.networks.layers import Output, activation, check_sides, has_bias, image_size, norm_layers, normal_init

MULTIPLE, LEAST = 4, 8  # pixels of a side: halved twice, and still wide enough for a reflected margin

MOST_BLOCKS = 1000  # more would only run out of memory, without a clear message


class Generator(nn.Module):
    """Image (batch, source_channels, H, W) -> image (batch, channels, H, W) in value_range.

    Takes images whose sides are both multiples of 4 and at least 8 pixels, whatever `resolution` it is built for.

    channels:        of the output, 1 = grey, 3 = RGB
    source_channels: of the input
    resolution:      N or (H, W) in pixels
    value_range:     (low, high) of the output; None = unbounded
    width:           channels of the first layer, doubled at both halvings
    blocks:          residual blocks at the smallest size; None = 9 if both sides have 256 pixels or more, else 6
    norm:            batch, layer, instance, instance-plain or none
    dropout:         share of features dropped within each residual block; 0 = off
    residual:        True = the output is added to the source, see `Output`

    Raises UserError for sizes that do not fit and for vector data.

    Example:
        generator = Generator(channels=3, source_channels=3, resolution=32)
        images = generator(sources)  # (batch, 3, 32, 32) -> the same; also (batch, 3, 64, 48)
    """

    def __init__(
        self,
        *,
        channels: int,
        source_channels: int,
        resolution: int | Sequence[int] | None,
        value_range: Sequence[float] | None = (-1, 1),
        width: int = 64,
        blocks: int | None = None,
        norm: str = "instance-plain",
        dropout: float = 0.0,
        residual: bool = False,
    ):
        super().__init__()
        size = image_size("resnet-translator", resolution)
        check_sides("resnet-translator", size, multiple=MULTIPLE, least=LEAST)
        blocks = (9 if min(size) >= 256 else 6) if blocks is None else blocks
        require(1, width=width, source_channels=source_channels)
        require(0, blocks=blocks)
        if blocks > MOST_BLOCKS:
            raise UserError(f"blocks={blocks}; expected at most {MOST_BLOCKS}")
        self.multiple, self.least = MULTIPLE, LEAST  # of both sides, in pixels
        bias = has_bias(norm)
        self.encoder = nn.Sequential(
            nn.ReflectionPad2d(3),
            *_normalised(nn.Conv2d(source_channels, width, 7, bias=bias), norm),
            *_normalised(nn.Conv2d(width, 2 * width, 3, 2, 1, bias=bias), norm),
            *_normalised(nn.Conv2d(2 * width, 4 * width, 3, 2, 1, bias=bias), norm),
        )
        self.blocks = nn.Sequential(*(Residual(4 * width, norm=norm, dropout=dropout) for _ in range(blocks)))
        self.decoder = nn.Sequential(
            *_normalised(nn.ConvTranspose2d(4 * width, 2 * width, 3, 2, 1, 1, bias=bias), norm),
            *_normalised(nn.ConvTranspose2d(2 * width, width, 3, 2, 1, 1, bias=bias), norm),
        )
        self.to_image = nn.Sequential(nn.ReflectionPad2d(3), nn.Conv2d(width, channels, 7))
        self.output = Output(source_channels, channels, value_range, residual=residual)
        self.apply(normal_init)

    def forward(self, image: Tensor) -> Tensor:
        check_sides("this resnet-translator", image.shape[2:], multiple=self.multiple, least=self.least)
        return self.output(self.to_image(self.decoder(self.blocks(self.encoder(image)))), image)


class Residual(nn.Module):
    """Adds two 3x3 convolutions with reflected margins; no activation after the sum, as in Gross and Wilber 2016."""

    def __init__(self, width: int, *, norm: str, dropout: float):
        super().__init__()
        bias = has_bias(norm)
        first, second = (nn.Conv2d(width, width, 3, bias=bias) for _ in range(2))
        self.change = nn.Sequential(
            nn.ReflectionPad2d(1), *_normalised(first, norm), *([nn.Dropout(dropout)] if dropout else []),
            nn.ReflectionPad2d(1), second, *norm_layers(norm, width),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        return x + self.change(x)


def _normalised(convolution: nn.Module, norm: str) -> list[nn.Module]:
    return [convolution, *norm_layers(norm, convolution.out_channels), activation(0.0)]
