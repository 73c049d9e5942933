"""Step 14 of ADA's pipe: four bands of frequencies, each made louder or softer.

Karras et al. 2020, arXiv 2006.06676, appendix B.1, image-space filtering.
"""

from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from ganrun.augment.drawing import Draw
from ganrun.augment.resampling import fold

# The symlet of order 2, its low-pass, which is Daubechies' too: Daubechies 1992, table 6.1
SYM2 = (-0.12940952255092145, 0.22414386804185735, 0.836516303737469, 0.48296291314469025)
LOWEST, OTHER = 10 / 13, 1 / 13  # expected power of natural images in the lowest band, and in each other one
GAIN = 1.0  # deviation of a gain's binary logarithm


def bank() -> np.ndarray:
    """Four filters with centres at their middles, (4, 43), which sum up to the identity.

    Half-band filters from the wavelet's autocorrelation, three octaves deep: frequencies up to pi/8, pi/4, pi/2, pi.
    """
    low = np.convolve(SYM2, SYM2[::-1]) / 2  # no phase; 1 at frequency 0
    high = low * (-1.0) ** (np.arange(7) - 3)
    filters = np.ones((1, 1))
    for _ in range(3):
        spread = np.zeros((len(filters), 2 * filters.shape[1] - 1))
        spread[:, ::2] = filters
        lower = np.stack([np.convolve(row, low) for row in spread])
        margin = (lower.shape[1] - 7) // 2
        filters = np.concatenate([lower, np.pad(high, margin)[None]])
    return filters


@lru_cache(maxsize=64)
def filtering(size: int, device: torch.device, dtype: torch.dtype) -> Tensor:
    """(4, size, size): each band of a line of samples, which continues by reflection."""
    filters = torch.from_numpy(bank())
    reach = filters.shape[1] // 2
    matrix = torch.zeros(len(filters), size, size, dtype=torch.float64)
    for row in range(size):
        source = fold(torch.arange(row - reach, row + reach + 1), size)
        matrix[:, row].index_add_(1, source, filters)
    return matrix.to(device, dtype)


def amplified(images: Tensor, gains: Tensor) -> Tensor:
    """(batch, C, H, W) with the bands of rows and of columns multiplied by gains (batch, 4)."""
    kind = (images.device, images.dtype)
    down, across = (torch.tensordot(gains, filtering(side, *kind), 1)[:, None] for side in images.shape[2:])
    return down @ images @ across.transpose(2, 3)


def gains(draw: Draw, p: float | Tensor) -> tuple[Tensor, Tensor]:
    """(batch, 4) gains, and which samples change.

    After each band's draw all four are divided by the same factor, so that natural images keep their power.
    """
    acts = torch.stack([draw.happens(p) for _ in range(4)], 1)
    own = torch.where(acts, torch.stack([draw.normal(GAIN).exp2() for _ in range(4)], 1), 1)
    power = torch.full_like(own, OTHER)
    power[:, 0] = LOWEST
    return own * (1 + power * (own.square() - 1)).rsqrt().prod(1, keepdim=True), acts.any(1)
