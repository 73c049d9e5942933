"""Scores in training, the best checkpoint and generator by one of them, and an end when it no longer improves."""

import json
import logging
import math
from collections.abc import Callable, Iterator
from typing import Any

import pytorch_lightning as pl

from ganrun.game import Batch
from ganrun.metrics.protocol import difference
from ganrun.metrics.scorer import Scorer
from ganrun.run_dir import RunDir
from ganrun.seeding import generator

log = logging.getLogger("ganrun")
CHUNK = 256  # samples a forward pass


class Evaluate(pl.Callback):
    """Every `every` steps (0 = only at the end) scores fakes of the averaged weights; changes nothing of the training.

    Keeps checkpoints/best.ckpt by the metric `best_by`, None = the first, and lets `export` write the generator then.
    patience: training ends after so many scores in a row without a better one, None = never.
    """

    def __init__(
        self, run: RunDir, scorer: Scorer, *, every: int, export: Callable[[], None], best_by: str | None = None,
        patience: int | None = None,
    ):  # fmt: skip
        self.run = run
        self.scorer = scorer
        self.every = every
        self.export = export
        self.best_by = best_by or next(iter(scorer.metrics), None)
        self.patience = patience
        self.last: dict[str, Any] = {}  # step and scores
        self.best: dict[str, dict[str, Any]] = {}  # each metric's best value, and in which step
        self.waited = 0  # scores since the best one
        self._had: dict[str, dict[str, Any]] = {}  # the protocols of the best scores before a resume

    def state_dict(self) -> dict[str, Any]:
        return {"last": self.last, "best": self.best, "waited": self.waited, "protocols": self.scorer.protocols}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.last, self.best, self.waited, self._had = (state[key] for key in ("last", "best", "waited", "protocols"))

    def on_fit_start(self, trainer, pl_module) -> None:
        self.scorer.prepare(trainer.strategy.root_device)
        board = trainer.logger.experiment  # the first logger is TensorBoard's
        for name, protocol in self.scorer.protocols.items():
            board.add_text(f"protocol/{name}", json.dumps(protocol), trainer.global_step)

    def on_train_start(self, trainer, pl_module) -> None:
        protocols = self.scorer.protocols
        for name in [name for name in self.best if (unlike := difference(self._had[name], protocols[name]))]:
            log.warning("the best %s so far counts no more, since its protocol differs: %s", name, unlike)
            del self.best[name]
            self.last, self.waited = {}, 0

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx) -> None:
        step = trainer.global_step
        due = (self.every and step % self.every == 0) or step == trainer.max_steps
        if not self.best_by or not due:
            return
        self.last = {"step": step}
        for name, score in self.scorer.score(self._fakes(pl_module)).items():
            self.last |= {name: score.value} | ({} if score.std is None else {f"{name}-std": score.std})
        for logger in trainer.loggers:
            logger.log_metrics({f"score/{name}": value for name, value in self.last.items() if name != "step"}, step)
        better = trainer.strategy.broadcast([name for name in self.scorer.metrics if self._is_best(name)])
        self.best |= {name: {"value": self.last[name], "step": step} for name in better}
        self.waited = 0 if self.best_by in better else self.waited + 1
        if self.best_by in better:  # in all processes, or in none
            trainer.save_checkpoint(self.run.best)
            if trainer.is_global_zero:
                self.export()
        if self.ended:
            trainer.should_stop = True

    def _is_best(self, name: str) -> bool:
        value, best = self.last[name], self.best.get(name, {"value": math.nan})["value"]
        return math.isnan(best) or (value < best if self.scorer.metrics[name].lower_is_better else value > best)

    @property
    def ended(self) -> str | None:
        """Why there is nothing left to hope for."""
        if self.patience is None or self.waited < self.patience:
            return None
        return f"no better {self.best_by} than at step {self.best[self.best_by]['step']:,} in {self.waited} scores"

    def on_train_end(self, trainer, pl_module) -> None:
        finals = {f"hp/{name}": self.last[name] for name in self.scorer.metrics if self.last}
        trainer.logger.log_metrics(finals, trainer.global_step)  # TensorBoard's: the values beside the hparams

    def _fakes(self, pl_module) -> Iterator[Batch]:
        noise = pl_module.noise(self.scorer.num_fake, generator(pl_module.seed, "evaluate"), self.scorer.labels())
        for start in range(0, self.scorer.num_fake, CHUNK):
            some = {key: value[start : start + CHUNK] for key, value in noise.items()}
            fake = self.scorer.data.as_stored(pl_module.show(some)["fake"])
            yield {"fake": fake} | {k: v for k, v in some.items() if k == "label"}
