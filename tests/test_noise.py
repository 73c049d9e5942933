"""Noise: ranges, moments, and that it draws from the given generator alone."""

import math

import pytest
import torch
from scipy import stats

from ganrun.errors import UserError
from ganrun.noise import Normal, Uniform, slerp, truncated_normal

both = pytest.mark.parametrize("noise", [Normal, Uniform])


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize(("noise", "variance"), [(Normal, 1.0), (Uniform, 1 / 3)])
def test_moments(noise, variance):
    z = noise(8)(20_000, rng())["z"]
    assert z.shape == (20_000, 8)
    torch.testing.assert_close(z.mean(0), torch.zeros(8), atol=0.04, rtol=0)
    torch.testing.assert_close(torch.cov(z.T), variance * torch.eye(8), atol=0.04, rtol=0)


def test_ranges():
    z = Uniform(4)(20_000, rng())["z"]
    assert -1 <= z.min() < -0.99 and 0.99 < z.max() <= 1
    assert Normal(4)(20_000, rng())["z"].abs().max() > 3


@both
def test_generator_decides(noise):
    first = noise(3)(5, rng(7))["z"]
    torch.rand(10)  # the default generator has no say
    assert torch.equal(noise(3)(5, rng(7))["z"], first)
    assert not torch.equal(noise(3)(5, rng(8))["z"], first)


@both
def test_leaves_the_default_generator(noise):
    before = torch.get_rng_state()
    noise(3)(5, rng())
    assert torch.equal(torch.get_rng_state(), before)


@both
def test_has_nothing_to_save(noise):
    assert not noise(3).state_dict()


@both
def test_refuses_no_dimension(noise):
    with pytest.raises(UserError, match="z_dim=0; expected at least 1"):
        noise(0)


@pytest.mark.parametrize("truncation", [0.1, 0.5, 1.0, 2.0, 6.0])
def test_truncated_normal_has_its_distribution(truncation):
    z = Normal(8)(4000, rng(), truncation=truncation)["z"]
    assert z.shape == (4000, 8) and z.dtype == torch.float32 and z.abs().max() <= truncation * (1 + 1e-6)
    assert z.abs().max() > min(truncation * 0.99, 3)
    cut = stats.truncnorm(-truncation, truncation)
    assert stats.kstest(z.flatten().double().numpy(), cut.cdf).pvalue > 0.01
    torch.testing.assert_close(torch.cov(z.T), cut.var() * torch.eye(8), atol=0.08, rtol=0)


def test_truncated_normal_at_its_ends():
    z = truncated_normal(torch.tensor([0.0, 0.5, 1 - 2**-53], dtype=torch.float64), 40.0)
    assert z.isfinite().all() and z[1] == 0 and z.abs().max() <= 40


@pytest.mark.parametrize("truncation", [0, -1.0, math.nan])
def test_refuses_truncation(truncation):
    with pytest.raises(UserError, match="expected more than 0"):
        Normal(3)(1, rng(), truncation=truncation)


def test_uniform_has_no_tails():
    with pytest.raises(UserError, match="Uniform noise has no tails"):
        Uniform(3)(1, rng(), truncation=0.5)


ROOT = math.sqrt(0.5)
ARCS = [  # a, b, t, between: by hand
    ([1.0, 0.0], [0.0, 1.0], 0.5, [ROOT, ROOT]),
    ([1.0, 0.0], [0.0, 1.0], 1 / 3, [math.sqrt(0.75), 0.5]),  # 30 of 90 degrees
    ([2.0, 0.0], [0.0, 4.0], 0.5, [2 * ROOT, 4 * ROOT]),
    ([1.0, 0.0], [-0.5, math.sqrt(0.75)], 0.5, [0.5, math.sqrt(0.75)]),  # 60 of 120 degrees
    ([1.0, 2.0], [2.0, 4.0], 0.25, [1.25, 2.5]),  # parallel: straight
    ([1.0, 0.0], [-1.0, 0.0], 0.25, [0.5, 0.0]),
    ([0.0, 0.0], [3.0, 4.0], 0.5, [1.5, 2.0]),  # no direction
]


@pytest.mark.parametrize(("a", "b", "t", "between"), ARCS)
def test_slerp_by_hand(a, b, t, between):
    a, b, between = torch.tensor([a]), torch.tensor([b]), torch.tensor([between])
    torch.testing.assert_close(slerp(a, b, t), between)
    torch.testing.assert_close(slerp(b, a, 1 - t), between)
    torch.testing.assert_close(slerp(a, b, 0.0), a)
    torch.testing.assert_close(slerp(a, b, 1.0), b)


def test_slerp_keeps_lengths_and_rows_apart():
    a, b = torch.nn.functional.normalize(torch.randn(2, 5, 3, 64, generator=rng()), dim=-1)
    half = slerp(a, b, 0.5)
    torch.testing.assert_close(half.norm(dim=-1), torch.ones(5, 3))
    torch.testing.assert_close(half[2, 1], slerp(a[2, 1], b[2, 1], 0.5))


def test_the_way_between():
    a, b = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 1.0]])
    torch.testing.assert_close(Normal(2).between(a, b, 0.5), torch.tensor([[ROOT, ROOT]]))
    torch.testing.assert_close(Uniform(2).between(a, b, 0.5), torch.tensor([[0.5, 0.5]]))
