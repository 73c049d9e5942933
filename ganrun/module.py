"""The only LightningModule: plays any game by manual optimization. One training step is one round of the schedule."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext
from itertools import islice, repeat

import pytorch_lightning as pl
import torch
from torch import Tensor, nn

from ganrun.ema import EMA
from ganrun.game import Batch, Losses, Now, Recipe, Timed, mean_losses
from ganrun.gradients import GradientMean
from ganrun.lazy import Lazy
from ganrun.modules import eager, per_rank_buffers, untrained
from ganrun.noise import Noise
from ganrun.optim import PlayerOptimizer, total_norm
from ganrun.schedule import Move, Schedule
from ganrun.seeding import derive, rng_for, seed_default_generators
from ganrun.standing import BATCH, measure


class GANModule(pl.LightningModule):
    """Walks the schedule: generate, freeze the others, sum the player's terms, backward, step; then average.

    A training batch holds all fresh batches of a round, stacked, then the further rows of those that are larger.

    noise:       what the recipe draws; None = nothing
    optimizers:  for each player, a callable from its parameters to a PlayerOptimizer
    batch_size:  images a move, over all devices
    micro_batch: images a pass on each device; None = all of its rows. A move's gradient is the mean over its passes.
                 Then no generation is shared between moves, and what looks at a whole batch (batch norm, relativistic
                 averages, minibatch statistics) sees one pass only; spectral norm's power method takes a step a pass
    seed:        with the step it determines everything drawn
    ema:         a callable from networks to an EMA; None = off
    frozen:      parameters of players' networks that stay as they are; checkpoints hold them all the same
    """

    def __init__(
        self,
        recipe: Recipe,
        noise: Noise | None,
        schedule: Schedule,
        optimizers: dict[str, Callable[..., PlayerOptimizer]],
        *,
        batch_size: int,
        micro_batch: int | None = None,
        seed: int = 0,
        ema: Callable[..., EMA] | None = None,
        frozen: Iterable[nn.Parameter] = (),
    ):
        super().__init__()
        self.automatic_optimization = False
        self.recipe = recipe
        self.noise = noise
        self.batch_size = batch_size
        self.micro_batch = micro_batch
        self.seed = seed
        self.compiled = False
        self.log_weight_norm = True  # does this step compute the norms of weights?
        self.attempt = 0  # rollbacks so far; part of every seed, so that the same path is not replayed
        self.num_batches = schedule.num_batches
        self.lazy_moves = schedule.lazy_moves
        self.players = recipe.players()
        self.moves = self._plan(schedule)
        self.larger = self._larger(schedule)
        self.further = [schedule.generator_batch - batch_size for _ in self.larger]
        self._trainable = {name: player.parameters() for name, player in self.players.items()}
        self.frozen = list(frozen)
        players_own = [p for ps in self._trainable.values() for p in ps] + self.frozen
        self.bystanders = untrained(recipe, {id(p) for p in players_own})
        for network in self.bystanders.values():
            network.eval().requires_grad_(False)
        for term in getattr(recipe, "terms", {}).values():
            if hasattr(term, "attach"):
                term.attach(recipe)
        self.ema = ema(self.generating_networks) if ema else None
        self.player_optimizers = {name: optimizers[name](self._trainable[name]) for name in self.players}
        self._timed = [module for module in recipe.modules() if isinstance(module, Timed)]
        self.per_rank = [f"recipe.{name}" for name in per_rank_buffers(recipe)]  # in the names of the state_dict
        self._apart = {*self.per_rank, *self.names_of_bystanders()}  # buffers that processes do not average
        self._means: dict[str, GradientMean] = {}  # by player, where there are several processes
        self.given: Callable[[int, int], Iterator[Batch]] | None = None  # data and labels for standing statistics
        self._generated: Batch = {}  # the outputs that the players fight over, until they are generated anew
        self.terms: dict[str, Tensor] = {}  # last value of each `<player>/<term>`, on the device
        self.numbers: dict[str, Tensor] = {}  # of this round alone, by name and move: all must be finite

    def _plan(self, schedule: Schedule) -> list[Move]:
        moves = schedule.plan({name: player.generates for name, player in self.players.items()})
        if not (self.recipe.anew or self.micro_batch) and schedule.generator_batch in (None, self.batch_size):
            return moves
        return [move._replace(generate=True, graph=self.players[move.player].generates) for move in moves]

    def _larger(self, schedule: Schedule) -> list[int]:
        """The batches with further rows, which generating players alone see."""
        if schedule.generator_batch in (None, self.batch_size):
            return []
        return sorted({move.batch for move in self.moves if self.players[move.player].generates})

    @property
    def generating_networks(self) -> tuple[nn.Module, ...]:
        """What the EMA averages and the generator file holds."""
        return tuple(network for player in self.players.values() if player.generates for network in player.networks)

    def train(self, mode: bool = True):
        """Networks that no player moves, such as a term's content network, stay in eval mode."""
        super().train(mode)
        for network in self.bystanders.values():
            network.eval()
        return self

    def configure_optimizers(self):
        return [player.optimizer for player in self.player_optimizers.values()]

    def on_fit_start(self) -> None:
        if self.trainer.world_size > 1:
            self._means = {name: GradientMean(parameters) for name, parameters in self._trainable.items()}

    def training_step(self, batch: Batch, batch_idx: int) -> None:
        torch.set_autocast_cache_enabled(False)  # Lightning before 2.5.5 keeps the casts of weights for the whole round
        step = self.global_step
        batches = self._fresh(batch, step)
        seed_default_generators(derive(self.seed, "step", step, self.global_rank, self.attempt))
        self.numbers = {}
        if self.compiled:
            torch.compiler.cudagraph_mark_step_begin()  # the graphs' outputs of the last round may be overwritten
        for i, move in enumerate(self.moves):
            self._play(i, self._seen(move, batches[move.batch]), step)
        self._generated = {}  # its graph would live until the next round
        if self.trainer.world_size > 1:
            self._average_buffers()
        for timed in self._timed:
            timed.end_round(Now(step + 1, 0, (step + 1) * self.batch_size))
        if self.ema:
            self.ema.update(step, self.batch_size)

    def _fresh(self, batch: Batch, step: int) -> list[Batch]:
        """The round's batches of data with their noise, this rank's rows of each."""
        rows = [size // self.trainer.world_size for size in [self.batch_size] * self.num_batches + self.further]
        data = split(batch, rows)
        noise = self._noise(self.num_batches, self.batch_size, "noise", step)
        if self.further:
            noise += self._noise(len(self.further), self.further[0], "further noise", step)
        parts = [some | drawn for some, drawn in zip(data, noise, strict=True)]
        for index, more in zip(self.larger, parts[self.num_batches :], strict=True):
            parts[index] = {key: torch.cat([value, more[key]]) for key, value in parts[index].items()}
        return parts[: self.num_batches]

    def _noise(self, num: int, size: int, name: str, step: int) -> list[Batch]:
        """This rank's rows of the noise that the whole round draws over all ranks, for `num` batches of `size`."""
        if self.noise is None:
            return [{}] * num
        drawn = self.noise(num * size, rng_for(self.seed, name, step, self.attempt))
        rows = size // self.trainer.world_size
        first = self.global_rank * rows
        own = {key: value.unflatten(0, (num, -1))[:, first : first + rows] for key, value in drawn.items()}
        if self.device.type == "cuda":  # otherwise the host would wait for the copy
            own = {key: value.contiguous().pin_memory() for key, value in own.items()}
        own = {key: value.to(self.device, non_blocking=self.device.type == "cuda") for key, value in own.items()}
        return [{key: value[i] for key, value in own.items()} for i in range(num)]

    def _seen(self, move: Move, batch: Batch) -> Batch:
        """The rows of a batch that a move sees: further ones are for generating players."""
        if not self.further or self.players[move.player].generates:
            return batch
        return {key: value[: self.batch_size // self.trainer.world_size] for key, value in batch.items()}

    def _generate(self, move: Move, batch: Batch) -> Batch:
        if not move.graph:
            with torch.no_grad():
                return self.recipe.generate(batch)
        generating = [p for name, player in self.players.items() if player.generates for p in self._trainable[name]]
        with self._only(generating):
            return self.recipe.generate(batch)

    def _play(self, index: int, batch: Batch, step: int) -> None:
        """A player's move, and the lazy one that follows it where something is due."""
        for lazy in (False, True) if self.lazy_moves else (None,):
            now = Now(step, index, step * self.batch_size, lazy)
            for timed in self._timed:
                timed.now = now
            if not lazy or self._lazy(self.moves[index].player):
                self._move(index, batch, now)

    def _lazy(self, name: str) -> list[Lazy]:
        """What is due in a player's move and acts every few steps. Terms name their players; penalties do not."""
        lazy = [module for module in self._timed if isinstance(module, Lazy) and module.every > 1 and module.due]
        others = () if self.players[name].generates else (name,)
        return [module for module in lazy if name in getattr(module, "players", others)]

    def _move(self, index: int, batch: Batch, now: Now) -> None:
        move = self.moves[index]
        if now.lazy:
            player = self.players[move.player]
            anew = player.generates or bool(self.micro_batch)  # otherwise the move's own generation is still there
            anew = anew and any(module.needs_generated for module in self._lazy(move.player))
            move = move._replace(generate=anew, graph=anew and player.generates)
        optimizer = self.player_optimizers[move.player]
        losses = self._add_gradients(move, batch)
        if now.lazy and not losses.terms:  # what is due belongs to another player
            return
        gradient = optimizer.before_step(now)
        self._step_optimizer(move.player, counts=not now.lazy and index == len(self.moves) - 1)
        optimizer.after_step()
        norms = {"lazy_gradient_norm" if now.lazy else "gradient_norm": gradient}
        if self.log_weight_norm:
            norms["weight_norm"] = self.weight_norm(move.player)
        for name, value in (losses.terms | norms | losses.stats).items():
            self.terms[f"{move.player}/{name}"] = value
        for name, value in (losses.terms | norms).items():  # in the order in which a bad value spreads
            self.numbers[f"{move.player}/{name} (move {index + 1} of {len(self.moves)})"] = value

    def weight_norm(self, player: str) -> Tensor:
        """The norm over all parameters of a player; not finite if one of them is not."""
        return total_norm(self._trainable[player])

    def _add_gradients(self, move: Move, batch: Batch) -> Losses:
        """The gradient of a player's loss, the mean over the batch's passes and over all processes."""
        parts, mean = in_parts(batch, self.micro_batch), self._means.get(move.player)
        losses = []
        for i, part in enumerate(parts):
            if move.generate:
                self._generated = self._generate(move, part)
            if mean and i == len(parts) - 1:
                mean.expect()
            losses.append(self._backward(move.player, part, adds=i > 0, share=1 / len(parts)))
        if mean:
            mean.finish()
        return mean_losses(losses)

    def _backward(self, name: str, batch: Batch, *, adds: bool, share: float) -> Losses:
        player, generated = self.players[name], self._generated
        if not player.generates:
            generated = {key: value.detach() for key, value in generated.items()}
        with self._only(self._trainable[name]):
            losses = player.losses(batch, generated)
            if self.recipe.now.lazy and not losses.terms:
                return losses
            if not adds:  # only now, so that the new gradients reuse the memory of the old ones
                self.player_optimizers[name].optimizer.zero_grad(set_to_none=True)
            (losses.total() * share).backward()  # Lightning's additions, hooks and a loss scaler, are not used
        return losses.detached()

    def _step_optimizer(self, player: str, *, counts: bool) -> None:
        """Lightning's `global_step` counts the steps that go through Lightning: only the last one of a round does.

        A loss scaler for fp16, which Lightning would add to a step, is not used here.
        """
        if not counts:
            self.player_optimizers[player].optimizer.step()
            return
        optimizers = self.optimizers()
        (optimizers if isinstance(optimizers, list) else [optimizers])[list(self.players).index(player)].step()

    def _average_buffers(self) -> None:
        """Running statistics come from each process's own rows; all processes then take their mean.

        State that acts on training is thus the same everywhere. Integers, such as counters, are already the same.
        """
        named = self.recipe.named_buffers(prefix="recipe")
        buffers = [b for name, b in named if b.is_floating_point() and name not in self._apart]
        if buffers:
            flat = torch.cat([b.float().flatten() for b in buffers])
            torch.distributed.all_reduce(flat)
            means = (flat / self.trainer.world_size).split([b.numel() for b in buffers])
            for buffer, mean in zip(buffers, means, strict=True):
                buffer.copy_(mean.view_as(buffer))

    def on_save_checkpoint(self, checkpoint) -> None:
        """Gathers what each process keeps to itself into the one checkpoint; averages get statistics of their own."""
        if self.ema:
            with self.averaged():
                pass
            checkpoint["state_dict"].update(self.ema.state_dict(prefix="ema."))
        for name in self.names_of_bystanders():  # they are loaded again from their own source
            del checkpoint["state_dict"][name]
        own = {name: checkpoint["state_dict"][name].cpu() for name in self.per_rank}
        every = [own] * self.trainer.world_size
        if self.trainer.world_size > 1:
            torch.distributed.all_gather_object(every, own)
        checkpoint["per_rank"] = every

    def on_load_checkpoint(self, checkpoint) -> None:
        checkpoint["state_dict"].update(checkpoint["per_rank"][self.global_rank])
        if self.ema:
            self.ema.forget()
        own = self.state_dict()
        checkpoint["state_dict"].update({name: own[name] for name in self.names_of_bystanders()})

    def names_of_bystanders(self) -> list[str]:
        """The names of the bystanders' tensors in the state_dict."""
        return [f"recipe.{path}.{name}" for path, network in self.bystanders.items() for name in network.state_dict()]

    @contextmanager
    def _only(self, parameters: list[nn.Parameter]) -> Iterator[None]:
        """Freezes all players' parameters but these; gradients for the others would be computed only to be dropped."""
        mine = {id(p) for p in parameters}
        others = [p for ps in self._trainable.values() for p in ps if id(p) not in mine]
        for p in others:
            p.requires_grad_(False)
        try:
            yield
        finally:
            for p in others:
                p.requires_grad_(True)

    def compile_networks(self, **settings: str) -> None:
        """Compiles the players' networks in place, so that no name changes. settings: torch.compile's arguments.

        Penalties stay eager, since a compiled call cannot be differentiated twice, and so does `show`.
        """
        self.compiled = True
        for player in self.players.values():
            for network in player.networks:
                network.compile(**settings)

    @torch.no_grad()
    def show(self, batch: Batch, *, averaged: bool = True) -> Batch:
        """What grids and scores see, in eval mode. Changes nothing. averaged: averaged weights, else live ones."""
        with self._looking(), self.averaged() if averaged else nullcontext():
            return self.recipe.show({key: value.to(self.device) for key, value in batch.items()})

    @torch.no_grad()
    def classify(self, real: Tensor) -> Tensor | None:
        """The recipe's `classify` in eval mode; changes nothing."""
        with self._looking():
            return self.recipe.classify(real.to(self.device))

    @contextmanager
    def _looking(self) -> Iterator[None]:
        """Within it everything is in eval mode and runs eagerly."""
        training = self.training
        self.eval()
        try:
            with eager(self.recipe):
                yield
        finally:
            self.train(training)

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """Within it the generating networks hold their averages, if any, with standing statistics if asked for."""
        with self.ema.applied() if self.ema else nullcontext():
            if self.ema and self.ema.standing and not self.ema.stands:
                with eager(self.recipe):
                    measure(self.generating_networks, self.recipe.generate, self._to_measure(self.ema.standing))
                self.ema.stands = True
            yield

    def _to_measure(self, num: int) -> Iterator[Batch]:
        """`num` batches for standing statistics, the same each time."""
        given = self.given(num, BATCH) if self.given else repeat({})
        rng = rng_for(self.seed, "standing")
        for batch in islice(given, num):
            rows = min((len(value) for value in batch.values()), default=BATCH)
            batch = batch | (self.noise(rows, rng) if self.noise else {})
            yield {key: value.to(self.device) for key, value in batch.items()}

    def look(
        self, num: int, draw: str, given: Iterable[Batch] | None = None, *, averaged: bool = True, chunk: int = 256
    ) -> Iterator[Batch]:
        """`num` examples as `show` gives them, `chunk` at a time. Pictures, scores and the watch for a collapse all see
        a generator this way.

        draw: names the noise, which is the same each time. given: labels or data for the examples, in parts of
        `chunk`; None = none.
        """
        noise = self.noise(num, rng_for(self.seed, draw)) if self.noise else {}
        parts = iter(given or ())
        for start in range(0, num, chunk):
            some = {key: value[start : start + chunk] for key, value in noise.items()}
            yield self.show(some | next(parts, {}), averaged=averaged)


def in_parts(batch: Batch, rows: int | None) -> list[Batch]:
    """A batch cut into parts of `rows` rows; None = one part."""
    return [batch] if rows is None else split(batch, rows)


def split(batch: Batch, rows: int | list[int]) -> list[Batch]:
    """A batch cut into parts of `rows` rows, one number for all or one for each."""
    parts = {key: value.split(rows) for key, value in batch.items()}
    return [dict(zip(parts, values, strict=True)) for values in zip(*parts.values(), strict=True)]
