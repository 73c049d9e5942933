"""The collapse watch: its numbers, its rules, provoked collapses that it finds, healthy runs that it leaves alone."""

import json
import math
from types import SimpleNamespace

import pytest
import torch
from conftest import ganrun
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from ganrun.adversary import Adversary
from ganrun.collapse.alarms import is_lost, is_out_of_reach, is_saturated, sameness, told
from ganrun.collapse.callback import saturation
from ganrun.collapse.diversity import (
    Diversity,
    Reals,
    neighbour_distance,
    random_features,
    reach,
    shrunk,
    spread,
    twins,
)
from ganrun.losses import Hinge, LeastSquares, Minimax, NonSaturating, RelativisticAverage, RelativisticPairing
from ganrun.losses import Wasserstein as WassersteinLoss
from ganrun.seeding import rng_for

# numbers

SQUARE = torch.tensor([[0.0, 0.0], [2.0, 0.0], [0.0, 2.0], [2.0, 2.0]])  # total variance 2


def test_spread_is_the_root_of_the_variances_ratio():
    assert spread(SQUARE, SQUARE) == 1 and spread(SQUARE, SQUARE / 2 + 7) == 0.5
    assert spread(SQUARE, torch.ones(4, 2)) == 0
    assert spread(torch.ones(4, 2), SQUARE) == 1, "nothing can be said where reals are all alike"


def test_twins_are_rows_nearer_than_the_limit():
    x = torch.tensor([[0.0], [0.1], [5.0], [5.1], [9.0]])
    assert neighbour_distance(x).tolist() == pytest.approx([0.1, 0.1, 0.1, 0.1, 3.9])
    assert twins(x, 0.2).item() == pytest.approx(0.8) and twins(x, 0.05) == 0


def test_reach_falls_with_each_lost_mode():
    assert reach(SQUARE, torch.zeros(4)) == 1
    assert reach(SQUARE, torch.full((4,), math.sqrt(2))) == pytest.approx(0, abs=1e-6), "a single fake at the mean"
    assert reach(SQUARE, torch.tensor([0.0, 0.0, 2.0, 2.0])) == 0, "one side of the square: (0 + 0 + 4 + 4) / 4 / 2"
    assert reach(SQUARE, torch.tensor([0.0, 0.0, 0.0, 2.0])) == 0.5
    assert reach(torch.ones(4, 2), torch.ones(4)) == 0


def test_random_features_are_the_same_in_every_run_and_leave_draws_alone():
    images = torch.rand(3, 2, 20, 12, generator=rng_for("images"))
    before = torch.get_rng_state()
    features = random_features(images)
    assert features.shape == (3, 512) and torch.equal(features, random_features(images))
    assert torch.equal(torch.get_rng_state(), before)
    assert (features[0] - features[1]).norm() > 0.1
    assert torch.equal(random_features(SQUARE), SQUARE)
    assert random_features(torch.rand(2, 1, 1, 1)).shape == (2, 128)


def test_large_images_are_looked_at_small():
    image = torch.arange(64 * 64.0).view(1, 1, 64, 64)
    assert shrunk(image).shape == (1, 1, 32, 32) and shrunk(image)[0, 0, 0, 0] == (0 + 1 + 64 + 65) / 4
    assert shrunk(torch.ones(1, 3, 16, 8, dtype=torch.bfloat16)).dtype == torch.float32


def test_a_generator_that_knows_five_images_is_told_by_its_twins_alone():
    real = torch.randn(256, 1, 8, 8, generator=rng_for("real"))
    five = real[:5].repeat(52, 1, 1, 1)[:256] + 0.01 * torch.randn(256, 1, 8, 8, generator=rng_for("noise"))
    seen = Reals(real).compare(five)
    assert seen.twins == 1 and seen.real_twins == 0 and seen.pixel_spread > 0.8
    assert sameness(seen, seen.reach) == ["100% of the fakes have a near twin (reals: 0%)"]
    assert not sameness(Reals(real).compare(torch.randn(256, 1, 8, 8, generator=rng_for("other"))), seen.reach)


def test_lost_modes_of_a_ring_are_told_by_reach():
    angle = torch.arange(8) * math.pi / 4
    modes = 2 * torch.stack([angle.cos(), angle.sin()], 1)
    real = modes.repeat(32, 1) + 0.02 * torch.randn(256, 2, generator=rng_for("real"))
    two = modes[::4].repeat(128, 1) + 0.02 * torch.randn(256, 2, generator=rng_for("fake"))
    seen = Reals(real).compare(two)  # opposite modes: as spread out as all eight
    assert seen.pixel_spread == pytest.approx(1, abs=0.02) and seen.real_reach > 0.99
    assert seen.reach == pytest.approx(1 - (4 * 0.5858 + 2 * 2) / 8, abs=0.05)  # the nearest of 128 lies a bit nearer
    assert "of their variance (at best 99%)" in sameness(seen, best_reach=0.99)[-1]
    assert not sameness(seen, best_reach=0.5), "no more than this had been reached"


# rules

CHANCE = {
    NonSaturating: 2 * math.log(2), Minimax: 2 * math.log(2), Hinge: 2.0, LeastSquares: 0.5,
    RelativisticPairing: math.log(2), RelativisticAverage: 2 * math.log(2), WassersteinLoss: 0.0,
}  # fmt: skip


@pytest.mark.parametrize("loss", CHANCE)
def test_share_of_the_loss_at_chance(loss):
    adversary = Adversary(torch.nn.Identity(), loss())
    player = SimpleNamespace(networks=(adversary.discriminator,))
    module = SimpleNamespace(
        recipe=adversary, players={"discriminator": player}, terms={"discriminator/adversarial": torch.tensor(0.01)}
    )
    chance = CHANCE[loss]
    assert saturation(module) == ({"discriminator": pytest.approx(0.01 / chance)} if chance else {})


def test_saturated_is_a_small_share_of_the_loss_at_chance():
    assert is_saturated(0.0049, 1.0) and not is_saturated(0.0051, 1.0)
    assert is_saturated(0.0, 2.0) and not is_saturated(-3.0, 0.0)


def test_a_score_is_lost_when_worse_by_a_factor_of_two_and_half_of_the_gain():
    assert is_lost(1.0, 0.2, 0.61, lower=True) and not is_lost(1.0, 0.2, 0.59, lower=True)
    assert is_lost(0.5, 0.2, 0.41, lower=True), "half of the gain and twice the best"
    assert not is_lost(0.21, 0.2, 0.39, lower=True), "noise near the floor is less than the best"
    assert not is_lost(0.05, 0.05, 0.05, lower=True)
    assert is_lost(1.0, 9.0, 4.0, lower=False) and not is_lost(1.0, 9.0, 5.0, lower=False)
    assert is_lost(-0.1, -0.1, 0.3, lower=True), "unbiased estimates of a kernel distance can be below 0"


def test_reach_can_be_lost_only_where_there_was_some():
    assert is_out_of_reach(0.3, 0.95, 1.0) and not is_out_of_reach(0.4, 0.95, 1.0)
    assert not is_out_of_reach(-3.0, 0.1, 0.67) and is_out_of_reach(-0.1, 0.4, 0.67)
    assert not is_out_of_reach(-3.0, 0.9, 0.2), "neighbours say nothing about such reals"


def test_what_is_told():
    seen = Diversity(0.061, 0.08, 0.92, 0.0, 0.1, 0.3)
    text = told("diversity", 1200, "; ".join(sameness(seen, 0.1)), 3)
    assert text == (
        "collapse at step 1,200: the fakes' spread is 6.1% of the reals' in pixels, 8.0% in random features; 92% of "
        "the fakes have a near twin (reals: 0%) for 3 looks in a row; try a lower optimizer.generator.lr, penalty=[r1] "
        "or a larger batch_size"
    )


# provoked collapses, by real settings: no term pulls fakes together

DIGITS = ["generator.width=16", "discriminator.width=16", "batch_size=32", "precision=32-true", "sample_every=0"]
RING = ["dataset=ring", "model=mlp", "sample_every=0"]
LOOK = ["collapse.every=10", "evaluate.every=20", "evaluate.num_samples=256", "log_every=100"]
JUMP = """
from ganrun.optim import PlayerOptimizer


class Jump(PlayerOptimizer):
    def __init__(self, parameters, *, jump_at: int, jump: float, **settings):
        super().__init__(parameters, **settings)
        self.jump_at, self.jump = jump_at, jump

    def lr_at(self, now):
        return super().lr_at(now) * (self.jump if now.step >= self.jump_at else 1.0)
"""


def findings(path):
    return json.loads((path / "result.json").read_text())["collapse"]


def jumping(folder, at, **jumps):
    """Learning rates that change by a factor at step `at`; the words that choose them."""
    (folder / "my").mkdir()
    (folder / "my" / "jumping.py").write_text(JUMP)
    words = ["--config-dir", "my"]
    for player, jump in jumps.items():
        node = f"optimizer.{player}"
        words += [f"{node}._target_=jumping.Jump", f"+{node}.jump_at={at}", f"+{node}.jump={jump}"]
    return words


PROVOKED = {  # a healthy run until a step; what breaks it; the kind of finding; within how many steps
    "saturated discriminator": ([*DIGITS, "loss=minimax"], 300, (0.1, 25), "discriminator", 100),
    "diverging ring": (RING, 800, (100, 1), "score", 80),
    "runaway generator": (DIGITS, 300, (10, 0.01), "diversity", 80),
    "both blown up": (DIGITS, 300, (100, 100), "diversity", 50),
}
ALWAYS = ("saturated discriminator", "diverging ring")


@pytest.mark.parametrize("name", [pytest.param(n, marks=[] if n in ALWAYS else pytest.mark.soak) for n in PROVOKED])
def test_provoked_collapse_is_found(name, tmp_path):
    settings, begins, (generator_jump, discriminator_jump), kind, within = PROVOKED[name]
    jumps = jumping(tmp_path, begins, generator=generator_jump, discriminator=discriminator_jump)
    done = ganrun(*jumps, *settings, *LOOK, f"steps={begins + within}", "run_dir=run", cwd=tmp_path)
    every = findings(tmp_path / "run")
    assert all(begins < finding["step"] <= begins + within for finding in every), every
    (found,) = [finding for finding in every if finding["kind"] == kind]
    assert found["action"] == "warn" and f"warning: {found['text']}" in done.stderr
    assert found["text"] in (tmp_path / "run" / "train.log").read_text()
    board = EventAccumulator(str(tmp_path / "run" / "tensorboard")).Reload()
    assert found["text"].encode() in board.Tensors("collapse/text_summary")[-1].tensor_proto.string_val[0]
    looks = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    looks = [line["step"] for line in looks if "collapse/twins" in line]
    assert (
        looks == [event.step for event in board.Scalars("collapse/twins")] == list(range(10, begins + within + 1, 10))
    )


def test_generator_that_comes_to_know_few_images_is_found(tmp_path):
    """Ten moves of the generator to one of the discriminator, from the weights of a run that raised no alarm."""
    ganrun(*DIGITS, "steps=1000", "evaluate.every=100", "run_dir=healthy", cwd=tmp_path)
    assert findings(tmp_path / "healthy") == []
    ahead = ["schedule.generator=10", "optimizer.generator.lr=1e-3", "init_from=healthy", "steps=120"]
    ganrun(*DIGITS, *LOOK, *ahead, "run_dir=run", cwd=tmp_path)
    found = [finding for finding in findings(tmp_path / "run") if finding["kind"] == "diversity"]
    assert len(found) == 1 and "of the fakes have a near twin (reals: 0%)" in found[0]["text"]


# healthy runs: no alarm with the default settings of the watch

WGAN_GP = ["loss=wgan-gp", "steps=600"]
HEALTHY = {
    "digits hinge": [*DIGITS, "loss=hinge", "steps=1000", "seed=1"],
    "digits lsgan": [*DIGITS, "loss=lsgan", "steps=1000", "seed=2"],
    "digits relativistic": [*DIGITS, "loss=relativistic-pairing", "steps=1000", "seed=3"],
    "digits without average": [*DIGITS, "ema=none", "steps=1000", "seed=4"],
    "digits conditional": [*DIGITS, "conditional=label", "steps=1000", "seed=5"],
    "digits dragan": [*DIGITS, "loss=dragan", "steps=800", "seed=6"],
    "digits wgan-gp": [*DIGITS, *WGAN_GP, "seed=7"],
    "digits wgan": [*DIGITS, "loss=wgan", "steps=800", "seed=8"],
    "ring non-saturating": [*RING, "steps=2000", "seed=10"],
    "ring hinge": [*RING, "loss=hinge", "steps=2000", "seed=11"],
    "ring wgan-gp": [*RING, "loss=wgan-gp", "steps=1500", "seed=12"],
    "ring lsgan": [*RING, "loss=lsgan", "steps=2000", "seed=13"],
    "ring relativistic": [*RING, "loss=relativistic-pairing", "steps=2000", "seed=14"],
    "ring r1": [*RING, "penalty=[r1]", "steps=2000", "seed=15"],
    "grid non-saturating": ["dataset=grid", "model=mlp", "sample_every=0", "steps=2000", "seed=16"],
}
QUICK = ("ring non-saturating",)


@pytest.mark.parametrize("name", [pytest.param(n, marks=[] if n in QUICK else pytest.mark.soak) for n in HEALTHY])
def test_healthy_run_raises_no_alarm(name, tmp_path):
    ganrun(*HEALTHY[name], "evaluate.every=100", "run_dir=run", cwd=tmp_path)
    assert findings(tmp_path / "run") == []
