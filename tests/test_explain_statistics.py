"""Trend and noise of short series, against hand-counted values and scipy; losses at chance, against the losses."""

import math

import pytest
import torch
import yaml
from conftest import ROOT
from hydra.utils import get_class, instantiate
from scipy import stats

from ganrun.explaining.chance import DIFFERENCES, SATURATING, chance
from ganrun.explaining.course import HIGHER
from ganrun.explaining.statistics import (
    at_least,
    blocks,
    deviation,
    discordances,
    kendall,
    last,
    sen_interval,
    serial,
    trend,
    variance,
)
from ganrun.seeding import rng_for

NOISE = torch.randn(40, generator=rng_for("noise"), dtype=torch.float64).tolist()


def test_kendalls_s_counts_pairs():
    assert kendall([1, 2, 3, 4]) == 6 and kendall([4, 3, 2, 1]) == -6
    assert kendall([1.0, 0.2, 0.21, 0.19]) == -4, "three fall from the first, one rises, two fall"
    assert kendall([1, 1, 2]) == 2, "a tie counts nothing"


def test_few_values_are_counted_out():
    assert discordances(3) == [1, 2, 2, 1] and discordances(4) == [1, 3, 5, 6, 5, 3, 1]
    assert at_least(6, [1, 2, 3, 4]) == pytest.approx(1 / 24), "one order of 24 rises throughout"
    assert at_least(4, [1, 2, 4, 3]) == pytest.approx(4 / 24)
    assert at_least(-6, [4, 3, 2, 1]) == 1


def test_variance_of_s():
    assert variance(range(10)) == 10 * 9 * 25 / 18
    assert variance([1, 1, 2]) == pytest.approx((3 * 2 * 11 - 2 * 1 * 9) / 18)


@pytest.mark.parametrize("num", [6, 10])
def test_chance_is_that_of_scipy(num):
    values = NOISE[:num]
    ours = at_least(kendall(values), values)
    assert ours == pytest.approx(stats.kendalltau(range(num), values, alternative="greater", method="exact").pvalue)


def test_many_values_are_nearly_normal():
    values = [0.05 * i + x for i, x in enumerate(NOISE)]
    ours = at_least(kendall(values), values)
    exact = stats.kendalltau(range(40), values, alternative="greater", method="exact").pvalue
    assert abs(ours - exact) < 2e-3 and exact < 0.05, (ours, exact)


def test_theil_sen_ignores_an_outlier_and_agrees_with_scipy():
    steps = list(range(0, 400, 10))
    line = [3 - 0.01 * step for step in steps]
    line[20] = 100.0
    assert trend(steps, line).slope == pytest.approx(-0.01)
    values = [0.002 * step + x for step, x in zip(steps, NOISE, strict=True)]
    ours, theirs = trend(steps, values), stats.theilslopes(values, steps, 0.95)
    assert ours.slope == pytest.approx(theirs.slope)
    assert (ours.low, ours.high) == pytest.approx((theirs.low_slope, theirs.high_slope), rel=0.05)
    assert ours.rises < 0.05 < ours.falls and 0.5 < ours.noise < 2


def test_slopes_of_four_points():
    found = trend([0, 1, 2, 3], [0.0, 1.0, 2.0, 6.0])
    assert found.slope == pytest.approx((1 + 2) / 2), "the median of 1, 1, 1, 2, 2.5, 4"
    assert found.rises == pytest.approx(1 / 24)
    assert sen_interval([1, 1, 1, 2, 2.5, 4], 4) == (1, 4), "too few to leave any slope out"


def test_alike_neighbours_stretch_the_variance():
    assert serial([1, -1] * 10) == 1, "neighbours that differ need no correction"
    assert serial([-1] * 6 + [1] * 6) == pytest.approx(
        1 + 2 * sum((1 - lag / 12) * 0.75**lag for lag in range(1, 12))
    ), "the products are 5 + 5 - 1 of 12: a first correlation of 3/4"
    assert serial([1, 2, 3]) == serial([0.0] * 20) == 1
    walk = [sum(NOISE[: i + 1]) for i in range(40)]
    plain = at_least(kendall(walk), walk)
    assert min(plain, 1 - plain) < 0.001 < min(trend(list(range(40)), walk)[3:5]), "a walk is no trend"


def test_deviation_of_a_normal_distribution():
    assert deviation([1, 2, 3, 4, 100]) == pytest.approx(1.4826)


def test_windows():
    steps = list(range(50, 1050, 50))
    assert steps[last(steps, 1 / 3, 1)] == 700, "(1000 - 50) / 3 before the end is 683"
    assert last(steps, 1 / 3, 8) == 12 and last(steps, 1 / 3, 99) == 0
    assert blocks([1, 2, 3, 4, 5], [5.0, 1.0, 3.0, 9.0, 7.0], 2) == ([1, 4], [3.0, 8.0])


LOSSES = {path.stem: yaml.safe_load(path.read_text())["loss"] for path in (ROOT / "configs" / "loss").glob("*.yaml")}
CHANCE = {"non-saturating": 2 * math.log(2), "hinge": 2.0, "lsgan": 0.25, "relativistic-pairing": math.log(2),
          "relativistic-average": 2 * math.log(2), "wgan": None, "dual-contrastive": 2 * math.log(9)}  # fmt: skip


@pytest.mark.parametrize("name", LOSSES)
def test_chance_is_the_loss_of_logits_that_cannot_tell(name):
    loss, found = instantiate(LOSSES[name]), chance(LOSSES[name], rows=8)
    logits = torch.full((8,), loss.undecided or 0.0)
    if found is None:
        assert type(loss).__name__ == "Wasserstein" and loss.discriminator(logits, logits) == 0
    else:
        assert loss.discriminator(logits, logits) == pytest.approx(found)
    assert name not in CHANCE or found == (CHANCE[name] and pytest.approx(CHANCE[name]))
    assert (loss.undecided is None) == (type(loss).__name__ in DIFFERENCES)
    if type(loss).__name__ in SATURATING:
        sure = torch.full((8,), -20.0, requires_grad=True)
        loss.generator(torch.full((8,), 20.0), sure).backward()
        assert sure.grad.abs().max() < 1e-6, "no gradient is left where the discriminator is sure"


@pytest.mark.parametrize("settings", [{"smoothing": 0.2}, {"discriminator_factor": 0.5}])
def test_settings_of_a_loss_move_its_chance(settings):
    node = LOSSES["lsgan"] | settings
    loss = instantiate(node)
    logits = torch.full((4,), loss.undecided)
    assert loss.discriminator(logits, logits) == pytest.approx(chance(node))
    assert chance({"_target_": "ganrun.losses.Hinge", "margin": [0.8, 1.0]}) == pytest.approx(1.8)
    assert chance({"_target_": "own_losses.Mine"}) is None and chance({}) is None


def test_of_which_metrics_more_is_better():
    for path in (ROOT / "configs" / "metric").glob("*.yaml"):
        target = yaml.safe_load(path.read_text())[path.stem]["_target_"]
        assert get_class(target).lower_is_better == (path.stem not in HIGHER), path.stem
