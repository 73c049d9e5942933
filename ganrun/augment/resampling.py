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

    torch before 2.15 cannot differentiate it twice. The grid gets no gradient; beyond [-1, 1] it counts as the edge.
    """

    @staticmethod
    def forward(ctx, x: Tensor, grid: Tensor) -> Tensor:
        ctx.save_for_backward(grid)
        ctx.shape = x.shape
        return grid_sample(x, grid, padding_mode="border", align_corners=True)

    @staticmethod
    def backward(ctx, gradient):
        return SampleBack.apply(gradient, ctx.saved_tensors[0], ctx.shape), None


class SampleBack(torch.autograd.Function):
    """The adjoint of Sample: each value of `gradient` is spread over the pixels that it came from."""

    @staticmethod
    def forward(ctx, gradient: Tensor, grid: Tensor, shape: torch.Size) -> Tensor:
        ctx.save_for_backward(grid)
        if gradient.is_cuda and torch.are_deterministic_algorithms_enabled():
            return spread(gradient, grid, shape)
        like = gradient.new_zeros(1).expand(shape)  # only its shape is read
        settings = (0, 1, True, [True, False])  # bilinear, edges, corners; the image's gradient alone
        return torch.ops.aten.grid_sampler_2d_backward(gradient.contiguous(), like, grid, *settings)[0]

    @staticmethod
    def backward(ctx, gradient):
        return Sample.apply(gradient, ctx.saved_tensors[0]), None, None


def spread(gradient: Tensor, grid: Tensor, shape: torch.Size) -> Tensor:
    """The adjoint of Sample by sums that torch can compute in the same order each time."""
    num, channels, height, width = shape
    x, y = ((grid[..., axis].clamp(-1, 1) + 1) / 2 * (side - 1) for axis, side in enumerate((width, height)))
    total = gradient.new_zeros(num, channels, height * width)
    for column, row in ((c, r) for c in (x.floor(), x.floor() + 1) for r in (y.floor(), y.floor() + 1)):
        share = (1 - (x - column).abs()) * (1 - (y - row).abs())
        index = (row.clamp(max=height - 1) * width + column.clamp(max=width - 1)).long().view(num, 1, -1)
        total = total.scatter_add(2, index.expand(-1, channels, -1), (gradient * share[:, None]).flatten(2))
    return total.view(shape)


def copied(images: Tensor, maps: Tensor) -> Tensor:
    """(batch, C, H, W) under maps that send pixels to pixels, such as flips and shifts by whole pixels: exact."""
    num, channels, height, width = images.shape
    x, y = (torch.arange(side, device=maps.device, dtype=maps.dtype) - (side - 1) / 2 for side in (width, height))
    a, b, c = maps[:, :2, :, None, None].permute(2, 1, 0, 3, 4)  # each (2, batch, 1, 1)
    columns, rows = a * x + b * y[:, None] + c  # each (batch, H, W)
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
    doubled = doubling(height, *kind) @ images @ doubling(width, *kind).T
    found = Sample.apply(doubled.contiguous(), grid_of(maps, height, width))  # (batch, C, 2H + 10, 2W + 10)
    return halving(height, *kind) @ found @ halving(width, *kind).T


def grid_of(maps: Tensor, height: int, width: int) -> Tensor:
    """Where the doubled samples of a result come from among those of the image, (batch, 2H + 10, 2W + 10, 2).

    In units of grid_sample: -1 is a line's first doubled sample, 1 its last. All that is constant goes into the maps.
    """
    sides = (width, height)
    lasts = [2 * side + BEYOND - 1 for side in sides]
    x, y = (
        (torch.arange(last + 1, device=maps.device, dtype=maps.dtype) - CENTRE - side + 1) / 2  # pixels from the centre
        for last, side in zip(lasts, sides, strict=True)
    )
    ends = [
        (2 * CENTRE / last - 1, 2 * (CENTRE + 2 * (side - 1)) / last - 1)
        for last, side in zip(lasts, sides, strict=True)
    ]
    grid = maps.new_empty(2, len(maps), lasts[1] + 1, lasts[0] + 1)
    for axis, ((first, end), last) in enumerate(zip(ends, lasts, strict=True)):  # `first`, `end`: the outermost pixels
        a, b, c = maps[:, axis, :, None, None].mul(4 / last).unbind(1)
        places = a * x + (b * y[:, None] + c + (first + end) / 2)
        span = max(end - first, 1e-6)  # of a single pixel 0
        folded = end - ((places - first).remainder(2 * span) - span).abs()
        torch.where(places.abs() < 1 + 1 / last, places, folded, out=grid[axis])
    return grid.permute(1, 2, 3, 0)
