"""What the two players lose on classes, beside the adversarial loss; each belongs to one option of `conditional`.

Labels y (batch,) are those of the reals, for which the fakes are made too.
"""

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, relu

from ganrun.adversary import Judge
from ganrun.errors import UserError
from ganrun.game import Batch, Recipe, Verdict, at_least_float32
from ganrun.lazy import Lazy
from ganrun.ramps import Ramp


class ClassLoss(Lazy):
    """A term of both players that looks at the logits of classes. A subclass defines what each loses.

    key: the generated output; label: the key of the labels. Raises UserError for a discriminator without such logits.
    """

    players = ("discriminator", "generator")
    by_player = True
    head = "classes"  # the discriminator's condition that it needs

    def __init__(self, weight: float | Ramp = 1.0, key: str = "fake", label: str = "label", every: int = 1):
        super().__init__(weight, every)
        self.key, self.label = key, label

    def discriminator(self, real: Verdict, fake: Verdict, y: Tensor) -> Tensor:
        raise NotImplementedError

    def generator(self, fake: Verdict, y: Tensor) -> Tensor:
        raise NotImplementedError

    def forward(self, recipe: Recipe, judge: Judge, batch: Batch, generated: Batch, player: str) -> Tensor:
        if isinstance(judge, dict):
            raise UserError(f"conditional: its loss needs one discriminator; this recipe has {', '.join(judge)}")
        fake, y = seen(judge(generated[self.key]), self.head), batch[self.label]
        if player == "generator":
            return self.strength * self.generator(fake, y)
        return self.strength * self.discriminator(seen(judge(batch["real"]), self.head), fake, y)


def seen(verdict: Verdict, head: str) -> Verdict:
    """The verdict in float32. Raises UserError if it says nothing of classes."""
    if verdict.classes is None:
        raise UserError(f"conditional: its loss needs a discriminator with condition={head}")
    embedding = None if verdict.embedding is None else at_least_float32(verdict.embedding)
    return verdict._replace(classes=at_least_float32(verdict.classes), embedding=embedding)


class Auxiliary(ClassLoss):
    """AC-GAN, Odena et al. 2017, arXiv 1610.09585, eq. 2: both players want images to be told as their class.

    on_fakes: the discriminator also learns from fakes, as in the paper; most later work has reals alone
    """

    def __init__(self, weight: float | Ramp = 1.0, on_fakes: bool = False, **settings: object):
        super().__init__(weight, **settings)
        self.on_fakes = on_fakes

    def discriminator(self, real: Verdict, fake: Verdict, y: Tensor) -> Tensor:
        loss = cross_entropy(real.classes, y)
        return loss + cross_entropy(fake.classes, y) if self.on_fakes else loss

    def generator(self, fake: Verdict, y: Tensor) -> Tensor:
        return cross_entropy(fake.classes, y)


class TwinAuxiliary(ClassLoss):
    """TAC-GAN, Gong et al. 2019, arXiv 1907.02690, eq. 6: the generator confuses a second classifier, of fakes."""

    head = "two-classifiers"

    def discriminator(self, real: Verdict, fake: Verdict, y: Tensor) -> Tensor:
        return cross_entropy(halves(real)[0], y) + cross_entropy(halves(fake)[1], y)

    def generator(self, fake: Verdict, y: Tensor) -> Tensor:
        first, second = halves(fake)
        return cross_entropy(first, y) - cross_entropy(second, y)


def halves(verdict: Verdict) -> tuple[Tensor, Tensor]:
    """The logits of two classifiers."""
    return verdict.classes.chunk(2, 1)


class AuxiliaryDiscriminative(ClassLoss):
    """ADC-GAN, Hou et al. 2022, arXiv 2107.10060, eq. 5 and 6: one classifier of 2C classes, C real and C fake.

    Class c of reals is logit c, of fakes logit C + c.
    """

    head = "classes-twice"

    def discriminator(self, real: Verdict, fake: Verdict, y: Tensor) -> Tensor:
        return cross_entropy(real.classes, y) + cross_entropy(fake.classes, y + fake.classes.shape[1] // 2)

    def generator(self, fake: Verdict, y: Tensor) -> Tensor:
        return cross_entropy(fake.classes, y) - cross_entropy(fake.classes, y + fake.classes.shape[1] // 2)


class SemiSupervised(Lazy):
    """Salimans et al. 2016, arXiv 1606.03498, section 5: -E log p(y | x, y < K + 1), of few labelled images.

    The adversarial loss of the head `classes-alone`, where D = Z / (Z + 1) and log Z is the logit, is the unsupervised
    part. labels_alone: True = there is no such part: the discriminator learns as a classifier of the labelled images.
    image, label: the keys of labelled images and of their labels.
    """

    players = ("discriminator",)

    def __init__(
        self, weight: float | Ramp = 1.0, labels_alone: bool = False, image: str = "labelled", label: str = "label"
    ):
        super().__init__(weight)
        self.replaces = ("adversarial",) if labels_alone else ()
        self.image, self.label = image, label

    def forward(self, recipe: Recipe, judge: Judge, batch: Batch, generated: Batch) -> Tensor:
        if isinstance(judge, dict):
            raise UserError(f"conditional: its loss needs one discriminator; this recipe has {', '.join(judge)}")
        labelled = seen(judge(batch[self.image]), "classes-alone")
        return self.strength * cross_entropy(labelled.classes, batch[self.label])


class DataToData(ClassLoss):
    """ReACGAN's D2D-CE, Kang et al. 2021, arXiv 2111.01118, eq. 10: cosines with the own class against other samples.

    The authors' code takes the largest similarity off the exponents of other samples, but not off the own class's.
    temperature: tau. margin: m_p, above which a sample is near enough to its class; m_n = 1 - m_p.
    """

    head = "embedding"

    def __init__(self, weight: float | Ramp = 0.5, temperature: float = 0.5, margin: float = 0.98, **settings: object):
        super().__init__(weight, **settings)
        self.temperature, self.margin = temperature, margin

    def discriminator(self, real: Verdict, fake: Verdict, y: Tensor) -> Tensor:
        return self.generator(real, y)

    def generator(self, fake: Verdict, y: Tensor) -> Tensor:
        own = fake.classes.gather(1, y[:, None])
        own = -relu(self.margin - own) / self.temperature
        others = relu(fake.embedding @ fake.embedding.T - (1 - self.margin)) / self.temperature
        others = others.masked_fill(y[:, None] == y, -torch.inf)  # samples of other classes alone
        return (torch.cat([own, others], 1).logsumexp(1) - own.squeeze(1)).mean()


class Contrastive(ClassLoss):
    """ContraGAN's 2C loss, Kang and Park 2020, arXiv 2006.12681, eq. 8: near the own class, and samples of it.

    temperature: t
    """

    head = "embedding"

    def __init__(self, weight: float | Ramp = 1.0, temperature: float = 1.0, **settings: object):
        super().__init__(weight, **settings)
        self.temperature = temperature

    def discriminator(self, real: Verdict, fake: Verdict, y: Tensor) -> Tensor:
        return self.generator(real, y)

    def generator(self, fake: Verdict, y: Tensor) -> Tensor:
        own = fake.classes.gather(1, y[:, None]) / self.temperature
        itself = torch.eye(len(y), dtype=torch.bool, device=y.device)
        pairs = (fake.embedding @ fake.embedding.T / self.temperature).masked_fill(itself, -torch.inf)
        alike = pairs.masked_fill(y[:, None] != y, -torch.inf)
        every, near = (torch.cat([own, some], 1).logsumexp(1) for some in (pairs, alike))
        return (every - near).mean()


class MultiHinge(ClassLoss):
    """MHingeGAN, Kavalerov et al. 2021, arXiv 1912.04216, eq. 7 and 8: Crammer and Singer's hinge over K + 1 classes.

    It replaces the adversarial loss. generator_weight: of the generator's part.
    """

    head = "classes-and-fake"
    replaces = ("adversarial",)

    def __init__(self, weight: float | Ramp = 1.0, generator_weight: float = 1.0, **settings: object):
        super().__init__(weight, **settings)
        self.generator_weight = generator_weight

    def discriminator(self, real: Verdict, fake: Verdict, y: Tensor) -> Tensor:
        return crammer_singer(real.classes, y) + crammer_singer(
            fake.classes, torch.full_like(y, real.classes.shape[1] - 1)
        )

    def generator(self, fake: Verdict, y: Tensor) -> Tensor:
        return self.generator_weight * crammer_singer(fake.classes, y)


def crammer_singer(logits: Tensor, y: Tensor) -> Tensor:
    """Mean of max(0, 1 - logit of y + the largest other logit): Crammer and Singer 2001."""
    own = logits.gather(1, y[:, None])
    other = logits.scatter(1, y[:, None], -torch.inf).amax(1)
    return relu(1 - own.squeeze(1) + other).mean()
