"""Sliced Wasserstein distance against SciPy's one-dimensional one, and against shifts known by hand."""

import pytest
import torch
from scipy.stats import wasserstein_distance

from ganrun.metrics.features import Seen
from ganrun.metrics.sliced_wasserstein import SlicedWasserstein, sliced_wasserstein


def samples(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def unit(*shape: int) -> torch.Tensor:
    directions = samples(*shape, seed=9)
    return directions / directions.norm(dim=0)


def score(real, fake, num_projections: int) -> float:
    metric = SlicedWasserstein(num_projections=num_projections)
    sides = metric.summary(), metric.summary()
    for side, values in zip(sides, (real, fake), strict=True):
        side.add(Seen(values))
    return metric.score(*sides).value


@pytest.mark.parametrize(
    ("num_real", "num_fake", "features"), [(1, 1, 3), (50, 50, 2), (200, 200, 30), (50, 73, 2), (9, 300, 5)]
)
def test_parity_with_scipy(num_real, num_fake, features):
    real, fake = samples(num_real, features), 0.5 * samples(num_fake, features, seed=1) + 1
    directions = unit(features, 7)
    expected = []
    for direction in directions.T:
        one = wasserstein_distance((real @ direction).numpy(), (fake @ direction).numpy())
        assert sliced_wasserstein(real, fake, direction[:, None]).item() == pytest.approx(one, rel=1e-5)
        expected.append(one)
    assert sliced_wasserstein(real, fake, directions).item() == pytest.approx(sum(expected) / 7, rel=1e-5)


def test_more_directions_than_a_chunk_holds():
    real, fake, directions = samples(50, 3), samples(50, 3, seed=1), unit(3, 150)
    each = torch.cat([sliced_wasserstein(real, fake, one[:, None])[None] for one in directions.T])
    assert sliced_wasserstein(real, fake, directions).item() == pytest.approx(each.mean().item(), rel=1e-5)


def test_zero_for_equal_sets():
    x = samples(64, 5)
    assert score(x, x.clone(), 32) == 0
    assert score(x, x.flip(0), 32) == pytest.approx(0, abs=1e-6)  # a set has no order
    assert score(x, samples(64, 5, seed=1), 32) > 0.01


def test_one_dimension_is_the_wasserstein_distance():
    real, fake = samples(100, 1), 3 * samples(100, 1, seed=1) - 2
    expected = wasserstein_distance(real[:, 0].numpy(), fake[:, 0].numpy())
    assert score(real, fake, 4) == pytest.approx(expected, rel=1e-5)


def test_shift_by_hand():
    real, shift = samples(100, 2), torch.tensor([3.0, 4.0])
    got = score(real, real + shift, 20_000)
    assert got == pytest.approx(5 * 2 / torch.pi, rel=0.02)  # E |<shift, direction>| over the circle


def test_units_are_those_of_the_data():
    real, fake = samples(100, 3), samples(100, 3, seed=1)
    assert score(10 * real, 10 * fake, 16) == pytest.approx(10 * score(real, fake, 16), rel=1e-5)
    assert score(fake, real, 16) == pytest.approx(score(real, fake, 16))


def test_directions_are_always_the_same():
    real, fake, before = samples(20, 3), samples(20, 3, seed=1), torch.get_rng_state()
    first = score(real, fake, 8)
    assert torch.equal(torch.get_rng_state(), before)
    torch.rand(5)
    assert score(real, fake, 8) == first
    assert score(real, fake, 9) != first


def test_protocol_tells_the_number_of_projections():
    assert SlicedWasserstein(num_projections=7).protocol == {"order": 1, "num_projections": 7}


def test_refuses_no_projection():
    with pytest.raises(ValueError, match="num_projections=0; expected at least 1"):
        SlicedWasserstein(num_projections=0)
