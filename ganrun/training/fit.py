"""One fit: everything that watches training, the run directory it writes, and the start from a checkpoint."""

import os
from functools import partial
from pathlib import Path
from typing import Any

import torch
from omegaconf import OmegaConf
from pytorch_lightning.utilities import rank_zero_only

from ganrun.attributes import KEY as ATTRIBUTES
from ganrun.callbacks.checkpoint import CheckpointFiles, Checkpoints
from ganrun.callbacks.log import Log, MetricsFile, TensorBoard
from ganrun.callbacks.progress import ShowProgress
from ganrun.callbacks.samples import Samples
from ganrun.callbacks.scores import Evaluate
from ganrun.callbacks.watch import Watch
from ganrun.collapse.callback import Collapse
from ganrun.errors import OutOfMemory, UserError, is_out_of_memory
from ganrun.files.run_dir import RunDir
from ganrun.loggers import InRun
from ganrun.progress import console
from ganrun.sampling.discriminator_file import save_discriminator
from ganrun.sampling.generator_file import save_generator
from ganrun.signals import Signals
from ganrun.training.build import Parts
from ganrun.training.of_checkpoint import averages_stand, header, of_discriminators
from ganrun.training.outcome import outcome
from ganrun.training.rollback import best_step, set_attempt
from ganrun.training.run_config import flatten
from ganrun.training.state import Start, config_digest
from ganrun.training.trainer import make_trainer, no_memory


class Fit:
    """One Lightning fit with everything that watches it. seconds: of training before it."""

    def __init__(self, parts: Parts, run: RunDir, start: Start | None, signals: Signals, seconds: float = 0.0):
        cfg, self.module = parts.cfg, parts.module
        self.parts, self.run, self.start, self.signals = parts, run, start, signals
        set_attempt(parts, start.content["ganrun"]["attempt"] if start else 0)
        self._watch(seconds)
        step = start.step if start else 0
        self.board = TensorBoard(
            run.path, name="", version=run.tensorboard.name, default_hp_metric=False,
            purge_step=step + 1 if step else None,
        )  # fmt: skip
        added = parts.loggers if rank_zero_only.rank == 0 else []  # a user's own may not handle several processes
        self.loggers = [one.open(run.path) if isinstance(one, InRun) else one for one in added]
        self.trainer = make_trainer(
            cfg,
            callbacks=self.callbacks,
            logger=[self.board, MetricsFile(run.metrics, step), *self.loggers],
            plugins=[CheckpointFiles(start.content if start else None)],
            default_root_dir=run.path,
        )

    def _watch(self, seconds: float) -> None:
        """Makes all callbacks, in the order in which they must see a step."""
        cfg, parts, run, datamodule = self.parts.cfg, self.parts, self.run, self.parts.datamodule
        self.scalars = Log(cfg.log_every)
        self.samples = Samples(
            run, datamodule, every=cfg.sample_every, num=cfg.num_samples, condition=cfg.conditional.key
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
            run, every=cfg.checkpoint.every, keep=cfg.checkpoint.keep, export=self.export_last,
            about=self.about, seconds=seconds,
            discards=lambda: self.rolls_back,
        )  # fmt: skip
        looks = cfg.collapse.every if cfg.on_collapse else 0
        watch = Watch(self.signals, (cfg.log_every, cfg.sample_every, cfg.evaluate.every, cfg.checkpoint.every, looks))
        job = "" if run.job is None else f"job {run.job}: "
        progress = ShowProgress(self.scalars, console(), scores=lambda: self.evaluate.last, job=job)
        first = [watch, self.scalars, *parts.callbacks]  # these come before the callback that saves their states
        self.callbacks = [*first, self.samples, self.collapse, self.evaluate, self.checkpoints, progress]

    def run_to_end(self) -> dict[str, Any]:
        """Fits; returns the content of result.json, or {} if a rollback follows."""
        if self.start is None:
            flat = flatten(OmegaConf.to_container(self.parts.cfg, resolve=True))
            self.board.log_hyperparams(flat, {f"hp/{name}": 0.0 for name in self.parts.scorer.metrics})
            for logger in self.loggers:
                logger.log_hyperparams(flat)
        self._fit()
        if self.rolls_back:
            return {}
        if self.trainer.is_global_zero:
            self.export_last()
        return outcome(self)

    def _fit(self) -> None:
        path = self.start.path if self.start else None
        device = self.trainer.strategy.root_device
        if device.type == "cuda":
            torch.cuda.init()  # without it, a GPU that nothing has used yet has no peak to reset
            torch.cuda.reset_peak_memory_stats(device)
        try:
            self.trainer.fit(self.module, datamodule=self.parts.datamodule, ckpt_path=path)
        except torch.distributed.DistNetworkError as error:
            place = "{MASTER_ADDR}:{MASTER_PORT}".format(**os.environ)
            raise UserError(f"the processes of this run cannot meet at {place} (MASTER_ADDR:MASTER_PORT)") from error
        except Exception as error:
            error.step = self.trainer.global_step
            if is_out_of_memory(error):
                raise OutOfMemory(no_memory(self.parts.cfg, self.trainer)) from error
            raise

    @property
    def about(self) -> dict[str, Any]:
        """What every checkpoint says about its run."""
        data = self.parts.data
        return {"config": config_digest(self.run), "data": data.fingerprint, "samples": self.samples_are}

    @property
    def samples_are(self) -> dict[str, Any]:
        """What the generators take and make, and which averages are theirs."""
        data, recipe, key = self.parts.data, self.module.recipe, self.parts.cfg.conditional.key
        averaged = {id(network): i for i, network in enumerate(self.module.generating_networks)}
        between = {name: list(keys) for name, keys in recipe.translates.items()}
        channels = {name: [data.parts[key][0] for key in keys] for name, keys in between.items()}
        return {
            "value_range": None if data.value_range is None else list(data.value_range),
            "classes": data.classes if key and key != ATTRIBUTES else [],
            **({"attributes": [one.plain for one in data.attributes]} if key == ATTRIBUTES else {}),
            **({} if data.depth == 8 else {"depth": data.depth}),
            **({} if data.shown is None else {"shown": list(data.shown)}),
            **({"channels": channels, "between": between} if between else {}),
            "averages": {name: averaged[id(network)] for name, network in recipe.exports().items()},
        }

    @property
    def rolls_back(self) -> bool:
        """Is the last state of this fit discarded in favour of the best one?"""
        return self.collapse.ends == "rollback"

    def release(self) -> None:
        """Frees GPU memory, although the caller still holds the parts."""
        self.module.cpu()
        for player in self.module.player_optimizers.values():
            player.optimizer.state.clear()

    def best_step(self) -> int | None:
        """The step of best.ckpt; None if there is none to go back to."""
        return best_step(self.run, self.trainer.global_step) if self.evaluate.best else None

    def export_last(self) -> None:
        """The files of the newest generator, and of the discriminators if asked for."""
        self.export(self.run.generator)
        if self.parts.cfg.export.discriminator:
            networks, left_out = self.module.recipe.discriminators(), set(self.module.names_of_bystanders())
            tensors = {f"{path}.{key}": x for path, net in networks.items() for key, x in net.state_dict().items()}
            tensors = {name: x for name, x in tensors.items() if f"recipe.{name}" not in left_out}
            about = of_discriminators(self.parts.cfg, self.samples_are, self.trainer.global_step, networks)
            save_discriminator(self.run.discriminator, tensors, about)

    def export(self, path: Path) -> None:
        """The two files of the generator, from the averaged weights."""
        cfg, module = self.parts.cfg, self.module
        parts = module.recipe.exports() | ({"noise": module.noise} if module.noise else {})
        trained = {"dataset": self.parts.data.name, "steps": self.trainer.global_step, "seed": cfg.seed}
        trained |= {"ema": module.ema is not None, **averages_stand(cfg)}
        with module.averaged():
            tensors = {
                f"{name}.{key}": value for name, part in parts.items() for key, value in part.state_dict().items()
            }
            save_generator(path, tensors, header(cfg, self.samples_are, trained))
