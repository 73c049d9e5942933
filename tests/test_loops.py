"""The benchmark's loops do what ganrun does: of equal noise and data they have equal losses, move by move."""

import importlib
import os
from itertools import repeat

import pytest
import pytorch_lightning as pl
import torch
from conftest import ROOT

ROWS = {  # where a checkout of the peer is, its overrides that make it tiny, moves in two steps
    "r3gan-32-r3gan": ("GANRUN_R3GAN", ["generator.widths=[1,1,1,1]", "discriminator.widths=[1,1,1,1]"], 2 + 2),
    "stylegan2-64-non-saturating": (
        "GANRUN_STYLEGAN2_ADA",
        ["dataset.resolution=16", "generator.mixing=0"],  # which the peer draws once a batch
        4 + 2,
    ),
}
TINY = ["batch_size=4", "metric=[]", "on_collapse=null", "sample_every=0", "checkpoint.every=0", "evaluate.every=0"]
TINY += [f"{net}.width=16" for net in ("generator", "discriminator")] + ["generator.z_dim=8", "ema.warmup=1"]


def drawn(*size, **_) -> torch.Tensor:
    """Numbers that look random; a part of the rows, and each of several batches, has the same."""
    size = size[0] if isinstance(size[0], (tuple, list, torch.Size)) else size
    own = size[-2:] if len(size) == 3 else size
    return torch.sin(12.9898 * torch.arange(torch.Size(own).numel()).double()).float().view(own).expand(size).clone()


class Moves:
    """The losses of all moves since it was asked last."""

    def __init__(self, monkeypatch):
        self.losses, self.sum = [], 0.0
        backward, step = torch.Tensor.backward, torch.optim.Adam.step

        def heard(loss, *args, **kwargs):
            self.sum += loss.item()
            return backward(loss, *args, **kwargs)

        def moved(adam, *args, **kwargs):
            self.losses.append(self.sum)
            self.sum = 0.0
            return step(adam, *args, **kwargs)

        monkeypatch.setattr(torch.Tensor, "backward", heard)
        monkeypatch.setattr(torch.optim.Adam, "step", moved)

    def taken(self) -> list[float]:
        losses, self.losses = self.losses, []
        return losses


class Compare(pl.Callback):
    """Two steps of each loop before ganrun's first."""

    def __init__(self, parts, loops, moves):
        self.parts, self.loops, self.moves = parts, loops, moves
        self.real = drawn(4, 3, parts.cfg.dataset.resolution, parts.cfg.dataset.resolution)
        self.found = {}

    def on_train_start(self, trainer, module):
        for kind in self.loops:
            loop = kind(self.parts, module.device)
            loop.reals = repeat((self.real, None)) if hasattr(loop, "period") else lambda _: repeat(self.real)
            loop.step(), loop.step()
            self.found[kind.__name__] = self.moves.taken()
            getattr(loop, "close", lambda: None)()

    def on_train_batch_start(self, trainer, module, batch, batch_idx):
        batch["real"] = self.real.repeat(len(batch["real"]) // 4, 1, 1, 1)

    def on_train_end(self, trainer, module):
        self.found["ganrun"] = self.moves.taken()


@pytest.mark.parametrize("row", ROWS)
def test_equal_losses(row, monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "scripts")
    costs, loops, style_loops, peers = map(importlib.import_module, ("costs", "loops", "style_loops", "peers"))
    variable, words, moves = ROWS[row]
    kinds = [style_loops.PlainStyles, style_loops.PeerStyles] if "style" in row else [loops.Plain, loops.Peer]
    if variable in os.environ:
        kinds.append(peers.open_peer(os.environ[variable]))
    monkeypatch.setattr(torch, "randn", drawn)
    monkeypatch.setattr(torch, "randn_like", lambda x: drawn(x.shape))
    heard = Moves(monkeypatch)

    def compare(parts):
        noise = parts.module.noise
        monkeypatch.setattr(type(noise), "draw", lambda _, num, rng: drawn(4, 8).repeat(num // 4, 1))
        return Compare(parts, kinds, heard)

    found = costs.watch([*loops.ROWS[row][0], *words, *TINY], 2, compare).found
    expected = found.pop("ganrun")
    assert len(expected) == moves and len(found) == len(kinds)
    for losses in found.values():
        assert losses == pytest.approx(expected, rel=1e-3)
