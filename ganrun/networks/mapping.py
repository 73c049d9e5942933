"""StyleGAN's mapping network: Karras et al. 2019, arXiv 1812.04948, section 2; of labels: 2020, arXiv 2006.06676."""

import torch
from torch import Tensor, nn

from ganrun.networks.equalised import GAIN, equalise, leaky
from ganrun.networks.layers import as_vector


class Mapping(nn.Module):
    """z (batch, z_dim), label (batch,) or None -> w (batch, width), in full precision.

    A label may also be a vector of attributes, (batch, num_classes).

    z_dim:         0 = of the label alone
    layers:        linear, each before a LeakyReLU
    lr_multiplier: how far a step moves these layers, relative to all others
    """

    def __init__(self, z_dim: int, num_classes: int, *, width: int, layers: int, lr_multiplier: float = 0.01):
        super().__init__()
        self.num_classes = num_classes
        self.embed = equalise(nn.Linear(num_classes, width)) if num_classes else None
        inputs = z_dim + (width if num_classes else 0)
        settings = {"gain": GAIN, "lr_multiplier": lr_multiplier}
        self.layers = nn.ModuleList(
            equalise(nn.Linear(width if i else inputs, width), **settings) for i in range(layers)
        )

    def forward(self, z: Tensor | None, label: Tensor | None = None) -> Tensor:
        given = [] if z is None else [z]
        with torch.autocast(self.layers[0].weight.device.type, enabled=False):
            if self.embed is not None:
                given.append(self.embed(as_vector(label, self.num_classes, self.embed.weight.dtype)))
            w = torch.cat([unit_rms(x) for x in given], 1)
            for layer in self.layers:
                w = leaky(layer(w))
        return w


def unit_rms(x: Tensor) -> Tensor:
    """Rows (batch, F) scaled to a root mean square of 1."""
    return x * (x.square().mean(1, keepdim=True) + 1e-8).rsqrt()
