"""The parts of StyleGAN2's networks: blocks of one size, and ends of the discriminator; see stylegan2.py."""

from collections.abc import Sequence
from math import sqrt

import torch
from torch import Tensor, nn

from ganrun.game import Verdict
from ganrun.networks.equalised import GAIN, equalise, leaky
from ganrun.networks.heads import Affine, Head
from ganrun.networks.mapping import Mapping
from ganrun.networks.modulated import StyledConv, ToImage
from ganrun.networks.resampling import Blur, Downsample, Upsample

HALF = sqrt(0.5)  # gain of both branches of a residual block


class SynthesisBlock(nn.Module):
    """x (batch, in, H / 2, W / 2), a smaller image or None, a w for each layer -> x (batch, out, H, W), image or None.

    channels_in 0: the first block, which neither enlarges x nor has a first convolution
    size: (H, W). last: does the network end here?
    """

    def __init__(
        self,
        channels_in: int,
        channels_out: int,
        size: tuple[int, int],
        *,
        w_dim: int,
        channels: int,
        architecture: str,
        last: bool,
        noise: bool,
        clamp: float | None,
        form: str,
    ):
        super().__init__()
        settings = {"w_dim": w_dim, "size": size, "noise": noise, "clamp": clamp, "form": form}
        residual = architecture == "resnet" and channels_in > 0
        first = [StyledConv(channels_in, channels_out, up=True, **settings)] if channels_in else []
        second = StyledConv(channels_out, channels_out, gain=HALF if residual else 1.0, **settings)
        self.convs = nn.ModuleList([*first, second])
        self.to_image = None
        if last or architecture == "skip":
            self.to_image = ToImage(channels_out, channels, w_dim, clamp=clamp, form=form)
        self.shortcut = None
        if residual:
            conv = equalise(nn.Conv2d(channels_in, channels_out, 1, bias=False), gain=HALF)
            self.shortcut = nn.Sequential(conv, Upsample())
        self.larger = Upsample()

    def forward(self, x: Tensor, image: Tensor | None, styles: Sequence[Tensor]) -> tuple[Tensor, Tensor | None]:
        shortcut = None if self.shortcut is None else self.shortcut(x)
        for conv, w in zip(self.convs, styles[:-1], strict=True):
            x = conv(x, w)
        if shortcut is not None:
            x = x + shortcut
        if self.to_image is None:
            return x, None
        drawn = self.to_image(x, styles[-1])
        if image is None:
            return x, drawn
        with torch.autocast(x.device.type, enabled=False):  # images add up in full precision
            return x, self.larger(image) + drawn


class DiscriminatorBlock(nn.Module):
    """x (batch, in, 2H, 2W) -> (batch, out, H, W)."""

    def __init__(self, channels_in: int, channels_out: int, *, residual: bool, clamp: float | None):
        super().__init__()
        gain = HALF if residual else 1.0
        self.first = equalise(nn.Conv2d(channels_in, channels_in, 3, padding=1), gain=GAIN)
        self.blur = Blur(padding=2)
        self.second = equalise(nn.Conv2d(channels_in, channels_out, 3, stride=2), gain=GAIN * gain)
        self.shortcut = None
        if residual:
            conv = equalise(nn.Conv2d(channels_in, channels_out, 1, bias=False), gain=HALF)
            self.shortcut = nn.Sequential(Downsample(), conv)
        self.clamps = clamp, None if clamp is None else clamp * gain

    def forward(self, x: Tensor) -> Tensor:
        h = leaky(self.first(x), self.clamps[0])
        h = leaky(self.second(self.blur(h)), self.clamps[1])
        return h if self.shortcut is None else h + self.shortcut(x)


class Projection(nn.Module):
    """features (batch, F), label (batch,) -> logit <mapped label, W features + b> / sqrt(F)."""

    def __init__(self, features: int, num_classes: int, layers: int):
        super().__init__()
        self.in_features = features
        self.linear = equalise(nn.Linear(features, features))
        self.mapping = Mapping(0, num_classes, width=features, layers=layers)

    def forward(self, features: Tensor, label: Tensor | None = None) -> Verdict:
        logits = (self.linear(features) * self.mapping(None, label)).sum(1) / sqrt(features.shape[1])
        return Verdict(logits, features)

    def affine(self, features: Tensor, label: Tensor | None = None) -> Affine:
        mapped = self.mapping(None, label) / sqrt(self.in_features)
        return Affine(features, mapped @ self.linear.weight, mapped @ self.linear.bias)


def equalised_head(head: Head) -> Head:
    for layer in [layer for layer in head.modules() if isinstance(layer, (nn.Linear, nn.Embedding))]:
        equalise(layer)
    return head
