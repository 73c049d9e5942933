"""Multilayer perceptrons for vectors and small images: Goodfellow et al. 2014, arXiv 1406.2661, section 5."""

import math
from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor, nn

from ganrun.errors import UserError, require
from ganrun.game import Verdict
from ganrun.networks.heads import CONDITIONS, Head, appended_classes
from ganrun.networks.layers import activation, append_label, chosen, squash

DEEPEST = 1000  # more would only run out of memory, without a clear message


def data_shape(channels: int, resolution: int | Sequence[int] | None) -> tuple[int, ...]:
    """(channels,) for vectors, which have no resolution; (channels, H, W) for images."""
    if resolution is None:
        return (channels,)
    return (channels, resolution, resolution) if isinstance(resolution, int) else (channels, *resolution)


def hidden_sizes(width: int, depth: int, growth: int) -> list[int]:
    """`depth` sizes: width, width * growth, ..."""
    require(1, width=width, depth=depth, growth=growth)
    if depth > DEEPEST:
        raise UserError(f"depth={depth}; expected at most {DEEPEST} hidden layers")
    return [width * growth**i for i in range(depth)]


def hidden_layers(sizes: Sequence[int], slope: float, dropout: float = 0.0) -> nn.Sequential:
    """Linear layers between successive sizes, each followed by its activation (and dropout)."""
    layers: list[nn.Module] = []
    for size_in, size_out in pairwise(sizes):
        layers += [nn.Linear(size_in, size_out), activation(slope)]
        layers += [nn.Dropout(dropout)] if dropout else []
    return nn.Sequential(*layers)


def orthogonal_init(module: nn.Module) -> None:
    """Orthogonal weights of gain sqrt(2), biases 0: Saxe et al. 2014, arXiv 1312.6120.

    It keeps the norm of the input gradient near 1 through the layers, as a Lipschitz critic needs. With torch's default
    the same critic starts flat, and WGAN-GP takes thousands of steps to find the modes of a ring.
    """
    if isinstance(module, nn.Linear | nn.Embedding):
        nn.init.orthogonal_(module.weight, math.sqrt(2))
        if getattr(module, "bias", None) is not None:
            nn.init.zeros_(module.bias)


class Generator(nn.Module):
    """z (batch, z_dim) -> (batch, channels) or (batch, channels, H, W), in value_range.

    z_dim:       numbers in z
    channels:    of the images, or the dimensions of vectors
    resolution:  N or (H, W) in pixels; None = vectors
    width:       of the first hidden layer
    depth:       hidden layers
    growth:      each hidden layer is this many times as wide as the one before; 1 = all alike
    slope:       of LeakyReLU; 0 = ReLU
    value_range: (low, high) of the output; None = unbounded
    num_classes: classes of the labels that it is given, or their attributes; 0 = unconditional

    Example:
        generator = Generator(z_dim=2, channels=2, resolution=None, width=64)
        points = generator(torch.randn(16, 2))  # (16, 2)
    """

    def __init__(
        self,
        *,
        z_dim: int,
        channels: int,
        resolution: int | Sequence[int] | None,
        width: int = 256,
        depth: int = 3,
        growth: int = 1,
        slope: float = 0.2,
        value_range: Sequence[float] | None = None,
        num_classes: int = 0,
    ):
        super().__init__()
        require(1, z_dim=z_dim)
        sizes = hidden_sizes(width, depth, growth)
        shape = data_shape(channels, resolution)
        sizes = [z_dim + num_classes, *sizes]
        self.num_classes = num_classes
        self.hidden = hidden_layers(sizes, slope)
        self.to_data = nn.Sequential(
            nn.Linear(sizes[-1], math.prod(shape)), squash(value_range), nn.Unflatten(1, shape)
        )
        self.apply(orthogonal_init)

    def forward(self, z: Tensor, label: Tensor | None = None) -> Tensor:
        return self.to_data(self.hidden(append_label(z, label, self.num_classes)))


class Discriminator(nn.Module):
    """(batch, channels) or (batch, channels, H, W) -> one logit each.

    Hidden sizes mirror the generator's: width * growth^(depth - 1), ..., width. dropout: share of features dropped
    after each layer, 0 = off. condition: what is done with the label, see heads.py, with `embedding` numbers where it
    has an embedding. The other settings are the generator's.
    """

    def __init__(
        self,
        *,
        channels: int,
        resolution: int | Sequence[int] | None,
        width: int = 256,
        depth: int = 3,
        growth: int = 1,
        slope: float = 0.2,
        dropout: float = 0.0,
        condition: str = "concatenate",
        embedding: int = 512,
        num_classes: int = 0,
    ):
        super().__init__()
        require(1, embedding=embedding)
        chosen("discriminator.condition", condition, CONDITIONS)
        sizes = hidden_sizes(width, depth, growth)
        features = math.prod(data_shape(channels, resolution))
        self.appended = appended_classes(condition, num_classes)
        sizes = [features + self.appended, *reversed(sizes)]
        self.hidden = hidden_layers(sizes, slope, dropout)
        self.head = Head(sizes[-1], condition, num_classes, embedding)
        self.apply(orthogonal_init)

    def forward(self, x: Tensor, condition: Tensor | None = None) -> Verdict:
        return self.head(self.hidden(append_label(x.flatten(1), condition, self.appended)), condition)
