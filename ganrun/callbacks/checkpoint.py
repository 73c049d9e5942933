"""Checkpoints that are whole or not there, and the generator file beside them."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.plugins.io import TorchCheckpointIO

from ganrun.run_dir import RunDir, replacing

FORMAT = 1  # of checkpoints


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes beside the target, syncs, then renames: a kill at any moment leaves the old file or the new one."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path, storage_options: Any | None = None) -> None:
        with replacing(Path(path)) as file:
            torch.save(checkpoint, file)


class Checkpoints(pl.Callback):
    """Saves step-<n>.ckpt every `every` steps (0 = only at the end) and keeps the newest `keep` of them (null = all).

    last.ckpt is the newest state; after a run it is the final one. export: writes the generator file. data: what the
    data set must still be on a resume.
    """

    def __init__(self, run: RunDir, *, every: int, keep: int | None, export: Callable[[], None], data: dict[str, Any]):
        self.run = run
        self.every = every
        self.keep = keep
        self.export = export
        self.data = data

    def on_save_checkpoint(self, trainer, pl_module, checkpoint) -> None:
        about = {"format": FORMAT, "steps": trainer.max_steps, "attempt": pl_module.attempt, "data": self.data}
        checkpoint["ganrun"] = about  # plain containers only: it must load without unpickling

    def on_load_checkpoint(self, trainer, pl_module, checkpoint) -> None:
        pl_module.attempt = checkpoint["ganrun"]["attempt"]

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx) -> None:
        step = trainer.global_step
        if not self.every or step % self.every:
            return
        path = self.run.step_checkpoint(step)
        trainer.save_checkpoint(path)
        if trainer.is_global_zero:
            link(path, self.run.last)
            kept = self.run.step_checkpoints()
            for old in kept[: len(kept) - self.keep] if self.keep is not None else []:
                old.unlink()
            self.export()

    def on_train_end(self, trainer, pl_module) -> None:
        trainer.save_checkpoint(self.run.last)
        if trainer.is_global_zero:
            self.export()


def rewind(run: RunDir, checkpoint: Path, step: int) -> None:
    """Makes `checkpoint` the run's last one: what was saved after its step will be written again."""
    for later in run.step_checkpoints():
        if int(later.stem.removeprefix("step-")) > step:
            later.unlink()
    if checkpoint.absolute() != run.last.absolute():
        link(checkpoint, run.last)


def link(source: Path, target: Path) -> None:
    """Makes `target` the same file as `source`, in one step."""
    temporary = target.with_name(f".{target.name}.link")
    temporary.unlink(missing_ok=True)
    try:
        os.link(source, temporary)
    except OSError:  # a file system without hard links
        with replacing(target) as file:
            file.write(source.read_bytes())
    else:
        os.replace(temporary, target)
