"""One fit: everything that watches training, the run directory it writes, and going on from a checkpoint."""

import os
import signal
from collections.abc import Iterable
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from omegaconf import OmegaConf
from pytorch_lightning.utilities import rank_zero_only

from ganrun.callbacks.checkpoint import CheckpointFiles, Checkpoints
from ganrun.callbacks.collapse import Collapse
from ganrun.callbacks.evaluate import Evaluate
from ganrun.callbacks.log import Log, MetricsFile, TensorBoard
from ganrun.callbacks.progress import ShowProgress
from ganrun.callbacks.samples import Samples
from ganrun.callbacks.watch import Watch
from ganrun.errors import UserError
from ganrun.experiment.build import Parts, build
from ganrun.experiment.failing import died, failing
from ganrun.experiment.norm import norm_notes
from ganrun.experiment.of_checkpoint import header
from ganrun.experiment.outcome import outcome
from ganrun.experiment.processes import further_processes
from ganrun.experiment.report import console, result_table, summary
from ganrun.experiment.rollback import best_step, rolled_back, save_rolled_back, set_attempt
from ganrun.experiment.state import Start, config_digest, flatten
from ganrun.experiment.train_log import log, logging_to
from ganrun.experiment.trainer import make_trainer
from ganrun.generator_file import save_generator
from ganrun.loggers import InRun
from ganrun.run_dir import RunDir
from ganrun.signals import Signals, requeue
from ganrun.storage import link, remove_partial


def train(parts: Parts, run: RunDir, start: Start | None = None, notes: Iterable[str] = ()) -> dict[str, Any]:
    """Fits, writes the run directory and returns what result.json holds.

    start: where to go on from; None starts anew. notes: warnings to show and to log. The caller owns the directory.
    Raises CannotWrite, NotFinite, and whatever a user's own code raises: all written down.
    """
    probe = make_trainer(parts.cfg, logger=False)
    if start and start.content["ganrun"]["world_size"] != probe.world_size:
        had = start.content["ganrun"]["world_size"]
        raise UserError(
            f"resume={run.path}: trained by {had} processes, got {probe.world_size}; the draws depend on it"
        )
    others = further_processes(probe, OmegaConf.to_container(parts.cfg, resolve=True), run, start, partial(died, run))
    if not probe.is_global_zero:
        with Signals() as signals, logging_to(None), others:
            result = fit_to_end(parts, run, start, signals)
            return {"signal": result["signal"], "collapsed": result["status"] == "collapsed"}
    with logging_to(run.log), failing(run), Signals() as signals:
        seconds = prepare(run, start, goal=parts.cfg.steps)
        announce(parts, run, start, notes, probe)
        with others:
            result = fit_to_end(parts, run, start, signals, seconds)
            kept = {key: value for key, value in run.read_result().items() if key == "evaluations"}
            run.write_result(result | kept)
        log.info("%s at step %d", result["status"], result["steps"])
        if signals.received == signal.SIGUSR1 and result["status"] != "finished":
            log.info(requeue())
    console().print(result_table(result, run.samples / "final.png", run.tensorboard))
    return result


def fit_to_end(
    parts: Parts, run: RunDir, start: Start | None, signals: Signals, seconds: float = 0.0
) -> dict[str, Any]:
    """Fits, and after each rollback does what a resume of the run would; returns what the last fit says."""
    fit = Fit(parts, run, start, signals, seconds)
    result = fit.run_to_end()
    while fit.rolls_back:
        seconds = fit.checkpoints.seconds
        if fit.trainer.is_global_zero:
            save_rolled_back(run, fit.collapse, attempt=fit.module.attempt + 1, seconds=seconds)
            prepare(run, rolled_back(run), goal=parts.cfg.steps)
        fit.trainer.strategy.barrier()
        start = rolled_back(run)
        if fit.trainer.is_global_zero:
            console().print(f"back at step {start.step:,} of {parts.cfg.steps:,}")
            log.info("back at step %d of %d", start.step, parts.cfg.steps)
        fit.release()
        parts = build(parts.cfg, before=parts)
        fit = Fit(parts, run, start, signals, seconds)
        result = fit.run_to_end()
    return result


def prepare(run: RunDir, start: Start | None, goal: int) -> float:
    """Makes the directory what it was when `start` was saved; returns the seconds of training up to there.

    goal: the step that training goes on to, here or after a resume.
    """
    remove_partial(run.path)
    if start is None:
        run.clear()
    run.make()
    if start is not None:
        rewind(run, start)
    run.write_result(run.read_result() | {"status": "running", "goal": goal})
    return start.content["ganrun"]["seconds"] if start else 0.0


def rewind(run: RunDir, start: Start) -> None:
    """Makes `start` the run's last checkpoint; what was saved after its step will be written again."""
    if start.path.absolute() != run.last.absolute():
        link(start.path, run.last)
    for later in run.step_checkpoints():
        if run.checkpoint_step(later) > start.step:
            later.unlink()


def announce(parts: Parts, run: RunDir, start: Start | None, notes: Iterable[str], probe: pl.Trainer) -> None:
    screen = console()
    to_know, to_warn_of = norm_notes(parts)
    for note in [*notes, *to_warn_of, *([start.note] if start and start.note else [])]:
        log.warning(note)
        screen.print(f"warning: {note}", style="yellow")
    for note in parts.data.notes:
        log.info("dataset %s: %s", parts.data.name, note)
    for note in to_know:
        log.info(note)
    screen.print(summary(parts, run.path, str(probe.strategy.root_device), probe.world_size))
    log.info("start at step %d of %d", start.step if start else 0, parts.cfg.steps)


class Fit:
    """One Lightning fit with everything that watches it. seconds: of training before it."""

    def __init__(self, parts: Parts, run: RunDir, start: Start | None, signals: Signals, seconds: float = 0.0):
        cfg, datamodule, self.module = parts.cfg, parts.datamodule, parts.module
        self.parts, self.run, self.start, self.signals = parts, run, start, signals
        self.scalars = Log(cfg.log_every)
        self.samples = Samples(
            run, datamodule, every=cfg.sample_every, num=cfg.num_samples, conditional=cfg.conditional.key is not None
        )
        self.evaluate = Evaluate(
            run, parts.scorer, datamodule, every=cfg.evaluate.every, export=partial(self.export, run.best_generator),
            best_by=cfg.evaluate.best_by, patience=cfg.evaluate.patience,
            ends=lambda: self.collapse.ends is not None, doubts=lambda: self.collapse.doubts,
        )  # fmt: skip
        score = self.evaluate.best_by
        self.collapse = Collapse(
            datamodule, self.evaluate, self.best_step, action=cfg.on_collapse,
            every=cfg.collapse.every, num=cfg.collapse.num_samples, patience=cfg.collapse.patience,
            rollbacks=cfg.collapse.rollbacks, lr_factor=cfg.collapse.lr_factor,
            score=score, lower=score is None or parts.scorer.metrics[score].lower_is_better,
        )  # fmt: skip
        self.checkpoints = Checkpoints(
            run, every=cfg.checkpoint.every, keep=cfg.checkpoint.keep, export=partial(self.export, run.generator),
            about=self.about, seconds=seconds,
            discards=lambda: self.rolls_back,
        )  # fmt: skip
        looks = cfg.collapse.every if cfg.on_collapse else 0
        watch = Watch(signals, (cfg.log_every, cfg.sample_every, cfg.evaluate.every, cfg.checkpoint.every, looks))
        step = start.step if start else 0
        set_attempt(parts, start.content["ganrun"]["attempt"] if start else 0)
        self.board = TensorBoard(
            run.path, name="", version=run.tensorboard.name, default_hp_metric=False,
            purge_step=step + 1 if step else None,
        )  # fmt: skip
        added = parts.loggers if rank_zero_only.rank == 0 else []  # a user's own need not know of other processes
        self.loggers = [one.open(run.path) if isinstance(one, InRun) else one for one in added]
        job = "" if run.job is None else f"job {run.job}: "
        progress = ShowProgress(self.scalars, console(), scores=lambda: self.evaluate.last, job=job)
        first = [watch, self.scalars, *parts.callbacks]  # these before what saves their states
        self.trainer = make_trainer(
            cfg,
            callbacks=[*first, self.samples, self.collapse, self.evaluate, self.checkpoints, progress],
            logger=[self.board, MetricsFile(run.metrics, step), *self.loggers],
            plugins=[CheckpointFiles(start.content if start else None)],
            default_root_dir=run.path,
        )

    def run_to_end(self) -> dict[str, Any]:
        """What result.json holds; {} if this is not the end, since a rollback follows."""
        if self.start is None:
            flat = flatten(OmegaConf.to_container(self.parts.cfg, resolve=True))
            self.board.log_hyperparams(flat, {f"hp/{name}": 0.0 for name in self.parts.scorer.metrics})
            for logger in self.loggers:
                logger.log_hyperparams(flat)
        path = self.start.path if self.start else None
        device = self.trainer.strategy.root_device
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
        try:
            self.trainer.fit(self.module, datamodule=self.parts.datamodule, ckpt_path=path)
        except torch.distributed.DistNetworkError as error:
            place = "{MASTER_ADDR}:{MASTER_PORT}".format(**os.environ)
            raise UserError(f"the processes of this run cannot meet at {place} (MASTER_ADDR:MASTER_PORT)") from error
        except Exception as error:
            error.step = self.trainer.global_step
            raise
        if self.rolls_back:
            return {}
        if self.trainer.is_global_zero:
            self.export(self.run.generator)
        return outcome(self)

    @property
    def about(self) -> dict[str, Any]:
        """What every checkpoint says of its run."""
        data = self.parts.data
        return {"config": config_digest(self.run), "data": data.fingerprint, "samples": self.samples_are}

    @property
    def samples_are(self) -> dict[str, Any]:
        """What the generators take and make, and which averages are theirs."""
        data, recipe = self.parts.data, self.module.recipe
        averaged = {id(network): i for i, network in enumerate(self.module.generating_networks)}
        between = {name: list(keys) for name, keys in recipe.translates.items()}
        channels = {name: [data.parts[key][0] for key in keys] for name, keys in between.items()}
        return {
            "value_range": None if data.value_range is None else list(data.value_range),
            "classes": data.classes if self.parts.cfg.conditional.key else [],
            **({"channels": channels, "between": between} if between else {}),
            "averages": {name: averaged[id(network)] for name, network in recipe.exports().items()},
        }

    @property
    def rolls_back(self) -> bool:
        """Is this fit's last state given up for the best one?"""
        return self.collapse.ends == "rollback"

    def release(self) -> None:
        """Gives back a GPU's memory; whoever called still holds on to the parts."""
        self.module.cpu()
        for player in self.module.player_optimizers.values():
            player.optimizer.state.clear()

    def best_step(self) -> int | None:
        """That of best.ckpt, if there is one to go back to."""
        return best_step(self.run, self.trainer.global_step) if self.evaluate.best else None

    def export(self, path: Path) -> None:
        """The two files of the generator, from the averaged weights."""
        cfg, module = self.parts.cfg, self.module
        parts = module.recipe.exports() | ({"noise": module.noise} if module.noise else {})
        trained = {"dataset": self.parts.data.name, "steps": self.trainer.global_step, "seed": cfg.seed}
        with module.ema.applied() if module.ema else nullcontext():
            tensors = {
                f"{name}.{key}": value for name, part in parts.items() for key, value in part.state_dict().items()
            }
            save_generator(path, tensors, header(cfg, self.samples_are, trained | {"ema": module.ema is not None}))
