"""Frechet distances: FID, and its mean over classes."""

import torch
from torch import Tensor

from ganrun.errors import UserError
from ganrun.metrics.metric import FOR_LABELS, Metric, Score, Setting
from ganrun.metrics.summaries import ClassMoments, Moments


def frechet_distance(mean: Tensor, covariance: Tensor, other_mean: Tensor, other_covariance: Tensor) -> Tensor:
    """|m - m'|^2 + tr(C + C' - 2 (C C')^(1/2)): Heusel et al. 2017, arXiv 1706.08500, eq. 6; squared, as is usual.

    With C = L L^T the last trace is the sum of the singular values of L^T L', which loses no digits if a covariance is
    singular.
    """
    product = root(covariance).T @ root(other_covariance)
    trace = covariance.trace() + other_covariance.trace() - 2 * torch.linalg.svdvals(product).sum()
    return ((mean - other_mean).square().sum() + trace).clamp(min=0)


def root(covariance: Tensor) -> Tensor:
    """L with covariance = L L^T."""
    values, vectors = torch.linalg.eigh(covariance)
    return vectors * values.clamp(min=0).sqrt()


def between(real: Moments, fake: Moments) -> float:
    return float(frechet_distance(real.mean, real.covariance, fake.mean, fake.covariance))


class FID(Metric):
    """Frechet distance of Gaussians fitted to features (Heusel et al. 2017); 0 for equal sets."""

    def check(self, setting: Setting) -> None:
        if setting.smaller_side(None) < 2:
            raise UserError(f"metric=fid: {setting.smaller_side(None)} sample has no covariance; {setting.more()}")

    def summary(self):
        return Moments()

    def score(self, real, fake):
        return Score(between(real, fake))


class IntraFID(Metric):
    """The mean over classes of FID within a class: Miyato and Koyama 2018, arXiv 1802.05637, section 4."""

    def check(self, setting: Setting) -> None:
        if not setting.conditional:
            raise UserError(f"metric=intra-fid: {FOR_LABELS}")
        counts = None if setting.labels is None else torch.bincount(setting.labels, minlength=setting.data.num_classes)
        if counts is not None and counts.min() < 2:
            name, few = setting.data.classes[int(counts.argmin())], int(counts.min())
            got = f"{few} of {setting.num_fake} fakes are of class {name}"
            raise UserError(f"metric=intra-fid: {got}; expected at least 2; {setting.more(fakes=True)}")

    def prepare(self, setting: Setting) -> None:
        super().prepare(setting)
        self.num_classes = setting.data.num_classes

    def summary(self):
        return ClassMoments(self.num_classes)

    def score(self, real, fake):
        few = [i for i, (r, f) in enumerate(zip(real.classes, fake.classes, strict=True)) if min(r.num, f.num) < 2]
        if few:
            raise UserError(f"metric=intra-fid: class {few[0]} has fewer than 2 samples on one side; score more")
        return Score(sum(map(between, real.classes, fake.classes)) / self.num_classes)
