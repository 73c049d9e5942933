"""Images under an affine map: pixels copied as they are, or resampled with little aliasing, at any size and at once.

Maps are (batch, 3, 3) matrices that give, for a pixel of the result, where it comes from: x right, y down, in pixels
from the image's centre. Beyond its edges an image continues by reflection about the centres of its outermost pixels.
"""

import math
from functools import lru_cache

import torch
from torch import Tensor
from torch.nn.functional import grid_sample

# The symlet of order 6, its low-pass: Daubechies 1992, "Ten Lectures on Wavelets", table 8.3
SYM6 = (0.015404109327027373, 0.0034907120842174702, -0.11799011114819057, -0.048311742585633, 0.4910559419267466,
        0.787641141030194, 0.3379294217276218, -0.07263752278646252, -0.021060292512300564, 0.04472490177066578,
        0.0017677118642428036, -0.007800708325034148)  # fmt: skip
CENTRE = sum(k * tap for k, tap in enumerate(SYM6)) / sum(SYM6)  # its delay; with it a ramp stays in place
BEYOND = len(SYM6) - 2  # doubled samples that lie before the first or after the last but one pixel, for halving


def fold(positions: Tensor, size: int) -> Tensor:
    """Positions on a line, reflected into [0, size - 1] as often as needed; whole numbers stay whole."""
    last = size - 1
    return last - (positions.remainder(2 * last) - last).abs() if last else torch.zeros_like(positions)


@lru_cache(maxsize=64)
def doubling(size: int, device: torch.device, dtype: torch.dtype) -> Tensor:
    """(2 size + 10, size): doubles the samples of a line by SYM6, beyond its ends too.

    Sample k lies at (k - CENTRE) / 2 pixels from the first.
    """
    matrix = torch.zeros(2 * size + BEYOND, size, dtype=torch.float64)
    for tap, weight in enumerate(SYM6):
        rows = torch.arange(tap % 2, len(matrix), 2)
        matrix[rows, fold((rows - tap) // 2, size)] += math.sqrt(2) * weight  # a row has one source for each tap
    return matrix.to(device, dtype)


@lru_cache(maxsize=64)
def halving(size: int, device: torch.device, dtype: torch.dtype) -> Tensor:
    """(size, 2 size + 10): takes every second sample after SYM6 reversed, which undoes doubling."""
    matrix = torch.zeros(size, 2 * size + BEYOND, dtype=torch.float64)
    for row in range(size):
        matrix[row, 2 * row : 2 * row + len(SYM6)] = torch.tensor(SYM6, dtype=torch.float64) / math.sqrt(2)
    return matrix.to(device, dtype)


class Sample(torch.autograd.Function):
    """torch's grid_sample, bilinear, differentiable any number of times in the image; it is linear in it.

    torch before 2.15 cannot differentiate it twice. The grid gets no gradient.
    """

    @staticmethod
    def forward(ctx, x: Tensor, grid: Tensor) -> Tensor:
        ctx.save_for_backward(grid)
        ctx.shape = x.shape
        return grid_sample(x, grid, align_corners=True)

    @staticmethod
    def backward(ctx, gradient):
        return SampleBack.apply(gradient, ctx.saved_tensors[0], ctx.shape), None


class SampleBack(torch.autograd.Function):
    """The adjoint of Sample: each value of `gradient` is spread over the pixels that it came from."""

    @staticmethod
    def forward(ctx, gradient: Tensor, grid: Tensor, shape: torch.Size) -> Tensor:
        ctx.save_for_backward(grid)
        like = gradient.new_zeros(1).expand(shape)  # only its shape is read
        mask = [True, False]  # the image's gradient alone
        return torch.ops.aten.grid_sampler_2d_backward(gradient.contiguous(), like, grid, 0, 0, True, mask)[0]

    @staticmethod
    def backward(ctx, gradient):
        return Sample.apply(gradient, ctx.saved_tensors[0]), None, None


def sources(maps: Tensor, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Where the results at columns `x` (w) and rows `y` (h) come from: x and y, each (batch, h, w)."""
    (ax, bx, cx), (ay, by, cy) = (maps[:, row, :, None, None].unbind(1) for row in range(2))
    return ax * x + bx * y[:, None] + cx, ay * x + by * y[:, None] + cy


def copied(images: Tensor, maps: Tensor) -> Tensor:
    """(batch, C, H, W) under maps that send pixels to pixels, such as flips and shifts by whole pixels: exact."""
    num, channels, height, width = images.shape
    x, y = (torch.arange(size, device=maps.device, dtype=maps.dtype) - (size - 1) / 2 for size in (width, height))
    columns, rows = sources(maps, x, y)
    columns = fold((columns + width / 2).floor(), width)  # the pixel that holds it: + (width - 1)/2 + 1/2
    rows = fold((rows + height / 2).floor(), height)
    index = (rows * width + columns).long().view(num, 1, -1).expand(-1, channels, -1)
    return images.flatten(2).gather(2, index).view_as(images)


def warped(images: Tensor, maps: Tensor) -> Tensor:
    """(batch, C, H, W) under any maps: doubled, interpolated linearly, halved.

    Karras et al. 2020, arXiv 2006.06676, appendix B.1. There images are padded for the batch's farthest map, which the
    host must wait for, and at most by their own size; here positions are folded instead.
    """
    height, width = images.shape[2:]
    kind = (images.device, images.dtype)
    numbers = (torch.arange(2 * size + BEYOND, device=kind[0], dtype=kind[1]) for size in (width, height))
    x, y = ((k - CENTRE) / 2 - (size - 1) / 2 for k, size in zip(numbers, (width, height), strict=True))
    columns, rows = sources(maps, x, y)
    grid = torch.stack([numbered(columns, width), numbered(rows, height)], 3)
    doubled = doubling(height, *kind) @ images @ doubling(width, *kind).T
    found = Sample.apply(doubled.contiguous(), grid)  # (batch, C, 2H + 10, 2W + 10)
    return halving(height, *kind) @ found @ halving(width, *kind).T


def numbered(places: Tensor, size: int) -> Tensor:
    """Places in pixels from the centre of a line of `size` -> those among its doubled samples: first -1, last 1."""
    places = places + (size - 1) / 2
    last = 2 * size + BEYOND - 1
    numbers = 2 * places + CENTRE
    inside = (numbers > -0.5) & (numbers < last + 0.5)  # wider than it is, for the sake of rounding errors
    numbers = torch.where(inside, numbers, 2 * fold(places, size) + CENTRE)
    return numbers.clamp(0, last) * (2 / last) - 1
