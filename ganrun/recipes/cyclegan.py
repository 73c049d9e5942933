"""Unpaired translation: two generators that undo each other, each against a discriminator of its own domain."""

from typing import ClassVar

from torch import nn

from ganrun.adversary import Adversary, Judge
from ganrun.game import Batch, Losses, Player, Recipe


class CycleGAN(Recipe):
    """Two domains, a = the data's source and b = its real images (Zhu et al. 2017, arXiv 1703.10593, eq. 3).

    a2b:         generator from a to b; one player moves both generators
    b2a:         generator from b to a
    adversary_a: tells real from generated images of domain a; one player moves both discriminators
    adversary_b: the same for domain b
    terms:       further losses by name; those of the paper are cycle and identity
    """

    needs = ("source", "real")
    unpaired = True
    compared: ClassVar = {"fake_b": "real", "fake_a": "source"}
    panels: ClassVar = {
        **{"source": "a", "fake_b": "a to b", "cycle_a": "and back"},
        **{"real": "b", "fake_a": "b to a", "cycle_b": "and back"},
    }
    translates: ClassVar = {"a2b": ("source", "real"), "b2a": ("real", "source")}

    def __init__(
        self,
        a2b: nn.Module,
        b2a: nn.Module,
        adversary_a: Adversary,
        adversary_b: Adversary,
        *,
        terms: dict[str, nn.Module] | None = None,
    ):
        super().__init__()
        self.a2b, self.b2a = a2b, b2a
        self.adversary_a, self.adversary_b = adversary_a, adversary_b
        self.terms = nn.ModuleDict(terms or {})

    def players(self) -> dict[str, Player]:
        critics = (self.adversary_a.discriminator, self.adversary_b.discriminator)
        return {
            "generator": Player((self.a2b, self.b2a), self._generator_losses, generates=True),
            "discriminator": Player(critics, self._discriminator_losses),
        }

    def generate(self, batch: Batch) -> Batch:
        return {"fake_b": self.a2b(batch["source"]), "fake_a": self.b2a(batch["real"])}

    def show(self, batch: Batch) -> Batch:
        shown = batch | self.generate(batch)
        return shown | {"cycle_a": self.b2a(shown["fake_b"]), "cycle_b": self.a2b(shown["fake_a"])}

    def _discriminator_losses(self, batch: Batch, generated: Batch) -> Losses:
        judges = self._judges()
        a = self.adversary_a.discriminator_losses(judges["a"], batch["source"], generated["fake_a"])
        b = self.adversary_b.discriminator_losses(judges["b"], batch["real"], generated["fake_b"])
        return self.with_terms(joined(a=a, b=b), "discriminator", judges, batch, generated)

    def _generator_losses(self, batch: Batch, generated: Batch) -> Losses:
        judges = self._judges()
        a = self.adversary_a.generator_losses(judges["a"], batch["source"], generated["fake_a"])
        b = self.adversary_b.generator_losses(judges["b"], batch["real"], generated["fake_b"])
        return self.with_terms(joined(a=a, b=b), "generator", judges, batch, generated)

    def _judges(self) -> dict[str, Judge]:
        return {"a": self.adversary_a.judge(), "b": self.adversary_b.judge()}


def joined(**losses: Losses) -> Losses:
    """One player's losses from several games, named after the game: adversarial_a, adversarial_b."""
    terms = {f"{name}_{of}": value for of, one in losses.items() for name, value in one.terms.items()}
    return Losses(terms, {f"{name}_{of}": value for of, one in losses.items() for name, value in one.stats.items()})
