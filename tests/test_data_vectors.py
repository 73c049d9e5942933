"""Distributions of points against what their names promise."""

import math

import numpy as np
import pytest
import torch

from ganrun.data.vectors import Gaussian, Grid, Ring, SwissRoll
from ganrun.errors import UserError

ALL = {
    "gaussian": (Gaussian, 1),
    "ring": (Ring, 2),
    "grid": (Grid, 2),
    "swiss-roll": (SwissRoll, 2),
}


def make(name: str, **settings):
    cls, channels = ALL[name]
    return cls(**({"name": name, "channels": channels, "num": 20_000} | settings))


def everything(data) -> dict[str, torch.Tensor]:
    return data.read(torch.arange(len(data)))


@pytest.mark.parametrize(("mean", "std"), [(4.0, 1.25), (-1.0, 0.1)])
def test_gaussian(mean, std):
    points = everything(make("gaussian", mean=mean, std=std))["real"]
    assert points.shape == (20_000, 1) and points.dtype == torch.float32
    assert points.mean().item() == pytest.approx(mean, abs=5 * std / math.sqrt(20_000))
    assert points.std().item() == pytest.approx(std, rel=5 / math.sqrt(40_000))
    within = ((points - mean).abs() < std).double().mean().item()
    assert within == pytest.approx(0.6827, abs=0.015)


def check_mixture(data, centres: list[tuple[float, float]], std: float) -> None:
    """Every mode: its share of the points, their mean and their standard deviation."""
    batch = everything(data)
    assert data.classes == [str(i) for i in range(len(centres))] and data.num_classes == len(centres)
    assert batch["label"].dtype == torch.int64
    share = len(data) / len(centres)
    for label, centre in enumerate(centres):
        points = batch["real"][batch["label"] == label]
        assert len(points) == pytest.approx(share, abs=5 * math.sqrt(share))
        assert points.mean(0).tolist() == pytest.approx(centre, abs=5 * std / math.sqrt(len(points)))
        assert points.std(0).tolist() == pytest.approx([std, std], rel=5 / math.sqrt(2 * len(points)))


@pytest.mark.parametrize(("modes", "radius", "std"), [(8, 2.0, 0.02), (3, 0.5, 0.1)])
def test_ring(modes, radius, std):
    angles = [2 * math.pi * i / modes for i in range(modes)]
    centres = [(radius * math.cos(a), radius * math.sin(a)) for a in angles]
    check_mixture(make("ring", modes=modes, radius=radius, std=std), centres, std)


@pytest.mark.parametrize(
    ("side", "spacing", "ticks"), [(5, 2.0, [-4.0, -2.0, 0.0, 2.0, 4.0]), (2, 3.0, [-1.5, 1.5]), (1, 2.0, [0.0])]
)
def test_grid(side, spacing, ticks):
    check_mixture(make("grid", side=side, spacing=spacing), [(x, y) for x in ticks for y in ticks], 0.05)


def test_swiss_roll_without_noise_is_a_spiral():
    points = everything(make("swiss-roll", noise=0.0))["real"].double().numpy() * 7.5
    radius, angle = np.hypot(*points.T), np.arctan2(points[:, 1], points[:, 0])
    assert radius.min() > 1.5 * math.pi - 1e-3 and radius.max() < 4.5 * math.pi + 1e-3
    assert np.ptp(radius) > 9  # of 3 pi
    turns = (radius - angle) / (2 * math.pi)  # at angle t the radius is t
    assert np.abs(turns - turns.round()).max() < 1e-4


def test_swiss_roll_noise_is_of_the_unscaled_roll():
    smooth, noisy = (everything(make("swiss-roll", noise=noise))["real"] for noise in (0.0, 0.25))
    assert ((noisy - smooth) * 7.5).std().item() == pytest.approx(0.25, rel=0.02)
    assert noisy.abs().max() < 2.1


@pytest.mark.parametrize("name", ALL)
def test_the_same_points_every_time(name):
    first, again = everything(make(name)), everything(make(name))
    torch.manual_seed(123)
    limited = make(name, limit=100)
    assert limited.shape == first["real"].shape[1:] and len(limited) == 100
    for key, values in first.items():
        assert torch.equal(values, again[key])
        assert torch.equal(values[:100], everything(limited)[key])
    assert len(np.unique(first["real"].numpy(), axis=0)) > 19_000  # not one point over and over


@pytest.mark.parametrize("name", ALL)
def test_labels_only_where_there_are_modes(name):
    batch = make(name).read(torch.tensor([5, 3]))
    assert set(batch) == ({"real", "label"} if name in ("ring", "grid") else {"real"})


def test_points_are_no_bounded_values():
    data = make("gaussian")
    points = torch.tensor([[-7.5], [11.0]])
    assert torch.equal(data.to_range(points), points)


@pytest.mark.parametrize(("name", "num_classes"), [("ring", 8), ("grid", 25)])
def test_few_points_have_as_many_classes(name, num_classes):
    assert make(name, num=3, num_classes=num_classes).num_classes == num_classes


def test_no_points_are_refused():
    with pytest.raises(UserError, match=r"dataset.num=0; expected at least 1"):
        make("ring", num=0)


def test_a_picture_shows_what_was_generated():
    data = make("ring", num=500)
    real = everything(data)["real"]
    collapsed, complete = (np.array(data.picture(fake, real, columns=8)) for fake in (real[:1].expand(500, 2), real))
    assert collapsed.shape == complete.shape and collapsed.shape[2] == 3
    assert (collapsed != complete).any()
