"""Paired translation: a generator maps source images to their counterparts, a discriminator sees both together."""

from typing import ClassVar

from torch import nn

from ganrun.adversary import Adversary
from ganrun.game import Batch, Losses, Player, Recipe


class Pix2Pix(Recipe):
    """Conditional GAN on image pairs (Isola et al. 2017, arXiv 1611.07004, eq. 4).

    generator: source (batch, C, H, W) -> image (batch, C', H, W). The adversary's discriminator takes the source as its
    condition. terms: further losses by name, such as L1 to the true counterpart.
    """

    needs = ("source",)
    panels: ClassVar = {"source": "source", "fake": "output", "real": "target"}
    translates: ClassVar = {"generator": ("source", "real")}

    def __init__(self, generator: nn.Module, adversary: Adversary, *, terms: dict[str, nn.Module] | None = None):
        super().__init__()
        self.generator = generator
        self.adversary = adversary
        self.terms = nn.ModuleDict(terms or {})

    def players(self) -> dict[str, Player]:
        return {
            "discriminator": Player((self.adversary.discriminator,), self._discriminator_losses),
            "generator": Player((self.generator,), self._generator_losses, generates=True),
        }

    def generate(self, batch: Batch) -> Batch:
        return {"fake": self.generator(batch["source"])}

    def _discriminator_losses(self, batch: Batch, generated: Batch) -> Losses:
        judge = self.adversary.judge(batch["source"])
        losses = self.adversary.discriminator_losses(judge, batch["real"], generated["fake"])
        return self.with_terms(losses, "discriminator", judge, batch, generated)

    def _generator_losses(self, batch: Batch, generated: Batch) -> Losses:
        judge = self.adversary.judge(batch["source"])
        losses = self.adversary.generator_losses(judge, batch["real"], generated["fake"])
        return self.with_terms(losses, "generator", judge, batch, generated)
