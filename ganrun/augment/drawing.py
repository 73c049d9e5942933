"""What augmentations draw: one number for each sample, on the samples' device, from the generator seeded per step."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ganrun.errors import UserError
from ganrun.game import at_least_float32


@dataclass(frozen=True)
class Draw:
    """Draws (num,) numbers.

    Example:
        draw = Draw.like(images)
        images = torch.where(draw.happens(0.5)[:, None, None, None], images.flip(3), images)
    """

    num: int
    device: torch.device
    dtype: torch.dtype

    @classmethod
    def like(cls, images: Tensor) -> "Draw":
        return cls(len(images), images.device, images.dtype)

    def happens(self, p: float | Tensor) -> Tensor:
        """True with probability p, a number or a scalar on the device."""
        return torch.rand(self.num, device=self.device) < p

    def uniform(self, low: float, high: float) -> Tensor:
        return torch.rand(self.num, device=self.device, dtype=self.dtype) * (high - low) + low

    def below(self, num: int) -> Tensor:
        """A whole number from 0 to num - 1."""
        return torch.randint(num, (self.num,), device=self.device).to(self.dtype)

    def normal(self, deviation: float) -> Tensor:
        return torch.randn(self.num, device=self.device, dtype=self.dtype) * deviation


def over(flags: Tensor) -> Tensor:
    """(batch,) shaped to go with images, (batch, 1, 1, 1)."""
    return flags[:, None, None, None]


def range_of(value_range: Sequence[float] | None) -> tuple[float, float]:
    """Its two ends, in order. None, of points, counts as [-1, 1]; points are refused when they come."""
    low, high = value_range or (-1.0, 1.0)
    if not low < high:
        raise UserError(f"value_range={[low, high]}; expected the lower end first")
    return low, high


def in_unit_range(change: Callable[[Tensor], Tensor], images: Tensor, value_range: Sequence[float]) -> Tensor:
    """`change` applied to images brought from their value range to [-1, 1], in fp32 at least, and brought back.

    What `change` leaves as it is stays so to the bit. Raises UserError for anything but (batch, C, H, W).
    """
    if images.dim() != 4:
        shape = "x".join(map(str, images.shape[1:]))
        raise UserError(f"it changes images, channels x height x width; these samples are {shape}")
    low, high = value_range
    half, middle = (high - low) / 2, (high + low) / 2
    exact = at_least_float32(images)
    with torch.autocast(images.device.type, enabled=False):  # three digits would be too few
        if (half, middle) == (1, 0):
            changed = change(exact)
        else:
            before = (exact - middle) / half
            changed = exact + half * (change(before) - before)
    changed = changed.to(images.dtype)
    last = images.is_contiguous(memory_format=torch.channels_last)
    return changed.contiguous(memory_format=torch.channels_last if last else torch.contiguous_format)
