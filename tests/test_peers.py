"""Peers' own trainers do one round a step and nothing in between."""

import argparse
import importlib
import os
import threading
import time
from multiprocessing import active_children
from pathlib import Path

import pytest
import torch
from conftest import ROOT
from hydra import compose, initialize_config_dir

from ganrun.config.groups import config_dir
from ganrun.training.build import build

CHECKOUTS = ["GANRUN_MIMICRY", "GANRUN_STUDIOGAN"]
SMALL = ["model=dcgan", "dataset=digits", "dataset.resolution=32", "generator.width=8", "discriminator.width=8"]
BY_CLASS = ["model=resnet", *SMALL[1:], "conditional=projection"]


@pytest.fixture
def peers(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "scripts")
    return importlib.import_module("peers")


def made(peers, variable, loss, folder, *, words=SMALL):
    """The trainer of the checkout that an environment variable names."""
    if variable not in os.environ:
        pytest.skip(f"set {variable} to a checkout")
    with initialize_config_dir(str(config_dir()), version_base="1.3"):
        parts = build(compose("train", [*words, f"loss={loss}", "batch_size=16", f"run_dir={folder}"]))
    return peers.open_peer(os.environ[variable])(parts, torch.device("cpu"))


def worker_seconds() -> float:
    """Of processor time that the data loader's workers have used."""
    stats = [Path(f"/proc/{child.pid}/stat").read_text().rpartition(")")[2].split() for child in active_children()]
    return sum(int(stat[11]) + int(stat[12]) for stat in stats) / os.sysconf("SC_CLK_TCK")


def test_no_checkout_is_refused_in_one_line(peers, tmp_path):
    with pytest.raises(argparse.ArgumentTypeError) as refusal:
        peers.open_peer(str(tmp_path))
    message = str(refusal.value)
    assert message.startswith(f"{tmp_path}; expected a checkout of Mimicry") and "\n" not in message


def test_a_missing_package_is_named(peers, tmp_path):
    for file in peers.Mimicry.requires:
        (tmp_path / file).parent.mkdir(parents=True)
        (tmp_path / file).write_text("")
    (tmp_path / "torch_mimicry" / "__init__.py").write_text("import skimage.io, tensorflow, not_there_at_all\n")
    with pytest.raises(
        argparse.ArgumentTypeError, match=r"needs the package not_there_at_all, which is not installed$"
    ):
        peers.open_peer(str(tmp_path))


def test_a_loop_takes_turns(peers):
    class Counting(peers.TakingTurns):
        rounds = 0

        def train(self):
            while self.rounds < 3:
                self.rounds += 1
                print("heard by nobody")
                self.hand_over()
            raise ZeroDivisionError

    loop = Counting()
    for rounds in (1, 2, 3):
        loop.step()
        assert loop.rounds == rounds
    for _ in range(2):  # once it is over, it says so again
        with pytest.raises(ZeroDivisionError):
            loop.step()
    loop.close()
    assert not loop.thread.is_alive()


def test_a_loop_can_be_closed_before_it_began(peers):
    loop = peers.TakingTurns()
    loop.close()
    loop.close()
    assert not loop.thread.is_alive() and loop.error is None


@pytest.mark.parametrize(("loss", "words"), [("wgan-gp", SMALL), ("non-saturating", SMALL), ("hinge", BY_CLASS)])
@pytest.mark.parametrize("variable", CHECKOUTS)
def test_one_round_a_step(variable, loss, words, peers, tmp_path, monkeypatch, capfd):
    moves = {}
    step = torch.optim.Adam.step

    def counted(self, closure=None):
        moves[id(self)] = moves.get(id(self), 0) + 1
        assert threading.current_thread() is trainer.thread
        return step(self, closure)

    monkeypatch.setattr(torch.optim.Adam, "step", counted)
    trainer = made(peers, variable, loss, tmp_path, words=words)
    before = [p.clone() for p in trainer.generator.parameters()]
    for rounds in (1, 2, 3):
        trainer.step()
        assert sorted(moves.values()) == [rounds, rounds * trainer.cfg.schedule.discriminator]
        after = [p.clone() for p in trainer.generator.parameters()]
        assert all(not torch.equal(a, b) for a, b in zip(before, after, strict=True))
        before = after
    assert sum(moves.values()) == 3 * (1 + trainer.cfg.schedule.discriminator)

    time.sleep(0.2)  # a sample that a worker is at when the turn ends is decoded still
    workers, own = worker_seconds(), time.process_time()
    time.sleep(1)
    assert active_children() and worker_seconds() - workers < 0.05 and time.process_time() - own < 0.05
    assert all(torch.equal(a, b) for a, b in zip(before, trainer.generator.parameters(), strict=True))

    trainer.close()
    assert not trainer.thread.is_alive() and not active_children() and not Path(trainer.folder.name).exists()
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("variable", CHECKOUTS)
def test_vectors_are_refused(variable, peers, tmp_path):
    with pytest.raises(ValueError, match=r"trains on images; got samples of shape \(2,\)$"):
        made(peers, variable, "non-saturating", tmp_path, words=["model=mlp", "dataset=ring"])


def test_what_a_trainer_raises_comes_out_of_step(peers, tmp_path):
    trainer = made(peers, "GANRUN_MIMICRY", "non-saturating", tmp_path)
    trainer.step()
    trainer.discriminator.head = None
    with pytest.raises(TypeError, match="not callable"):
        trainer.step()
    trainer.close()


def test_mimicry_penalty_for_one_channel_is_that_for_three(peers, tmp_path):
    trainer = made(peers, "GANRUN_MIMICRY", "wgan-gp", tmp_path)
    discriminator = peers.mimicry_discriminator(
        trainer.module.nets.wgan_gp.wgan_gp_base.WGANGPBaseDiscriminator, trainer
    )
    real = torch.rand(8, 1, 32, 32)
    found = discriminator.compute_gradient_penalty_loss(real, real, gp_scale=10.0)
    x = real.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(trainer.discriminator(x).logits.sum(), x)
    expected = 10 * ((gradient.flatten(1).norm(2, dim=1) - 1) ** 2).mean()
    torch.testing.assert_close(found, expected)
    trainer.close()
