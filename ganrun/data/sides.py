"""Two-sided data for image-to-image translation, and views of other data."""

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ganrun.attributes import KEY
from ganrun.data.base import SHARE, Data
from ganrun.data.identity import Fingerprint
from ganrun.data.memory import free_memory
from ganrun.errors import UserError
from ganrun.game import Batch
from ganrun.seeding import rng_for


class Over(Data):
    """Data that hold no samples themselves but refer to other data."""

    @property
    @abstractmethod
    def stores(self) -> Sequence[Data]:
        """The data that hold the samples, each once."""

    @property
    @abstractmethod
    def like(self) -> Data:
        """The data that these resemble in everything else: shape, value range, augmentation, pictures."""

    @property
    def num_bytes(self) -> int:
        return sum(store.num_bytes for store in self.stores)

    @property
    def is_resident(self) -> bool:
        return all(store.is_resident for store in self.stores)

    def hold_on(self, device: torch.device) -> None:
        """Moves all stores to a GPU, or none."""
        if device.type == "cuda" and self.is_resident and self.num_bytes <= free_memory(device) * SHARE:
            for store in self.stores:
                store.hold_on(device)

    def lies_on(self, device: torch.device) -> bool:
        return all(store.lies_on(device) for store in self.stores)

    @property
    def shape(self) -> tuple[int, ...]:
        return self.like.shape

    @property
    def described(self) -> dict[str, Any]:
        return self.like.described

    def draw(self, positions: np.ndarray, seed: int) -> Batch:
        return self.like.draw(positions, seed)

    def to_range(self, real: Tensor) -> Tensor:
        return self.like.to_range(real)

    def as_stored(self, samples: Tensor) -> Tensor:
        return self.like.as_stored(samples)

    def picture(self, fake: Tensor, real: Tensor, *, columns: int, names: list[str] | None = None):
        return self.like.picture(fake, real, columns=columns, names=names)


class View(Over):
    """One-sided data whose samples are made from those of `base`."""

    def __init__(self, base: Data, name: str):
        self.base = base
        self.value_range, self.depth, self.shown = base.value_range, base.depth, base.shown
        super().__init__(name=name, num_workers=base.num_workers)

    def open(self) -> None:
        self.classes, self.attributes = list(self.base.classes), list(self.base.attributes)

    @property
    def stores(self) -> Sequence[Data]:
        return [self.base]

    @property
    def like(self) -> Data:
        return self.base

    def complete(self, batch: Batch) -> Batch:
        return self.base.complete(batch)


class Subset(View):
    """The samples of `base` at `indices` (num,). labelled: are their labels kept?"""

    def __init__(self, base: Data, indices: Tensor, name: str, *, labelled: bool = True):
        self.indices, self.labelled = indices, labelled
        super().__init__(base, name)

    def open(self) -> None:
        if self.base.in_sequence:
            why = "it is read in sequence, so some of its samples alone are not to be had"
            raise UserError(f"dataset {self.base.name}: {why}; expected dataset.streaming=false")
        if self.labelled:
            super().open()

    def __len__(self) -> int:
        return len(self.indices)

    def read(self, indices: Tensor) -> Batch:
        return self._own(self.base.read(self.indices[indices]))

    def carried(self, indices: Tensor, only_index: bool) -> Batch:
        return self._own(self.base.carried(self.indices[indices], only_index))

    def complete(self, batch: Batch) -> Batch:
        return self._own(self.base.complete(batch))

    @property
    def class_labels(self) -> Tensor | None:
        return self._of_own(self.base.class_labels)

    @property
    def attribute_values(self) -> Tensor | None:
        return self._of_own(self.base.attribute_values)

    def _of_own(self, found: Tensor | None) -> Tensor | None:
        return None if found is None or not self.labelled else found[self.indices.to(found.device)]

    def _own(self, batch: Batch) -> Batch:
        return batch if self.labelled else {key: value for key, value in batch.items() if key not in ("label", KEY)}


class TwoSided(Over):
    """Samples with a source and a real image. A subclass puts the one-sided data into `_sides`, source first.

    Paired data are as long as either side, and have the labels of the real one. Unpaired data are as long as the
    longer side; the shorter one is repeated, and there are no labels.

    In a round, tensors that concern one side are called <side>/<name>. Those without this prefix, such as the flips of
    a pair, concern both.
    """

    _sides: dict[str, Data]

    @property
    def sides(self) -> dict[str, Data]:
        return self._sides

    @property
    def stores(self) -> Sequence[Data]:
        return list(self.sides.values())

    @property
    def like(self) -> Data:
        return self.sides["real"]

    @property
    def parts(self) -> dict[str, tuple[int, ...]]:
        return {key: side.shape for key, side in self.sides.items()}

    def __len__(self) -> int:
        return max(map(len, self.sides.values()))

    def read(self, indices: Tensor) -> Batch:
        """source, real and, if paired, label."""
        return self._joined({key: side.read(indices % len(side)) for key, side in self.sides.items()})

    def carried(self, indices: Tensor, only_index: bool) -> Batch:
        return {
            f"{key}/{name}": value
            for key, side in self.sides.items()
            for name, value in side.carried(indices % len(side), only_index).items()
        }

    def complete(self, batch: Batch) -> Batch:
        common = {name: value for name, value in batch.items() if "/" not in name}
        return self._joined({key: side.complete(common | of_side(batch, key)) for key, side in self.sides.items()})

    def _joined(self, sides: dict[str, Batch]) -> Batch:
        real = sides["real"] if self.paired else {"real": sides["real"]["real"]}
        return {"source": sides["source"]["real"]} | real

    def shuffled(self, num: int, chunk: int = 1024) -> Iterator[Batch]:
        """Pairs in a fixed shuffle; of unpaired data, each side in a fixed shuffle of its own."""
        if self.paired:
            yield from super().shuffled(num, chunk)
            return
        names = {"source": ("reals", "source"), "real": ("reals",)}  # the real side keeps the order that it has alone
        orders = {key: torch.randperm(len(side), generator=rng_for(*names[key])) for key, side in self.sides.items()}
        for places in torch.arange(min(num, len(self))).split(chunk):
            yield {key: side.read(orders[key][places % len(side)])["real"] for key, side in self.sides.items()}

    @property
    def class_labels(self) -> Tensor | None:
        return self.sides["real"].class_labels if self.paired else None

    @property
    def attribute_values(self) -> Tensor | None:
        return self.sides["real"].attribute_values if self.paired else None

    @cached_property
    def fingerprint(self) -> Fingerprint:
        """The fingerprint of the real side, with that of the source."""
        real, source = (self.sides[key].fingerprint for key in ("real", "source"))
        return real | {"source": source, "paired": self.paired}

    def digest(self) -> str:
        return self.sides["real"].digest()


def of_side(batch: Batch, key: str) -> Batch:
    """The tensors that concern one side only, without the side's name."""
    return {name.removeprefix(f"{key}/"): value for name, value in batch.items() if name.startswith(f"{key}/")}
