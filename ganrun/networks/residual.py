"""Blocks of the residual GANs, from SNGAN to BigGAN-deep: one set for all of them.

Miyato et al. 2018, arXiv 1802.05957; Miyato and Koyama 2018, arXiv 1802.05637; Brock et al. 2019, arXiv 1809.11096.
"""

from math import sqrt

import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, interpolate, relu

from ganrun.networks.layers import ConditionalBatchNorm, Conditioned, chosen, conditional_norm, norm_layers
from ganrun.networks.spectral import WEIGHTED

SHARP = sqrt(2)  # Xavier's gain of 3 x 3 convolutions in blocks, before a ReLU


def conv(channels_in: int, channels_out: int, kernel: int) -> nn.Conv2d:
    return nn.Conv2d(channels_in, channels_out, kernel, padding=kernel // 2)


def larger(x: Tensor) -> Tensor:
    return interpolate(x, scale_factor=2.0, mode="nearest")


class GeneratorBlock(nn.Module):
    """x (batch, in, H, W) -> (batch, out, 2H, 2W): two 3 x 3 convolutions, after norms and ReLUs, beside a 1 x 1."""

    def __init__(self, channels_in: int, channels_out: int, *, norm: str, features: int, eps: float):
        super().__init__()
        self.norms = nn.ModuleList(
            Conditioned(*conditional_norm(norm, c, features, eps)) for c in (channels_in, channels_out)
        )
        self.convs = nn.ModuleList([conv(channels_in, channels_out, 3), conv(channels_out, channels_out, 3)])
        self.shortcut = conv(channels_in, channels_out, 1)

    def forward(self, x: Tensor, y: Tensor | None) -> Tensor:
        h = self.convs[0](larger(relu(self.norms[0](x, y))))
        return self.convs[1](relu(self.norms[1](h, y))) + self.shortcut(larger(x))


class DeepGeneratorBlock(nn.Module):
    """BigGAN-deep's: 1 x 1, 3 x 3, 3 x 3, 1 x 1 with a quarter of the channels inside; Brock et al. 2019, figure 16.

    The shortcut has no weights: it drops the channels that the output does not have. up: doubles the size
    """

    def __init__(self, channels_in: int, channels_out: int, *, norm: str, features: int, eps: float, up: bool):
        super().__init__()
        inner = channels_in // 4
        widths = (channels_in, inner, inner, inner)
        self.norms = nn.ModuleList(Conditioned(*conditional_norm(norm, c, features, eps)) for c in widths)
        shapes = zip(widths, (inner, inner, inner, channels_out), (1, 3, 3, 1), strict=True)
        self.convs = nn.ModuleList(conv(*shape) for shape in shapes)
        self.channels, self.up = channels_out, up

    def forward(self, x: Tensor, y: Tensor | None) -> Tensor:
        h = self.convs[0](relu(self.norms[0](x, y)))
        h = relu(self.norms[1](h, y))
        h = self.convs[1](larger(h) if self.up else h)
        h = self.convs[2](relu(self.norms[2](h, y)))
        h = self.convs[3](relu(self.norms[3](h, y)))
        x = x[:, : self.channels]
        return h + (larger(x) if self.up else x)


class DiscriminatorBlock(nn.Module):
    """x (batch, in, H, W) -> (batch, out, H, W), halved if `down`: two 3 x 3 convolutions beside a shortcut.

    first:  the block that sees the image: no ReLU before it, and its shortcut shrinks first
    hidden: channels between the convolutions
    norm:   batch, layer, instance or none, before each ReLU and before a shortcut with weights
    eps:    of batch norm, added to the variance
    """

    def __init__(
        self, channels_in: int, channels_out: int, *, hidden: int, down: bool, first: bool, norm: str, eps: float = 1e-5
    ):
        super().__init__()
        self.norms = nn.ModuleList(
            nn.Sequential(*norm_layers(*each, eps))
            for each in (("none" if first else norm, channels_in), (norm, hidden))
        )
        self.convs = nn.ModuleList([conv(channels_in, hidden, 3), conv(hidden, channels_out, 3)])
        learnt = down or channels_in != channels_out
        self.shortcut = (
            nn.Sequential(*norm_layers(norm, channels_in, eps), conv(channels_in, channels_out, 1)) if learnt else None
        )
        self.down, self.first = down, first

    def forward(self, x: Tensor) -> Tensor:
        h = self.convs[0](x if self.first else relu(self.norms[0](x)))
        h = self.convs[1](relu(self.norms[1](h)))
        if self.first:
            x = self.shortcut(smaller(x) if self.down else x)
            return (smaller(h) if self.down else h) + x
        x = self.shortcut(x) if self.shortcut else x
        return smaller(h + x) if self.down else h + x


class DeepDiscriminatorBlock(nn.Module):
    """BigGAN-deep's: 1 x 1, 3 x 3, 3 x 3, 1 x 1 with a quarter of the channels inside; Brock et al. 2019, figure 16.

    The shortcut keeps the channels of the input and adds those that are missing by a 1 x 1 convolution.
    """

    def __init__(self, channels_in: int, channels_out: int, *, down: bool, norm: str, eps: float):
        super().__init__()
        inner = channels_out // 4
        shapes = zip((channels_in, inner, inner, inner), (inner, inner, inner, channels_out), (1, 3, 3, 1), strict=True)
        self.convs = nn.ModuleList(conv(*shape) for shape in shapes)
        self.norms = nn.ModuleList(
            nn.Sequential(*norm_layers(norm, c, eps)) for c in (channels_in, inner, inner, inner)
        )
        added = channels_out - channels_in
        self.shortcut = conv(channels_in, added, 1) if added else None
        self.down = down

    def forward(self, x: Tensor) -> Tensor:
        h = x
        for norm, layer in zip(self.norms[:3], self.convs[:3], strict=True):
            h = layer(relu(norm(h)))
        h = relu(self.norms[3](h))
        if self.down:
            h, x = smaller(h), smaller(x)
        return self.convs[3](h) + (x if self.shortcut is None else torch.cat([x, self.shortcut(x)], 1))


def smaller(x: Tensor) -> Tensor:
    return avg_pool2d(x, [min(2, side) for side in x.shape[2:]])


def initialise(network: nn.Module, init: str) -> None:
    """Sets all weights; biases are 0.

    init: normal      N(0, 0.02): Radford et al. 2016
          orthogonal  Saxe et al. 2014, arXiv 1312.6120; BigGAN's
          xavier      uniform, by the sum of both fans, sqrt(2) times as wide in blocks: Glorot and Bengio 2010; SNGAN's
          msr         normal, by the inputs alone: He et al. 2015, arXiv 1502.01852
    """
    chosen("init", init, INITS)
    blocks = (GeneratorBlock, DeepGeneratorBlock, DiscriminatorBlock, DeepDiscriminatorBlock)
    inside = {id(layer) for block in network.modules() if isinstance(block, blocks) for layer in block.convs}
    for module in network.modules():
        if isinstance(module, WEIGHTED):
            INITS[init](module, id(module) in inside)
            if getattr(module, "bias", None) is not None:
                nn.init.zeros_(module.bias)
    for norm in (m for m in network.modules() if init == "xavier" and isinstance(m, ConditionalBatchNorm)):
        nn.init.zeros_(norm.scale.weight)  # at first the same for all classes, as in SNGAN's code
        nn.init.zeros_(norm.shift.weight)


INITS = {
    "normal": lambda module, inside: nn.init.normal_(module.weight, 0.0, 0.02),
    "orthogonal": lambda module, inside: nn.init.orthogonal_(module.weight),
    "xavier": lambda module, inside: nn.init.xavier_uniform_(
        module.weight, SHARP if inside and kernel(module) > 1 else 1.0
    ),
    "msr": lambda module, inside: nn.init.kaiming_normal_(module.weight, nonlinearity="relu"),
}


def kernel(module: nn.Module) -> int:
    return module.kernel_size[0] if isinstance(module, nn.Conv2d) else 1
