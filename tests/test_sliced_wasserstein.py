"""Sliced Wasserstein distance against SciPy's one-dimensional one, and against shifts known by hand."""

import pytest
import torch
from scipy.stats import wasserstein_distance

from ganrun.metrics.sliced_wasserstein import SlicedWasserstein, sliced_wasserstein


def samples(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def unit(*shape: int) -> torch.Tensor:
    directions = samples(*shape, seed=9)
    return directions / directions.norm(dim=0)


@pytest.mark.parametrize(("num", "features"), [(1, 3), (50, 2), (200, 30)])
def test_parity_with_scipy(num, features):
    real, fake, directions = samples(num, features), 0.5 * samples(num, features, seed=1) + 1, unit(features, 7)
    expected = []
    for direction in directions.T:
        one = wasserstein_distance((real @ direction).numpy(), (fake @ direction).numpy())
        assert sliced_wasserstein(real, fake, direction[:, None]).item() == pytest.approx(one, rel=1e-5)
        expected.append(one)
    assert sliced_wasserstein(real, fake, directions).item() == pytest.approx(sum(expected) / 7, rel=1e-5)


@pytest.mark.parametrize("shape", [(64, 2), (64, 3, 4, 4)])
def test_zero_for_equal_sets(shape):
    x = samples(*shape)
    metric = SlicedWasserstein(32)
    assert metric(x, x.clone()) == 0
    assert metric(x, x.flip(0)) == pytest.approx(0, abs=1e-6)  # a set has no order
    assert metric(x, samples(*shape, seed=1)) > 0.01


def test_one_dimension_is_the_wasserstein_distance():
    real, fake = samples(100, 1), 3 * samples(100, 1, seed=1) - 2
    expected = wasserstein_distance(real[:, 0].numpy(), fake[:, 0].numpy())
    assert SlicedWasserstein(4)(real, fake) == pytest.approx(expected, rel=1e-5)


def test_shift_by_hand():
    real, shift = samples(100, 2), torch.tensor([3.0, 4.0])
    got = SlicedWasserstein(20_000)(real, real + shift)
    assert got == pytest.approx(5 * 2 / torch.pi, rel=0.02)  # E |<shift, direction>| over the circle


def test_units_are_those_of_the_data():
    real, fake = samples(100, 3), samples(100, 3, seed=1)
    metric = SlicedWasserstein(16)
    assert metric(10 * real, 10 * fake) == pytest.approx(10 * metric(real, fake), rel=1e-5)
    assert metric(fake, real) == pytest.approx(metric(real, fake))


def test_images_are_flattened():
    real, fake = samples(20, 3, 4, 4), samples(20, 3, 4, 4, seed=1)
    metric = SlicedWasserstein(16)
    assert metric(real, fake) == metric(real.flatten(1), fake.flatten(1))


def test_directions_are_always_the_same():
    real, fake, before = samples(20, 3), samples(20, 3, seed=1), torch.get_rng_state()
    first = SlicedWasserstein(8)(real, fake)
    assert torch.equal(torch.get_rng_state(), before)
    torch.rand(5)
    assert SlicedWasserstein(8)(real, fake) == first
    assert SlicedWasserstein(9)(real, fake) != first


def test_protocol_tells_the_number_of_projections():
    assert SlicedWasserstein(7).protocol == {"features": "raw values", "order": 1, "num_projections": 7}


def test_refuses_no_projection():
    with pytest.raises(ValueError, match="num_projections=0; expected at least 1"):
        SlicedWasserstein(0)
