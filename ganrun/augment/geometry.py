"""Steps 1 to 8 of ADA's pipe, which move pixels: matrices in the plane, and how they are drawn.

Karras et al. 2020, arXiv 2006.06676, appendix B.1. Matrices are (batch, 3, 3) and act on (x, y, 1): x right, y down.
"""

import math

import torch
from torch import Tensor

from ganrun.augment.drawing import Draw

SHIFT = 0.125  # largest shift by whole pixels, and deviation of that by any part of one, as a share of the side
SCALE = 0.2  # deviation of a scale's binary logarithm


def identity(like: Tensor) -> Tensor:
    """(batch, 3, 3)"""
    return torch.eye(3, device=like.device, dtype=like.dtype).repeat(len(like), 1, 1)


def scaling(x: Tensor, y: Tensor | float) -> Tensor:
    matrices = identity(x)
    matrices[:, 0, 0], matrices[:, 1, 1] = x, y
    return matrices


def turning(cos: Tensor, sin: Tensor) -> Tensor:
    """From x towards y."""
    matrices = identity(cos)
    matrices[:, 0, 0], matrices[:, 0, 1], matrices[:, 1, 0], matrices[:, 1, 1] = cos, -sin, sin, cos
    return matrices


def rotation(angle: Tensor) -> Tensor:
    """In radians."""
    return turning(angle.cos(), angle.sin())


def quarter_turns(num: Tensor) -> Tensor:
    """By 0 to 3 right angles, without rounding errors."""
    return turning((1 - num) * (num % 2 == 0), (2 - num) * (num % 2 == 1))


def translation(x: Tensor, y: Tensor) -> Tensor:
    matrices = identity(x)
    matrices[:, 0, 2], matrices[:, 1, 2] = x, y
    return matrices


def blit(draw: Draw, p: float | Tensor, height: int, width: int) -> tuple[Tensor, Tensor]:
    """Steps 1 to 3, which copy pixels: maps from the result back to the image, and which samples change, (batch,)."""
    flips, turns, shifts = draw.happens(p), draw.happens(p), draw.happens(p)
    flip = torch.where(flips, 1 - 2 * draw.below(2), 1)
    turn = torch.where(turns, draw.below(4), 0)
    x, y = (torch.where(shifts, (draw.uniform(-SHIFT, SHIFT) * side).round(), 0) for side in (width, height))
    return scaling(flip, 1.0) @ quarter_turns(turn) @ translation(-x, -y), flips | turns | shifts


def resample(draw: Draw, p: float | Tensor, height: int, width: int) -> tuple[Tensor, Tensor]:
    """Steps 4 to 8, which need values between pixels: as `blit`.

    With (1 - p)^(1/2) a sample is turned neither before nor after it is stretched, so that p of them are turned.
    """
    p_turn = 1 - (1 - torch.as_tensor(p, dtype=draw.dtype)).clamp(0, 1).sqrt()
    scales, before, stretches, after, shifts = (draw.happens(q) for q in (p, p_turn, p, p_turn, p))
    scale = torch.where(scales, draw.normal(SCALE).exp2(), 1)
    stretch = torch.where(stretches, draw.normal(SCALE).exp2(), 1)
    first, second = (torch.where(turns, draw.uniform(-math.pi, math.pi), 0) for turns in (before, after))
    x, y = (torch.where(shifts, draw.normal(SHIFT) * side, 0) for side in (width, height))
    maps = scaling(1 / scale, 1 / scale) @ rotation(-first)
    maps = maps @ scaling(1 / stretch, stretch) @ rotation(-second) @ translation(-x, -y)
    return maps, scales | before | stretches | after | shifts
