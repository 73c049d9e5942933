"""Generators that turn images into images, by name: what `ganrun translate` and Python load."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ganrun.errors import UserError, one_of


class Channels(NamedTuple):
    """Of the images that a network takes and gives: 1 = grey, 3 = RGB."""

    source: int
    output: int


class Translator(nn.Module):
    """Image-to-image generators by direction, such as a2b and b2a; a single one is called generator.

    value_range: of the images that they take and give. channels: of each direction's images. between: the keys that
    both had in the data that it was trained on.
    trained: on what, for how many steps, averaged or not, as far as that is known.

    >>> translator = ganrun.load_generator("<run>/generator.safetensors")
    >>> outputs = translator.translate(images)  # (num, C, H, W) in [-1, 1], both
    """

    def __init__(
        self, networks: Mapping[str, nn.Module], *, value_range: Sequence[float],
        channels: Mapping[str, Sequence[int]], between: Mapping[str, Sequence[str]],
    ):  # fmt: skip
        super().__init__()
        for name, network in networks.items():
            self.add_module(name, network)
        self.value_range = value_range
        self.between = {name: tuple(between[name]) for name in networks}
        self.channels = {name: Channels(*channels[name]) for name in networks}
        self.trained: dict[str, Any] = {}

    def direction(self, name: str | None = None) -> str:
        """A direction by its name, None = the only or first one. Raises UserError, naming the valid ones."""
        if name is None:
            return next(iter(self.channels))
        if name not in self.channels:
            raise UserError(f"direction={name}: there is no such generator; {one_of(self.channels, name)}")
        return name

    @torch.no_grad()
    def translate(self, images: Tensor, direction: str | None = None, *, batch_size: int = 16) -> Tensor:
        """(num, C, H, W) in [-1, 1] -> the same of the other domain, on the CPU; any H and W that the network takes."""
        name = self.direction(direction)
        if images.dim() != 4 or images.shape[1] != self.channels[name].source:
            wanted = f"(num, {self.channels[name].source}, H, W)"
            raise UserError(f"{name} takes images of shape {wanted}, got {tuple(images.shape)}")
        network = getattr(self, name)
        device = next(network.parameters()).device
        low, high = self.value_range
        taken = ((images + 1) * ((high - low) / 2) + low).split(batch_size)
        made = torch.cat([network(some.to(device)).float().cpu() for some in taken])
        return (made - low) * (2 / (high - low)) - 1
