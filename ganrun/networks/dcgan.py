"""DCGAN: Radford et al. 2016, arXiv 1511.06434, for sizes whose sides both halve down to a base of 4 to 7.

A side is base * 2^n with base 4, 5, 6 or 7: 8, 16, 32, 64, 128 (base 4), 28 or 56 (base 7), 24, 40, 48, ...
"""

from collections.abc import Sequence

from torch import Tensor, nn

from ganrun.errors import UserError, require
from ganrun.game import Verdict
from ganrun.networks.attention import SelfAttention, attention_index
from ganrun.networks.heads import CONDITIONS, Head, appended_classes
from ganrun.networks.layers import (
    Conditioned,
    activation,
    append_label,
    as_vector,
    chosen,
    conditional_norm,
    has_bias,
    norm_layers,
    normal_init,
    squash,
)
from ganrun.networks.spectral import spectral_normalise

MOST_BLOCKS = 16  # more would only run out of memory, without a clear message


def pyramid(resolution: int | Sequence[int] | None, name: str = "dcgan") -> tuple[int, tuple[int, int]]:
    """(number of halvings, base size (H, W)) of a resolution. Raises UserError if there is none. name: of a network."""
    if resolution is None:
        raise UserError(f"{name} builds images, but this dataset has vectors; try model=mlp")
    height, width = (resolution, resolution) if isinstance(resolution, int) else resolution
    halvings = 0
    while height % 2 == 0 and width % 2 == 0 and min(height, width) >= 8:
        height, width, halvings = height // 2, width // 2, halvings + 1
    if halvings == 0 or not 4 <= min(height, width) <= 7:
        raise UserError(
            f"resolution={resolution}: {name} cannot build it; valid: base * 2^n with base 4 to 7 and n >= 1, such as "
            "8, 16, 28, 32, 64, 128; try dataset.resolution=32"
        )
    return halvings, (height, width)


class Generator(nn.Module):
    """z (batch, z_dim) -> images (batch, channels, H, W) in value_range.

    z_dim:       numbers in z
    channels:    of the images, 1 = grey, 3 = RGB
    resolution:  N or (H, W) in pixels, see above
    width:       channels of the last hidden layer, doubled at each smaller size
    kernel:      side of the transposed convolutions, 4 or 5 pixels
    base_blocks: stride-1 blocks at the base size, before the first upsampling; 0 = none
    slope:       of LeakyReLU; 0 = ReLU
    norm:        batch, layer, instance, instance-plain or none
    spectral:    divide weights by their largest singular values
    condition:   how the label enters: concatenate to z, or batch-norm
    attention:   height in pixels after whose layers there is self-attention; half = of the image's; None = off
    value_range: (low, high) of the pixels; None = unbounded
    num_classes: classes of the labels that it is given, or their attributes; 0 = unconditional

    Example:
        generator = Generator(z_dim=100, channels=3, resolution=32)
        images = generator(torch.randn(16, 100))  # (16, 3, 32, 32) in [-1, 1]
    """

    def __init__(
        self,
        *,
        z_dim: int,
        channels: int,
        resolution: int | Sequence[int] | None,
        width: int = 64,
        kernel: int = 4,
        base_blocks: int = 0,
        slope: float = 0.0,
        norm: str = "batch",
        spectral: bool = False,
        condition: str = "concatenate",
        attention: int | str | None = None,
        value_range: Sequence[float] | None = (-1, 1),
        num_classes: int = 0,
    ):
        super().__init__()
        require(1, z_dim=z_dim, width=width)
        require(2, kernel=kernel)
        require(0, base_blocks=base_blocks)
        chosen("generator.condition", condition, ("concatenate", "batch-norm"))
        if base_blocks > MOST_BLOCKS:
            raise UserError(f"base_blocks={base_blocks}; expected at most {MOST_BLOCKS}: each one doubles the width")
        halvings, base = pyramid(resolution)
        blocks = base_blocks + halvings
        widths = [width * 2 ** (blocks - 1 - i) for i in range(blocks)]
        self.num_classes = num_classes
        self.appended = appended_classes(condition, num_classes)
        features = num_classes - self.appended
        self.stem = Conditioned(
            nn.Linear(z_dim + self.appended, widths[0] * base[0] * base[1]),
            nn.Unflatten(1, (widths[0], *base)),
            *conditional_norm(norm, widths[0], features),
            activation(slope),
        )
        layers: list[nn.Module] = []
        heights = [base[0] * 2 ** max(0, i + 1 - base_blocks) for i in range(blocks - 1)]
        at = attention_index(attention, base[0] * 2**halvings, heights, "generator")
        for i in range(blocks - 1):
            stride = 1 if i < base_blocks else 2
            layers += [_up(widths[i], widths[i + 1], kernel, stride, bias=has_bias(norm))]
            layers += [*conditional_norm(norm, widths[i + 1], features), activation(slope)]
            layers += [SelfAttention(widths[i + 1])] if i == at else []
        self.blocks = Conditioned(*layers)
        self.to_image = nn.Sequential(_up(widths[-1], channels, kernel, 2, bias=True), squash(value_range))
        self.apply(normal_init)
        if spectral:
            spectral_normalise(self)

    def forward(self, z: Tensor, label: Tensor | None = None) -> Tensor:
        y = as_vector(label, self.num_classes, z.dtype) if self.num_classes > self.appended else None
        x = self.stem(append_label(z, label, self.appended), y)
        return self.to_image(self.blocks(x, y))


class Discriminator(nn.Module):
    """Images (batch, channels, H, W) -> one logit each.

    channels:    of the images, 1 = grey, 3 = RGB
    resolution:  N or (H, W) in pixels, see above
    width:       channels after the first stride-2 convolution, doubled at each smaller size
    kernel:      side of the convolutions, 4 or 5 pixels
    slope:       of LeakyReLU; 0 = ReLU
    norm:        batch, layer, instance, instance-plain or none, never after the first convolution; or spectral: weights
                 divided by their largest singular values
    dropout:     share of features dropped after each convolution; 0 = off
    attention:   as for the generator
    condition:   what is done with the label, see heads.py
    embedding:   numbers of the head's embedding, for the conditions that have one
    num_classes: classes of the labels that it is given, or their attributes; 0 = unconditional

    Example:
        discriminator = Discriminator(channels=3, resolution=32, norm="none")
        logits = discriminator(images).logits  # images (batch, 3, 32, 32) -> (batch,)
    """

    def __init__(
        self,
        *,
        channels: int,
        resolution: int | Sequence[int] | None,
        width: int = 64,
        kernel: int = 4,
        slope: float = 0.2,
        norm: str = "batch",
        dropout: float = 0.0,
        attention: int | str | None = None,
        condition: str = "concatenate",
        embedding: int = 512,
        num_classes: int = 0,
    ):
        super().__init__()
        require(1, width=width, embedding=embedding)
        chosen("discriminator.condition", condition, CONDITIONS)
        require(2, kernel=kernel)
        halvings, base = pyramid(resolution)
        self.appended = appended_classes(condition, num_classes)
        widths = [channels + self.appended, *(width * 2**i for i in range(halvings))]
        layers: list[nn.Module] = []
        heights = [base[0] * 2 ** (halvings - 1 - i) for i in range(halvings)]
        at = attention_index(attention, base[0] * 2**halvings, heights, "discriminator")
        for i in range(halvings):
            normalise = norm if i > 0 and norm != "spectral" else "none"
            bias = has_bias(normalise)
            layers += [nn.Conv2d(widths[i], widths[i + 1], kernel, 2, (kernel - 1) // 2, bias=bias)]
            layers += [*norm_layers(normalise, widths[i + 1]), activation(slope)]
            layers += [nn.Dropout(dropout)] if dropout else []
            layers += [SelfAttention(widths[i + 1])] if i == at else []
        self.blocks = nn.Sequential(*layers)
        self.head = Head(widths[-1] * base[0] * base[1], condition, num_classes, embedding)
        self.apply(normal_init)
        if norm == "spectral":
            spectral_normalise(self)

    def forward(self, x: Tensor, condition: Tensor | None = None) -> Verdict:
        features = self.blocks(append_label(x, condition, self.appended)).flatten(1)
        return self.head(features, condition)


def _up(channels_in: int, channels_out: int, kernel: int, stride: int, *, bias: bool) -> nn.ConvTranspose2d:
    """Transposed convolution that multiplies the size by `stride` exactly."""
    kernel -= stride == 1 and kernel % 2 == 0  # only an odd kernel preserves the size
    padding = (kernel - 1) // 2
    extra = stride - kernel + 2 * padding
    return nn.ConvTranspose2d(channels_in, channels_out, kernel, stride, padding, extra, bias=bias)
