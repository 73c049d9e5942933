"""Historical averaging: parameters stay near the mean of their own past."""

from collections.abc import Sequence

import torch
from torch import Tensor

from ganrun.adversary import Judge
from ganrun.errors import UserError, one_of
from ganrun.game import Batch, Player, Recipe
from ganrun.lazy import Lazy
from ganrun.ramps import Ramp


def flat(player: Player) -> Tensor:
    """All parameters of a player's networks, frozen ones included, as one vector."""
    return torch.cat([p.flatten() for network in player.networks for p in network.parameters()])


class HistoricalAveraging(Lazy):
    """|theta - 1/t sum theta[i]|^2 over all t moves so far: Salimans et al. 2016, arXiv 1606.03498, section 3.3.

    The sum includes the current parameters. The means are saved and resumed; they take as much memory as the networks.
    The paper names no weight.

    players: whose loss it joins.
    """

    by_player = True

    def __init__(self, weight: float | Ramp, players: Sequence[str], every: int = 1):
        super().__init__(weight, every)
        self.players = tuple(players)

    def attach(self, recipe: Recipe) -> None:
        """Makes the buffers: for each player the mean and the number of vectors that are in it."""
        known = recipe.players()
        for name in self.players:
            if name not in known:
                raise UserError(
                    f"term.historical-averaging.players=[{name}]: there is no such player; {one_of(known, name)}"
                )
            self.register_buffer(f"mean_{name}", torch.zeros_like(flat(known[name]), requires_grad=False))
            self.register_buffer(f"num_{name}", torch.zeros((), dtype=torch.int64))

    def forward(self, recipe: Recipe, judge: Judge, batch: Batch, generated: Batch, player: str) -> Tensor:
        theta = flat(recipe.players()[player])
        mean, num = getattr(self, f"mean_{player}"), getattr(self, f"num_{player}")
        with torch.no_grad():
            num += 1
            mean += (theta - mean) / num
        return self.strength * (theta - mean).square().sum()
