"""Channels of stored pixels: grey, RGB, both with or without opacity, and how one becomes another."""

import numpy as np
import torch
from torch import Tensor

from ganrun.depth import largest
from ganrun.errors import UserError

OF_FILES = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}  # Pillow's names: the channels that image files have
NAMES = "1 (grey), 2 (grey and opacity), 3 (RGB), 4 (RGB and opacity)"
WITH_OPACITY = (2, 4)
RED, GREEN, BLUE = 19595, 38470, 7471  # ITU-R BT.601 in 16-bit fixed point, as Pillow has it


def becomes(got: int, channels: int) -> bool:
    """Can images of `got` channels become ones of `channels`?"""
    return got == channels or {got, channels} <= OF_FILES.keys()


def to_channels(images: Tensor, channels: int) -> Tensor:
    """Pixels (num, c, H, W) -> (num, channels, H, W): grey by ITU-R 601 luma, colour by repetition.

    Where opacity is asked for and there is none, all is opaque; where it is not asked for, images are laid over white.
    Raises UserError for other numbers of channels.
    """
    got = images.shape[1]
    if got == channels:
        return images
    if got == 3 and channels == 1:
        luma = torch.tensor([0.299, 0.587, 0.114]).reshape(1, 3, 1, 1)
        return torch.cat([(c * luma).sum(1, keepdim=True).round().to(images.dtype) for c in images.split(1024)])
    if got == 1 and channels == 3:
        return images.expand(-1, channels, -1, -1).contiguous()
    if not becomes(got, channels):
        raise UserError(f"dataset.channels={channels}: images have {got}; valid: {got if got > 4 else '1, 2, 3, 4'}")
    return torch.cat([_rearranged(some, channels) for some in images.split(1024)])


def _rearranged(images: Tensor, channels: int) -> Tensor:
    """Both numbers of channels are 1 to 4."""
    top, values = largest(images), images.long()
    has_opacity = images.shape[1] in WITH_OPACITY
    opacity = values[:, -1:] if has_opacity else torch.full_like(values[:, :1], top)
    colour = values[:, :-1] if has_opacity else values
    if has_opacity and channels not in WITH_OPACITY:
        colour = (colour * opacity + top * (top - opacity) + top // 2) // top
    if colour.shape[1] == 3 and channels <= 2:
        red, green, blue = colour.split(1, dim=1)
        colour = (red * RED + green * GREEN + blue * BLUE + 0x8000) >> 16
    colour = colour.expand(-1, 1 if channels <= 2 else 3, -1, -1)
    return torch.cat([colour, opacity] if channels in WITH_OPACITY else [colour], 1).to(images.dtype)


def laid_over(channels: int) -> str:
    """What becomes of opacity without a channel for it, in words."""
    return f"opacity is laid over white; dataset.channels={channels + 1} keeps it"


def premultiplied(values: Tensor, top: int) -> Tensor:
    """Floats (num, C, H, W), each colour multiplied by the last channel, its opacity, so that it may be averaged."""
    opacity = values[:, -1:]
    return torch.cat([values[:, :-1] * (opacity / top), opacity], 1)


def unmultiplied(values: Tensor, top: int) -> Tensor:
    """The reverse; what is wholly transparent becomes black."""
    opacity = values[:, -1:]
    share = torch.where(opacity > 0, top / opacity.clamp(min=1e-6), torch.zeros_like(opacity))
    return torch.cat([values[:, :-1] * share, opacity], 1)


def as_planes(values: np.ndarray) -> np.ndarray:
    """(H, W) or (H, W, C) -> (H, W, C)"""
    return values[..., None] if values.ndim == 2 else values
