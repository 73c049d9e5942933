"""Derives two-sided data from any set of images: each real image gets a source when a batch is read."""

from abc import ABC, abstractmethod
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

import numpy as np
from torch import Tensor

from ganrun.data.base import Data
from ganrun.data.identity import identity_of
from ganrun.data.sides import TwoSided, View
from ganrun.errors import UserError
from ganrun.game import Batch
from ganrun.seeding import derive

VERSION = 1  # increase it whenever the same image may give another source
OF_INDEX = derive("pairs")  # the seed for samples drawn by number, outside training


@dataclass(frozen=True, kw_only=True)
class Derivation(ABC):
    """Makes a source from a real image; called with data, it gives them two sides.

    source_channels: of the source; networks read it in the config.

    Example:
        data = Invert(source_channels=1)(Digits(name="digits", resolution=16, channels=1))
        batch = data.read(torch.arange(4))  # source and real, (4, 1, 16, 16) uint8; label (4,)
    """

    source_channels: int
    name: ClassVar[str]  # of the option
    drawn: ClassVar[tuple[str, ...]] = ()  # names of what `draw` draws

    def __call__(self, data: Data) -> "Derived":
        """Raises UserError for data from which nothing can be derived."""
        check_images(data, self.name)
        self.check(data.shape)
        return Derived(data, self)

    def check(self, shape: tuple[int, int, int]) -> None:
        """Raises UserError for real images (C, H, W) that are not suitable."""
        check_channels(self.source_channels, shape[0], self.name)

    @abstractmethod
    def derive(self, real: Tensor, drawn: Batch) -> Tensor:
        """Pixels (batch, C, H, W) -> (batch, source_channels, H, W), of the same depth."""

    def draw(self, positions: np.ndarray, seed: int, shape: tuple[int, int, int]) -> Batch:
        """The random choices, (batch, ...), which depend only on seed and position. shape: of a real image."""
        return {}

    @property
    def settings(self) -> dict[str, Any]:
        """Everything that decides the source of a real image."""
        return {"pairs": self.name} | {key: value for key, value in asdict(self).items() if key != "source_channels"}


def check_images(data: Data, name: str) -> None:
    """Raises UserError unless the data are one-sided images."""
    if len(data.shape) != 3:
        raise UserError(f"pairs={name}: dataset {data.name} has points; expected images")
    if len(data.sides) > 1:
        raise UserError(f"pairs={name}: dataset {data.name} has two sides already; expected pairs=none")


def check_channels(got: int, expected: int, name: str) -> None:
    if got != expected:
        raise UserError(f"pairs.source_channels={got}; expected {expected}, of which pairs={name} makes a source here")


class Derived(TwoSided):
    """Real images of `base`, each with a source that is derived from it after flips and crops."""

    paired = True

    def __init__(self, base: Data, derivation: Derivation):
        self.base, self.derivation = base, derivation
        self.value_range, self.depth, self.shown = base.value_range, base.depth, base.shown
        self._sides = {"source": DerivedSource(base, derivation), "real": base}
        super().__init__(name=base.name, limit=base.limit, num_workers=base.num_workers)

    def open(self) -> None:
        self.classes, self.attributes = list(self.base.classes), list(self.base.attributes)
        self.skipped, self.notes = list(self.base.skipped), list(self.base.notes)

    @property
    def stores(self):
        return [self.base]

    @property
    def described(self) -> dict[str, Any]:
        return self.base.described | self.derivation.settings

    def order(self, *parts: int | str) -> Tensor:
        return self.base.order(*parts)

    @property
    def in_sequence(self) -> bool:
        return self.base.in_sequence

    def read(self, indices: Tensor) -> Batch:
        return with_source(self.base.read(indices), self.derivation, at=indices)

    def carried(self, indices: Tensor, only_index: bool) -> Batch:
        return self.base.carried(indices, only_index)

    def draw(self, positions: np.ndarray, seed: int) -> Batch:
        return self.sides["source"].draw(positions, seed)

    def complete(self, batch: Batch) -> Batch:
        if any("/" in name for name in batch):  # each side by itself
            return super().complete(batch)
        return with_source(self.base.complete(batch), self.derivation)

    def held_out(self) -> "Derived | None":
        found = self.base.held_out()
        return None if found is None else self.derivation(found)


class DerivedSource(View):
    """The sources alone."""

    def __init__(self, base: Data, derivation: Derivation):
        self.derivation = derivation
        super().__init__(base, f"{base.name}, source")

    @property
    def shape(self) -> tuple[int, ...]:
        return (self.derivation.source_channels, *self.base.shape[1:])

    @property
    def described(self) -> dict[str, Any]:
        return self.base.described | {"channels": self.shape[0]} | self.derivation.settings

    def __len__(self) -> int:
        return len(self.base)

    def order(self, *parts: int | str) -> Tensor:
        return self.base.order(*parts)

    @property
    def in_sequence(self) -> bool:
        return self.base.in_sequence

    def read(self, indices: Tensor) -> Batch:
        return as_real(with_source(self.base.read(indices), self.derivation, at=indices))

    def carried(self, indices: Tensor, only_index: bool) -> Batch:
        return self.base.carried(indices, only_index)

    def draw(self, positions: np.ndarray, seed: int) -> Batch:
        return self.base.draw(positions, seed) | self.derivation.draw(positions, seed, self.base.shape)

    def complete(self, batch: Batch) -> Batch:
        return as_real(with_source(self.base.complete(batch), self.derivation))

    @property
    def class_labels(self) -> Tensor | None:
        return self.base.class_labels

    @property
    def attribute_values(self) -> Tensor | None:
        return self.base.attribute_values

    def digest(self) -> str:
        """A digest of the real images and of the derivation, which identifies the sources without making them."""
        made = {"version": VERSION, **self.derivation.settings}
        return identity_of({"real": self.base.fingerprint["samples"], "made": made})


def with_source(batch: Batch, derivation: Derivation, at: Tensor | None = None) -> Batch:
    """Adds the source to a batch that has real images and random choices. at: indices to choose by instead."""
    real = batch["real"]
    drawn = {name: batch[name] for name in derivation.drawn if name in batch}
    if at is not None:
        by_index = derivation.draw(at.cpu().numpy(), OF_INDEX, tuple(real.shape[1:]))
        drawn = {name: value.to(real.device) for name, value in by_index.items()}
    others = {name: value for name, value in batch.items() if name not in derivation.drawn}
    return {"source": derivation.derive(real, drawn)} | others


def as_real(batch: Batch) -> Batch:
    """The batch with the source in place of the real images."""
    others = {name: value for name, value in batch.items() if name != "source"}
    return others | {"real": batch["source"]}
