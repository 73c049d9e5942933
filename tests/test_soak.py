"""Long runs, only with ./scripts/test --all."""

import math

import pytest
import torch
from conftest import ganrun

from ganrun import load_generator

pytestmark = pytest.mark.soak

STEPS = {"loss=non-saturating": 2000, "loss=hinge": 2000, "penalty=[r1]": 2000, "loss=wgan-gp": 8000}


@pytest.mark.parametrize("seed", [1, 2])
@pytest.mark.parametrize("choice", STEPS)
def test_mlp_covers_every_mode_of_the_ring(choice, seed, tmp_path):
    ganrun("dataset=ring", "model=mlp", choice, f"steps={STEPS[choice]}", f"seed={seed}", "run_dir=run", cwd=tmp_path)
    points = load_generator(tmp_path / "run" / "generator.safetensors").sample(4000)
    angles = torch.arange(8) * (math.pi / 4)
    distance, mode = torch.cdist(points, 2 * torch.stack([angles.cos(), angles.sin()], 1)).min(1)
    close = mode[distance < 3 * 0.02].bincount(minlength=8)  # within three standard deviations
    assert (close >= 40).all(), f"samples at each mode: {close.tolist()}"
