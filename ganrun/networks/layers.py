"""What several networks share."""

import torch
from torch import Tensor, nn
from torch.nn.functional import one_hot

from ganrun.errors import UserError, one_of

NORMS = {"batch": nn.BatchNorm2d, "instance": lambda c: nn.InstanceNorm2d(c, affine=True), "none": None}
NORMS["layer"] = lambda c: nn.GroupNorm(1, c)  # over channels and space, as WGAN-GP suggests for critics


def norm_layers(name: str, channels: int) -> list[nn.Module]:
    """A normalisation layer over (batch, channels, H, W), or none."""
    if name not in NORMS:
        raise UserError(f"norm={name}; {one_of(NORMS, name)}")
    return [NORMS[name](channels)] if NORMS[name] else []


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


def append_label(x: Tensor, label: Tensor | None, num_classes: int) -> Tensor:
    """Concatenates one-hot labels as features (batch, F) or constant maps (batch, C, H, W) to dimension 1.

    Mirza and Osindero 2014, arXiv 1411.1784. num_classes 0 is unconditional and returns x.
    Raises ValueError when a conditional network is given no label.
    """
    if num_classes == 0:
        return x
    if label is None:
        raise ValueError(f"this network is conditional ({num_classes} classes) but was given no label")
    hot = one_hot(label, num_classes).to(x.dtype)
    hot = hot.reshape(*hot.shape, *[1] * (x.dim() - 2)).expand(-1, -1, *x.shape[2:])
    return torch.cat([x, hot], 1)
