"""Euclidean distances between many samples and exact nearest neighbours, in pieces that fit into memory."""

from collections.abc import Iterator

import torch
from torch import Tensor

QUERIES, POINTS = 1024, 8192  # rows in a piece: 32 MiB of distances
SPARE = 4  # candidates beyond k, since rounding may order near ties wrongly
VALUES = 2**24  # differences computed at once: 64 MiB


def nearest(queries: Tensor, points: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k nearest points to each query: distances (n, k), nearest first, and their int64 indices (n, k).

    queries (n, F) and points (m, F) may have any dtype, such as uint8 pixels, and are on one device; each piece becomes
    fp32. Candidates are found by |q|^2 + |p|^2 - 2 q.p around the points' mean. Their distances are then computed from
    the differences, so that fp32 loses no digits far from the origin or between near duplicates. Equally distant points
    come in any order. Raises ValueError unless 1 <= k <= m.
    """
    if not 1 <= k <= len(points):
        raise ValueError(f"k={k}; expected 1 to {len(points)}, the number of points")
    centre = mean(points)
    parts = [_nearest(part.float() - centre, points, centre, k) for part in queries.split(QUERIES)]
    empty = queries.new_empty(0, k, dtype=torch.float32)
    distances, indices = zip(*parts, strict=True) if parts else ((empty,), (empty.long(),))
    return torch.cat(distances), torch.cat(indices)


def blocks(queries: Tensor, points: Tensor) -> Iterator[tuple[slice, Tensor]]:
    """Rows of queries (n, F) and their squared distances (rows, m) to all points (m, F), in fp64.

    In fp64 the matrix product keeps the distances of near duplicates.
    """
    centre = mean(points).double()
    points = points.double() - centre
    squares = points.square().sum(1)
    rows = max(1, QUERIES * POINTS // len(points))
    for start in range(0, len(queries), rows):
        part = queries[start : start + rows].double() - centre
        distances = torch.addmm(squares, part, points.T, alpha=-2).add_(part.square().sum(1, keepdim=True))
        yield slice(start, start + len(part)), distances.clamp_(min=0)


def mean(points: Tensor) -> Tensor:
    """(m, F) of any dtype -> (F,) in fp32, summed in fp64 if the device has it."""
    wide = torch.float32 if points.device.type == "mps" else torch.float64
    return (sum(part.sum(0, dtype=wide) for part in points.split(POINTS)) / len(points)).float()


def _nearest(queries: Tensor, points: Tensor, centre: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """For one piece of centred queries."""
    candidates = _candidates(queries, points, centre, min(k + SPARE, len(points)))
    rows = max(1, VALUES // (candidates.shape[1] * queries.shape[1]))
    pairs = zip(queries.split(rows), candidates.split(rows), strict=True)
    exact = torch.cat([(points[found].float() - centre - part[:, None]).norm(dim=-1) for part, found in pairs])
    distances, order = exact.sort(dim=1, stable=True)
    return distances[:, :k], candidates.gather(1, order)[:, :k]


def _candidates(queries: Tensor, points: Tensor, centre: Tensor, num: int) -> Tensor:
    """Indices (n, num) of the nearest points, up to rounding."""
    best = queries.new_full((len(queries), 0), 0)
    indices = torch.empty_like(best, dtype=torch.int64)
    for start in range(0, len(points), POINTS):
        part = points[start : start + POINTS].float() - centre
        squares = torch.addmm(part.square().sum(1), queries, part.T, alpha=-2)  # less |q|^2, which changes no order
        found = squares.topk(min(num, len(part)), largest=False)
        best, indices = torch.cat([best, found.values], 1), torch.cat([indices, found.indices + start], 1)
        best, order = best.topk(min(num, best.shape[1]), largest=False)
        indices = indices.gather(1, order)
    return indices
