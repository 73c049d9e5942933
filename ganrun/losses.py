"""Adversarial losses: pure functions of logits first, then the classes that hold their settings.

Logits are (batch, *patches) in `real, fake` order; every loss is a scalar to minimise. Logits, not probabilities:
log sigmoid(x) = -softplus(-x).
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor, cat
from torch.nn.functional import relu, softplus


def cross_entropy(logits: Tensor, target: float) -> Tensor:
    """Mean binary cross-entropy of logits against one target probability in [0, 1]."""
    return (target * softplus(-logits) + (1 - target) * softplus(logits)).mean()


def logistic(real: Tensor, fake: Tensor, smoothing: float = 0.0) -> Tensor:
    """-E log D(x) - E log(1 - D(G(z))): Goodfellow et al. 2014, arXiv 1406.2661, eq. 1.

    One-sided label smoothing puts the real target at 1 - smoothing: Salimans et al. 2016, arXiv 1606.03498, 3.4.
    """
    return cross_entropy(real, 1 - smoothing) + cross_entropy(fake, 0.0)


def least_squares(real: Tensor, fake: Tensor, smoothing: float = 0.0) -> Tensor:
    """1/2 E(D(x) - b)^2 + 1/2 E D(G(z))^2, b = 1 - smoothing: Mao et al. 2017, arXiv 1611.04076, eq. 9."""
    return ((real - (1 - smoothing)).square().mean() + fake.square().mean()) / 2


def hinge(real: Tensor, fake: Tensor, of_real: float | Tensor = 1, of_fake: float | Tensor = 1) -> Tensor:
    """E max(0, 1 - D(x)) + E max(0, 1 + D(G(z))): Lim and Ye 2017, arXiv 1705.02894; Miyato et al. 2018, eq. 16.

    of_real, of_fake: the margins in place of 1, one number or one for each logit.
    """
    return relu(of_real - real).mean() + relu(of_fake + fake).mean()


def wasserstein(real: Tensor, fake: Tensor) -> Tensor:
    """E D(G(z)) - E D(x), the critic's loss: Arjovsky et al. 2017, arXiv 1701.07875, eq. 3."""
    return fake.mean() - real.mean()


def relativistic_pairing(real: Tensor, fake: Tensor) -> Tensor:
    """E softplus(-(D(x) - D(G(z)))) over pairs: Jolicoeur-Martineau 2018, arXiv 1807.00734; R3GAN, arXiv 2501.05441."""
    return softplus(fake - real).mean()


def relativistic_average(real: Tensor, fake: Tensor) -> Tensor:
    """Each side against the other's mean logit: Jolicoeur-Martineau 2018, arXiv 1807.00734, eq. 14 and 15."""
    return softplus(fake.mean() - real).mean() + softplus(fake - real.mean()).mean()


def dual_contrastive(real: Tensor, fake: Tensor) -> Tensor:
    """-E log e^D(x) / (e^D(x) + sum of e^D(G(z))), and the same of fakes against reals with -D: Yu et al. 2021,
    arXiv 2103.16748, eq. 3 and 4.

    Each real against all fakes of the pass, each fake against all reals.
    """
    real, fake = real.flatten(), fake.flatten()
    return against(real, fake) + against(-fake, -real)


def against(one: Tensor, others: Tensor) -> Tensor:
    """Mean of log(1 + sum over the others of exp(other - one)), of logits (n,) and (m,)."""
    pairs = cat([one[:, None], others.expand(len(one), -1)], 1)
    return (pairs.logsumexp(1) - one).mean()


class AdversarialLoss(ABC):
    """`discriminator(real, fake)` and `generator(real, fake)`, each the scalar that its player minimises.

    discriminator_factor: multiplies the discriminator's loss (0.5 slows it relative to the generator); 1 = off.

    Example:
        loss = Hinge()
        loss.discriminator(real=torch.ones(4), fake=-torch.ones(4))  # 0: all logits lie beyond the margin
    """

    needs_real = False  # may the generator's loss read D(real)?
    per_sample = True  # is the generator's loss a mean over samples, or over pairs if it reads D(real)?
    undecided: float | None = 0.0  # the logit of a discriminator that cannot tell; None = only differences count

    def __init__(self, discriminator_factor: float = 1.0):
        if discriminator_factor <= 0:
            raise ValueError(f"discriminator_factor={discriminator_factor}; expected more than 0 (1 = off)")
        self.discriminator_factor = discriminator_factor

    @abstractmethod
    def discriminator(self, real: Tensor, fake: Tensor) -> Tensor:
        """The discriminator's loss."""

    @abstractmethod
    def generator(self, real: Tensor | None, fake: Tensor) -> Tensor:
        """The generator's loss; `real` is None unless `needs_real`."""

    def slope(self, logits: Tensor) -> Tensor | None:
        """R'(logits), where the generator's loss is -E R(D(G(z))) with a rising R; None = it is no such mean."""
        return None

    def direction(self, real: Tensor, fake: Tensor, real_direction: Tensor, fake_direction: Tensor) -> Tensor:
        """What a slicing head's direction minimises: E <w, h> of fakes minus that of reals, samples weighted by R'.

        Takida et al. 2024, arXiv 2301.12811, section 6. real, fake: logits. real_direction, fake_direction: see
        networks/slicing.py.
        """
        means = []
        for logits, direction in ((real, real_direction), (fake, fake_direction)):
            weights = self.slope(logits.detach())
            means.append((weights * direction).sum() / weights.sum())
        return self.discriminator_factor * wasserstein(*means)


class Smoothed(AdversarialLoss):
    """A loss with a target for real logits, which one-sided label smoothing lowers to 1 - smoothing."""

    def __init__(self, smoothing: float = 0.0, discriminator_factor: float = 1.0):
        super().__init__(discriminator_factor)
        if not 0 <= smoothing < 1:
            raise ValueError(f"smoothing={smoothing}; expected 0 <= smoothing < 1 (0 = off)")
        self.smoothing = smoothing


class NonSaturating(Smoothed):
    """Generator maximises log D(G(z)): Goodfellow et al. 2014, section 3."""

    def discriminator(self, real, fake):
        return self.discriminator_factor * logistic(real, fake, self.smoothing)

    def generator(self, real, fake):
        return cross_entropy(fake, 1.0)

    def slope(self, logits):
        return (-logits).sigmoid()


class Minimax(NonSaturating):
    """Generator minimises log(1 - D(G(z))), which saturates where D is sure: Goodfellow et al. 2014, eq. 1."""

    def generator(self, real, fake):
        return -cross_entropy(fake, 0.0)

    def slope(self, logits):
        return logits.sigmoid()


class LeastSquares(Smoothed):
    """LSGAN: 1/2 E(D(G(z)) - 1)^2 for the generator."""

    @property
    def undecided(self) -> float:
        return (1 - self.smoothing) / 2  # between the targets

    def discriminator(self, real, fake):
        return self.discriminator_factor * least_squares(real, fake, self.smoothing)

    def generator(self, real, fake):
        return (fake - 1).square().mean() / 2


class LeastSquaresOfCycleGAN(LeastSquares):
    """E(D(G(x)) - 1)^2 for the generator, without the 1/2: Zhu et al. 2017, arXiv 1703.10593, section 4."""

    def generator(self, real, fake):
        return (fake - 1).square().mean()


class Hinge(AdversarialLoss):
    """Hinge for the discriminator, -E D(G(z)) for the generator.

    margin: 1, or (low, high) between which each logit's is drawn, as in FastGAN's code (Liu et al. 2021, 2101.04775).
    """

    def __init__(self, margin: float | Sequence[float] = 1.0, discriminator_factor: float = 1.0):
        super().__init__(discriminator_factor)
        low, high = (margin, margin) if isinstance(margin, float | int) else margin
        if not 0 < low <= high:
            raise ValueError(f"margin={margin}; expected a number above 0, or two, the lower one first")
        self.low, self.high = float(low), float(high)

    def discriminator(self, real, fake):
        return self.discriminator_factor * hinge(real, fake, self.margins(real), self.margins(fake))

    def margins(self, logits: Tensor) -> float | Tensor:
        if self.low == self.high:
            return self.low
        return self.low + (self.high - self.low) * torch.rand_like(logits)

    def generator(self, real, fake):
        return -fake.mean()

    def slope(self, logits):
        return logits.new_ones(logits.shape)


class Wasserstein(AdversarialLoss):
    """WGAN; the critic's Lipschitz bound comes from weight clipping or a gradient penalty, not from here."""

    undecided = None

    def discriminator(self, real, fake):
        return self.discriminator_factor * wasserstein(real, fake)

    def generator(self, real, fake):
        return -fake.mean()

    def slope(self, logits):
        return logits.new_ones(logits.shape)


class RelativisticPairing(AdversarialLoss):
    """RpGAN: a real and a fake are judged as a pair."""

    needs_real = True
    undecided = None

    def discriminator(self, real, fake):
        return self.discriminator_factor * relativistic_pairing(real, fake)

    def generator(self, real, fake):
        return relativistic_pairing(fake, real)


class RelativisticAverage(AdversarialLoss):
    """RaGAN: each logit is judged against the other side's mean."""

    needs_real = True
    per_sample = False
    undecided = None

    def discriminator(self, real, fake):
        return self.discriminator_factor * relativistic_average(real, fake)

    def generator(self, real, fake):
        return relativistic_average(fake, real)


class DualContrastive(AdversarialLoss):
    """Each sample of one kind against all of the other kind: Yu et al. 2021, arXiv 2103.16748.

    saturating: True = the generator maximises the discriminator's loss, as in the paper's eq. 3 and 4; False = it
    minimises that loss with reals and fakes exchanged, which has a gradient also where the discriminator is sure
    """

    needs_real = True
    per_sample = False
    undecided = None

    def __init__(self, saturating: bool = True, discriminator_factor: float = 1.0):
        super().__init__(discriminator_factor)
        self.saturating = saturating

    def discriminator(self, real, fake):
        return self.discriminator_factor * dual_contrastive(real, fake)

    def generator(self, real, fake):
        return -dual_contrastive(real, fake) if self.saturating else dual_contrastive(fake, real)
