"""Who moves how often, and which generation each move sees."""

from typing import NamedTuple

from ganrun.errors import UserError, one_of

MOST_MOVES = 1000  # of one player in a round; a round reads and holds a batch for each move


class Move(NamedTuple):
    """One player's move within a round."""

    player: str
    batch: int  # which of the round's fresh batches
    generate: bool  # generate anew before it
    graph: bool  # ... with a graph, since a generating player will use this generation


class Schedule:
    """Moves per round, in order: {"discriminator": 5, "generator": 1} is WGAN's n_critic = 5.

    Each move takes a fresh batch: reals and noise. With `share` the first move of the next player keeps the previous
    move's batch and generation, which saves a generator pass and changes no expected gradient. Without it every player
    draws anew, as in algorithm 1 of WGAN (arXiv 1701.07875) and of WGAN-GP (1704.00028). After a generating player has
    moved, its outputs are generated again, unless `reuse_stale`.

    lazy_moves: True = penalties and terms that act every few steps are a move of their own, after the player's: as in
    the code of StyleGAN2 (Karras et al. 2020, arXiv 1912.04958), on the batch of that move. False = they join the move.
    PlayerOptimizer's `lazy` is the correction that belongs to it.

    generator_batch: fakes in a generating player's move; None = as many as in any move. SNGAN's code has 64 reals and
    64 fakes in the discriminator's moves, 128 fakes in the generator's (Miyato et al. 2018, arXiv 1802.05957).

    Example:
        schedule = Schedule({"discriminator": 5, "generator": 1})
        moves = schedule.plan({"discriminator": False, "generator": True})  # six moves on five batches
    """

    def __init__(
        self,
        moves: dict[str, int],
        *,
        share: bool = True,
        reuse_stale: bool = False,
        generator_batch: int | None = None,
        lazy_moves: bool = False,
    ):
        wrong = {name: count for name, count in moves.items() if type(count) is not int or not 1 <= count <= MOST_MOVES}
        if wrong:
            got = " ".join(f"schedule.{name}={count}" for name, count in wrong.items())
            raise UserError(f"{got}; expected at least 1 move a player and at most {MOST_MOVES:,}")
        for name, value in {"share": share, "reuse_stale": reuse_stale, "lazy_moves": lazy_moves}.items():
            if not isinstance(value, bool):
                raise UserError(f"schedule.{name}={value}; expected true or false")
        self.moves = dict(moves)
        self.share = share
        self.reuse_stale = reuse_stale
        self.generator_batch = generator_batch
        self.lazy_moves = lazy_moves

    @property
    def num_batches(self) -> int:
        """Fresh batches that one round takes."""
        return sum(self.moves.values()) - (len(self.moves) - 1 if self.share else 0)

    def plan(self, generates: dict[str, bool]) -> list[Move]:
        """The moves of one round. generates: for each player, does its move need the graph of the generation?"""
        unknown = [name for name in self.moves if name not in generates]
        for name in unknown + [name for name in generates if name not in self.moves]:
            raise UserError(f"schedule.{name}: every player moves and no other; {one_of(generates, name)}")
        players = [name for name, count in self.moves.items() for _ in range(count)]
        moves, batch = [], -1
        for i, player in enumerate(players):
            shared = self.share and i > 0 and players[i - 1] != player
            after_generating = shared and generates[players[i - 1]]
            stale = after_generating and (generates[player] or not self.reuse_stale)  # a graph serves one move only
            batch += not shared
            moves.append(Move(player, batch, generate=not shared or stale, graph=False))
        return [move._replace(graph=self._feeds_generating(moves[i:], generates)) for i, move in enumerate(moves)]

    @staticmethod
    def _feeds_generating(moves: list[Move], generates: dict[str, bool]) -> bool:
        """Does the generation made before moves[0] reach the move of a generating player?"""
        if not moves[0].generate:
            return False
        users = [moves[0].player]
        for move in moves[1:]:
            if move.generate:
                break
            users.append(move.player)
        return any(generates[player] for player in users)
