"""One run: what is written before, between and after its fits, and the processes that take part."""

import signal
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from omegaconf import OmegaConf

from ganrun.errors import UserError
from ganrun.files.run_dir import RunDir
from ganrun.files.storage import link, remove_partial
from ganrun.lazy import Lazy
from ganrun.progress import console
from ganrun.signals import Signals, requeue
from ganrun.training.build import Parts, build
from ganrun.training.failing import died, failing
from ganrun.training.fit import Fit
from ganrun.training.hardware import precision_of
from ganrun.training.norm import norm_notes
from ganrun.training.processes import further_processes
from ganrun.training.report import result_table, summary
from ganrun.training.rollback import rolled_back, save_rolled_back
from ganrun.training.state import Start, find_start
from ganrun.training.train_log import log, logging_to
from ganrun.training.trainer import make_trainer


def train(parts: Parts, run: RunDir, start: Start | None = None, notes: Iterable[str] = ()) -> dict[str, Any]:
    """Fits, writes the run directory and returns the content of result.json.

    start: where to continue, None = anew. notes: warnings to show and to log. The caller owns the directory.
    Raises CannotWrite, NotFinite, and whatever a user's own code raises; all are recorded.
    """
    probe = make_trainer(parts.cfg, logger=False)
    if start and start.content["ganrun"]["world_size"] != probe.world_size:
        had = start.content["ganrun"]["world_size"]
        raise UserError(
            f"resume={run.path}: trained by {had} processes, got {probe.world_size}; the draws depend on it"
        )
    cfg, path = OmegaConf.to_container(parts.cfg, resolve=True), start and start.path
    others = further_processes(probe, train_further, cfg, run, path, partial(died, run))
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
    """Fits, and after each rollback does the same as a resume of the run; returns the result of the last fit."""
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
    """Restores the directory to its state when `start` was saved; returns the seconds of training until then.

    goal: the step at which training ends, here or after a resume.
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
    if parts.data.depth > 8 and precision_of(parts.cfg) == "bf16-mixed":
        to_warn_of.append("precision=bf16-mixed rounds what networks make to 8 bits in training; 32-true keeps 16")
    if parts.module.lazy_moves and not any(isinstance(m, Lazy) and m.every > 1 for m in parts.module.modules()):
        to_warn_of.append("schedule.lazy_moves=true: no penalty or term has every= above 1, so that no move is lazy")
    for note in [*notes, *to_warn_of, *([start.note] if start and start.note else [])]:
        log.warning(note)
        screen.print(f"warning: {note}", style="yellow")
    for note in parts.data.notes:
        log.info("dataset %s: %s", parts.data.name, note)
    for note in to_know:
        log.info(note)
    screen.print(summary(parts, run.path, str(probe.strategy.root_device), probe.world_size))
    log.info("start at step %d of %d", start.step if start else 0, parts.cfg.steps)


def train_further(cfg: dict[str, Any], run: RunDir, path: Path | None) -> None:
    """What a further process of the run does. path: of the checkpoint to start from."""
    train(build(OmegaConf.create(cfg)), run, find_start(run, path) if path else None)
