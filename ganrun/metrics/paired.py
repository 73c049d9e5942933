"""Scores that compare each output with its own true counterpart, both as stored images, in fp64."""

import math
from abc import abstractmethod

import torch
from torch import Tensor
from torchmetrics.functional.image import structural_similarity_index_measure

from ganrun.errors import UserError
from ganrun.metrics.features import Stored
from ganrun.metrics.metric import Metric, Score, Setting
from ganrun.metrics.summaries import Summary

LARGEST = 255.0  # largest value of a pixel, and the data range of all three metrics
WINDOW, SIGMA = 11, 1.5  # pixels; torchmetrics derives the first from the second
K1, K2 = 0.01, 0.03
CHUNK = 2**22  # values compared at once: 32 MiB


def absolute_error(target: Tensor, fake: Tensor) -> Tensor:
    """(num, C, H, W) each, 0 to 255 -> (num,) mean absolute difference as a share of the range, 0 to 1."""
    return (fake.double() - target.double()).abs().mean((1, 2, 3)) / LARGEST


def psnr(target: Tensor, fake: Tensor) -> Tensor:
    """(num, C, H, W) each, 0 to 255 -> (num,) peak signal-to-noise ratio in dB; infinite for equal images."""
    mse = (fake.double() - target.double()).square().mean((1, 2, 3))
    return 20 * math.log10(LARGEST) - 10 * mse.log10()


def ssim(target: Tensor, fake: Tensor) -> Tensor:
    """(num, C, H, W) each, 0 to 255 -> (num,) structural similarity, -1 to 1.

    Wang et al. 2004, "Image quality assessment", equation 13, with the windows of section III.C that fit into the
    image, at least one. Averaged over windows and channels.
    """
    _, local = structural_similarity_index_measure(
        fake.double(), target.double(), sigma=SIGMA, kernel_size=WINDOW, data_range=LARGEST, k1=K1, k2=K2,
        reduction="none", return_full_image=True,
    )  # fmt: skip
    margin = WINDOW // 2
    return local[..., margin:-margin, margin:-margin].mean((1, 2, 3))


def in_levels(pixels: Tensor) -> Tensor:
    """Pixels from 0 to 255: 16 bits become fractions of these levels."""
    return pixels.double() / 257 if pixels.dtype == torch.uint16 else pixels


class EachPair(Summary):
    """A number for each pair, in fp64. metric: its `compare` computes the number."""

    def __init__(self, metric: "Paired"):
        self.name = f"{metric.name} of pairs"
        self._compare = metric.compare
        self._parts: list[Tensor] = []

    def add(self, seen):
        if seen.target is None:
            raise ValueError(f"{self.name}: the stream has no `target` beside `fake`")
        target = seen.target.to(seen.features.device)
        if target.shape != seen.features.shape:
            raise ValueError(f"{self.name}: fake {[*seen.features.shape]}, but target {[*target.shape]}")
        chunk = max(1, CHUNK // target[0].numel()) if len(target) else 1
        for one, other in zip(target.split(chunk), seen.features.split(chunk), strict=True):
            self._parts.append(self._compare(in_levels(one), in_levels(other)).double().cpu())

    @property
    def values(self) -> Tensor:
        """(num,)"""
        return torch.cat(self._parts)

    def state(self):
        return {"values": self.values}

    def load(self, state):
        self._parts = [state["values"]]


class Paired(Metric):
    """The mean of `compare` over all pairs; it uses no reals. name: as in configs.

    Needs a stream with a `target` beside each `fake`. Raises UserError for data without pairs and for vectors.
    """

    name: str
    needs_real = False
    needs_pairs = True

    def __init__(self):
        super().__init__(features=Stored())

    def check(self, setting: Setting) -> None:
        data = setting.data
        if not setting.paired:
            raise UserError(f"metric={self.name}: it compares outputs with their own targets; {data.name} has no pairs")
        if len(data.shape) != 3:
            raise UserError(f"metric={self.name}: it compares images, but dataset {data.name} has vectors")

    @abstractmethod
    def compare(self, target: Tensor, fake: Tensor) -> Tensor:
        """Images (num, C, H, W) of 0 to 255 each -> (num,)"""

    def summary(self):
        return EachPair(self)

    def score(self, real, fake):
        return Score(math.fsum(fake.values.tolist()) / len(fake.values))  # exact sum, so the order does not matter

    @property
    def protocol(self):
        return {"against": "own target", "data_range": LARGEST, "channels_are": "averaged"}


class L1(Paired):
    """Mean absolute difference as a share of the range: 0 for equal images, 1 for black beside white."""

    name = "l1"

    def compare(self, target, fake):
        return absolute_error(target, fake)


class PSNR(Paired):
    """Peak signal-to-noise ratio in dB, of each image over all its channels.

    ceiling: most dB that an image counts for, since equal images would give infinity. 100 is above the 94 dB of
    200 x 200 grey pixels with a single one off by one.
    """

    name = "psnr"
    lower_is_better = False

    def __init__(self, *, ceiling: float = 100.0):
        super().__init__()
        if not 0 < ceiling < math.inf:
            raise ValueError(f"ceiling={ceiling}; expected more than 0 dB, and not infinitely many")
        self.ceiling = ceiling

    def compare(self, target, fake):
        return psnr(target, fake).clamp(max=self.ceiling)

    @property
    def protocol(self):
        return super().protocol | {"channels_are": "together", "ceiling": self.ceiling}


class SSIM(Paired):
    """Structural similarity: 1 for equal images. Wang et al. 2004, with its window and constants."""

    name = "ssim"
    lower_is_better = False

    def check(self, setting: Setting) -> None:
        super().check(setting)
        height, width = setting.data.shape[1:]
        if min(height, width) < WINDOW:
            raise UserError(f"metric=ssim: its window of {WINDOW} pixels does not fit into images of {height}x{width}")

    def compare(self, target, fake):
        return ssim(target, fake)

    @property
    def protocol(self):
        window = {"window": f"{WINDOW}x{WINDOW} Gaussian, within the image", "sigma": SIGMA, "k1": K1, "k2": K2}
        return super().protocol | window
