"""Projection: latents that reproduce given images, by gradient descent; Karras et al. 2020, arXiv 1912.04958, sec. 5.

What differs from the paper: the noise inputs stay as they are, so that latents alone make the same image again;
distances are those of pixels plus those of any frozen features; and z can be searched for generators without styles.
"""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import interpolate, normalize

from ganrun.networks.frozen import FrozenFeatures
from ganrun.noise import Noise
from ganrun.sampling.generator import SamplingGenerator
from ganrun.sampling.interpolation import by_batch
from ganrun.sampling.latents import Latents, decode
from ganrun.seeding import rng_for

NUM_W = 10_000  # z from which the mean and deviation of w are measured
NUM_Z = 512  # samples among which the search of z begins
CHUNK = 64  # samples a pass
NOISE, NOISE_UNTIL = 0.05, 0.75  # deviation of the noise on latents in multiples of theirs, and when it has gone
WARM_UP, COOL_DOWN = 0.05, 0.25  # shares of the steps in which the learning rate rises and falls
SIDES = (64, 256)  # features look at images of so many pixels: smaller ones are enlarged, larger ones shrunk


def lr_factor(progress: float) -> float:
    """Of the learning rate, at `progress` in [0, 1]: up linearly, at the end down by a cosine (appendix D)."""
    down = 0.5 - 0.5 * math.cos(math.pi * min(1.0, (1 - progress) / COOL_DOWN))
    return min(1.0, progress / WARM_UP) * down


def noise_factor(progress: float) -> float:
    """Of the noise added to latents, in multiples of their deviation, at `progress` in [0, 1] (appendix D)."""
    return NOISE * max(0.0, 1 - progress / NOISE_UNTIL) ** 2


class Distance:
    """Images (num, C, H, W) in [-1, 1] -> how far each is from its target, (num,).

    The mean squared difference of pixels, from 0 to 4, plus `weight` times that of features of length 1 at each place,
    averaged over their maps, from 0 to 4 too: see networks.frozen.Perceptual. features: None = pixels alone.
    """

    def __init__(self, targets: Tensor, features: FrozenFeatures | None = None, weight: float = 1.0):
        self.targets, self.features, self.weight = targets, features, weight
        with torch.no_grad():
            self.maps = self._maps(targets)

    def __call__(self, images: Tensor) -> Tensor:
        pixels = (images - self.targets).square().mean((1, 2, 3))
        pairs = zip(self._maps(images), self.maps, strict=True)
        parts = [(a - b).square().sum(1).mean((1, 2)) for a, b in pairs]
        return pixels + self.weight * sum(parts) / len(parts) if parts else pixels

    def _maps(self, images: Tensor) -> list[Tensor]:
        return [] if self.features is None else [normalize(each.float()) for each in self.features(seen(images))]


def seen(images: Tensor) -> Tensor:
    """Images (num, C, H, W) in a size that features can tell apart: the shorter side at least 64, the longer 256."""
    short, long = min(images.shape[2:]), max(images.shape[2:])
    factor = SIDES[0] / short if short < SIDES[0] else min(1.0, SIDES[1] / long)
    if factor == 1:
        return images
    size = [max(1, round(side * factor)) for side in images.shape[2:]]
    return interpolate(images, size, mode="bilinear", antialias=factor < 1)


class Start(NamedTuple):
    """Where a search begins: values and labels as in Latents, on the generator's device; `std` of the latents."""

    values: Tensor
    labels: Tensor | None
    std: float


def start(
    sampling: SamplingGenerator, targets: Tensor, space: str, *, seed: int = 0, label: Tensor | None = None
) -> Start:
    """w and w+ begin at w_mean, of a given label at the mean w of its samples; z at the nearest of 512 samples.

    targets: (num, C, H, W) in [-1, 1]. label: (1, ...) = for all images; None = samples have all labels, so that the
    nearest one's stays for z. w needs none. The deviation is sqrt(E |w - mean|^2) over 10,000 w, of z sqrt(E |z|^2).
    """
    device, rng, num = targets.device, rng_for(seed, "projection"), NUM_Z if space == "z" else NUM_W
    z = sampling.noise(num, rng)["z"]
    labels = sampling.any_labels(num, rng) if label is None else label.expand(num, *label.shape[1:])
    if space == "z":
        nearest = nearest_of(sampling, targets, z, labels)
        std = z.square().sum(1).mean().sqrt().item()
        return Start(z[nearest].to(device), None if labels is None else labels[nearest].to(device), std)
    network = sampling.generator
    w = by_batch(sampling.styles, z, labels, CHUNK)[:, 0]
    std = (w - w.mean(0)).square().sum(1).mean().sqrt().item()
    mean = network.w_mean if label is None else w.mean(0)
    shape = (len(targets), network.num_styles) if space == "w+" else (len(targets),)
    return Start(mean.expand(*shape, -1).clone(), None, std)


def nearest_of(sampling: SamplingGenerator, targets: Tensor, z: Tensor, labels: Tensor | None) -> Tensor:
    """For each target the number of the sample with the nearest pixels, (num,) on the CPU."""
    made = by_batch(sampling.decode, z, labels, CHUNK)
    return torch.cdist(targets.cpu().flatten(1), made.flatten(1)).argmin(1)


def search(
    begin: Start, made: Callable[[Tensor], Tensor], distance: Callable[[Tensor], Tensor], noise: Noise | None,
    rngs: Sequence[torch.Generator], *, steps: int, lr: float,
) -> Tensor:  # fmt: skip
    """Latents that are nearest to the targets, in the form of begin.values, by Adam.

    made: latents -> images. distance: images -> (num,). noise: keeps z within its bounds, of which a normal has none;
    None = w. rngs: of the noise that is added, one for each latent, so that each depends on its own alone.
    """
    latents = begin.values.clone().requires_grad_(True)
    optimizer = torch.optim.Adam([latents], lr=lr)
    for step in range(steps):
        progress = (step + 0.5) / steps
        optimizer.param_groups[0]["lr"] = lr * lr_factor(progress)
        random = torch.stack([torch.randn(latents.shape[1:], generator=rng) for rng in rngs]).to(latents)
        moved = latents + begin.std * noise_factor(progress) * random
        (latents.grad,) = torch.autograd.grad(distance(made(moved)).sum(), latents)
        optimizer.step()
        if noise is not None:
            with torch.no_grad():
                latents.copy_(noise.confined(latents, begin.values))
    return latents.detach()


class Projected(NamedTuple):
    """latents: what was found. images: what they make, on the CPU. before, after: distance at the start and the end."""

    latents: Latents
    images: Tensor
    before: list[float]
    after: list[float]


def project(
    sampling: SamplingGenerator,
    targets: Tensor,
    names: Sequence[str],
    *,
    space: str,
    steps: int = 1000,
    lr: float = 0.1,
    seed: int = 0,
    label: Tensor | None = None,
    features: FrozenFeatures | None = None,
    weight: float = 1.0,
) -> Projected:
    """Finds latents of images (num, C, H, W) in [-1, 1]. Each result depends on its image, its name and the seed alone.

    space: see Latents. label: see `start`. features, weight: see Distance
    """
    targets = targets.to(next(sampling.generator.parameters()).device)
    distance = Distance(targets, features, weight)
    begin = start(sampling, targets, space, seed=seed, label=label)

    def made(values: Tensor) -> Tensor:
        return decode(sampling, values, space, begin.labels)

    rngs = [rng_for(seed, "projection", name) for name in names]
    noise = sampling.noise if space == "z" else None
    found = search(begin, made, distance, noise, rngs, steps=steps, lr=lr)
    with torch.no_grad():
        images = made(found)
        before, after = distance(made(begin.values)).tolist(), distance(images).tolist()
    labels = None if begin.labels is None else begin.labels.cpu()
    return Projected(Latents(found.cpu(), space, labels, list(names)), images.cpu(), before, after)
