"""Walks through a generator's noise, from one key point to the next."""

from collections.abc import Callable, Iterator
from itertools import islice

import torch
from torch import Tensor

from ganrun.sampling.generator import SamplingGenerator

Between = Callable[[Tensor, Tensor, float], Tensor]


def path(keys: Tensor, frames: int, between: Between, *, closed: bool) -> Iterator[Tensor]:
    """keys (walks, n, ...) -> noise (walks, ...) in order, `frames` steps from one key to the next.

    closed: True = from the last key back to the first, whose frame is not repeated: a loop of n * frames. False = it
    ends at the last key: (n - 1) * frames + 1.
    """
    num = keys.shape[1]
    for i in range(num if closed else num - 1):
        for step in range(frames):
            yield between(keys[:, i], keys[:, (i + 1) % num], step / frames)
    if not closed:
        yield keys[:, -1]


def walk(
    sampling: SamplingGenerator,
    *,
    walks: int,
    keys: int,
    frames: int,
    closed: bool,
    seed: int,
    turn: Tensor | None,
    truncation: float | None,
    batch_size: int,
) -> Iterator[Tensor]:
    """Images (walks, C, H, W) in [-1, 1], frame by frame.

    The keys of walk w are the noise of samples w * keys, w * keys + 1, ... of the seed. All its frames have the label
    of sample w.
    """
    z = sampling.draw(range(walks * keys), seed, truncation)
    z = z.view(walks, keys, *z.shape[1:])
    labels = None if turn is None else turn[torch.arange(walks) % len(turn)]
    steps = path(z, frames, sampling.noise.between, closed=closed)
    while group := list(islice(steps, max(1, batch_size // walks))):  # as many frames as fit into a batch
        yield from _decode(sampling, group, labels, batch_size)


def _decode(
    sampling: SamplingGenerator, group: list[Tensor], labels: Tensor | None, batch_size: int
) -> tuple[Tensor, ...]:
    """The noise of several frames -> their images."""
    z = torch.cat(group)
    rows = [None] * len(z) if labels is None else torch.cat([labels] * len(group))
    parts = [
        sampling.decode(z[i : i + batch_size], None if labels is None else rows[i : i + batch_size])
        for i in range(0, len(z), batch_size)
    ]
    return torch.cat(parts).split(len(group[0]))
