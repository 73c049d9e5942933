"""Ramps by hand, through a real optimizer, in whole runs, and resumed in the middle."""

import json
import math
import shutil

import pytest
import torch
from conftest import TINY
from forked import run
from test_configs import SMALL as BUILT
from test_configs import composed
from test_runs import assert_same_state
from torch import nn

from ganrun.augment.instance_noise import InstanceNoise
from ganrun.callbacks.rates import ramps
from ganrun.ema import EMA, HalfLifeEMA
from ganrun.errors import UserError
from ganrun.game import Now
from ganrun.optim import PlayerOptimizer
from ganrun.penalties import R1
from ganrun.ramps import Constant, ConstantThenLinear, Cosine, Linear, Ramp, at, bounds
from ganrun.terms import FeatureMatching
from ganrun.training.build import build


def when(step: int) -> Now:
    return Now(step, move=1, images=64 * step)


@pytest.mark.parametrize(
    ("ramp", "expected"),  # at steps 0, 25, 50, 100, 1000
    [
        (0.3, [0.3, 0.3, 0.3, 0.3, 0.3]),
        (Constant(0.3), [0.3, 0.3, 0.3, 0.3, 0.3]),
        (Linear(10, 2, over=100), [10, 8, 6, 2, 2]),
        (Linear(0, 1, over=6400, unit="images"), [0, 0.25, 0.5, 1, 1]),
        (ConstantThenLinear(0.2, over=100), [0.2, 0.2, 0.2, 0, 0]),
        (ConstantThenLinear(4, hold=0, over=100, end=2), [4, 3.5, 3, 2, 2]),
        (ConstantThenLinear(4, hold=20, over=40), [4, 3, 0, 0, 0]),
        (ConstantThenLinear(3, hold=3200, over=6400, unit="images"), [3, 3, 3, 0, 0]),
        (Cosine(1, 0, over=100), [1, (2 + math.sqrt(2)) / 4, 0.5, 0, 0]),
        (Cosine(1, 3, over=100), [1, 2 - math.sqrt(0.5), 2, 3, 3]),
    ],
)
def test_course_by_hand(ramp, expected):
    assert [at(ramp, when(step)) for step in (0, 25, 50, 100, 1000)] == pytest.approx(expected, abs=1e-12)
    assert bounds(ramp) == pytest.approx((min(expected[0], expected[-1]), max(expected[0], expected[-1])))


class Saw(Ramp):
    """A user's own."""

    def __init__(self, high: float, period: int):
        self.high, self.period = high, period

    def at(self, now):
        return self.high * (1 + now.step % self.period) / self.period


def test_a_ramp_of_ones_own_in_a_config():
    saw = "{_target_: test_ramps.Saw, high: 3, period: 3}"
    cfg, _ = composed(*BUILT, "penalty=[r1]", f"penalty.r1.weight={saw}")
    penalty = build(cfg).module.recipe.adversary.penalties["r1"]
    assert [at(penalty.weight, when(step)) for step in range(4)] == [1, 2, 3, 1]


def test_ramps_are_logged_by_the_names_of_their_parts_or_by_paths_that_differ():
    def critic(end: float) -> nn.ModuleDict:
        parts = {"r1": R1(Linear(2, end, over=4)), "plain": R1(3.0)}
        for part in parts.values():
            part.now = when(2)
        return nn.ModuleDict(parts)

    assert ramps(critic(0)) == {"r1/weight": 1}
    assert ramps(nn.ModuleDict({"a": critic(0), "b": critic(4)})) == {"a.r1/weight": 1, "b.r1/weight": 3}


@pytest.mark.parametrize(("every", "due"), [(1, [0, 1, 2, 3, 4, 5]), (3, [0, 3])])
def test_a_term_acts_in_its_steps_multiplied_by_their_distance(every, due):
    term, seen = FeatureMatching(Linear(2, 4, over=4), every=every), []
    for step in range(6):
        term.now = when(step)
        seen += [step] * term.due
        assert term.strength == pytest.approx(every * min(4, 2 + step / 2))
    assert seen == due


def test_the_ends_are_exact():
    ramp = Linear(0.1, 0.7, over=3)
    assert (at(ramp, when(0)), at(ramp, when(3)), at(ramp, when(7))) == (0.1, 0.7, 0.7)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Linear(1, 0, over=0), "over=0; expected at least 1"),
        (lambda: Linear(1, 0, over=5, unit="epochs"), "unit=epochs; .*valid: .*images"),
        (lambda: ConstantThenLinear(1, over=5, hold=5), "hold=5; expected at least 0 and less than over=5"),
        (lambda: ConstantThenLinear(1, over=5, hold=-1), "hold=-1"),
        (lambda: InstanceNoise(Linear(1, 0, over=5), decay_steps=5), "add decay_steps=null"),
        (lambda: FeatureMatching(replace=True, every=2), "every=2: replace=true"),
    ],
)
def test_refuses(make, message):
    with pytest.raises(UserError, match=message):
        make()


@pytest.mark.parametrize("bad", [Linear(1, -1, over=5), Linear(-1, 1, over=5), Constant(0.0)])
def test_a_weight_stays_positive(bad):
    for make in (R1, FeatureMatching, lambda std: InstanceNoise(std, None)):
        with pytest.raises(ValueError, match="expected "):
            make(bad)


def test_a_penalty_weighs_by_its_ramp_and_its_interval():
    penalty, x = R1(Linear(10, 0, over=10), every=4), torch.tensor([[3.0, 4.0]])
    values = []
    for step in (0, 4, 8, 12):
        penalty.now = when(step)
        values.append(penalty(lambda x: x.square().sum(1) / 2, x, x).item())
    assert values == pytest.approx([4 * weight * 12.5 for weight in (10, 6, 2, 0)])


def test_instance_noise_follows_its_ramp_or_stays():
    x = torch.zeros(100_000)
    for noise, expected in (
        (InstanceNoise(Linear(0.2, 0.4, over=10), None), [0.2, 0.3, 0.4]),
        (InstanceNoise(0.2, None), [0.2, 0.2, 0.2]),
        (InstanceNoise(0.2, 20), [0.2, 0.15, 0.0]),
    ):
        for step, std in zip((0, 5, 20), expected, strict=True):
            noise.now = when(step)
            assert noise(x).std().item() == pytest.approx(std, rel=0.02)


def test_rates_and_betas_reach_the_optimizer_in_every_step():
    """Adam of one weight, its mean and second moment by hand with betas that change."""
    weight = nn.Parameter(torch.tensor([1.0], dtype=torch.float64))
    lr, beta = Linear(0.1, 0.0, over=4), Linear(0.5, 0.9, over=128, unit="images")
    player = PlayerOptimizer([weight], optimizer="torch.optim.Adam", lr=lr, betas=[beta, 0.9])
    x, mean, square = 1.0, 0.0, 0.0
    for step in range(6):
        gradient = 2.0 + step
        b, rate = min(0.9, 0.5 + 0.4 * step / 2), max(0.0, 0.1 - 0.025 * step)
        mean, square = b * mean + (1 - b) * gradient, 0.9 * square + 0.1 * gradient**2
        corrected = (square / (1 - 0.9 ** (step + 1))) ** 0.5 + 1e-8
        x -= rate * mean / (1 - b ** (step + 1)) / corrected
        weight.grad = torch.tensor([gradient], dtype=torch.float64)
        player.before_step(when(step))
        player.optimizer.step()
        assert weight.item() == pytest.approx(x, rel=1e-6)
    assert player.optimizer.param_groups[0]["lr"] == 0


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"lr": Linear(1, -1, over=5)}, "lr=Linear.*expected more than 0"),
        ({"lr": 0.1, "betas": [Linear(0.5, 1.5, over=5), 0.9]}, "Invalid beta parameter at index 0: 1.5"),
        ({"lr": 0.1, "decay_start": 5}, "decay_start=5: lr_schedule=constant has none"),
        (
            {"lr": 0.1, "lr_schedule": "constant-then-linear", "decay_steps": 9, "decay_start": 9},
            "decay_start=9; expected at least 0 and less than decay_steps=9",
        ),
    ],
)
def test_an_optimizer_refuses(settings, message):
    with pytest.raises(ValueError, match=message):
        PlayerOptimizer([nn.Parameter(torch.zeros(1))], optimizer="torch.optim.Adam", **settings)


def test_constant_then_linear_from_a_step_of_ones_own():
    weights = [nn.Parameter(torch.zeros(1))]
    settings = {"lr": 0.4, "lr_schedule": "constant-then-linear", "decay_steps": 20, "decay_start": 16}
    player = PlayerOptimizer(weights, optimizer="torch.optim.SGD", **settings)
    assert [player.lr_at(when(step)) for step in (0, 16, 17, 18, 20, 30)] == pytest.approx([0.4, 0.4, 0.3, 0.2, 0, 0])


def layer(value: float) -> nn.Linear:
    made = nn.Linear(1, 1, bias=False)
    nn.init.constant_(made.weight, value)
    return made


def test_half_life_by_hand():
    """16 images a step, a half-life of 32 images, at first half of the images seen."""
    live = layer(0.0)
    ema, average = HalfLifeEMA((live,), half_life=32, rampup=0.5), 0.0
    for step, decay in enumerate([0, 0.5**2, 0.5**1, 0.5 ** (16 / 24), 0.5**0.5, 0.5**0.5]):
        nn.init.constant_(live.weight, step + 1.0)
        ema.update(step, 16)
        average = decay * average + (1 - decay) * (step + 1)
        assert ema.average[0].weight.item() == pytest.approx(average)


def test_half_life_means_the_same_for_every_batch_size():
    assert HalfLifeEMA((layer(0.0),), half_life=640, rampup=None).decay_at(0, 64) == pytest.approx(0.5**0.1)
    for batch_size in (10, 80):
        live = layer(1.0)
        ema = HalfLifeEMA((live,), half_life=160, rampup=None)
        nn.init.zeros_(live.weight)
        for step in range(160 // batch_size):
            ema.update(step, batch_size)
        assert ema.average[0].weight.item() == pytest.approx(0.5)


@pytest.mark.parametrize("make", [lambda net: EMA(net, decay=0.5, warmup=1, start=3),
                                  lambda net: HalfLifeEMA(net, half_life=16, rampup=None, start=3)])  # fmt: skip
def test_before_its_start_the_average_is_a_copy(make):
    live = layer(7.0)
    ema, seen = make((live,)), []
    for step in range(5):
        nn.init.constant_(live.weight, float(step))
        ema.update(step, 16)
        seen.append(ema.average[0].weight.item())
    assert seen == [0, 1, 2, 2.5, 3.25]


def test_a_decay_may_be_a_ramp():
    ema = EMA((layer(0.0),), decay=Linear(0.5, 0.9, over=64, unit="images"), warmup=1)
    assert [ema.decay_at(step, 16) for step in (0, 2, 4, 9)] == pytest.approx([0.5, 0.7, 0.9, 0.9])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda net: HalfLifeEMA(net, half_life=0), "half_life=0; expected more than 0 images"),
        (lambda net: HalfLifeEMA(net, half_life=9, rampup=0.0), r"rampup=0.0; expected more than 0 \(null = off\)"),
        (lambda net: EMA(net, start=-1), "start=-1; expected at least 0"),
        (lambda net: EMA(net, decay=Linear(0.5, 1.0, over=9)), "expected 0 <= decay < 1"),
    ],
)
def test_an_average_refuses(make, message):
    with pytest.raises(ValueError, match=message):
        make((layer(0.0),))


FALL = "{_target_: ganrun.ramps.Linear, start: 10, end: 1, over: 4}"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ([f"loss.smoothing={FALL}"], "^loss.smoothing={.*}; expected a number, not a ramp$"),
        ([f"steps={FALL}"], "^steps={.*}; expected an integer, not a ramp$"),
        (["penalty=[r1]", f"penalty.r1.every={FALL}"], "^penalty.r1.every={.*}; expected an integer, not a ramp$"),
        (["penalty=[r1]", "penalty.r1.weight=much"], "^penalty.r1.weight=much; expected a number or a ramp$"),
        (["penalty=[r1]", "penalty.r1.weight={start: 1}"], "weight={'start': 1}; expected a number or a ramp$"),
        ([f"+optimizer.momentum={FALL}"], "^optimizer.momentum: nothing in this experiment reads it"),
        (["optimizer.lr={_target_: ganrun.ramps.Linear, begin: 1}"], "^optimizer.lr.begin: there is no such key"),
        (["optimizer.betas=[{_target_: ganrun.ramps.Linear, en: 1},0.9]"], "^optimizer.betas.en: .*did you mean end"),
    ],
)
def test_where_no_ramp_may_stand_one_line_says_so(settings, message):
    with pytest.raises(UserError, match=message):
        composed(*settings)


def lines(path, key):
    logged = [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]
    return [line[key] for line in logged if key in line]


SMALL = [*TINY, "log_every=1", "metric=[]", "on_collapse=null", "dataset.limit=64", "penalty=[r1]", "steps=6"]


def test_a_ramped_weight_acts_and_is_logged_in_a_whole_run(tmp_path):
    still = [*SMALL, "optimizer.lr=1e-20", "ema=half-life"]  # the same networks in every step of both runs
    run(*still, "penalty.r1.weight=1", "run_dir=one", cwd=tmp_path)
    run(*still, f"penalty.r1.weight={FALL}", "callbacks=[rates]", "run_dir=ramp", cwd=tmp_path)
    one, ramp = (lines(tmp_path / name, "discriminator/r1") for name in ("one", "ramp"))
    expected = [10, 7.75, 5.5, 3.25, 1, 1]
    assert [a / b for a, b in zip(ramp, one, strict=True)] == pytest.approx(expected, rel=1e-4)
    assert lines(tmp_path / "ramp", "r1/weight") == pytest.approx(expected)
    assert lines(tmp_path / "ramp", "generator/lr") == [1e-20] * 6
    decays = [0.5 ** (16 / max(0.05 * 16 * step, 1e-8)) for step in range(6)]
    assert lines(tmp_path / "ramp", "ema/decay") == pytest.approx(decays)


def test_a_run_goes_on_in_the_middle_of_its_ramps(tmp_path):
    """To the bit; and when it goes on for longer, ramps over ${steps} keep their first horizon."""
    changing = [
        f"penalty.r1.weight={FALL}",
        "optimizer.lr={_target_: ganrun.ramps.Cosine, start: 1e-3, end: 0, over: ${steps}}",
        "optimizer.generator.betas=[{_target_: ganrun.ramps.Linear, start: 0, end: 0.9, over: 64, unit: images},0.9]",
        "augment=[instance-noise]",
        "augment.instance-noise.decay_steps=null",
        "augment.instance-noise.std={_target_: ganrun.ramps.ConstantThenLinear, value: 0.1, over: ${steps}}",
        "ema=half-life",
        "ema.half_life={_target_: ganrun.ramps.Linear, start: 10, end: 50, over: 5}",
    ]
    run(*SMALL, *changing, "checkpoint.every=3", "checkpoint.keep=null", "run_dir=whole", cwd=tmp_path)
    shutil.copytree(tmp_path / "whole", tmp_path / "stopped")
    run("resume=whole", "steps=8", cwd=tmp_path)
    run("resume=stopped/checkpoints/step-000003.ckpt", "steps=8", cwd=tmp_path)
    assert_same_state(tmp_path / "whole", tmp_path / "stopped")
    fixed = [setting.replace("${steps}", "6") for setting in changing]
    run(*SMALL, *fixed, "steps=8", "run_dir=once", cwd=tmp_path)
    assert_same_state(tmp_path / "whole", tmp_path / "once")


def test_a_resume_may_end_a_ramp_with_a_number_and_not_begin_one(tmp_path):
    run(*SMALL, f"penalty.r1.weight={FALL}", "run_dir=r", "steps=2", cwd=tmp_path)
    longer = FALL.replace("over: 4", "over: 9")
    refused = run("resume=r", f"penalty.r1.weight={longer}", "change=true", "steps=3", cwd=tmp_path, check=2)
    assert "may change it to a number" in refused.err and refused.err.count("\n") == 1
    run("resume=r", "penalty.r1.weight=2", "change=true", "steps=3", cwd=tmp_path)
    run("resume=r", "steps=4", cwd=tmp_path)
    (change,) = json.loads((tmp_path / "r" / "result.json").read_text())["changes"]
    assert change["got"] == 2 and change["had"]["start"] == 10
