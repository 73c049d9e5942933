"""Formulas that make a source image from a real one: pixels of 8 or 16 bits in, the same depth out, on any device.

All but `bicubic`, which rounds in between, give the same bits on every device.
"""

from functools import cache

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, interpolate, pad

from ganrun.depth import bits, largest

GOLDEN, FIRST, SECOND = 0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB  # of SplitMix64
MID_GREY = {torch.uint8: 128, torch.uint16: -(2**15)}  # 32768 as `bits` are signed


def luma(images: Tensor) -> Tensor:
    """RGB (num, 3, H, W) -> grey (num, 1, H, W) by ITU-R BT.601, in 16-bit fixed point like Pillow; grey stays."""
    if images.shape[1] == 1:
        return images
    red, green, blue = (images.int() if images.dtype == torch.uint8 else images.long()).split(1, dim=1)
    return ((red * 19595 + green * 38470 + blue * 7471 + 0x8000) >> 16).to(images.dtype)


def sobel(images: Tensor) -> Tensor:
    """(num, C, H, W) -> the length of the luma's gradient (num, 1, H, W) by Sobel's masks.

    The length is divided by 4, so that an upright edge from black to white gives white; more is clipped. The outermost
    pixels are repeated around the image.
    """
    grey = pad(luma(images).float(), (1, 1, 1, 1), mode="replicate")
    top, middle, bottom = grey[..., :-2, :], grey[..., 1:-1, :], grey[..., 2:, :]
    smooth, down = top + 2 * middle + bottom, bottom - top
    across = smooth[..., 2:] - smooth[..., :-2]
    along = down[..., :-2] + 2 * down[..., 1:-1] + down[..., 2:]
    return rounded((across.square() + along.square()).sqrt() / 4, images)


def shrunk(images: Tensor, factor: int) -> Tensor:
    """(num, C, H, W) -> (num, C, H / factor, W / factor): the mean over squares of factor x factor pixels."""
    return rounded(avg_pool2d(images.float(), factor), images)


def bicubic(images: Tensor, factor: int) -> Tensor:
    """(num, C, h, w) -> (num, C, h * factor, w * factor): the baseline of super-resolution.

    Keys 1981, "Cubic convolution interpolation", with a = -1/2, as Pillow and MATLAB enlarge.
    """
    size = [side * factor for side in images.shape[-2:]]
    enlarged = interpolate(images.float(), size, mode="bicubic", antialias=True)  # without antialias, a is -3/4
    return rounded(enlarged, images)


def with_hole(images: Tensor, corner: Tensor, size: tuple[int, int]) -> Tensor:
    """Images (num, C, H, W) with mid-grey in a rectangle of `size` whose top left pixel is `corner` (num, 2)."""
    inside = []
    for axis, side in enumerate(size):
        away = torch.arange(images.shape[2 + axis], device=images.device) - corner[:, axis : axis + 1]
        inside.append((away >= 0) & (away < side))  # (num, H), (num, W)
    hole = inside[0][:, None, :, None] & inside[1][:, None, None, :]
    return bits(images).masked_fill(hole, MID_GREY[images.dtype]).view(images.dtype)


def with_noise(images: Tensor, keys: Tensor, std: float) -> Tensor:
    """Images (num, C, H, W) plus white Gaussian noise of standard deviation `std` levels, clipped.

    The noise of each image depends only on its key (num,), int64. For each value, 16 bits of a hash select one of 2^16
    quantiles, in whole levels; they end at 4.2 standard deviations.
    """
    num = images[0].numel()
    table = quantiles(std, images.device)
    noise = table[words(keys, num)].reshape(images.shape)
    values = images.short() if images.dtype == torch.uint8 else images.int()
    return (values + noise).clamp(0, largest(images)).to(images.dtype)


@cache
def quantiles(std: float, device: torch.device) -> Tensor:
    """(2^16,) integers: quantiles of a normal distribution, rounded, the middles of 2^16 equally likely parts."""
    shares = (torch.arange(2**16, dtype=torch.float64) + 0.5) / 2**16
    found = (torch.special.ndtri(shares) * std).round()
    return (found.short() if std < 2**12 else found.int()).to(device)


def words(keys: Tensor, num: int) -> Tensor:
    """Keys (batch,) int64 -> hashes (batch, num) in 0 ... 2^16 - 1: SplitMix64 in counter mode.

    Steele et al. 2014, "Fast splittable pseudorandom number generators"; each 64 bits give four 16-bit words.
    """
    x = keys[:, None] + torch.arange(1, -(-num // 4) + 1, device=keys.device) * signed(GOLDEN)
    x = (x ^ shifted(x, 30)) * signed(FIRST)
    x = (x ^ shifted(x, 27)) * signed(SECOND)
    x = x ^ shifted(x, 31)
    return torch.stack([shifted(x, bits) & 0xFFFF for bits in (0, 16, 32, 48)], dim=-1).flatten(1)[:, :num]


def shifted(x: Tensor, bits: int) -> Tensor:
    """int64 >> bits as for an unsigned number: filled with zeros."""
    return (x >> bits) & (2 ** (64 - bits) - 1) if bits else x


def signed(number: int) -> int:
    """The int64 with the same 64 bits."""
    return number - 2**64 if number >= 2**63 else number


def rounded(values: Tensor, images: Tensor) -> Tensor:
    """Rounded and clipped to the pixels that `images` are."""
    return values.round().clamp(0, largest(images)).to(images.dtype)
