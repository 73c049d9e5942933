"""A fit of a few steps in which everything is timed: steps, logs, pictures, scores, looks, checkpoints, the end.

Nothing is made for it that a run has not: it is the fit that `ganrun` starts, ended early. What a run does every so
many steps happens here in the last two steps: once with what is only made the first time, and once more.
"""

import math
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

import pytorch_lightning as pl
import torch
from torch import nn

from ganrun.files.run_dir import RunDir
from ganrun.lazy import Lazy
from ganrun.module import GANModule
from ganrun.modules import eager
from ganrun.signals import Signals
from ganrun.training.build import Parts
from ganrun.training.fit import Fit
from ganrun.training.flops import Flops
from ganrun.training.resources import USABLE, Cost, Mark, Peak, refuse_too_large, room
from ganrun.training.run import prepare
from ganrun.training.train_log import logging_to
from ganrun.training.trainer import rows_a_pass

WARM_UP = 3  # steps at the start that are not timed
FEW, MANY = 3, 30  # steps that are timed if they are slow, and if they are fast
SHORT = 2.0  # seconds that fast steps are timed for at least
SLOW = 20.0  # seconds after which an event is not repeated
NEVER = 2**62  # steps
LONGEST = 100_000  # steps whose kinds are counted one by one


def intervals(module: nn.Module) -> list[int]:
    """Those of all that is lazy in a module."""
    return sorted({part.every for part in module.modules() if isinstance(part, Lazy) and part.every > 1})


def kind_of(step: int, intervals: Sequence[int]) -> str:
    """What tells a step from others in its costs: the intervals of what is due in it."""
    return ",".join(str(every) for every in intervals if step % every == 0)


def kinds(steps: int, intervals: Sequence[int]) -> dict[str, float]:
    """How many of the first `steps` steps are of each kind; in long runs by their share in a period."""
    period = min(steps, math.lcm(*intervals), LONGEST)
    found = Counter(kind_of(step, intervals) for step in range(period))
    return {kind: count * steps / period for kind, count in found.items()}


class Enough(Exception):
    """The steps have been timed, and nothing else is to be."""


class Trial(pl.Callback):
    """Times the steps of a fit, then one or two of each event, and ends it. The last of the callbacks.

    seconds: for the steps, at most about so long. events: False ends the fit by Enough before any.
    """

    def __init__(self, fit: Fit, *, seconds: float, events: bool):
        self.fit, self.module, self.seconds, self.with_events = fit, fit.module, seconds, events
        self.intervals = intervals(self.module)
        self.kinds = kinds(fit.parts.cfg.steps, self.intervals)
        self.flops: dict[str, int] = {}
        self.times: dict[str, list[Cost]] = {}
        self.untimed: list[Cost] = []  # warm-up, without the steps that were counted
        self.warm: set[str] = set()  # kinds of steps that have run as they will
        self.events: dict[str, list[Cost]] = {}
        self.steps_memory: int | None = None
        self.last = 0  # the step after which the fit ends; 0 = not known yet
        named = {"logs": fit.scalars, "pictures": fit.samples, "looks": fit.collapse, "scores": fit.evaluate,
                 "checkpoints": fit.checkpoints}  # fmt: skip
        named |= {type(one).__name__: one for one in fit.parts.callbacks if isinstance(getattr(one, "every", 0), int)}
        self.callbacks = {name: one for name, one in named.items() if hasattr(one, "every")}
        self.every = {name: one.every for name, one in self.callbacks.items()}  # as the config has it
        for name, one in self.callbacks.items():
            one.every = NEVER
            one.on_train_batch_end = self._timed(name, one.on_train_batch_end)
        self.module.training_step = self._counted(self.module.training_step)

    def _counted(self, training_step: Callable[..., None]) -> Callable[..., None]:
        """The first step of each kind is counted, and runs eagerly, since a compiled one hides what it does."""

        def step(*args: Any) -> None:
            self.kind = kind_of(self.module.global_step, self.intervals)
            self.counts = self.kind not in self.flops
            if not self.counts:
                training_step(*args)
                return
            with eager(self.module.recipe), Flops() as counter:
                training_step(*args)
            self.flops[self.kind] = counter.total

        return step

    def _timed(self, name: str, act: Callable[..., None]) -> Callable[..., None]:
        def timed(trainer: pl.Trainer, *args: Any) -> None:
            if not self.last:
                act(trainer, *args)
                return
            size, mark = self._curves(), Mark.now()
            act(trainer, *args)
            cost = mark.until(Mark.now())
            self.events.setdefault(name, []).append(cost._replace(bytes=self._curves() - size))

        return timed

    def _curves(self) -> int:
        """Bytes of metrics.jsonl and TensorBoard's files."""
        self.fit.board.experiment.flush()
        files = [self.fit.run.metrics, *self.fit.run.tensorboard.rglob("*")]
        return sum(file.stat().st_size for file in files if file.is_file())

    def on_train_start(self, trainer, pl_module) -> None:
        self.curves = self._curves()
        self.peak = Peak(trainer.strategy.root_device)
        self.peak.phase()
        self.start = Mark.now()
        self.mark = self.start

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx) -> None:
        step, now = trainer.global_step, Mark.now()
        if not self.last:
            self._note(step, self.mark.until(now))
            if self._is_enough(now):
                self._end_steps(trainer)
        elif step < self.last:  # the first time is over
            self.fit.evaluate.best = {}  # so that the next score counts as the best one too
            if max(costs[0].seconds for costs in self.events.values()) > SLOW:
                self.last = step
        if step == self.last:
            if not self.with_events:
                raise Enough
            trainer.should_stop = True
        self.mark = Mark.now()

    def _note(self, step: int, cost: Cost) -> None:
        if self.counts:
            return
        compiles = self.module.compiled and self.kind not in self.warm
        self.warm.add(self.kind)
        if step <= WARM_UP or compiles:
            self.untimed.append(cost)
        else:
            self.times.setdefault(self.kind, []).append(cost)

    def _is_enough(self, now: Mark) -> bool:
        timed = sum(len(costs) for costs in self.times.values())
        took, total = now.wall - self.start.wall, sum(c.seconds for costs in self.times.values() for c in costs)
        if took > 3 * self.seconds:
            return timed > 0
        if took > self.seconds:
            return timed >= FEW
        whole = all(len(self.times.get(kind, [])) >= FEW for kind in self.kinds)
        return whole and timed >= MANY and total > SHORT

    def _end_steps(self, trainer: pl.Trainer) -> None:
        self.steps_memory = self.peak.phase()
        step = trainer.global_step
        if not self.with_events:
            self.last = step
            return
        self.last = step + 2
        for one in self.callbacks.values():
            one.every = 1
        (watch,) = (one for one in self.fit.callbacks if hasattr(one, "intervals"))
        watch.intervals = (1,)


def measure(parts: Parts, run: RunDir, *, seconds: float, events: bool) -> dict[str, Any]:
    """What a run of this config costs, found by a trial of it in the directory `run`; plain containers.

    seconds, events: see Trial. Raises what training raises, and OutOfMemory.
    """
    module, cfg = parts.module, parts.cfg
    with logging_to(run.log), Signals() as signals:
        prepare(run, None, goal=cfg.steps)
        fit = Fit(parts, run, None, signals)
        device = fit.trainer.strategy.root_device
        refuse_too_large(parts, device)
        space = room(device)
        fit.trainer.fit_loop.epoch_loop.max_steps = 10**6  # a run of one step has more steps in its trial
        fit.collapse.action = fit.collapse.action and "warn"
        trial = Trial(fit, seconds=seconds, events=events)
        fit.trainer.callbacks.append(trial)
        with suppress(Enough):
            run.write_result(fit.run_to_end())
        end = trial.mark.until(Mark.now())
    trial.peak.phase()
    return {
        "device": str(device),
        "threads": torch.get_num_threads(),
        "networks": networks(module),
        "activation_bytes": parts.activation_bytes,
        "images": rows_a_pass(cfg, 1),
        "kinds": trial.kinds,
        "flops": trial.flops,
        "times": trial.times,
        "untimed": trial.untimed,
        "start": {"at": time.time() - (time.perf_counter() - trial.start.wall), "cpu": trial.start.cpu},
        "every": trial.every,
        "events": trial.events,
        "end": end,
        "files": files(run) | {"curves at the start": trial.curves} if events else {},
        "memory": {"peak": trial.peak.most, "steps": trial.steps_memory, "room": int(USABLE * space)},
    }


def networks(module: GANModule) -> dict[str, dict[str, int]]:
    """Each player's networks by their names in the recipe, with the number of their parameters."""
    paths = {id(network): path for path, network in module.recipe.named_modules()}
    return {
        name: {paths[id(one)]: sum(p.numel() for p in one.parameters()) for one in player.networks}
        for name, player in module.players.items()
    }


def files(run: RunDir) -> dict[str, int]:
    """Bytes of each kind of file, one of those of which there are several."""
    pictures = [path.stat().st_size for path in run.samples.glob("step-*.png")]
    kept = {
        "checkpoint": [run.last],
        "best checkpoint": [run.best],
        "generators": [path for file in (run.generator, run.best_generator, run.discriminator)
                       for path in (file, file.with_suffix(".yaml"))],
        "snapshot": list(run.ema_snapshots().values())[:1],
        "about": [run.log, run.result, *run.hydra.iterdir()],
    }  # fmt: skip
    sizes = {name: sum(path.stat().st_size for path in paths if path.exists()) for name, paths in kept.items()}
    return sizes | {"picture": sum(pictures) // max(1, len(pictures))}
