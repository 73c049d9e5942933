"""A style-based generator of two linear maps, with the keys of generator=mlp, for tests of what acts on any of them."""

import torch
from torch import nn
from torch.nn.functional import leaky_relu

from ganrun.styles import StyleBased

WORDS = ["model=mlp", "generator._target_=tiny_styles.Generator", "generator.z_dim=5", "generator.width=4"]


class Generator(StyleBased):
    """Images are A_1 w_1 + ... + A_L w_L with L = depth. growth: multiplies the initial A. slope: in the mapping."""

    def __init__(
        self, z_dim, width, depth, growth, slope, channels, resolution, value_range, num_classes=0, mixing=0.0
    ):
        super().__init__(width, depth, mixing=mixing)
        self.to_w, self.slope = nn.Linear(z_dim, width), slope
        self.embed = nn.Embedding(num_classes, z_dim) if num_classes else None
        self.shape = (channels, resolution, resolution)
        pixels = channels * resolution**2
        self.maps = nn.Parameter(growth * torch.randn(depth, width, pixels) / pixels**0.5)

    def mapping(self, z, condition=None):
        return leaky_relu(self.to_w(z if condition is None else z + self.embed(condition)), self.slope)

    def synthesis(self, styles):
        return torch.einsum("blw,lwp->bp", styles, self.maps).view(-1, *self.shape)

    def style_weights(self):
        return [each.T for each in self.maps]


def tiny(depth=3, *, classes=0, mixing=0.0, resolution=4, growth=1):
    torch.manual_seed(0)
    return Generator(5, 4, depth, growth, 0.2, 1, resolution, (-1, 1), classes, mixing)
