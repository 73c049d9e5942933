"""Data of which few labels are known: every sample without its label, beside a stream of labelled samples."""

import torch
from torch import Tensor

from ganrun.data.base import Data
from ganrun.data.identity import Fingerprint
from ganrun.data.sides import Subset, View, of_side
from ganrun.errors import UserError
from ganrun.game import Batch
from ganrun.seeding import rng_for

KEY = "labelled"  # of the labelled samples in a batch


def drawn(labels: Tensor, num: int, seed: int) -> Tensor:
    """Indices (num,) of the samples whose labels (num_samples,) are known, ascending.

    The seed shuffles all samples. Then the classes take turns, in their order: each gives its next sample, until there
    are `num`; a class that has none left is passed over. So classes differ by one at most if all are large enough, and
    more labels of the same seed contain the fewer.
    """
    order = torch.randperm(len(labels), generator=rng_for(seed, KEY))
    shuffled = labels.cpu()[order]
    turn = torch.empty_like(order)  # how many of its class come before it
    for number in shuffled.unique():
        own = shuffled == number
        turn[own] = torch.arange(int(own.sum()))
    first = (turn * (int(shuffled.max()) + 1) + shuffled).argsort()[:num]
    return order[first].sort().values


class FewLabels:
    """Hides all labels of a data set but `num`.

    num: labels that are known. seed: decides which, see `drawn`.

    Example:
        data = FewLabels(num=100, seed=0)(Digits(name="digits", resolution=16, channels=1))
        batch = data.read(torch.arange(4))  # real and labelled (4, 1, 16, 16); label (4,), of the labelled ones
    """

    def __init__(self, num: int, seed: int = 0):
        self.num, self.seed = num, seed

    def __call__(self, data: Data) -> "PartlyLabelled":
        """Raises UserError for a number of labels that the data cannot have, and for data without classes."""
        if len(data.sides) > 1:
            raise UserError(f"conditional=semi-supervised: dataset {data.name} has two sides; expected pairs=none")
        labels = data.class_labels
        if labels is None:
            why = [note for note in data.notes if note.startswith("no classes: ")]
            raise UserError("; ".join([f"conditional=semi-supervised: dataset {data.name} has no classes", *why]))
        least = len(labels.unique())
        if type(self.num) is not int or not least <= self.num <= len(labels):
            wanted = f"{least}, one of each class, to {len(labels):,}, the images of dataset {data.name}"
            raise UserError(f"labelled={self.num}; expected {wanted}")
        return PartlyLabelled(data, drawn(labels, self.num, self.seed))


class PartlyLabelled(View):
    """All samples of `base` without labels, and as many labelled ones, drawn from those at `indices`, in each batch.

    Labels that are not known are in no batch. Both kinds are drawn in orders of their own; that of the unlabelled
    samples, which include the labelled images, is the order of `base`. For scores `sides` has the whole base.
    """

    def __init__(self, base: Data, indices: Tensor):
        self.unlabelled = Subset(base, torch.arange(len(base)), base.name, labelled=False)
        self.labelled = Subset(base, indices, f"{base.name}, labelled")
        super().__init__(base, base.name)

    def open(self) -> None:
        self.classes, self.skipped = list(self.base.classes), list(self.base.skipped)
        each = self.labelled.class_labels.cpu().bincount(minlength=len(self.classes))
        low, high = int(each.min()), int(each.max())
        share = f"{low} to {high}" if low < high else f"{low}"
        known = f"labels: {len(self.labelled):,} of {len(self.base):,} are known, {share} of each class"
        self.notes = [*self.base.notes, known]

    @property
    def sides(self) -> dict[str, Data]:
        return {"real": self.base}

    @property
    def parts(self) -> dict[str, tuple[int, ...]]:
        return {"real": self.shape, KEY: self.shape}

    @property
    def streams(self) -> dict[str, Data]:
        return {"": self.unlabelled, f"{KEY}/": self.labelled}

    def __len__(self) -> int:
        return len(self.base)

    def read(self, indices: Tensor) -> Batch:
        return joined(self.unlabelled.read(indices), self.labelled.read(indices % len(self.labelled)))

    def complete(self, batch: Batch) -> Batch:
        own = {name: value for name, value in batch.items() if "/" not in name}
        return joined(self.unlabelled.complete(own), self.labelled.complete(of_side(batch, KEY)))

    @property
    def fingerprint(self) -> Fingerprint:
        return self.base.fingerprint

    def digest(self) -> str:
        return self.base.digest()

    def held_out(self) -> Data | None:
        return self.base.held_out()


def joined(unlabelled: Batch, labelled: Batch) -> Batch:
    """real, labelled, and label, of the labelled samples."""
    return {"real": unlabelled["real"], KEY: labelled["real"], "label": labelled["label"]}
