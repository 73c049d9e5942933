"""Layers and checks that several networks share."""

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import one_hot

from ganrun.errors import UserError, one_of

NORMS = {"batch": nn.BatchNorm2d, "instance": lambda c: nn.InstanceNorm2d(c, affine=True), "none": None}
NORMS["layer"] = lambda c: nn.GroupNorm(1, c)  # over channels and space, as WGAN-GP suggests for critics
NORMS["instance-plain"] = nn.InstanceNorm2d  # without learned scale and shift, as in CycleGAN
PER_IMAGE = ("instance", "instance-plain")  # over one channel of one image, for which a single pixel is not enough


def chosen(key: str, value: str, valid: Iterable[str]) -> None:
    """Raises UserError for a value that is not valid."""
    if value not in valid:
        raise UserError(f"{key}={value}; {one_of(valid, value)}")


def norm_layers(name: str, channels: int, eps: float = 1e-5) -> list[nn.Module]:
    """A normalisation layer over (batch, channels, H, W), or none. eps: of batch norm, added to the variance."""
    if name not in NORMS:
        raise UserError(f"norm={name}; {one_of(NORMS, name)}")
    if name == "batch":
        return [nn.BatchNorm2d(channels, eps=eps)]
    return [NORMS[name](channels)] if NORMS[name] else []


def has_bias(norm: str) -> bool:
    """Does a convolution before this norm have a bias? Not where the norm learns a shift.

    instance-plain subtracts the bias again, but CycleGAN's code has one there.
    """
    return norm in ("instance-plain", "none")


def normal_init(module: nn.Module) -> None:
    """Weights N(0, 0.02), batch norm's scale N(1, 0.02), biases 0: DCGAN, section 4, and pix2pix, section 6.2."""
    if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d, nn.Linear, nn.Embedding)):
        nn.init.normal_(module.weight, 0.0, 0.02)
        if getattr(module, "bias", None) is not None:
            nn.init.zeros_(module.bias)
    elif isinstance(module, nn.BatchNorm2d) and module.affine:
        nn.init.normal_(module.weight, 1.0, 0.02)
        nn.init.zeros_(module.bias)


def activation(slope: float) -> nn.Module:
    """LeakyReLU; slope 0 is ReLU."""
    return nn.LeakyReLU(slope, inplace=True) if slope else nn.ReLU(inplace=True)


def squash(value_range: tuple[float, float] | None) -> nn.Module:
    """The generator's output activation for data in `value_range`; None = unbounded."""
    squashes = {(-1, 1): nn.Tanh, (0, 1): nn.Sigmoid}
    if value_range is None:
        return nn.Identity()
    if tuple(value_range) not in squashes:
        raise UserError(f"value_range={list(value_range)}; valid: [-1, 1] (tanh), [0, 1] (sigmoid)")
    return squashes[tuple(value_range)]()


class Output(nn.Module):
    """The end of a network from image to image: what it drew, squashed into `value_range`; None = as it is.

    residual: instead, what it drew is added to the source and the sum is clamped (global residual learning, Kim et al.
    2016, arXiv 1511.04587). Raises UserError unless the source then has one channel or as many as the output.
    """

    def __init__(self, source_channels: int, channels: int, value_range: Sequence[float] | None, *, residual: bool):
        super().__init__()
        if residual and source_channels not in (1, channels):
            raise UserError(
                f"generator.residual=true with {source_channels} source channels and {channels} of the output; "
                "expected as many, or 1 of the source"
            )
        self.squash = squash(value_range)
        self.value_range, self.residual = value_range, residual

    def forward(self, drawn: Tensor, source: Tensor) -> Tensor:
        if not self.residual:
            return self.squash(drawn)
        image = source + drawn
        return image if self.value_range is None else image.clamp(*self.value_range)


def image_size(name: str, resolution: int | Sequence[int] | None) -> tuple[int, int]:
    """(H, W) of a resolution. name: of the network. Raises UserError for vectors, which are not images."""
    if resolution is None:
        raise UserError(f"{name} is for images, but this dataset has vectors; choose a dataset of images")
    return (resolution, resolution) if isinstance(resolution, int) else tuple(resolution)


def check_sides(name: str, size: Sequence[int], *, multiple: int, least: int) -> None:
    """Raises UserError unless both sides (H, W) of an image are multiples of `multiple` pixels and at least `least`."""
    if any(side % multiple or side < least for side in size):
        few = ", ".join(str(least + i * multiple) for i in range(3))
        raise UserError(
            f"{name} takes no image of {size[0]}x{size[1]} pixels; valid sides: {few}, ..., multiples of {multiple}"
        )


def as_vector(label: Tensor | None, num_classes: int, dtype: torch.dtype) -> Tensor:
    """Classes (batch,) as one-hot vectors (batch, num_classes); attributes, which are such vectors, as they are.

    Raises ValueError when a conditional network is given no label.
    """
    if label is None:
        raise ValueError(f"this network is conditional ({num_classes} classes) but was given no label")
    return label.to(dtype) if label.is_floating_point() else one_hot(label, num_classes).to(dtype)


def append_label(x: Tensor, label: Tensor | None, num_classes: int) -> Tensor:
    """Concatenates labels as features (batch, F) or constant maps (batch, C, H, W) to dimension 1; see as_vector.

    Mirza and Osindero 2014, arXiv 1411.1784. num_classes 0 is unconditional and returns x.
    """
    if num_classes == 0:
        return x
    vector = as_vector(label, num_classes, x.dtype)
    vector = vector.reshape(*vector.shape, *[1] * (x.dim() - 2)).expand(-1, -1, *x.shape[2:])
    return torch.cat([x, vector], 1)


class ConditionalBatchNorm(nn.Module):
    """Batch norm whose scale and shift depend on y (batch, F): scale 1 + W_s y, shift W_b y.

    Dumoulin et al. 2017, arXiv 1610.07629, for classes; Brock et al. 2019, appendix C, for embeddings and latents.
    """

    def __init__(self, channels: int, features: int, *, eps: float = 1e-5):
        super().__init__()
        self.norm = nn.BatchNorm2d(channels, affine=False, eps=eps)
        self.scale = nn.Linear(features, channels, bias=False)
        self.shift = nn.Linear(features, channels, bias=False)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        scale, shift = ((layer(y))[:, :, None, None] for layer in (self.scale, self.shift))
        return self.norm(x) * (1 + scale) + shift


def conditional_norm(name: str, channels: int, features: int, eps: float = 1e-5) -> list[nn.Module]:
    """A normalisation layer that is given so many features of a condition; 0 = a plain one. eps: of batch norm."""
    if features and name != "batch":
        raise UserError(f"norm={name}: only norm=batch can be given a condition; try generator.condition=concatenate")
    if features:
        return [ConditionalBatchNorm(channels, features, eps=eps)]
    return norm_layers(name, channels, eps)


class Conditioned(nn.Sequential):
    """Layers one after the other, of which conditional batch norms are also given y (batch, F)."""

    def forward(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        for layer in self:
            x = layer(x, y) if isinstance(layer, ConditionalBatchNorm) else layer(x)
        return x
