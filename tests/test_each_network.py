"""What holds for dcgan holds for each network: bf16, micro-batches, several processes, exact resume. See
test_module.py, test_processes.py and test_runs.py; for compiled networks test_compile.py."""

import shutil
from pathlib import Path

import pytest
import torch
from forked import run
from test_module import fitted, unread
from test_processes import both_to_the_end
from test_runs import assert_same_state

from ganrun.networks import layers

PROJECTION = ["loss=hinge", "conditional=projection"]
NETWORKS = {  # each with spectral norm, but for r3gan and stylegan2
    "dcgan": ["model=dcgan", "critic.norm=spectral", "generator.condition=batch-norm", *PROJECTION],
    "deep-conv": ["model=deep-conv", *PROJECTION],
    "resnet": ["model=resnet", *PROJECTION],
    "sagan": ["model=sagan", *PROJECTION],
    "biggan": ["model=biggan", "generator.z_dim=12", "generator.embedding=5", "term=[orthogonal]", *PROJECTION],
    "biggan-deep": ["model=biggan-deep", "generator.z_dim=8", "generator.embedding=5", *PROJECTION],
    "r3gan": ["model=r3gan", "generator.blocks=1", "discriminator.blocks=1", "conditional=projection"],
    "stylegan2": ["model=stylegan2", "generator.w_dim=8", "generator.mapping_layers=2", "conditional=projection"],
}
WITHOUT_SPECTRAL = ("r3gan", "stylegan2")
TINY = ["dataset.resolution=16", "dataset.limit=32", "generator.width=4", "discriminator.width=4", "batch_size=8"]
TINY += ["metric=[]", "on_collapse=null", "ema.decay=0.5"]
each = pytest.mark.parametrize("name", NETWORKS)


@each
def test_bfloat16(name):
    """Losses and weights stay in float32, and the terms are near those of float32."""
    half, full = (
        fitted(*NETWORKS[name], *TINY, "steps=1", f"precision={precision}") for precision in ("bf16-mixed", "32-true")
    )
    assert {value.dtype for value in half.terms.values()} == {torch.float32}
    assert {value.dtype for value in half.state_dict().values()} <= {torch.float32, torch.int64}
    for term, value in full.terms.items():
        assert float(half.terms[term]) == pytest.approx(float(value), rel=0.1, abs=0.05), term


def test_nothing_is_read_to_the_host_off_logging_steps(tmp_path, monkeypatch):
    def unchecked(label, num):  # torch's own looks at the labels, but not on a GPU
        return (label[:, None] == torch.arange(num)).long()

    monkeypatch.setattr(layers, "one_hot", unchecked)
    unread([*NETWORKS["biggan"], *TINY, "precision=bf16-mixed", "micro_batch=4"], tmp_path, monkeypatch)


PLAIN = ["generator.norm=none", "generator.condition=concatenate", "precision=32-true", "steps=3"]  # no batch norm
SAME = {name: [*NETWORKS[name], *TINY, *PLAIN] for name in ("deep-conv", "resnet", "sagan")}
SAME |= {name: [*NETWORKS[name], *TINY, *PLAIN[2:]] for name in WITHOUT_SPECTRAL}
SAME["stylegan2"] += ["generator.noise_inputs=false", "discriminator.minibatch_std=0"]  # drawn or seen pass by pass


@pytest.mark.parametrize("name", SAME)
def test_micro_batches_add_up_to_the_batch(name):
    """Without spectral norm, whose power method takes a step a pass: it only comes nearer to the singular value."""
    case = [*SAME[name], *([] if name in WITHOUT_SPECTRAL else ["critic.norm=none", "generator.spectral=false"])]
    whole, parts = (fitted(*case, f"micro_batch={rows}") for rows in ("null", 2))
    for key, value in whole.state_dict().items():
        if key.endswith("w_mean"):  # moves once a pass
            continue
        assert torch.allclose(value, parts.state_dict()[key], rtol=0, atol=2e-6), key


@pytest.mark.parametrize("name", [name for name in NETWORKS if name not in WITHOUT_SPECTRAL])
def test_spectral_norm_takes_a_step_a_pass(name):
    steps, passes = [], []

    def probe(module):
        critic = module.recipe.adversary.discriminator
        norm = critic.head.parametrizations.weight[0]
        count = norm._power_method
        norm._power_method = lambda *args: (steps.append(norm.training), count(*args))
        critic.register_forward_hook(lambda *_: passes.append(1))

    fitted(*NETWORKS[name], *TINY, "micro_batch=2", "steps=1", probe=probe)
    assert len(steps) == len(passes) == 12  # four parts: of reals and fakes for one player, of fakes for the other


SCRIPT = """
import os, sys
sys.path.insert(0, {folder!r})
import torch
import test_each_network as tests
from test_processes import TWO

for name, words in tests.TOGETHER.items():
    torch.save(tests.fitted(*words, *TWO).state_dict(), name + "-" + os.environ["RANK"] + ".pt")
"""
MIXED = {name: [*NETWORKS[name], *TINY, "precision=32-true"] for name in ("biggan", "biggan-deep")}
TOGETHER = SAME | MIXED


def test_two_processes_equal_one(tmp_path):
    """Where batch norm sees each process's rows alone, they still agree with each other to the bit."""
    (tmp_path / "script.py").write_text(SCRIPT.format(folder=str(Path(__file__).parent)))
    both_to_the_end(cwd=tmp_path, script=tmp_path / "script.py")
    for name in TOGETHER:
        two = [torch.load(tmp_path / f"{name}-{rank}.pt") for rank in range(2)]
        one = fitted(*SAME[name]).state_dict() if name in SAME else two[1]
        for key, value in two[0].items():
            assert torch.equal(value, two[1][key]), (name, key)
            assert torch.allclose(value, one[key], rtol=0, atol=1e-6), (name, key)


@pytest.mark.parametrize("name", [name for name in NETWORKS if name != "dcgan"])
def test_resume_is_exact(name, tmp_path):
    run(*NETWORKS[name], *TINY, "steps=4", "checkpoint.every=2", "checkpoint.keep=2", "run_dir=whole", cwd=tmp_path)
    shutil.copytree(tmp_path / "whole", tmp_path / "run")
    run("resume=run/checkpoints/step-000002.ckpt", cwd=tmp_path)
    assert_same_state(tmp_path / "whole", tmp_path / "run")
