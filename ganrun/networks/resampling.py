"""The low-pass (1, 3, 3, 1) along both sides, with zeros beyond the edges: Karras et al. 2020, arXiv 1912.04958."""

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d, conv_transpose2d


class Resample(nn.Module):
    def __init__(self):
        super().__init__()
        taps = torch.tensor([1.0, 3.0, 3.0, 1.0]) / 8
        self.register_buffer("taps", (taps[:, None] * taps)[None, None], persistent=False)

    def kernel(self, x: Tensor) -> Tensor:
        return self.taps.to(x.dtype).expand(x.shape[1], -1, -1, -1)


class Upsample(Resample):
    """(batch, C, H, W) -> (batch, C, 2H, 2W)."""

    def forward(self, x: Tensor) -> Tensor:
        return conv_transpose2d(x, 4 * self.kernel(x), stride=2, padding=1, groups=x.shape[1])


class Downsample(Resample):
    """(batch, C, 2H, 2W) -> (batch, C, H, W)."""

    def forward(self, x: Tensor) -> Tensor:
        return conv2d(x, self.kernel(x), stride=2, padding=1, groups=x.shape[1])


class Blur(Resample):
    """(batch, C, H, W) -> (batch, C, H + 2 padding - 3, W + 2 padding - 3), multiplied by `gain`."""

    def __init__(self, padding: int, gain: float = 1.0):
        super().__init__()
        self.padding, self.gain = padding, gain

    def forward(self, x: Tensor) -> Tensor:
        return conv2d(x, self.gain * self.kernel(x), padding=self.padding, groups=x.shape[1])
