"""A GAN as a differentiable game: named players, each with networks it moves and a loss it minimises.

The vocabulary of the core. A recipe owns the networks and says what is generated and what each player loses;
it knows no optimizer, trainer or logger.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn

Batch = dict[str, Tensor]  # named tensors, each (batch, ...): real, label, z, fake, ...


class Verdict(NamedTuple):
    """What every discriminator returns."""

    logits: Tensor  # (batch, *patches)
    features: Tensor  # (batch, F) before the last layer
    classes: Tensor | None = None  # (batch, K): logits of classes; see networks/heads.py
    embedding: Tensor | None = None  # (batch, E), each of length 1
    direction: Tensor | None = None  # (batch,): logits that teach the last direction alone; see networks/slicing.py
    code: Tensor | None = None  # (batch, K): what it takes a fake's code for; see networks/code.py
    maps: tuple[Tensor, ...] = ()  # what terms of this very network need, such as maps to decode


def at_least_float32(x: Tensor) -> Tensor:
    """Turns bf16, whose three digits are too few for a loss, into float32; float64 stays."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


@dataclass(frozen=True)
class Losses:
    """One player's losses on one batch. It minimises the sum of `terms`; `stats` are detached and only logged."""

    terms: dict[str, Tensor]
    stats: dict[str, Tensor] = field(default_factory=dict)

    def total(self) -> Tensor:
        return sum(self.terms.values())

    def detached(self) -> "Losses":
        return Losses({k: v.detach() for k, v in self.terms.items()}, {k: v.detach() for k, v in self.stats.items()})


def mean_losses(parts: list[Losses]) -> Losses:
    """The mean of the losses of equally large parts of a batch, detached."""
    if len(parts) == 1:
        return parts[0]
    terms, stats = ([getattr(part, kind) for part in parts] for kind in ("terms", "stats"))
    return Losses(
        *({key: torch.stack([one[key] for one in each]).mean() for key in each[0]} for each in (terms, stats))
    )


@dataclass(frozen=True)
class Player:
    """`losses(batch, generated)` is what the player minimises by moving `networks`.

    `generates` says that its move needs the graph of `Recipe.generate`.
    """

    networks: tuple[nn.Module, ...]
    losses: Callable[[Batch, Batch], Losses]
    generates: bool = False

    def parameters(self) -> list[nn.Parameter]:
        """The parameters that it moves."""
        return [p for network in self.networks for p in network.parameters() if p.requires_grad]


class Now(NamedTuple):
    """Where training stands, as host integers."""

    step: int  # rounds finished before this move
    move: int  # moves made in this round
    images: int  # images that one player has seen, over all devices
    lazy: bool | None = None  # is this a lazy move, of what acts every few steps alone? None = there are none


class Timed(nn.Module):
    """Something that changes with time. The training module sets `now` before each move; it is never saved."""

    now = Now(0, 0, 0)

    def end_round(self, now: Now) -> None:
        """Called after each round, when buffers are the same in all processes. now: as before the next round."""


class Recipe(Timed, ABC):
    """Owns the networks of one topology and the rules of its game. A subclass defines `players` and `generate`.

    compared:   for each output that is scored, the key of the data that it should resemble; the first one counts
    needs:      keys of the data that `generate` takes; the labels of a conditional game are always given
    panels:     keys of the images that a picture shows side by side for each example, with their headings
    unpaired:   True = each side of two-sided data comes in an order of its own
    anew:       True = what is generated depends on networks that other players move, so that each move generates anew
    translates: for each exported network that turns images into images, the keys of its input and its output

    Example:
        batch = {"z": torch.randn(4, 100), "real": images}
        losses = recipe.players()["generator"].losses(batch, recipe.generate(batch))
    """

    compared: ClassVar[Mapping[str, str]] = {"fake": "real"}
    needs: ClassVar[Sequence[str]] = ()
    panels: ClassVar[Mapping[str, str]] = {"fake": ""}
    unpaired: ClassVar[bool] = False
    anew: ClassVar[bool] = False
    translates: ClassVar[Mapping[str, tuple[str, str]]] = {}

    @abstractmethod
    def players(self) -> dict[str, Player]:
        """The players by name; the schedule uses the same names."""

    @abstractmethod
    def generate(self, batch: Batch) -> Batch:
        """The named outputs that the players fight over."""

    def show(self, batch: Batch) -> Batch:
        """What sample grids and scores see."""
        return batch | self.generate(batch)

    def classify(self, real: Tensor) -> Tensor | None:
        """Real samples -> logits (batch, K or more), the K classes first; None = no discriminator tells classes."""
        return None

    def with_terms(self, losses: Losses, player: str, judge: Any, batch: Batch, generated: Batch) -> Losses:
        """A player's losses plus those of the recipe's `terms` that join it and are due.

        judge: gives the terms their verdicts, in the recipe's form. A loss that a term replaces is only logged. In a
        lazy move, lazy terms alone are due.
        """
        own = {name: term for name, term in getattr(self, "terms", {}).items() if player in term.players}
        joining = {name: term for name, term in own.items() if getattr(term, "due", not self.now.lazy)}
        replaced = {name for term in joining.values() for name in getattr(term, "replaces", ())}
        terms = {name: value for name, value in losses.terms.items() if name not in replaced}
        for name, term in joining.items():
            told = (player,) if getattr(term, "by_player", False) else ()
            terms[name] = term(self, judge, batch, generated, *told)
        only_logged = {name: losses.terms[name].detach() for name in replaced & losses.terms.keys()}
        return Losses(terms, losses.stats | only_logged)

    def exports(self) -> dict[str, nn.Module]:
        """The networks that the generator file holds, by their names in the recipe and in its config."""
        generating = {id(net) for player in self.players().values() if player.generates for net in player.networks}
        return {name: network for name, network in self.named_children() if id(network) in generating}

    def discriminators(self) -> dict[str, nn.Module]:
        """The networks of players that do not generate, by their dotted paths in the recipe and in its config."""
        judging = {id(net) for player in self.players().values() if not player.generates for net in player.networks}
        return {path: network for path, network in self.named_modules() if id(network) in judging}


class PerRank(nn.Module):
    """A module with buffers that differ between processes, such as a pool of images; a checkpoint holds them all."""
