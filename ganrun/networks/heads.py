"""The last layers of a discriminator, by what it is to do with the label."""

from typing import NamedTuple

from torch import Tensor, cat, nn
from torch.nn.functional import normalize

from ganrun.errors import UserError
from ganrun.game import Verdict

BESIDE = {"classes": 1, "classes-twice": 2, "two-classifiers": 1}  # a layer's logits for a class, beside that for real
ALONE = {
    "classes-alone": 0,
    "classes-and-fake": 1,
}  # logits beside those of the classes, from which that for real follows
CONDITIONS = ("concatenate", "projection", *BESIDE, *ALONE, "embedding")


class Affine(NamedTuple):
    """A logit as <weight, features> + bias."""

    features: Tensor  # (batch, F)
    weight: Tensor  # (batch or 1, F)
    bias: Tensor | float  # (batch or 1,)


class Head(nn.Linear):
    """features (batch, F), label (batch,) or None -> Verdict. Its own weights are the logit's, if that is learnt.

    For `concatenate` and `projection` a label may also be a vector of attributes, (batch, num_classes), which is
    embedded linearly.

    condition: concatenate       the first layer is given the label, or there is none: a logit alone
               projection        adds <embedded label, features> to the logit: Miyato and Koyama 2018, eq. 3
               classes           also a logit for each class
               classes-twice     ... two for each class, of reals and of fakes
               two-classifiers   ... two for each class, from two layers, each with a spectral norm of its own
               classes-and-fake  ... one for each class and one for fakes; the logit is the label's minus that of fakes
               classes-alone     ... one for each class; the logit is their log sum exp: Salimans et al. 2016, section 5
               embedding         also an embedding of length 1, and its cosines with those of the classes
    embedding: numbers of that embedding
    bias:      has the logit one? R3GAN's has none
    """

    def __init__(
        self,
        features: int,
        condition: str = "concatenate",
        num_classes: int = 0,
        embedding: int = 512,
        *,
        bias: bool = True,
    ):
        condition = condition if num_classes else "concatenate"
        super().__init__(features, num_classes + ALONE[condition] if condition in ALONE else 1, bias=bias)
        self.condition = condition
        if condition == "projection":
            self.embed = nn.Embedding(num_classes, features)
        if condition in BESIDE:
            self.classes = nn.Linear(features, BESIDE[condition] * num_classes, bias=False)
        if condition == "two-classifiers":
            self.second = nn.Linear(features, num_classes, bias=False)
        if condition == "embedding":
            self.embedding = nn.Linear(features, embedding)
            self.proxies = nn.Embedding(num_classes, embedding)

    def forward(self, features: Tensor, label: Tensor | None = None) -> Verdict:
        if self.condition in ("projection", "classes-and-fake") and label is None:
            raise ValueError("this discriminator is conditional but was given no label")
        logits = super().forward(features)
        if self.condition == "classes-alone":
            return Verdict(logits.logsumexp(1), features, logits)
        if self.condition == "classes-and-fake":
            return Verdict(logits.gather(1, label[:, None]).squeeze(1) - logits[:, -1], features, logits)
        logits = logits.squeeze(1)
        if self.condition == "projection":
            logits = logits + (self._embedded(label) * features).sum(1)
        if self.condition == "embedding":
            embedded = normalize(self.embedding(features))
            return Verdict(logits, features, embedded @ normalize(self.proxies.weight).T, embedded)
        classes = self.classes(features) if self.condition in BESIDE else None
        if self.condition == "two-classifiers":
            classes = cat([classes, self.second(features)], 1)
        return Verdict(logits, features, classes)

    def affine(self, features: Tensor, label: Tensor | None = None) -> Affine:
        """The logit's parts. Raises UserError where it is no such sum."""
        if self.condition in ALONE:
            raise UserError(
                "head.san: with conditional=multi-hinge or semi-supervised the logit follows from those of classes: "
                "it is not defined for them; try conditional=projection"
            )
        weight = self.weight + self._embedded(label) if self.condition == "projection" else self.weight
        return Affine(features, weight, 0.0 if self.bias is None else self.bias)

    def _embedded(self, label: Tensor) -> Tensor:
        return label @ self.embed.weight if label.is_floating_point() else self.embed(label)


class Changed(nn.Module):
    """A head, and a layer beside it. A subclass says what it adds to the verdict, and to the affine part if it does.

    Spectral norm does not act on that layer.

    head: a module (features (batch, F), label) -> Verdict with `in_features` and `affine`, such as Head
    """

    outer = False  # does it go around all others?

    def __init__(self, head: nn.Module):
        super().__init__()
        self.head = head
        self.in_features: int = head.in_features
        self.condition: str | None = getattr(head, "condition", None)

    def affine(self, features: Tensor, label: Tensor | None = None) -> Affine:
        return self.head.affine(features, label)


def appended_classes(condition: str, num_classes: int) -> int:
    """Classes that a network's first layer is given beside the noise or the image."""
    return num_classes if condition == "concatenate" else 0
