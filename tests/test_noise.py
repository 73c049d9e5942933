"""Noise: ranges, moments, and that it draws from the given generator alone."""

import pytest
import torch

from ganrun.errors import UserError
from ganrun.noise import Normal, Uniform

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
def test_label_travels_along(noise):
    label = torch.tensor([1, 0])
    batch = noise(3)(2, rng(), label)
    assert batch.keys() == {"z", "label"} and batch["label"] is label
    assert noise(3)(2, rng()).keys() == {"z"}


@both
def test_has_nothing_to_save(noise):
    assert not noise(3).state_dict()


@both
def test_refuses_no_dimension(noise):
    with pytest.raises(UserError, match="z_dim=0; expected at least 1"):
        noise(0)
