"""What only a GPU shows. They are hidden from all other tests: GANRUN_TEST_GPU=1 scripts/test tests/test_gpu.py."""

import json
import shutil

import pytest
import torch
from conftest import TINY
from forked import run
from test_configs import SMALL, composed
from test_kill import assert_same_run
from test_module import ADAPTIVE

from ganrun.augment.geometry import rotation, scaling
from ganrun.augment.resampling import Sample, SampleBack, spread, warped
from ganrun.files.run_dir import RunDir
from ganrun.signals import Signals
from ganrun.training.build import build
from ganrun.training.fit import Fit

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="set GANRUN_TEST_GPU=1 on a machine with a GPU")
RUN = [*TINY, "deterministic=true", "steps=20", "checkpoint.every=10", "checkpoint.keep=null", "log_every=5"]
TRANSLATED = ["dataset.resolution=32", "batch_size=4"]


@pytest.mark.parametrize(
    "words",
    [
        ["conditional=label", "precision=32-true"],
        ["loss=wgan-gp"],
        ["augment=[ada,diffaugment]", "augment.ada.p=0.5", "augment.ada.filter=1", "penalty=[r1]"],
        ["augment=[ada]", "augment.ada.start=0.5", "augment.ada.over=1000", "presentation=[apa]"],
        ["compile=true"],
        ["compile=reduce-overhead"],
        ["model=pix2pix", "pairs=edges", *TRANSLATED],
        ["model=cyclegan", "pairs=invert", "generator.blocks=1", *TRANSLATED],
    ],
    ids=" ".join,
)
def test_resumes_to_the_bit(words, tmp_path):
    run(*RUN, *words, "run_dir=run", cwd=tmp_path)
    shutil.copytree(tmp_path / "run", tmp_path / "again")
    run("resume=again/checkpoints/step-000010.ckpt", cwd=tmp_path)
    assert_same_run(tmp_path / "run", tmp_path / "again")


def test_goes_back_after_a_collapse(tmp_path):
    bad = ["loss=minimax", "optimizer.discriminator.lr=1e-2", "optimizer.generator.lr=1e-4", "on_collapse=rollback"]
    looks = ["collapse.every=5", "collapse.num_samples=64", "evaluate.every=10", "collapse.rollbacks=1"]
    run(*RUN, *bad, *looks, "steps=60", "run_dir=run", cwd=tmp_path, check=4)  # once only
    found = json.loads((tmp_path / "run" / "result.json").read_text())
    assert [finding["action"] for finding in found["collapse"]][:1] == ["rollback"]


def test_out_of_memory_is_one_line(tmp_path):
    failed = run("batch_size=60000", "generator.width=1024", "dataset.resolution=64", cwd=tmp_path, check=1)
    assert failed.err.count("\n") == 1 and "images a pass on cuda:0; give micro_batch=30000" in failed.err


@pytest.mark.filterwarnings("ignore:Synchronization debug mode is a prototype")
@pytest.mark.parametrize("game", [["loss=wgan-gp"], ADAPTIVE], ids=" ".join)
def test_the_host_never_waits_off_logging_steps(game, tmp_path):
    parts = build(composed(*SMALL, *game, "steps=12", "log_every=12", f"run_dir={tmp_path}", "metric=[]")[0])
    play = parts.module.training_step

    def step(*args):
        torch.cuda.set_sync_debug_mode("error" if 2 < parts.module.global_step < 11 else "default")
        return play(*args)

    parts.module.training_step = step
    RunDir(tmp_path).make()
    try:
        with Signals() as signals:
            Fit(parts, RunDir(tmp_path), None, signals).run_to_end()
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_augmentations_are_the_same_on_the_gpu():
    x = torch.rand(8, 3, 12, 16, generator=torch.Generator().manual_seed(0)) * 2 - 1
    maps = rotation(torch.linspace(-3, 3, 8)) @ scaling(torch.linspace(0.5, 1.5, 8), 1.0)
    before = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = False
    try:
        torch.testing.assert_close(warped(x.cuda(), maps.cuda()).cpu(), warped(x, maps), atol=1e-4, rtol=0)
    finally:
        torch.backends.cuda.matmul.allow_tf32 = before
    grid = (torch.rand(8, 9, 7, 2, generator=torch.Generator().manual_seed(1)) * 2 - 1).double().cuda()
    wanting = x.double().cuda().requires_grad_()
    assert torch.autograd.gradgradcheck(lambda x: Sample.apply(x, grid), (wanting,), fast_mode=True)
    gradient = torch.rand(8, 3, 9, 7, dtype=torch.float64, device="cuda")
    torch.testing.assert_close(spread(gradient, grid, x.shape), SampleBack.apply(gradient, grid, x.shape))
