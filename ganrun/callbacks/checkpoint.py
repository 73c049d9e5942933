"""When a run's checkpoints and its generator file are written, and which are kept."""

import io
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.plugins.io import TorchCheckpointIO

from ganrun.errors import UserError
from ganrun.files.checkpoint import FORMAT, save_checkpoint
from ganrun.files.run_dir import RunDir
from ganrun.files.storage import link, writing


class CheckpointFiles(TorchCheckpointIO):
    """Lightning's access to checkpoint files: writes them whole or not at all; reading returns the checked content."""

    def __init__(self, content: dict[str, Any] | None):
        super().__init__()
        self.content = content

    def save_checkpoint(self, checkpoint: dict[str, Any], path, storage_options: Any | None = None) -> None:
        save_checkpoint(checkpoint, Path(path))

    def load_checkpoint(self, path, *args: Any, **kwargs: Any) -> dict[str, Any]:
        return self.content


def check_states(states: dict[str, Any]) -> None:
    """Raises UserError if a resume could not read a callback's state."""
    for name, state in states.items():
        buffer = io.BytesIO()
        try:
            torch.save(state, buffer)
            buffer.seek(0)
            torch.load(buffer, weights_only=True)
        except Exception as error:  # pickle and torch raise many kinds
            kept = "a checkpoint keeps tensors, numbers, text, lists and dicts, which no code is run to read"
            raise UserError(f"callback {name}: its state_dict() holds something else; {kept}") from error


class Checkpoints(pl.Callback):
    """Saves step-<n>.ckpt every `every` steps and keeps the newest `keep` of them.

    last.ckpt is the newest state, the same file as the newest step's. After a run it is the final state, saved once
    all pictures and scores are.

    every:    steps between checkpoints; 0 = only at the end
    keep:     number of step-<n>.ckpt that stay; None = all
    export:   writes the generator file, called beside each step's checkpoint
    about:    what a checkpoint says about its run
    seconds:  of training before this process
    discards: is the current state given up, so that it must not be saved?
    """

    def __init__(
        self, run: RunDir, *, every: int, keep: int | None, export: Callable[[], None], about: dict[str, Any],
        seconds: float = 0.0, discards: Callable[[], bool] = lambda: False,
    ):  # fmt: skip
        self.run = run
        self.every = every
        self.keep = keep
        self.export = export
        self.about = about
        self.discards = discards
        self._began = time.perf_counter() - seconds

    @property
    def seconds(self) -> float:
        """Seconds of training so far."""
        return time.perf_counter() - self._began

    def on_save_checkpoint(self, trainer, pl_module, checkpoint) -> None:
        trainer.logger.experiment.flush()  # TensorBoard's: a resume does not log again what came before a checkpoint
        check_states(checkpoint["callbacks"])
        now = {
            "format": FORMAT,
            "attempt": pl_module.attempt,
            "seconds": self.seconds,
            "world_size": trainer.world_size,
        }
        checkpoint["ganrun"] = self.about | now  # plain containers only: it must load without unpickling

    def on_load_checkpoint(self, trainer, pl_module, checkpoint) -> None:
        pl_module.attempt = checkpoint["ganrun"]["attempt"]

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx) -> None:
        if trainer.global_step != trainer.max_steps and not self.discards():  # the final state is saved below
            self._save_step(trainer)

    def on_train_end(self, trainer, pl_module) -> None:
        if not self.discards() and not self._save_step(trainer):
            trainer.save_checkpoint(self.run.last)

    def _save_step(self, trainer) -> bool:
        """Saves step-<n>.ckpt and makes it last.ckpt, if one is due; only then removes old ones."""
        step = trainer.global_step
        if not self.every or step % self.every:
            return False
        path = self.run.step_checkpoint(step)
        trainer.save_checkpoint(path)
        if trainer.is_global_zero:
            with writing(self.run.last):
                link(path, self.run.last)
                kept = self.run.step_checkpoints()
                for old in kept[: len(kept) - self.keep] if self.keep is not None else []:
                    old.unlink()
            self.export()
        return True
