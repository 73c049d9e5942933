"""Averages of a few lengths, kept through training, of which `ganrun ema` makes those of any other length."""

import json
from collections.abc import Sequence
from typing import Any

import pytorch_lightning as pl
import torch
from safetensors.torch import save
from torch import Tensor

from ganrun.errors import UserError, require
from ganrun.files.run_dir import RunDir
from ganrun.files.storage import replacing
from ganrun.power_ema import decay_of, gamma_of


class PosthocEMA(pl.Callback):
    """Power-function averages of the generators, one for each std, updated in every step (Karras et al. 2024).

    Changes no weight. Checkpoints hold the averages in full precision; ema/step-<n>.safetensors is a snapshot of them
    and of the networks' buffers, every `every` steps and at the end.

    stds: lengths, as shares of the training; the paper keeps two, .05 and .10
    half: snapshots in float16, half as large; tensors beyond its range stay as they are
    """

    def __init__(self, *, stds: Sequence[float] = (0.05, 0.1), every: int = 500, half: bool = True):
        require(1, every=every)
        self.stds = list(stds)
        if not self.stds or len(set(self.stds)) < len(self.stds):
            raise UserError(f"stds={self.stds}; expected one or more lengths that differ, such as [0.05,0.1]")
        self.gammas = [gamma_of(std) for std in self.stds]
        self.every, self.half = every, half
        self.tracks: list[dict[str, Tensor]] = []  # of each std the averages by the parameters' names

    def state_dict(self) -> dict[str, Any]:
        return {"tracks": self.tracks}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.tracks = state["tracks"]

    def on_train_start(self, trainer, pl_module) -> None:
        self.run, self.networks = RunDir(trainer.default_root_dir), pl_module.recipe.exports()
        self.live = {f"{n}.{key}": p for n, net in self.networks.items() for key, p in net.named_parameters()}
        loaded = self.tracks or [{key: torch.zeros_like(p) for key, p in self.live.items()} for _ in self.stds]
        self.tracks = [{key: track[key].to(p.device) for key, p in self.live.items()} for track in loaded]
        if trainer.is_global_zero:
            self.run.ema.mkdir(exist_ok=True)
            for step, path in self.run.ema_snapshots().items():  # others will be written again, or were at an early end
                if step > trainer.global_step or step % self.every:
                    path.unlink()

    @torch.no_grad()
    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx) -> None:
        for gamma, track in zip(self.gammas, self.tracks, strict=True):
            weight = 1 - decay_of(gamma, trainer.global_step)
            torch._foreach_lerp_(list(track.values()), list(self.live.values()), weight)
        if trainer.global_step % self.every == 0:
            self._save(trainer)

    def on_train_end(self, trainer, pl_module) -> None:
        if trainer.global_step and not self.run.ema_snapshot(trainer.global_step).exists():
            self._save(trainer)

    def _save(self, trainer) -> None:
        if not trainer.is_global_zero:
            return
        tensors = {f"{i}.{key}": self._small(x) for i, track in enumerate(self.tracks) for key, x in track.items()}
        for name, network in self.networks.items():
            held = network.state_dict().keys()
            tensors |= {f"buffers.{name}.{key}": x for key, x in network.named_buffers() if key in held}
        data = save({key: x.detach().cpu().contiguous() for key, x in tensors.items()}, {"stds": json.dumps(self.stds)})
        with replacing(self.run.ema_snapshot(trainer.global_step)) as file:
            file.write(data)

    def _small(self, x: Tensor) -> Tensor:
        small = x.half() if self.half else x
        return small if small.isfinite().all() else x
