"""The classic game: a generator maps noise to data, a discriminator tells it from real data."""

import torch
from torch import Tensor, nn

from ganrun.adversary import Adversary, Judge
from ganrun.game import Batch, Losses, Player, Recipe


class GAN(Recipe):
    """Generator against discriminator (Goodfellow et al. 2014, arXiv 1406.2661).

    condition: key of the batch that both networks are given, None = unconditional.
    terms: further losses by name, each with the `players` it belongs to and, if any, the losses that it `replaces`.
    conditioning: terms of the way in which the game is conditional, see conditioning.py.

    Example:
        recipe = GAN(generator, Adversary(discriminator, Hinge()))
        fakes = recipe.generate({"z": torch.randn(16, 100)})["fake"]  # (16, C, H, W)
    """

    def __init__(
        self,
        generator: nn.Module,
        adversary: Adversary,
        *,
        condition: str | None = None,
        terms: dict[str, nn.Module] | None = None,
        conditioning: dict[str, nn.Module] | None = None,
    ):
        super().__init__()
        self.generator = generator
        self.adversary = adversary
        self.condition = condition
        self.terms = nn.ModuleDict((conditioning or {}) | (terms or {}))

    def players(self) -> dict[str, Player]:
        return {
            "discriminator": Player((self.adversary.discriminator,), self._discriminator_losses),
            "generator": Player((self.generator,), self._generator_losses, generates=True),
        }

    def generate(self, batch: Batch) -> Batch:
        return {"fake": self.generator(batch["z"], batch.get(self.condition))}

    def judge(self, batch: Batch, generated: Batch) -> Judge:
        """The memory of the discriminator's verdicts in one move."""
        return self.adversary.judge(batch.get(self.condition))

    def classify(self, real: Tensor) -> Tensor | None:
        """Heads with two logits a class, or one more for fakes, have those of real classes first."""
        label = None  # any will do, since no class's logit depends on it
        if self.condition is not None:
            label = torch.zeros(len(real), dtype=torch.int64, device=real.device)
        return self.adversary.discriminator(real, label).classes

    def _discriminator_losses(self, batch: Batch, generated: Batch) -> Losses:
        judge = self.judge(batch, generated)
        losses = self.adversary.discriminator_losses(judge, batch["real"], generated["fake"])
        return self.with_terms(losses, "discriminator", judge, batch, generated)

    def _generator_losses(self, batch: Batch, generated: Batch) -> Losses:
        judge = self.judge(batch, generated)
        losses = self.adversary.generator_losses(judge, batch["real"], generated["fake"])
        return self.with_terms(losses, "generator", judge, batch, generated)
