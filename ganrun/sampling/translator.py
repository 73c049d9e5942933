"""Generators that turn images into images, by name: what `ganrun translate` and Python load."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ganrun.errors import UserError, one_of


class Channels(NamedTuple):
    """Channels of the images that a network takes and gives: 1 = grey, 3 = RGB; 2 and 4 with opacity."""

    source: int
    output: int


class Translator(nn.Module):
    """Image-to-image generators by direction, such as a2b and b2a; a single one is called generator.

    networks:    by direction
    value_range: of the images that they take and give
    channels:    of the images that each direction takes and gives
    between:     for each direction, the keys of its input and its output in the training data
    depth:       bits of the pixels that it was trained on, and that its images are read and written with
    trained:     on which data, for how many steps, averaged or not, as far as that is known

    Example:
        translator = ganrun.load_generator("<run>/generator.safetensors")
        outputs = translator.translate(images)  # (num, C, H, W) in [-1, 1], both
    """

    def __init__(
        self, networks: Mapping[str, nn.Module], *, value_range: Sequence[float],
        channels: Mapping[str, Sequence[int]], between: Mapping[str, Sequence[str]], depth: int = 8,
    ):  # fmt: skip
        super().__init__()
        for name, network in networks.items():
            self.add_module(name, network)
        self.value_range, self.depth = value_range, depth
        self.between = {name: tuple(between[name]) for name in networks}
        self.channels = {name: Channels(*channels[name]) for name in networks}
        self.trained: dict[str, Any] = {}

    def direction(self, name: str | None = None) -> str:
        """The name of a direction, None = the only or first one. Raises UserError, naming the valid ones."""
        if name is None:
            return next(iter(self.channels))
        if name not in self.channels:
            raise UserError(f"direction={name}: there is no such generator; {one_of(self.channels, name)}")
        return name

    @torch.no_grad()
    def translate(
        self, images: Tensor, direction: str | None = None, *, batch_size: int = 16, pad: bool = True
    ) -> Tensor:
        """(num, C, H, W) in [-1, 1] -> images of the other domain, of the same form, on the CPU.

        pad: if the network takes only multiples of some number of pixels, other images are continued by reflection at
        the right and the bottom, and the outputs cut back. False = raises UserError for other sizes.
        """
        name = self.direction(direction)
        if not images.is_floating_point():
            raise UserError(f"{name} takes images of numbers in [-1, 1], got {images.dtype}; of 0..255: x / 127.5 - 1")
        if images.dim() != 4 or images.shape[1] != self.channels[name].source:
            wanted = f"(num, {self.channels[name].source}, H, W)"
            raise UserError(f"{name} takes images of shape {wanted}, got {tuple(images.shape)}")
        network = getattr(self, name)
        device = next((tensor.device for tensor in network.state_dict().values()), torch.device("cpu"))
        low, high = self.value_range
        fitting = padded(images, network) if pad else images
        taken = ((fitting + 1) * ((high - low) / 2) + low).split(batch_size)
        made = torch.cat([network(some.to(device)).float().cpu() for some in taken])
        made = made if fitting is images else cut_back(made, images.shape[-2:], fitting.shape[-2:])
        return (made - low) * (2 / (high - low)) - 1


def padded(images: Tensor, network: nn.Module) -> Tensor:
    """Images (num, C, H, W) continued by reflection at the right and the bottom to the next size that a network takes.

    Its `multiple` and `least` say which sides it takes, in pixels; a network without them takes all. Images that
    already have such a size are returned as they are.
    """
    height, width = images.shape[-2:]
    wanted = taken(images.shape[-2:], network)
    if wanted == (height, width):
        return images
    return images[..., reflected(height, wanted[0])[:, None], reflected(width, wanted[1])]


def taken(size: Sequence[int], network: nn.Module) -> tuple[int, ...]:
    """The smallest sides, none smaller than those of `size`, that a network takes."""
    multiple, least = getattr(network, "multiple", 1), getattr(network, "least", 1)
    return tuple(-(-max(side, least) // multiple) * multiple for side in size)


def reflected(num: int, wanted: int) -> Tensor:
    """Indices 0, 1, ..., num - 1, num - 2, ..., 1, 0, 1, ...: `wanted` of them. The edge is not repeated."""
    period = max(1, 2 * (num - 1))
    places = torch.arange(wanted) % period
    return torch.minimum(places, period - places)


def cut_back(made: Tensor, size: Sequence[int], fitting: Sequence[int]) -> Tensor:
    """Cuts outputs for images padded from `size` (H, W) to `fitting` back; also for networks that enlarge."""
    height, width = (side * out // had for side, out, had in zip(size, made.shape[-2:], fitting, strict=True))
    return made[..., :height, :width]
