"""Pixels of 8 or 16 bits: their types, their largest values, and the way to floats and back."""

from collections.abc import Sequence

import torch
from torch import Tensor

DTYPES = {8: torch.uint8, 16: torch.uint16}  # bits of a pixel -> how images are stored
DEPTHS = {dtype: depth for depth, dtype in DTYPES.items()}


def largest(pixels: Tensor) -> int:
    """255 or 65535, by the type of stored pixels."""
    return 2 ** DEPTHS[pixels.dtype] - 1


def to_pixels(images: Tensor, value_range: Sequence[float] = (-1, 1), depth: int = 8) -> Tensor:
    """Images of any shape -> the nearest pixel values: `value_range` becomes 0 to 255 or 65535, the rest is clamped.

    Rounds, since truncation would darken generated images by half a level.
    """
    low, high = value_range
    top = 2**depth - 1
    return ((images.float() - low) * (top / (high - low))).round().clamp(0, top).to(DTYPES[depth])


def to_numbers(pixels: Tensor) -> Tensor:
    """Stored pixels -> float32 in [-1, 1]; anything else, such as points, as float32."""
    return pixels.float() / (largest(pixels) / 2) - 1 if pixels.dtype in DEPTHS else pixels.float()


def to_depth(pixels: Tensor, depth: int) -> Tensor:
    """Stored pixels of one depth -> those of another: black and white stay so."""
    if pixels.dtype == DTYPES[depth]:
        return pixels
    if depth == 16:
        return (pixels.int() * 257).to(torch.uint16)
    return ((pixels.int() + 128) // 257).to(torch.uint8)


def bits(pixels: Tensor) -> Tensor:
    """The same memory in a type that torch moves, compares and selects on every device; it does little with uint16."""
    return pixels.view(torch.int16) if pixels.dtype == torch.uint16 else pixels


def rows(samples: Tensor, indices: Tensor | Sequence[int]) -> Tensor:
    """samples[indices], also for 16-bit pixels."""
    return bits(samples)[indices].view(samples.dtype)
