"""Precision, recall, density and coverage: which samples lie in whose neighbourhood, in features (num, F).

A sample's neighbourhood is the open ball around it that reaches to its k-th nearest neighbour on its own side, as in
the published code of Naeem et al. 2020 (Kynkaanniemi et al. 2019, eq. 2, include the border).
"""

from abc import abstractmethod
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from ganrun.errors import UserError
from ganrun.metrics.distances import blocks
from ganrun.metrics.metric import OfKept, Score, Setting
from ganrun.metrics.summaries import Kept


class Membership(NamedTuple):
    """Which samples lie in neighbourhoods of the other side."""

    reals_around: Tensor  # (num_fake,) number of reals' neighbourhoods that hold each fake
    is_recalled: Tensor  # (num_real,) does each real lie in some fake's neighbourhood?
    is_covered: Tensor  # (num_real,) does each real's neighbourhood hold a fake?


def radii(features: Tensor, k: int) -> Tensor:
    """(num,) distance of each sample to its k-th nearest neighbour, without itself; rounded as in `holding`."""
    found = [squared.topk(k + 1, largest=False).values[:, -1] for _, squared in blocks(features, features)]
    return torch.cat(found).sqrt()


def holding(real: Tensor, fake: Tensor, real_radii: Tensor, fake_radii: Tensor) -> Membership:
    around, recalled, covered = torch.zeros(len(fake), dtype=torch.int64, device=fake.device), [], []
    for rows, squared in blocks(real, fake):
        distances = squared.sqrt_()
        inside = distances < real_radii[rows, None]
        around += inside.sum(0)
        covered.append(inside.any(1))
        recalled.append((distances < fake_radii).any(1))
    return Membership(around, torch.cat(recalled), torch.cat(covered))


class Neighbours(Kept):
    """Features with the radii of their neighbourhoods and their members, each computed once for all metrics."""

    derived = ("radii",)

    def __init__(self, max_samples: int | None, k: int, radii: Callable[[Tensor, int], Tensor] = radii):
        super().__init__(max_samples)
        self.name += f" and their {k} neighbours by {radii.__name__}"
        self.k = k
        self._find = radii
        self._radii: Tensor | None = None
        self._held: tuple[Neighbours, Membership] | None = None

    @property
    def radii(self) -> Tensor:
        if self._radii is None:
            self._radii = self._find(self.values, self.k)
        return self._radii

    def held_with(self, real: "Neighbours") -> Membership:
        """The membership between these fakes and `real`."""
        if self._held is None or self._held[0] is not real:
            self._held = real, holding(real.values, self.values, real.radii, self.radii)
        return self._held[1]

    def state(self):
        return super().state() | {"radii": self.radii}

    def load(self, state):
        if "values" in state:
            super().load(state)
        self._radii = state["radii"]


class Neighbourhoods(OfKept):
    """A metric of neighbourhoods. k: a neighbourhood reaches to the k-th nearest neighbour."""

    lower_is_better = False

    def __init__(self, *, k: int = 5, **settings):
        super().__init__(**settings)
        if k < 1:
            raise ValueError(f"k={k}; expected at least 1")
        self.k = k

    def check(self, setting: Setting) -> None:
        num = setting.smaller_side(self.max_samples)
        if num <= self.k:
            raise UserError(f"k={self.k}: {num} samples have no {self.k} neighbours; {setting.more(self.max_samples)}")

    def summary(self):
        return Neighbours(self.max_samples, self.k)

    def score(self, real, fake):
        return Score(float(self.of(fake.held_with(real))))

    @abstractmethod
    def of(self, held: Membership) -> Tensor: ...

    @property
    def protocol(self):
        return {"k": self.k}


class Precision(Neighbourhoods):
    """Share of fakes in a real's neighbourhood: Kynkaanniemi et al. 2019, arXiv 1904.06991, eq. 2."""

    def of(self, held):
        return (held.reals_around > 0).double().mean()


class Recall(Neighbourhoods):
    """Share of reals in a fake's neighbourhood: Kynkaanniemi et al. 2019, arXiv 1904.06991, eq. 2."""

    def of(self, held):
        return held.is_recalled.double().mean()


class Density(Neighbourhoods):
    """Mean number of reals' neighbourhoods around a fake, over k: Naeem et al. 2020, arXiv 2002.09797, eq. 3."""

    def of(self, held):
        return held.reals_around.double().mean() / self.k


class Coverage(Neighbourhoods):
    """Share of reals whose neighbourhood holds a fake: Naeem et al. 2020, arXiv 2002.09797, eq. 4."""

    def of(self, held):
        return held.is_covered.double().mean()
