"""Paired translation: a generator maps source images to their counterparts, a discriminator sees both together."""

from typing import ClassVar

from torch import nn

from ganrun.adversary import Adversary
from ganrun.game import Batch
from ganrun.recipes.gan import GAN


class Pix2Pix(GAN):
    """The classic game on image pairs (Isola et al. 2017, arXiv 1611.07004, eq. 4): the source takes the noise's place.

    generator: source (batch, C, H, W) -> image (batch, C', H, W). The adversary's discriminator takes the source as its
    condition. terms: further losses by name, such as L1 to the true counterpart.
    """

    needs = ("source",)
    panels: ClassVar = {"source": "source", "fake": "output", "real": "target"}
    translates: ClassVar = {"generator": ("source", "real")}

    def __init__(self, generator: nn.Module, adversary: Adversary, *, terms: dict[str, nn.Module] | None = None):
        super().__init__(generator, adversary, condition="source", terms=terms)

    def generate(self, batch: Batch) -> Batch:
        return {"fake": self.generator(batch["source"])}
