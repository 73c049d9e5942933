"""Summaries of one side's samples, updated while the samples stream past; all sums in float64."""

from abc import ABC, abstractmethod

import torch
from torch import Tensor

from ganrun.metrics.features import Seen


class Summary(ABC):
    """A summary of the added samples. name: two summaries with the same name keep the same things.

    derived: parts of its state that take much arithmetic to compute from the others; `load` may be given only these.
    """

    name: str
    derived: tuple[str, ...] = ()

    @abstractmethod
    def add(self, seen: Seen) -> None: ...

    @abstractmethod
    def state(self) -> dict[str, Tensor]:
        """The whole state, for a file."""

    @abstractmethod
    def load(self, state: dict[str, Tensor]) -> None: ...


class Moments(Summary):
    """Mean and scatter, updated batch by batch: Chan et al. 1983, "Algorithms for computing the sample variance"."""

    name = "moments"

    def __init__(self):
        self.num = 0
        self.mean = self.scatter = torch.zeros(())

    def add(self, seen):
        self._add(seen.features)

    def _add(self, features: Tensor) -> None:
        if not len(features):
            return
        x = features.double()
        mean = x.mean(0)
        centred = x - mean
        scatter = centred.T @ centred
        if self.num:
            total, shift = self.num + len(x), mean - self.mean
            scatter += self.scatter + torch.outer(shift, shift) * (self.num * len(x) / total)
            mean = self.mean + shift * (len(x) / total)
        self.num, self.mean, self.scatter = self.num + len(x), mean, scatter

    @property
    def covariance(self) -> Tensor:
        """(F, F), unbiased."""
        return self.scatter / (self.num - 1)

    def state(self):
        return {"num": torch.tensor(self.num), "mean": self.mean, "scatter": self.scatter}

    def load(self, state):
        self.num, self.mean, self.scatter = int(state["num"]), state["mean"], state["scatter"]


class ClassMoments(Summary):
    """Moments of each class."""

    def __init__(self, num_classes: int):
        self.name = f"moments of {num_classes} classes"
        self.classes = [Moments() for _ in range(num_classes)]

    def add(self, seen):
        label = seen.label.to(seen.features.device)
        for index, moments in enumerate(self.classes):
            moments._add(seen.features[label == index])

    def state(self):
        return {f"{i}.{key}": value for i, one in enumerate(self.classes) for key, value in one.state().items()}

    def load(self, state):
        for i, moments in enumerate(self.classes):
            prefix = f"{i}."
            moments.load({k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)})


class Kept(Summary):
    """Features or logits of the first `max_samples` samples, which come shuffled; None = all."""

    def __init__(self, max_samples: int | None = None, *, what: str = "features"):
        self.name = f"{what} of {max_samples or 'all'}"
        self.max_samples = max_samples
        self.what = what
        self._parts: list[Tensor] = []
        self.num = 0

    def add(self, seen):
        values = getattr(seen, self.what)
        room = len(values) if self.max_samples is None else self.max_samples - self.num
        if room > 0:
            self._parts.append(values[:room])
            self.num += len(self._parts[-1])

    @property
    def values(self) -> Tensor:
        """(num, F)"""
        if len(self._parts) != 1:
            self._parts = [torch.cat(self._parts)]
        return self._parts[0]

    def state(self):
        return {"values": self.values}

    def load(self, state):
        self._parts, self.num = [state["values"]], len(state["values"])


class Agreement(Summary):
    """The number of samples that a classifier assigns to the class that they were made for."""

    name = "agreement"

    def __init__(self):
        self.right = self.num = 0

    def add(self, seen):
        self.right += int((seen.logits.argmax(1).cpu() == seen.label.cpu()).sum())
        self.num += len(seen.label)

    def state(self):
        return {"right": torch.tensor(self.right), "num": torch.tensor(self.num)}

    def load(self, state):
        self.right, self.num = int(state["right"]), int(state["num"])
