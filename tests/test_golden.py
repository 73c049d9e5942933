"""Golden runs: ten steps of each loss with a fixed seed. A refactoring keeps these numbers.

In float64, where another processor's order of sums changes them by a few parts in a million.
`python tests/test_golden.py` writes golden.json anew: only if the mathematics is meant to change, and say so.
"""

import json
from pathlib import Path

import pytest
import pytorch_lightning as pl
from test_configs import SMALL, composed

from ganrun.config.groups import options
from ganrun.game import Batch
from ganrun.module import GANModule
from ganrun.training.build import Parts, build

FILE = Path(__file__).with_name("golden.json")
RUNS = {loss: [f"loss={loss}"] for loss in options("loss")} | {
    "conditional": ["loss=hinge", "conditional=label"],
    "micro-batches": ["micro_batch=4"],
    "feature-matching": ["term=[feature-matching]", "term.feature-matching.replace=true"],
    "each-player-draws-anew": ["loss=wgan-gp", "schedule.share=false"],
}


def in_double(parts: Parts, steps: int) -> tuple[GANModule, list[Batch]]:
    """Trains in float64; returns the module, and each round's data and noise."""
    module, rounds = parts.module.double(), []
    play, draw = module.training_step, module.noise and module.noise.draw

    def watched(batch, batch_idx):
        batch = {key: value.double() if value.is_floating_point() else value for key, value in batch.items()}
        rounds.append(dict(batch))
        play(batch, batch_idx)

    def drawn(num, rng):
        rounds[-1]["z"] = draw(num, rng)
        return rounds[-1]["z"]

    module.training_step = watched
    if module.noise:
        module.noise.draw = drawn
    trainer = pl.Trainer(
        max_steps=steps, precision="64-true", accelerator="cpu", logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, use_distributed_sampler=False,
    )  # fmt: skip
    trainer.fit(module, datamodule=parts.datamodule)
    return module, rounds


def golden(settings: list[str]) -> dict[str, float]:
    """Every term of the last step, and the norm of the averaged weights."""
    parts = build(composed(*SMALL, "dataset.resolution=8", "batch_size=8", "dataset.limit=64", *settings)[0])
    module, _ = in_double(parts, steps=10)
    average = sum(float(p.square().sum()) for p in module.ema.average.parameters()) ** 0.5
    return {name: float(value) for name, value in module.terms.items()} | {"average_norm": average}


@pytest.mark.parametrize("name", RUNS)
def test_golden_run(name):
    assert golden(RUNS[name]) == pytest.approx(json.loads(FILE.read_text())[name], rel=1e-4, abs=1e-10)


if __name__ == "__main__":
    found = {name: {key: float(f"{value:.8g}") for key, value in golden(RUNS[name]).items()} for name in RUNS}
    FILE.write_text(json.dumps(found, indent=1) + "\n")
