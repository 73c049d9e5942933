"""Self-attention over the positions of a feature map: Zhang et al. 2019, arXiv 1805.08318."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import max_pool2d

from ganrun.errors import UserError


class SelfAttention(nn.Module):
    """x (batch, C, H, W) -> x + scale * attended(x): section 3; scale starts at 0.

    Queries and keys have C / 8 channels, values C / 2. Keys and values are max-pooled over 2 x 2 positions, as in the
    authors' code. Written out rather than fused, so that penalties can differentiate it twice.
    """

    def __init__(self, channels: int):
        super().__init__()
        narrow, half = max(1, channels // 8), max(1, channels // 2)
        self.query = nn.Conv2d(channels, narrow, 1, bias=False)
        self.key = nn.Conv2d(channels, narrow, 1, bias=False)
        self.value = nn.Conv2d(channels, half, 1, bias=False)
        self.out = nn.Conv2d(half, channels, 1, bias=False)
        self.scale = nn.Parameter(torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        query = self.query(x).flatten(2)
        key, value = (pooled(layer(x)).flatten(2) for layer in (self.key, self.value))
        weights = torch.softmax(query.transpose(1, 2) @ key, dim=-1)  # (batch, positions, pooled positions)
        attended = (value @ weights.transpose(1, 2)).unflatten(2, x.shape[2:])
        return x + self.scale * self.out(attended)


def pooled(x: Tensor) -> Tensor:
    """Halves sides of two pixels and more."""
    return max_pool2d(x, [min(2, side) for side in x.shape[2:]])


def attention_index(side: int | str | None, height: int, sides: Sequence[int], which: str) -> int | None:
    """The first stage that puts out this height; None = no attention. Raises UserError if no stage does.

    side: pixels, or half = half of `height`, that of the image. sides: heights that the stages put out
    """
    if side is None:
        return None
    pixels = height // 2 if side == "half" else side
    if pixels not in sides:
        valid = ", ".join(map(str, dict.fromkeys(sides)))
        raise UserError(f"{which}.attention={side}: no block puts out that height; valid: {valid}, half, null")
    return list(sides).index(pixels)
