"""One fit: everything that watches training, the run directory it writes, and going on from a checkpoint."""

import logging
import os
import platform
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from omegaconf import DictConfig, OmegaConf
from pytorch_lightning.loggers import TensorBoardLogger

import ganrun
from ganrun.callbacks.checkpoint import AtomicCheckpointIO, Checkpoints, rewind
from ganrun.callbacks.evaluate import Evaluate
from ganrun.callbacks.log import Log, MetricsFile
from ganrun.callbacks.progress import ProgressBar
from ganrun.callbacks.samples import Samples
from ganrun.callbacks.signals import Signals
from ganrun.errors import UserError, one_of
from ganrun.experiment.build import Parts, build_node, refusing
from ganrun.experiment.report import console, result_table, summary
from ganrun.experiment.state import fingerprint, load
from ganrun.generator_file import SamplingGenerator, save_generator
from ganrun.run_dir import CHILD, RunDir

log = logging.getLogger("ganrun")
OURS = {  # what the trainer's config may not hold, and what to use instead
    "max_steps": "use steps=",
    "max_epochs": "use steps=",
    "gradient_clip_val": "use optimizer.clip_gradients=",
    "accumulate_grad_batches": "use batch_size=",
    "logger": "",
    "callbacks": "",
    "plugins": "",
    "default_root_dir": "use run_dir=",
    "use_distributed_sampler": "",
    "enable_progress_bar": "",
    "enable_checkpointing": "use checkpoint.every=",
    "enable_model_summary": "",
}
NOT_FOR_US = (  # Lightning's advice that does not apply: see data/datamodule.py
    ".*does not have many workers",
    ".*dataloader is not resumable",
    ".*isinstance.treespec, LeafSpec",  # Lightning's own use of a deprecated check
)
PRECISIONS = ("32-true", "bf16-mixed")  # fp16 would need a loss scaler, which exact steps rule out


def train(
    parts: Parts, run: RunDir, *, checkpoint: Path | None = None, notes: list[str] | None = None
) -> dict[str, Any]:
    """Fits, writes the run directory and returns what result.json holds.

    checkpoint: where to go on from; None starts anew. notes: warnings to show and to log.
    """
    with shared_by_processes(run):
        return _train(parts, run, checkpoint, notes or [])


def _train(parts: Parts, run: RunDir, checkpoint: Path | None, notes: list[str]) -> dict[str, Any]:
    cfg, screen = parts.cfg, console()
    main = int(os.environ.get("LOCAL_RANK", 0)) == 0
    start = load(checkpoint)["global_step"] if checkpoint else 0
    with logging_to(run.log if main else None):
        fit = Fit(parts, run, screen, start)
        if main:
            for note in notes:
                log.warning(note)
                screen.print(f"warning: {note}", style="yellow")
            screen.print(summary(parts, run.path, str(fit.trainer.strategy.root_device)))
            log.info("start at step %d of %d", start, cfg.steps)
            if checkpoint:
                rewind(run, checkpoint, start)
        result = fit.run_to_end(checkpoint)
        log.info("%s at step %d", result["status"], result["steps"])
        if main:
            screen.print(result_table(result, run.samples / "final.png", run.tensorboard))
    return result


@contextmanager
def shared_by_processes(run: RunDir) -> Iterator[None]:
    """The processes that Lightning starts find their run; afterwards nothing of them is left for the next job."""
    before = dict(os.environ)
    os.environ[CHILD] = str(run.path.absolute())
    try:
        yield
    finally:
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()
        for name in os.environ.keys() - before.keys():
            del os.environ[name]
        os.environ.update(before)


def make_trainer(cfg: DictConfig, **settings: Any) -> pl.Trainer:
    """Lightning's trainer for a config. Raises UserError for devices or a precision that are not to be had."""
    if cfg.trainer.precision not in PRECISIONS:
        raise UserError(f"trainer.precision={cfg.trainer.precision}; {one_of(PRECISIONS, str(cfg.trainer.precision))}")
    for name in ("pytorch_lightning", "lightning"):
        logging.getLogger(name).setLevel(logging.WARNING)
    chosen = OmegaConf.to_container(cfg.trainer, resolve=True)
    for name in sorted(chosen.keys() & OURS.keys()):
        raise UserError(f"trainer.{name}: ganrun sets it; {OURS[name] or 'it cannot be changed'}")
    if "strategy" not in chosen and chosen["devices"] not in (0, 1, "1"):
        raise UserError(f"trainer.devices={chosen['devices']}: several devices need trainer=ddp")
    trainer = refusing("trainer", pl.Trainer)(
        max_steps=cfg.steps,
        max_epochs=-1,
        use_distributed_sampler=False,
        enable_progress_bar=False,
        enable_checkpointing=False,
        enable_model_summary=False,
        **settings,
        **chosen,
    )
    if cfg.batch_size % trainer.world_size:
        raise UserError(f"batch_size={cfg.batch_size} is over all devices; expected a multiple of {trainer.world_size}")
    return trainer


class Fit:
    """One Lightning fit with everything that watches it."""

    def __init__(self, parts: Parts, run: RunDir, screen, start: int):
        cfg, datamodule, self.module = parts.cfg, parts.datamodule, parts.module
        self.parts, self.run, self.start = parts, run, start
        self.scalars, self.signals = Log(cfg.log_every), Signals()
        metrics = {name: build_node(cfg.metric, name) for name in cfg.metric}
        self.evaluate = Evaluate(run, datamodule, metrics, every=cfg.evaluate.every, num=cfg.evaluate.num_samples)
        conditional = cfg.conditional.key is not None
        callbacks = [
            self.scalars,
            Samples(run, datamodule, every=cfg.sample_every, num=cfg.num_samples, conditional=conditional),
            self.evaluate,
            Checkpoints(
                run, every=cfg.checkpoint.every, keep=cfg.checkpoint.keep, export=self.export, data=fingerprint(parts)
            ),
            ProgressBar(self.scalars, screen),
            self.signals,
        ]
        self.board = TensorBoardLogger(
            run.path, name="", version=run.tensorboard.name, default_hp_metric=False,
            purge_step=start + 1 if start else None,
        )  # fmt: skip
        self.trainer = make_trainer(
            cfg,
            callbacks=callbacks,
            logger=[self.board, MetricsFile(run.metrics, start)],
            plugins=[AtomicCheckpointIO()],
            default_root_dir=run.path,
        )

    def run_to_end(self, checkpoint: Path | None) -> dict[str, Any]:
        before = self.run.read_result().get("seconds", 0.0) if checkpoint else 0.0
        began = time.perf_counter()
        flat = flatten(OmegaConf.to_container(self.parts.cfg, resolve=True))
        self.board.log_hyperparams(flat, {f"hp/{name}": 0.0 for name in self.evaluate.metrics})
        try:
            self.trainer.fit(self.module, datamodule=self.parts.datamodule, ckpt_path=checkpoint)
        except Exception as error:
            log.exception("failed at step %d", self.trainer.global_step)
            reason = str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}"
            failed = {"status": "failed", "reason": reason, "steps": self.trainer.global_step}
            self.run.write_result(self.run.read_result() | failed)
            raise
        result = self.result(before + time.perf_counter() - began)
        if self.trainer.is_global_zero:
            self.run.write_result(result)
        return result

    def result(self, seconds: float) -> dict[str, Any]:
        received = self.signals.received
        scores = {
            name: {
                "final": self.evaluate.last[name],
                "step": self.evaluate.last["step"],
                "best": self.evaluate.best[name],
                "best_step": self.evaluate.best["step"],
                "protocol": protocol | {"ema": self.module.ema is not None, "seed": self.module.seed},
            }
            for name, protocol in self.evaluate.protocol.items()
            if self.evaluate.last
        }
        return {
            "status": f"stopped by signal {received}" if received else "finished",
            "signal": received,
            "steps": self.trainer.global_step,
            "scores": scores,
            "seconds": round(seconds, 2),
            "images_per_second": round(self.scalars.images_per_second, 1),
            "versions": versions(),
        }

    def export(self) -> None:
        """generator.safetensors and generator.yaml, from the averaged weights."""
        cfg, data = self.parts.cfg, self.parts.data
        classes = data.classes if cfg.conditional.key else []
        with self.module.ema.applied() if self.module.ema else nullcontext():
            sampling = SamplingGenerator(
                self.module.recipe.generator, self.module.noise, value_range=data.value_range, classes=classes
            )
            description = {
                "generator": OmegaConf.to_container(cfg.generator, resolve=True),
                "noise": OmegaConf.to_container(cfg.noise, resolve=True),
                "trained": {"dataset": data.name, "steps": self.trainer.global_step, "seed": cfg.seed},
            }
            save_generator(self.run.generator, sampling, description)


@contextmanager
def logging_to(path: Path | None) -> Iterator[None]:
    """train.log gets ganrun's own lines, Lightning's, and Python warnings; the terminal gets none of them."""
    loggers = [logging.getLogger(name) for name in ("ganrun", "pytorch_lightning", "lightning", "py.warnings")]
    handler = logging.FileHandler(path) if path else logging.NullHandler()
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    logging.captureWarnings(True)
    for text in NOT_FOR_US:
        warnings.filterwarnings("ignore", text)
    before = [(logger, logger.handlers, logger.propagate, logger.level) for logger in loggers]
    for logger in loggers:
        logger.handlers, logger.propagate = [handler], False
        logger.setLevel(logging.INFO if logger is log else logging.WARNING)
    try:
        yield
    finally:
        for logger, handlers, propagate, level in before:
            logger.handlers, logger.propagate = handlers, propagate
            logger.setLevel(level)
        logging.captureWarnings(False)
        handler.close()


def flatten(node: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested config -> {"optimizer.lr": ...}, for TensorBoard's hparams."""
    flat: dict[str, Any] = {}
    for key, value in node.items():
        flat |= flatten(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return flat


def versions() -> dict[str, str]:
    return {
        "ganrun": ganrun.__version__,
        "torch": torch.__version__,
        "pytorch-lightning": pl.__version__,
        "python": platform.python_version(),
    }
