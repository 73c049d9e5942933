"""PatchGAN, which judges overlapping patches of an image: Isola et al. 2017, arXiv 1611.07004, section 6.1.2."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ganrun.errors import UserError, require
from ganrun.game import Verdict
from ganrun.networks.layers import PER_IMAGE, activation, has_bias, image_size, norm_layers, normal_init

DEEPEST = 16  # no image is large enough for more


class Discriminator(nn.Module):
    """Image (batch, channels, H, W) -> a logit for each patch, (batch, h, w); features are means over patches.

    channels:        of the images, 1 = grey, 3 = RGB
    resolution:      N or (H, W) in pixels
    source_channels: of an image (batch, source_channels, H, W) that is the condition and is put before the judged one;
                     0 = unconditional
    width:           channels of the first layer, doubled at each of the next three
    layers:          stride-2 convolutions; 3 see patches of 70 pixels, 1 of 16, 5 of 286, 0 single pixels (PixelGAN)
    kernel:          side of the convolutions, 3 pixels or more
    slope:           of LeakyReLU; 0 = ReLU
    norm:            batch, layer, instance, instance-plain or none; never after the first convolution

    Raises UserError for an image that is smaller than the layers need, and for vector data.

    Example:
        discriminator = Discriminator(channels=3, resolution=64, source_channels=1)
        logits = discriminator(images, sources).logits  # (batch, 3, 64, 64), (batch, 1, 64, 64) -> (batch, 6, 6)
    """

    def __init__(
        self,
        *,
        channels: int,
        resolution: int | Sequence[int] | None,
        source_channels: int = 0,
        width: int = 64,
        layers: int = 3,
        kernel: int = 4,
        slope: float = 0.2,
        norm: str = "batch",
    ):
        super().__init__()
        require(1, width=width)
        require(0, source_channels=source_channels, layers=layers)
        require(3, kernel=kernel)
        check_depth(image_size("patchgan", resolution), layers, kernel, norm)
        self.source_channels = source_channels
        strides = strides_of(layers)
        kernel = kernel if layers else 1
        widths = [channels + source_channels, *(width * 2 ** min(i, 3) for i in range(len(strides) - 1))]
        blocks: list[nn.Module] = []
        for i, stride in enumerate(strides[:-1]):
            normalise = norm if i else "none"
            bias = has_bias(normalise)
            blocks += [nn.Conv2d(widths[i], widths[i + 1], kernel, stride, (kernel - 1) // 2, bias=bias)]
            blocks += [*norm_layers(normalise, widths[i + 1]), activation(slope)]
        self.blocks = nn.Sequential(*blocks)
        self.head = nn.Conv2d(widths[-1], 1, kernel, 1, (kernel - 1) // 2)
        self.apply(normal_init)

    def forward(self, x: Tensor, condition: Tensor | None = None) -> Verdict:
        """Raises ValueError if the condition is missing, unexpected, or not an image with `source_channels`."""
        features = self.blocks(self._joined(condition, x))
        return Verdict(self.head(features).squeeze(1), features.mean((2, 3)))

    def _joined(self, condition: Tensor | None, x: Tensor) -> Tensor:
        if condition is None and not self.source_channels:
            return x
        wanted = (len(x), self.source_channels, *x.shape[2:]) if self.source_channels else None
        got = None if condition is None else tuple(condition.shape)
        if got != wanted:
            raise ValueError(
                f"patchgan with source_channels={self.source_channels} was given a condition of shape "
                f"{got and list(got)}; expected {wanted and list(wanted)}"
            )
        return torch.cat([condition, x], 1)


def strides_of(layers: int) -> list[int]:
    """The strides of all convolutions."""
    return [2] * layers + [1, 1] if layers else [1, 1, 1]


def check_depth(size: tuple[int, int], layers: int, kernel: int, norm: str) -> None:
    """Raises UserError for an image (H, W) in which these layers leave no patch."""
    if layers > DEEPEST:
        raise UserError(f"discriminator.layers={layers}; expected at most {DEEPEST}")
    if not leaves_patches(size, layers, kernel, norm):
        fit = max(fewer for fewer in range(layers) if leaves_patches(size, fewer, kernel, norm))
        raise UserError(
            f"discriminator.layers={layers}: they leave no patch of an image of {size[0]}x{size[1]} pixels; "
            f"expected at most {fit}"
        )


def leaves_patches(size: Sequence[int], layers: int, kernel: int, norm: str) -> bool:
    strides = strides_of(layers) if layers else []  # single pixels always exist
    for i, stride in enumerate(strides):
        size = [(side + 2 * ((kernel - 1) // 2) - kernel) // stride + 1 for side in size]
        normalised = 0 < i < len(strides) - 1 and norm in PER_IMAGE
        if min(size) < 1 or (normalised and size[0] * size[1] < 2):
            return False
    return True
