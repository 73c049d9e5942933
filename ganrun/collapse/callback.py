"""Watches for a collapse: the fakes' diversity, the discriminator's loss, the course of the score."""

import logging
import math
import sys
from collections.abc import Callable
from typing import Any, Literal

import pytorch_lightning as pl
import torch

from ganrun.adversary import Adversary
from ganrun.attributes import KEY as ATTRIBUTES
from ganrun.callbacks.scores import Evaluate
from ganrun.collapse.alarms import START, is_lost, is_saturated, sameness, told
from ganrun.collapse.diversity import Diversity, Reals, shrunk
from ganrun.data.datamodule import GANDataModule
from ganrun.game import Batch
from ganrun.metrics.protocol import difference
from ganrun.module import in_parts
from ganrun.seeding import derive, seed_default_generators

CHUNK = 64  # samples a forward pass
Action = Literal["warn", "stop", "rollback"]
log = logging.getLogger("ganrun")


class Collapse(pl.Callback):
    """Every `every` steps compares `num` fakes of a fixed noise, made by the live weights, with as many reals.

    It uses the live weights, since their average shows a collapse hundreds of steps later. It changes no weight and no
    draw of the training. A kind of collapse that shows in `patience` looks or scores in a row is a finding, reported
    once until it is over. The callback comes before Evaluate, so that every checkpoint holds its state of that step;
    a score is thus seen one step later.

    best:      returns the step of the checkpoint that a rollback goes back to, None if there is none
    action:    what follows a finding: warn, stop or rollback; the last two end the fit after the step; None = no looks
    every:     steps between looks
    num:       fakes, and reals, in a look
    patience:  looks or scores in a row that must show a collapse
    rollbacks: at most this many; then the run stops
    lr_factor: multiplies the learning rates at each rollback
    score:     name of the score to follow; None = none
    lower:     is a lower score better?
    """

    def __init__(
        self, datamodule: GANDataModule, evaluate: Evaluate, best: Callable[[], int | None], *, action: Action | None,
        every: int, num: int, patience: int, rollbacks: int, lr_factor: float, score: str | None, lower: bool = True,
    ):  # fmt: skip
        self.datamodule, self.evaluate, self.best = datamodule, evaluate, best
        self.action, self.every, self.patience = action, every, patience
        self.num = min(num, len(datamodule.data))
        self.rollbacks, self.lr_factor = rollbacks, lr_factor
        self.score, self.lower = score, lower
        self.findings: list[dict[str, Any]] = []
        self.ends: str | None = None  # how a finding ends this fit: stop or rollback
        self._reals: tuple[Reals, list[Batch] | None] | None = None  # and what the fakes are made from
        self._streaks: dict[str, int] = {}  # looks or scores in a row, by kind
        self._memory: dict[str, Any] = {"reach": None, "diverse": False, "first": None, "best": None, "scored": 0}
        self._memory["of"] = None  # name and protocol of the score that is followed

    def state_dict(self) -> dict[str, Any]:
        return {"findings": self.findings, "streaks": dict(self._streaks), "ends": self.ends, **self._memory}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        state = dict(state)
        self.findings, self._streaks = list(state.pop("findings")), dict(state.pop("streaks"))
        self.ends = state.pop("ends")
        self._memory = state

    def after_rollback(self, state: dict[str, Any]) -> dict[str, Any]:
        """The state to save in place of `state`, which the best checkpoint has: findings stay, patience starts anew."""
        return state | {"findings": self.findings, "streaks": {}, "ends": None}

    @property
    def doubts(self) -> bool:
        """Might the current state be the beginning of a collapse, so that no rollback should return to it?"""
        return self.action == "rollback" and any(self._streaks.get(kind) for kind in ("diversity", "discriminator"))

    def on_train_start(self, trainer, pl_module) -> None:
        self._follow()
        self.ends = trainer.strategy.broadcast(self.ends)
        if self.ends:  # it ended just before a kill, which left no time to record it
            trainer.should_stop = True
        if self.findings and trainer.is_global_zero:  # a rollback has cut them from the curves
            trainer.logger.experiment.add_text("collapse", self._all_told(), trainer.global_step)

    def _follow(self) -> None:
        """Starts to follow the score anew if the one from before a resume does not compare."""
        of = {"score": self.score} | self.evaluate.scorer.protocols.get(self.score, {})
        if self._memory["of"] and difference(self._memory["of"], of):
            self._memory |= {"first": None, "best": None}
            self._streaks.pop("score", None)
        self._memory["of"] = of

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx) -> None:
        if self.action is None:
            return
        seen = self._new_score(trainer)
        if trainer.global_step % self.every == 0:
            seen += self._look(trainer, pl_module)
        self._heed(trainer, pl_module, seen)

    def on_train_end(self, trainer, pl_module) -> None:
        last = trainer.global_step == trainer.max_steps or self.evaluate.ended
        if self.action is not None and last and not self.ends:  # no later step will see the last score
            self._heed(trainer, pl_module, self._new_score(trainer))

    def _look(self, trainer, pl_module) -> list[tuple[str, int, str, int]]:
        numbers = (saturation(pl_module), self._diversity(pl_module)) if trainer.is_global_zero else None
        shares, seen = trainer.strategy.broadcast(numbers)  # so that all processes decide alike
        numbers = {f"collapse/{name}_loss_share": share for name, share in shares.items()}
        numbers |= {f"collapse/{name}": value for name, value in (seen._asdict() if seen else {}).items()}
        for logger in trainer.loggers if numbers else ():
            logger.log_metrics(numbers, trainer.global_step)
        signs = self._signs(seen) if seen else []
        sure = {name: share for name, share in shares.items() if is_saturated(share, 1.0)}
        losses = [f"the {name}'s loss is {share:.2%} of what it is at chance" for name, share in sure.items()]
        step, most = trainer.global_step, self.patience
        return [
            ("diversity", step, "; ".join(signs), most if self._memory["diverse"] else START * most),
            ("discriminator", step, "; ".join(losses), most),
        ]

    def _signs(self, seen: Diversity) -> list[str]:
        memory = self._memory
        memory["reach"] = seen.reach if memory["reach"] is None else max(memory["reach"], seen.reach)
        signs = sameness(seen, memory["reach"])
        memory["diverse"] = memory["diverse"] or not signs
        return signs

    def _diversity(self, pl_module) -> Diversity | None:
        if self.num < 2:
            return None
        output, like = next(iter(pl_module.recipe.compared.items()))
        if self._reals is None:
            examples = self.datamodule.reals(self.num)
            device = "cpu" if pl_module.device.type == "mps" else pl_module.device  # mps has no fp64
            wanted = ("label", ATTRIBUTES, *pl_module.recipe.needs)
            given = {key: value for key, value in examples.items() if key in wanted}
            self._reals = Reals(examples[like].to(device)), in_parts(given, CHUNK) if given else None
        reals, given = self._reals
        with torch.random.fork_rng([pl_module.device] if pl_module.device.type == "cuda" else []), torch.no_grad():
            seed_default_generators(derive(pl_module.seed, "collapse"))  # for what a network draws inside
            shown = pl_module.look(self.num, "collapse", given, averaged=False, chunk=CHUNK)
            fake = torch.cat([shrunk(some[output].to(reals.pixels.device)) for some in shown])
            return reals.compare(fake)

    def _new_score(self, trainer) -> list[tuple[str, int, str, int]]:
        """What a new score says, if there is one; a score that is not finite says nothing."""
        last, memory = self.evaluate.last, self._memory
        if self.score is None or last.get("step", 0) <= memory["scored"] or self.score not in last:
            return []
        now, memory["scored"] = float(trainer.strategy.broadcast(last[self.score])), last["step"]
        if not math.isfinite(now):
            return []
        first = now if memory["first"] is None else memory["first"]
        best = now if memory["best"] is None else (min if self.lower else max)(memory["best"], now)
        memory |= {"first": first, "best": best}
        text = f"{self.score} is {now:.4g}, at best it was {best:.4g} (first {first:.4g})"
        return [("score", last["step"], text if is_lost(first, best, now, lower=self.lower) else "", self.patience)]

    def _heed(self, trainer, pl_module, seen: list[tuple[str, int, str, int]]) -> None:
        """Counts signs, and acts on those seen often enough. seen: (kind, step, words or "", how often is enough)."""
        found = []
        for kind, step, text, needed in seen:
            self._streaks[kind] = self._streaks.get(kind, 0) + 1 if text else 0
            if self._streaks[kind] == needed:
                found.append((kind, step, told(kind, step, text, needed)))
        if found:
            action, note = trainer.strategy.broadcast(self._choose(pl_module) if trainer.is_global_zero else None)
            for kind, step, text in found:
                self.findings.append({"step": step, "kind": kind, "text": text + note, "action": action})
            if action != "warn":
                self.ends, self._streaks, trainer.should_stop = action, {}, True
            if trainer.is_global_zero:
                self._tell(trainer, self.findings[-len(found) :])

    def _choose(self, pl_module) -> tuple[Action, str]:
        """What follows a finding, and how to say it."""
        if self.action != "rollback":
            return self.action, ""
        done = pl_module.attempt
        if done >= self.rollbacks:
            return "stop", f"; stopping, since {done} of {self.rollbacks} rollbacks are used up"
        if self.best() is None:
            return "stop", "; stopping, since there is no best checkpoint to go back to"
        factor = self.lr_factor ** (done + 1)
        return (
            "rollback",
            f"; back to the best state with {factor:.4g} x the learning rates ({done + 1} of {self.rollbacks})",
        )

    def _tell(self, trainer, findings: list[dict[str, Any]]) -> None:
        for finding in findings:
            log.warning(finding["text"])
            print(f"warning: {finding['text']}", file=sys.stderr)
        trainer.logger.experiment.add_text("collapse", self._all_told(), trainer.global_step)

    def _all_told(self) -> str:
        return "\n\n".join(finding["text"] for finding in self.findings)


def saturation(pl_module) -> dict[str, float]:
    """Each adversary's last discriminator loss divided by its value at chance, if that is more than 0.

    Keys are the player that moves the adversary, or the adversary's own name in the recipe if a player moves several.
    """
    adversaries = {path: m for path, m in pl_module.recipe.named_modules() if isinstance(m, Adversary)}
    shares = {}
    for name, player in pl_module.players.items():
        own = {path: a for path, a in adversaries.items() if any(net is a.discriminator for net in player.networks)}
        for path, adversary in own.items():
            chance = float(adversary.loss.discriminator(torch.zeros(2), torch.zeros(2)))
            loss = pl_module.terms.get(f"{name}/adversarial") if len(own) == 1 else None
            loss = adversary.latest if loss is None else loss
            if loss is not None and chance > 0:
                shares[name if len(own) == 1 else path] = float(loss) / chance
    return shares
