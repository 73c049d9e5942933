"""Samplers that ask the discriminator: they choose the noise of each sample, by what it becomes.

Both take exp(D(G(z))) for the ratio of the data's density to the generator's, which a discriminator estimates that was
trained by cross-entropy (Goodfellow et al. 2014, arXiv 1406.2661, section 4.1).
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from ganrun.errors import UserError, require
from ganrun.noise import Noise
from ganrun.seeding import derive

CHUNK = 256  # burn-in samples a pass
MOST_TRIES = 10_000  # candidates for one sample
EPSILON = 1e-6  # keeps the logarithm finite for the best candidate

Logits = Callable[[Tensor, Tensor | None], Tensor]  # (z, labels) -> D(G(z)) (num,)


def judged(generator: nn.Module, discriminator: nn.Module, device: torch.device | str = "cpu") -> Logits:
    """D(G(z)), which differentiates in z. Raises UserError for a discriminator with several logits an image."""

    def logits(z: Tensor, labels: Tensor | None) -> Tensor:
        labels = None if labels is None else labels.to(device)
        found = discriminator(generator(z.to(device), labels), labels).logits.float()
        if found.dim() > 1:
            raise UserError(f"sampler: this discriminator has {found[0].numel()} logits an image; expected one")
        return found.cpu()

    return logits


class Sampler(ABC):
    """Chooses noise. Sample i depends on (seed, i) and its label alone, apart from rounding.

    logits: see `judged`. noise: what z is drawn from.
    """

    name: str

    def __init__(self, logits: Logits, noise: Noise):
        self.logits, self.noise = logits, noise

    @property
    @abstractmethod
    def about(self) -> str:
        """The sampler and its settings, for a protocol."""

    @abstractmethod
    def draw(self, numbers: Sequence[int], seed: int, labels: Tensor | None = None) -> Tensor:
        """Noise (num, z_dim) of the samples with these numbers. labels: (num, ...), None = unconditional."""

    def _rngs(self, numbers: Sequence[int], seed: int) -> list[torch.Generator]:
        return [torch.Generator().manual_seed(derive(seed, self.name, i)) for i in numbers]


def acceptance(logits: Tensor, largest: float, gamma: float) -> Tensor:
    """F (num,), whose sigmoid is the probability that a sample stays: Azadi et al. 2019, arXiv 1810.06758, section 3.

    With gamma 0 this probability is exp(logits - largest), that of exact rejection sampling.
    """
    below = (logits - largest).clamp(max=0.0)
    return below - torch.log(-torch.expm1(below - EPSILON)) - gamma


class DRS(Sampler):
    """Discriminator rejection sampling (Azadi et al. 2019, arXiv 1810.06758): keeps what is taken for real.

    burn_in:    samples, of a fixed seed, from which the largest logit and gamma are found
    percentile: gamma is this percentile of F over them
    gamma:      instead of by percentile; 0 = exact rejection, which may keep very few
    labels:     num -> labels of the burn-in samples; None = unconditional

    The paper raises the largest logit also while it samples, and finds gamma anew for each batch. Here both stay, so
    that a sample depends on its seed alone.
    """

    name = "drs"

    def __init__(
        self,
        logits: Logits,
        noise: Noise,
        *,
        burn_in: int = 10_000,
        percentile: float = 80.0,
        gamma: float | None = None,
        labels: Callable[[int], Tensor | None] = lambda num: None,
    ):
        super().__init__(logits, noise)
        require(2, burn_in=burn_in)
        if not 0 <= percentile <= 100:
            raise UserError(f"percentile={percentile}; expected 0 to 100")
        self.burn_in, self.percentile, self.gamma, self.labels = burn_in, percentile, gamma, labels
        self.bounds: tuple[float, float] | None = None  # the largest logit and gamma, once they are found

    @property
    def about(self) -> str:
        gamma = f"percentile {self.percentile:g}" if self.gamma is None else f"gamma {self.gamma:g}"
        return f"drs, {gamma} of {self.burn_in}"

    @torch.no_grad()
    def find(self) -> tuple[float, float]:
        """The largest logit and gamma. Raises UserError if hardly any candidate would stay."""
        rng, labels = torch.Generator().manual_seed(derive("drs burn-in")), self.labels(self.burn_in)
        z = self.noise(self.burn_in, rng)["z"]
        chunks = z.split(CHUNK)
        parts = zip(chunks, [None] * len(chunks) if labels is None else labels.split(CHUNK), strict=True)
        logits = torch.cat([self.logits(*part) for part in parts]).double()
        largest = logits.max().item()
        scores, gamma = acceptance(logits, largest, 0.0), self.gamma
        if gamma is None:
            gamma = scores.quantile(self.percentile / 100).item()
        kept = torch.sigmoid(scores - gamma).mean().item()
        if kept * MOST_TRIES < 10:
            advice = "lower percentile" if self.gamma is None else "gamma below 0, or percentile instead"
            raise UserError(f"sampler=drs: {kept:.1g} of all samples would stay; expected a {advice}")
        return largest, gamma

    @torch.no_grad()
    def draw(self, numbers, seed, labels=None):
        self.bounds = self.bounds or self.find()
        rngs = self._rngs(numbers, seed)
        made, left = torch.empty(len(rngs), self.noise.z_dim), torch.arange(len(rngs))
        for _ in range(MOST_TRIES):
            z = torch.cat([self.noise(1, rngs[i])["z"] for i in left])
            chance = torch.cat([torch.rand(1, generator=rngs[i]) for i in left])
            logits = self.logits(z, None if labels is None else labels[left])
            stays = chance < torch.sigmoid(acceptance(logits, *self.bounds))
            made[left[stays]] = z[stays]
            left = left[~stays]
            if not len(left):
                return made
        raise UserError(f"sampler=drs: none of {MOST_TRIES:,} candidates stayed; expected a lower percentile")


class DDLS(Sampler):
    """Discriminator driven latent sampling (Che et al. 2020, arXiv 2003.06060): Langevin dynamics of the noise.

    z <- z - step_size / 2 grad E(z) + sqrt(step_size) n with n ~ N(0, I) and E(z) = -log p(z) - D(G(z)), from z ~ p.
    No step is refused, so the stationary distribution has an error of the order of step_size.

    steps:     of the dynamics
    step_size: variance of the random part of a step
    """

    name = "ddls"

    def __init__(self, logits: Logits, noise: Noise, *, steps: int = 100, step_size: float = 0.01):
        super().__init__(logits, noise)
        require(1, langevin_steps=steps)
        if not 0 < step_size < math.inf:
            raise UserError(f"step_size={step_size}; expected more than 0")
        noise.energy(torch.zeros(1, noise.z_dim))  # refuses noise that has none
        self.steps, self.step_size = steps, step_size

    @property
    def about(self) -> str:
        return f"ddls, {self.steps} steps of {self.step_size:g}"

    def draw(self, numbers, seed, labels=None):
        rngs = self._rngs(numbers, seed)
        z = torch.cat([self.noise(1, rng)["z"] for rng in rngs])
        for _ in range(self.steps):
            random = torch.cat([torch.randn(1, self.noise.z_dim, generator=rng) for rng in rngs])
            z = z - self.step_size / 2 * self._gradient(z, labels) + math.sqrt(self.step_size) * random
        return z

    @torch.enable_grad()
    def _gradient(self, z: Tensor, labels: Tensor | None) -> Tensor:
        z = z.detach().requires_grad_(True)
        energy = self.noise.energy(z).sum() - self.logits(z, labels).sum()
        return torch.autograd.grad(energy, z)[0]
