"""Walks through a generator's noise, or through its styles, from one key point to the next."""

from collections.abc import Callable, Iterator
from functools import partial
from itertools import islice

import torch
from torch import Tensor

from ganrun.sampling.generator import SamplingGenerator
from ganrun.sampling.latents import Latents
from ganrun.styles import style_based

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
    truncation_cutoff: int | None = None,
    space: str = "z",
    batch_size: int,
) -> Iterator[Tensor]:
    """Images (walks, C, H, W) in [-1, 1], frame by frame.

    The keys of walk w are samples w * keys, w * keys + 1, ... of the seed. All its frames have the label of sample w.
    space: z = along the noise's own path. w = in a straight line between styles, of a style-based generator alone;
    so are w and w+ of the generator's `latents`, which are the keys if it has any.
    """
    sampling.check_cutoff(truncation, truncation_cutoff)
    if space == "w":
        style_based(sampling.generator, "space=w", "give space=z")
    truncated = {"truncation": truncation, "truncation_cutoff": truncation_cutoff}
    if sampling.latents is None:
        labels = None if turn is None else turn[torch.arange(walks) % len(turn)].repeat_interleave(keys, 0)
        points = Latents(sampling.draw(range(walks * keys), seed, truncation), "z", labels)
    else:
        points = sampling.latents[: walks * keys]
    labels = None if points.labels is None else points.labels[::keys]
    z, between, decode = points.values, sampling.noise.between, partial(sampling.decode, **truncated)
    if space == "w" or points.space != "z":
        parts = (points[start : start + batch_size] for start in range(0, len(points), batch_size))
        z = torch.cat([part.styles(sampling, **truncated) for part in parts])
        between, decode = torch.lerp, lambda styles, _: sampling.synthesise(styles)
    steps = path(z.view(walks, keys, *z.shape[1:]), frames, between, closed=closed)
    while group := list(islice(steps, max(1, batch_size // walks))):  # as many frames as fit into a batch
        rows = None if labels is None else torch.cat([labels] * len(group))
        yield from by_batch(decode, torch.cat(group), rows, batch_size).split(walks)


def by_batch(
    made: Callable[[Tensor, Tensor | None], Tensor], x: Tensor, labels: Tensor | None, batch_size: int
) -> Tensor:
    """made(x, labels), in parts of `batch_size` rows."""
    rows = x.split(batch_size)
    of_rows = [None] * len(rows) if labels is None else labels.split(batch_size)
    return torch.cat([made(*part) for part in zip(rows, of_rows, strict=True)])
