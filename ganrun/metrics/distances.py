"""Euclidean distances between many samples, a block at a time."""

from collections.abc import Iterator

import torch
from torch import Tensor

BLOCK = 2**25  # distances at once: 128 MiB


def blocks(queries: Tensor, points: Tensor) -> Iterator[tuple[slice, Tensor]]:
    """Rows of queries (n, F) and their squared distances (rows, m) to all points (m, F), float32.

    |a - b|^2 = |a|^2 - 2 ab + |b|^2 with the points' mean as the origin, or digits would be lost far away from it.
    """
    origin = points.mean(0)
    points = points.float() - origin
    squares = points.square().sum(1)
    rows = max(1, BLOCK // len(points))
    for start in range(0, len(queries), rows):
        part = queries[start : start + rows].float() - origin
        distances = torch.addmm(squares, part, points.T, alpha=-2).add_(part.square().sum(1, keepdim=True))
        yield slice(start, start + len(part)), distances.clamp_(min=0)


def nearest(queries: Tensor, points: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Distances and indices, each (n, k), of the k points (m, F) nearest to each of the queries (n, F)."""
    found = [distances.topk(k, dim=1, largest=False) for _, distances in blocks(queries, points)]
    return torch.cat([one.values for one in found]).sqrt(), torch.cat([one.indices for one in found])
