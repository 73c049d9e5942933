"""Steps 9 to 13 of ADA's pipe, which change colours: one matrix on (channels, 1) for each sample.

Karras et al. 2020, arXiv 2006.06676, appendix B.1. With K channels the axis v = (1, ..., 1)/sqrt(K) takes the place of
the grey axis of RGB: every channel counts alike, opacity too. Hue needs three channels and is left out otherwise. With
one channel all this equals the paper's rule for grey images, the mean of the matrix's rows.
"""

import math

import torch
from torch import Tensor

from ganrun.augment.drawing import Draw

BRIGHTNESS, CONTRAST, SATURATION = 0.2, 0.5, 1.0  # deviations; of the last two, of their binary logarithms


def identity(channels: int, like: Tensor) -> Tensor:
    return torch.eye(channels + 1, device=like.device, dtype=like.dtype)


def along(channels: int, like: Tensor) -> Tensor:
    """v v^T in homogeneous form, (K + 1, K + 1): projects onto the mean of the channels."""
    projection = torch.zeros_like(identity(channels, like))
    projection[:-1, :-1] = 1 / channels
    return projection


def colours(channels: int, like: Tensor) -> Tensor:
    """I on the channels and 0 on the homogeneous coordinate, (K + 1, K + 1)."""
    projection = identity(channels, like)
    projection[-1, -1] = 0
    return projection


def stretched(part: Tensor, factors: Tensor) -> Tensor:
    """I + (factor - 1) * part, (batch, K + 1, K + 1): multiplies what `part` projects onto."""
    return identity(len(part) - 1, part) + (factors - 1)[:, None, None] * part


def brightness(amounts: Tensor, channels: int) -> Tensor:
    matrices = identity(channels, amounts).repeat(len(amounts), 1, 1)
    matrices[:, :-1, -1] = amounts[:, None]
    return matrices


def contrast(factors: Tensor, channels: int) -> Tensor:
    return stretched(colours(channels, factors), factors)


def luma_flip(flips: Tensor, channels: int) -> Tensor:
    """I - 2 v v^T where `flips` is 1, else I (0): Householder's reflection along the mean."""
    return stretched(along(channels, flips), 1 - 2 * flips)


def hue(angles: Tensor) -> Tensor:
    """A rotation of RGB about the grey axis, in radians; 2 pi/3 turns red into green, and green into blue."""
    matrices = stretched(colours(3, angles) - along(3, angles), angles.cos())
    sine = angles.sin() / math.sqrt(3)
    for one, other in ((0, 1), (1, 2), (2, 0)):
        matrices[:, other, one] += sine
        matrices[:, one, other] -= sine
    return matrices


def saturation(factors: Tensor, channels: int) -> Tensor:
    """v v^T + factor (I - v v^T): scales each channel's distance from the mean of the channels."""
    return stretched(colours(channels, factors) - along(channels, factors), factors)


def recoloured(images: Tensor, matrices: Tensor) -> Tensor:
    """(batch, K, H, W) under (batch, K + 1, K + 1) matrices."""
    pixels = matrices[:, :-1, :-1] @ images.flatten(2) + matrices[:, :-1, -1:]
    return pixels.view_as(images)


def color(draw: Draw, p: float | Tensor, channels: int) -> tuple[Tensor, Tensor]:
    """Steps 9 to 13: matrices, and which samples change, (batch,)."""
    acts = [draw.happens(p) for _ in range(5)]
    matrices = brightness(torch.where(acts[0], draw.normal(BRIGHTNESS), 0), channels)
    matrices = contrast(torch.where(acts[1], draw.normal(CONTRAST).exp2(), 1), channels) @ matrices
    matrices = luma_flip(torch.where(acts[2], draw.below(2), 0), channels) @ matrices
    if channels == 3:
        matrices = hue(torch.where(acts[3], draw.uniform(-math.pi, math.pi), 0)) @ matrices
    matrices = saturation(torch.where(acts[4], draw.normal(SATURATION).exp2(), 1), channels) @ matrices
    return matrices, torch.stack(acts).any(0)
