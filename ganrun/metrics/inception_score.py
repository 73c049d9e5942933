"""Inception score: how sure a classifier is of each sample, and how evenly its answers cover the classes."""

import math
from itertools import pairwise

import torch
from torch import Tensor

from ganrun.errors import UserError
from ganrun.metrics.metric import OfKept, Score, Setting
from ganrun.metrics.summaries import Kept


def inception_score(logits: Tensor) -> Tensor:
    """exp E KL(p(y|x) || p(y)) of logits (num, K), in [1, K]: Salimans et al. 2016, arXiv 1606.03498, section 4."""
    log_p = logits.double().log_softmax(1)
    log_mean = log_p.logsumexp(0) - math.log(len(log_p))
    return (log_p.exp() * (log_p - log_mean)).sum(1).mean().exp()


class InceptionScore(OfKept):
    """Mean and (as published, the population's) deviation over `splits` parts of the samples; higher is better.

    It uses no real samples.
    """

    lower_is_better = False
    needs_real = False

    def __init__(self, *, splits: int = 10, **settings):
        super().__init__(**settings)
        if splits < 1:
            raise ValueError(f"splits={splits}; expected at least 1")
        self.splits = splits

    def check(self, setting: Setting) -> None:
        num = min(setting.num_fake, self.max_samples or setting.num_fake)
        if num < self.splits:
            more = setting.more(self.max_samples, fakes=True)
            raise UserError(f"metric=inception-score: {num} samples are too few for {self.splits} splits; {more}")

    def prepare(self, setting: Setting) -> None:
        super().prepare(setting)
        if not self.features.classifies:
            raise UserError(
                "metric=inception-score: it needs metric/features=inception or classifier, which name classes"
            )

    def summary(self):
        return Kept(self.max_samples, what="logits")

    def score(self, real, fake):
        bounds = [i * fake.num // self.splits for i in range(self.splits + 1)]
        parts = [fake.values[a:b] for a, b in pairwise(bounds)]
        scores = torch.stack([inception_score(part) for part in parts])
        return Score(float(scores.mean()), float(scores.std(correction=0)))

    @property
    def protocol(self):
        return {"splits": self.splits}
