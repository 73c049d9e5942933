"""The convolutional networks of SNGAN's CIFAR-10 experiments: Miyato et al. 2018, arXiv 1802.05957, appendix B.4.

Unlike dcgan, a 3 x 3 convolution draws the image and the discriminator has one at each size. Sides as for dcgan.
"""

from collections.abc import Sequence

from torch import Tensor, nn

from ganrun.errors import require
from ganrun.game import Verdict
from ganrun.networks.dcgan import pyramid
from ganrun.networks.heads import CONDITIONS, Head, appended_classes
from ganrun.networks.layers import (
    Conditioned,
    activation,
    append_label,
    as_vector,
    chosen,
    conditional_norm,
    norm_layers,
    squash,
)
from ganrun.networks.residual import initialise
from ganrun.networks.spectral import spectral_normalise


class Generator(nn.Module):
    """z (batch, z_dim) -> images (batch, channels, H, W) in value_range.

    width:     channels of the last hidden layer, doubled at each smaller size
    norm:      batch, layer, instance, instance-plain or none, after each transposed convolution; of batch norm `eps` is
               added to the variance
    spectral:  also divide weights by their largest singular values
    condition: how the label enters: batch-norm, or concatenate to z
    init:      normal, orthogonal, xavier or msr
    The other settings are dcgan's.
    """

    def __init__(
        self,
        *,
        z_dim: int,
        channels: int,
        resolution: int | Sequence[int] | None,
        width: int = 64,
        norm: str = "batch",
        eps: float = 1e-5,
        spectral: bool = False,
        condition: str = "batch-norm",
        init: str = "orthogonal",
        value_range: Sequence[float] | None = (-1, 1),
        num_classes: int = 0,
    ):
        super().__init__()
        require(1, z_dim=z_dim, width=width)
        chosen("generator.condition", condition, ("batch-norm", "concatenate"))
        doublings, base = pyramid(resolution, "deep-conv")
        widths = [width * 2 ** (doublings - i) for i in range(doublings + 1)]
        self.num_classes = num_classes
        self.appended = appended_classes(condition, num_classes)
        features = num_classes - self.appended
        self.stem = nn.Sequential(
            nn.Linear(z_dim + self.appended, widths[0] * base[0] * base[1]), nn.Unflatten(1, (widths[0], *base))
        )
        layers: list[nn.Module] = []
        for i in range(doublings):
            layers += [nn.ConvTranspose2d(widths[i], widths[i + 1], 4, 2, 1)]
            layers += [*conditional_norm(norm, widths[i + 1], features, eps), activation(0.0)]
        self.blocks = Conditioned(*layers)
        self.to_image = nn.Sequential(nn.Conv2d(width, channels, 3, padding=1), squash(value_range))
        initialise(self, init)
        if spectral:
            spectral_normalise(self)

    def forward(self, z: Tensor, label: Tensor | None = None) -> Tensor:
        y = as_vector(label, self.num_classes, z.dtype) if self.num_classes > self.appended else None
        return self.to_image(self.blocks(self.stem(append_label(z, label, self.appended)), y))


class Discriminator(nn.Module):
    """Images (batch, channels, H, W) -> one logit each.

    width:     channels at the image's own size, doubled at each smaller one
    slope:     of LeakyReLU; 0 = ReLU
    norm:      spectral, batch, layer, instance, instance-plain or none, after each convolution; of batch norm `eps` is
               added to the variance
    condition: what is done with the label, see heads.py; embedding: its numbers, for the conditions that have one
    init:      normal, orthogonal, xavier or msr
    """

    def __init__(
        self,
        *,
        channels: int,
        resolution: int | Sequence[int] | None,
        width: int = 64,
        slope: float = 0.1,
        norm: str = "spectral",
        eps: float = 1e-5,
        condition: str = "concatenate",
        embedding: int = 512,
        init: str = "orthogonal",
        num_classes: int = 0,
    ):
        super().__init__()
        require(1, width=width, embedding=embedding)
        chosen("discriminator.condition", condition, CONDITIONS)
        halvings, _ = pyramid(resolution, "deep-conv")
        self.appended = appended_classes(condition, num_classes)
        widths = [channels + self.appended, *(width * 2**i for i in range(halvings + 1))]
        normalise = "none" if norm == "spectral" else norm
        layers: list[nn.Module] = []
        for i in range(halvings + 1):
            layers += [nn.Conv2d(widths[i], widths[i + 1], 3, padding=1)]
            layers += [*norm_layers(normalise, widths[i + 1], eps), activation(slope)]
            if i < halvings:
                layers += [nn.Conv2d(widths[i + 1], widths[i + 1], 4, 2, 1)]
                layers += [*norm_layers(normalise, widths[i + 1], eps), activation(slope)]
        self.blocks = nn.Sequential(*layers)
        self.head = Head(widths[-1], condition, num_classes, embedding)
        initialise(self, init)
        if norm == "spectral":
            spectral_normalise(self)

    def forward(self, x: Tensor, condition: Tensor | None = None) -> Verdict:
        return self.head(self.blocks(append_label(x, condition, self.appended)).sum((2, 3)), condition)
