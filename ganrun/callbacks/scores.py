"""Scores in training, the best checkpoint and generator by one of them, and early stopping."""

import json
import logging
import math
from collections.abc import Callable, Iterator
from typing import Any

import pytorch_lightning as pl

from ganrun.data.datamodule import GANDataModule
from ganrun.files.run_dir import RunDir
from ganrun.game import Batch
from ganrun.metrics.protocol import difference
from ganrun.metrics.scorer import Scorer

log = logging.getLogger("ganrun")
CHUNK = 256  # samples a forward pass


class Evaluate(pl.Callback):
    """Every `every` steps scores fakes of the averaged weights; does not affect the training.

    Keeps checkpoints/best.ckpt by one metric, and has the generator written at the same time. The best scores of every
    metric are those of these weights, since no other step's weights are kept for them.

    every:    steps between scores; 0 = only at the end
    export:   writes the generator
    best_by:  name of the metric that decides; None = the first
    patience: scores in a row without a better one after which training ends; None = never
    ends:     does this step end training, so that it is not scored?
    doubts:   is the current state suspected of a collapse, so that it must not become the best one?
    """

    def __init__(
        self, run: RunDir, scorer: Scorer, datamodule: GANDataModule, *, every: int, export: Callable[[], None],
        best_by: str | None = None, patience: int | None = None, ends: Callable[[], bool], doubts: Callable[[], bool],
    ):  # fmt: skip
        self.run = run
        self.scorer = scorer
        self.datamodule = datamodule
        self.every = every
        self.export = export
        self.best_by = best_by or next(iter(scorer.metrics), None)
        self.patience = patience
        self.ends, self.doubts = ends, doubts
        self.last: dict[str, Any] = {}  # step and scores
        self.best: dict[str, Any] = {}  # step and scores of best.ckpt
        self.found_every = [every]  # steps between the scores that have been compared; resumes may add others
        self.waited = 0  # scores since the best one
        self.gives_up: str | None = None  # why a search ends the run here
        self._had: dict[str, Any] = {}  # how the best scores before a resume were made and chosen

    def state_dict(self) -> dict[str, Any]:
        made = {"best_by": self.best_by, "protocols": self.scorer.protocols, "every": self.found_every}
        return {"last": self.last, "best": dict(self.best), "waited": self.waited, "made": made}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.last, self.best, self.waited = state["last"], dict(state["best"]), state["waited"]
        self._had = state["made"]
        self.found_every = sorted({*self._had["every"], self.every})

    def on_fit_start(self, trainer, pl_module) -> None:
        self.scorer.prepare(trainer.strategy.root_device)
        board = trainer.logger.experiment  # the first logger is TensorBoard's
        for name, protocol in self.scorer.protocols.items():
            board.add_text(f"protocol/{name}", json.dumps(protocol), trainer.global_step)

    def on_train_start(self, trainer, pl_module) -> None:
        if self._had:
            self._forget_unlike()
        if self.ended:  # it ended just before a kill, which left no time to record it
            trainer.should_stop = True

    def _forget_unlike(self) -> None:
        """Drops scores from before a resume that do not compare with new ones."""
        now, had = self.scorer.protocols, self._had["protocols"]
        unlike = {name: difference(had.get(name, {}), now[name]) for name in now}
        for name in [name for name in self.best if unlike.get(name)]:
            log.warning("the best %s so far counts no more, since its protocol differs: %s", name, unlike[name])
            del self.best[name]
        if any(unlike.values()):
            self.last = {}
        if self._had["best_by"] != self.best_by:
            log.warning(
                "best.ckpt was chosen by %s: the next score is the first by %s", self._had["best_by"], self.best_by
            )
            self.best = {}
        if self.best_by not in self.best:
            self.best, self.waited, self.found_every = {}, 0, [self.every]

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx) -> None:
        step = trainer.global_step
        due = (self.every and step % self.every == 0) or step == trainer.max_steps
        if not self.best_by or not due or self.ends():
            return
        self.last = {"step": step}
        for name, score in self.scorer.score(self._fakes(pl_module), classify=pl_module.classify).items():
            self.last |= {name: score.value} | ({} if score.std is None else {f"{name}-std": score.std})
        for logger in trainer.loggers:
            logger.log_metrics({f"score/{name}": value for name, value in self.last.items() if name != "step"}, step)
        doubted = self.doubts() and self.best_by in self.best
        if trainer.strategy.broadcast(not doubted and self._is_best()):  # in all processes, or in none
            self.best, self.waited = self.last, 0
            trainer.save_checkpoint(self.run.best)
            if trainer.is_global_zero:
                self.export()
        else:
            self.waited += 1
        if self.ended:
            trainer.should_stop = True

    def _is_best(self) -> bool:
        value, best = self.last[self.best_by], self.best.get(self.best_by, math.nan)
        lower_is_better = self.scorer.metrics[self.best_by].lower_is_better
        return math.isnan(best) or (value < best if lower_is_better else value > best)

    @property
    def ended(self) -> str | None:
        """Why patience has run out; None if it has not."""
        if self.patience is None or self.waited < self.patience:
            return None
        since = f" than at step {self.best['step']:,}" if self.best else ""
        return f"no better {self.best_by}{since} in {self.waited} scores"

    def on_train_end(self, trainer, pl_module) -> None:
        finals = {f"hp/{name}": self.last[name] for name in self.scorer.metrics if self.last}
        trainer.logger.log_metrics(finals, trainer.global_step)  # TensorBoard's: the values beside the hparams

    def _fakes(self, pl_module) -> Iterator[Batch]:
        scorer, recipe = self.scorer, pl_module.recipe
        output, like = next(iter(recipe.compared.items()))
        labels = scorer.labels()
        given = None if labels is None else ({scorer.key: part} for part in labels.split(CHUNK))
        if recipe.needs:
            given = self.datamodule.examples(scorer.num_fake, CHUNK)
        for shown in pl_module.look(scorer.num_fake, "evaluate", given, chunk=CHUNK):
            target = {"target": scorer.data.as_stored(shown[like])} if scorer.paired else {}
            label = {} if labels is None else {scorer.key: shown[scorer.key]}
            yield {"fake": scorer.data.as_stored(shown[output])} | target | label
