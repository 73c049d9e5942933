"""Samples beside their nearest training images: has the generator memorised them?"""

import torch
from torch import Tensor

from ganrun.data.base import Data
from ganrun.depth import to_pixels
from ganrun.errors import UserError
from ganrun.metrics.distances import nearest

READ = 8192  # images at a time


def check_fits(data: Data, samples: Tensor, neighbours: int) -> None:
    """Raises UserError unless the set has enough images, with the samples' shape."""
    if len(data.shape) != 3:
        raise UserError(f"neighbours={neighbours}: it needs images, but dataset {data.name} has vectors")
    if data.shape != samples.shape[1:]:
        got, had = ("x".join(map(str, shape)) for shape in (samples.shape[1:], data.shape))
        raise UserError(f"neighbours={neighbours}: the generator makes {got} images, but dataset {data.name} has {had}")
    if neighbours > len(data):
        raise UserError(f"neighbours={neighbours}; expected at most {len(data):,}, the images of dataset {data.name}")


def beside_neighbours(samples: Tensor, data: Data, neighbours: int) -> tuple[Tensor, Tensor]:
    """samples (num, C, H, W) in [-1, 1] -> pixels (num, 1 + neighbours, C, H, W), and distances (num, neighbours).

    Each sample is followed by the training images that are nearest to it, by Euclidean distance of stored pixels.
    Random crops and flips, which training may have seen, are left out.
    """
    check_fits(data, samples, neighbours)
    queries = to_pixels(samples, depth=data.depth)
    distances, indices = torch.empty(len(samples), 0), torch.empty(len(samples), 0, dtype=torch.int64)
    for part in torch.arange(len(data)).split(READ):
        pixels = countable(data.read(part)["real"]).flatten(1)
        found, where = nearest(countable(queries).flatten(1), pixels, min(neighbours, len(part)))
        distances, indices = torch.cat([distances, found], 1), torch.cat([indices, part[where]], 1)
        distances, order = distances.sort(dim=1, stable=True)
        distances, indices = distances[:, :neighbours], indices.gather(1, order)[:, :neighbours]
    real = data.read(indices.flatten())["real"].reshape(len(samples), neighbours, *data.shape)
    return torch.cat([queries[:, None], real], 1), distances


def countable(pixels: Tensor) -> Tensor:
    """The pixels in a type that torch selects and adds up on every device."""
    return pixels if pixels.dtype == torch.uint8 else pixels.int()
