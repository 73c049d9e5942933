"""StyleGAN2's networks: Karras et al. 2020, arXiv 1912.04958; settings of 2020, arXiv 2006.06676 (StyleGAN2-ADA).

A side is base * 2^n with base 4, 5, 6 or 7, as for dcgan: 8, 16, 32, 48, 64, 128, 256, ...
"""

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from ganrun.errors import UserError, require
from ganrun.game import Verdict
from ganrun.networks.dcgan import pyramid
from ganrun.networks.equalised import GAIN, equalise, leaky
from ganrun.networks.heads import CONDITIONS, Head, appended_classes
from ganrun.networks.layers import append_label, chosen, squash
from ganrun.networks.mapping import Mapping
from ganrun.networks.minibatch_std import minibatch_std
from ganrun.networks.modulated import FORMS
from ganrun.networks.resampling import Downsample
from ganrun.networks.stylegan2_blocks import DiscriminatorBlock, Projection, SynthesisBlock, equalised_head
from ganrun.styles import StyleBased

ARCHITECTURES = ("orig", "skip", "resnet")  # figure 7: neither, images of all sizes, residual blocks


class Generator(StyleBased):
    """z (batch, z_dim), label (batch,) or None -> images (batch, channels, H, W), unbounded if value_range is None.

    A label may also be a vector of attributes, (batch, num_classes); its embedding is normalised, so that mostly its
    direction counts. In training mode noise is drawn from torch's default generators; in eval mode an image is a
    function of z and the label.

    width:          most channels of a stage
    fmaps:          sizes above base * 16 * fmaps have fewer: width * 16 * fmaps / 2^n at the n-th doubling of the base
    w_dim:          numbers in w, and in the mapped label
    mapping_layers: layers from z to w
    architecture:   orig, skip (the sum of an image of each size) or resnet
    noise_inputs:   adds noise after each convolution, with a learnt strength
    modulation:     what styles scale, to the same effect: activations, or weights, by grouped convolutions
    mixing:         probability that a second z gives some of a sample's styles in training, see StyleBased; 0 = off
    clamp:          largest absolute value that a layer puts out, for reduced precision; None = off
    value_range:    (low, high) of the pixels, by tanh or sigmoid; None = not squashed, as published

    Example:
        generator = Generator(z_dim=512, channels=3, resolution=32, num_classes=10)
        images = generator(torch.randn(16, 512), torch.arange(16) % 10)  # (16, 3, 32, 32)
    """

    def __init__(
        self,
        *,
        z_dim: int,
        channels: int,
        resolution: int | Sequence[int] | None,
        width: int = 512,
        fmaps: float = 1.0,
        w_dim: int = 512,
        mapping_layers: int = 8,
        architecture: str = "skip",
        noise_inputs: bool = True,
        modulation: str = "activations",
        mixing: float = 0.0,
        clamp: float | None = None,
        value_range: Sequence[float] | None = None,
        num_classes: int = 0,
    ):
        require(1, z_dim=z_dim, w_dim=w_dim, mapping_layers=mapping_layers)
        chosen("generator.architecture", architecture, ARCHITECTURES)
        chosen("generator.modulation", modulation, FORMS)
        widths, base = planned(resolution, width, fmaps, clamp)
        super().__init__(w_dim, 2 * len(widths), mixing=mixing)  # a style for each convolution, and for the last image
        self.mapping = Mapping(z_dim, num_classes, width=w_dim, layers=mapping_layers)
        self.constant = nn.Parameter(torch.randn(widths[0], *base))
        settings = {"w_dim": w_dim, "channels": channels, "noise": noise_inputs, "clamp": clamp, "form": modulation}
        self.blocks = nn.ModuleList()
        for i, (a, b) in enumerate(pairwise([0, *widths])):
            size, last = tuple(side * 2**i for side in base), i == len(widths) - 1
            self.blocks.append(SynthesisBlock(a, b, size, architecture=architecture, last=last, **settings))
        self.squash = squash(value_range)
        self.notes = [said(widths)]

    def synthesis(self, styles: Tensor) -> Tensor:
        """styles (batch, num_styles, w_dim), those of the smallest sizes first -> images (batch, channels, H, W)."""
        x, image, first = self.constant.expand(styles.shape[0], -1, -1, -1), None, 0
        for block in self.blocks:
            used = len(block.convs)
            x, image = block(x, image, styles[:, first : first + used + 1].unbind(1))
            first += used  # the style of an image is also that of the next convolution
        return self.squash(image)

    def style_weights(self) -> list[Tensor]:
        taking: list[list[Tensor]] = [[] for _ in range(self.num_styles)]
        first = 0
        for block in self.blocks:
            layers = [conv.conv for conv in block.convs] + ([block.to_image.conv] if block.to_image else [])
            for i, layer in enumerate(layers):
                taking[first + i].append(layer.style.weight)
            first += len(block.convs)
        return [torch.cat(weights) for weights in taking]


class Discriminator(nn.Module):
    """Images (batch, channels, H, W), condition as the generator's label -> one logit each.

    width, fmaps, clamp: as for the generator, whose stages it has in reverse
    architecture:   orig, skip (sees the image in each size) or resnet
    minibatch_std:  images in a group whose standard deviation it sees before its end; 0 = off
    condition:      what is done with the label, see heads.py; projection is the paper's
    mapping_layers: layers that the label goes through, for condition=projection
    embedding:      numbers of the head's embedding, for the conditions that have one

    Example:
        discriminator = Discriminator(channels=3, resolution=32, num_classes=10, condition="projection")
        logits = discriminator(images, labels).logits  # images (batch, 3, 32, 32) -> (batch,)
    """

    from_image_on = ("from_image", "blocks")  # lists of stages whose first one is the nearest to the image

    def __init__(
        self,
        *,
        channels: int,
        resolution: int | Sequence[int] | None,
        width: int = 512,
        fmaps: float = 1.0,
        architecture: str = "resnet",
        minibatch_std: int = 4,
        clamp: float | None = None,
        condition: str = "concatenate",
        mapping_layers: int = 8,
        embedding: int = 512,
        num_classes: int = 0,
    ):
        super().__init__()
        require(1, mapping_layers=mapping_layers, embedding=embedding)
        require(0, minibatch_std=minibatch_std)
        chosen("discriminator.architecture", architecture, ARCHITECTURES)
        chosen("discriminator.condition", condition, CONDITIONS)
        widths, base = planned(resolution, width, fmaps, clamp)
        widths.reverse()
        self.appended = appended_classes(condition, num_classes)
        self.minibatch_std, self.clamp = minibatch_std, clamp
        skip = architecture == "skip"
        self.from_image = nn.ModuleList(
            equalise(nn.Conv2d(channels + self.appended, c, 1), gain=GAIN) for c in (widths if skip else widths[:1])
        )
        self.smaller = Downsample()
        self.blocks = nn.ModuleList(
            DiscriminatorBlock(a, b, residual=architecture == "resnet", clamp=clamp) for a, b in pairwise(widths)
        )
        over = f"standard deviation over groups of {minibatch_std}" if minibatch_std else "no standard deviation"
        self.notes = [f"{said(widths)}, {over}"]
        last = widths[-1]
        self.conv = equalise(nn.Conv2d(last + (minibatch_std > 0), last, 3, padding=1), gain=GAIN)
        self.dense = equalise(nn.Linear(last * base[0] * base[1], last), gain=GAIN)
        self.head = (
            Projection(last, num_classes, mapping_layers)
            if condition == "projection" and num_classes
            else equalised_head(Head(last, condition, num_classes, embedding))
        )

    def forward(self, x: Tensor, condition: Tensor | None = None) -> Verdict:
        image = append_label(x, condition, self.appended)
        x = leaky(self.from_image[0](image), self.clamp)
        for i, block in enumerate(self.blocks, 1):
            x = block(x)
            if len(self.from_image) > 1:
                image = self.smaller(image)
                x = x + leaky(self.from_image[i](image), self.clamp if i < len(self.blocks) else None)
        with torch.autocast(x.device.type, enabled=False):  # the smallest stage and what follows
            x = x.to(self.dense.weight.dtype)
            x = minibatch_std(x, self.minibatch_std) if self.minibatch_std else x
            x = leaky(self.conv(x), self.clamp)
            return self.head(leaky(self.dense(x.flatten(1))), condition)


def planned(
    resolution: int | Sequence[int] | None, width: int, fmaps: float, clamp: float | None
) -> tuple[list[int], tuple[int, int]]:
    """(channels of each stage from the base up, base size). Raises UserError for settings that make no sense."""
    require(1, width=width)
    for name, value in {"fmaps": fmaps, "clamp": clamp}.items():
        if value is not None and not value > 0:
            raise UserError(f"{name}={value}; expected more than 0" + (" (null = off)" if name == "clamp" else ""))
    doublings, base = pyramid(resolution, "stylegan2")
    return [max(1, int(width * min(1.0, 16 * fmaps / 2**i))) for i in range(doublings + 1)], base


def said(widths: list[int]) -> str:
    return f"widths {', '.join(map(str, widths))}"
