"""Settings that follow from others by a published rule, in a YAML as ${stylegan2:<setting>,<what it follows from>}."""

from collections.abc import Callable
from typing import Any

from omegaconf import OmegaConf

# StyleGAN2-ADA's `auto`: Karras et al. 2020, arXiv 2006.06676, and the authors' code. Resolutions are N or [H, W] in
# pixels, batch sizes are over all devices.
STYLEGAN2: dict[str, Callable[..., int | float]] = {
    "batch_size": lambda resolution, devices: max(
        min(number(devices) * min(4096 // max(sides(resolution)), 32), 64), number(devices)
    ),
    "minibatch_std": lambda batch, devices: max(1, min(number(batch) // number(devices), 4)),
    "steps": lambda batch: 25_000_000 // number(batch),
    "fmaps": lambda resolution: 1.0 if max(sides(resolution)) >= 512 else 0.5,
    "lr": lambda resolution: 0.002 if max(sides(resolution)) >= 1024 else 0.0025,
    "gamma": lambda resolution, batch: 0.0002 * sides(resolution)[0] * sides(resolution)[1] / number(batch),
    "half_life": lambda batch: number(batch) * 10_000 / 32,
}


def sides(resolution: Any) -> tuple[int, int]:
    """(H, W); of what is no resolution, which the checks of a config refuse later, 32 pixels."""
    both = list(resolution) if OmegaConf.is_list(resolution) else [resolution] * 2
    return tuple(both) if len(both) == 2 and all(isinstance(side, int) and side > 0 for side in both) else (32, 32)


def number(value: Any) -> int:
    """A number of images or devices; of devices by their numbers, how many; of anything else 1."""
    if isinstance(value, int):
        return max(1, value)
    return max(1, len(value)) if OmegaConf.is_list(value) else 1


def follow(setting: str, *given: Any) -> int | float:
    """The value of a setting in STYLEGAN2, for what its rule takes."""
    return STYLEGAN2[setting](*given)


OmegaConf.register_new_resolver("stylegan2", follow, replace=True)
