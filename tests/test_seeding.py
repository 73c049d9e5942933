"""Randomness by position: the same for ever, and random enough."""

import numpy as np
import pytest
import torch

from ganrun.seeding import derive, rng_for, seed_default_generators, uniform_at


def test_splitmix64_known_outputs():
    outputs = [6457827717110365317, 3203168211198807973, 9817491932198370423, 4593380528125082431]
    expected = [(output >> 11) / 2**53 for output in outputs]  # of SplitMix64 seeded with 1234567
    assert uniform_at(np.arange(1, 5), seed=1234567).tolist() == expected


def test_same_position_same_number():
    everything = uniform_at(np.arange(1000), seed=5)
    positions = np.array([999, 3, 3, 500])
    assert uniform_at(positions, seed=5).tolist() == everything[positions].tolist()
    assert not (uniform_at(np.arange(1000), seed=6) == everything).any()


@pytest.mark.parametrize("seed", [0, 1, derive(0, "flip"), 2**63 - 1])
@pytest.mark.parametrize("start", [0, 10**12])
def test_uniform(seed, start):
    u = uniform_at(np.arange(start, start + 100_000), seed)
    assert u.dtype == np.float64 and u.min() >= 0 and u.max() < 1
    assert u.mean() == pytest.approx(1 / 2, abs=0.005)
    assert u.var() == pytest.approx(1 / 12, abs=0.002)
    assert np.abs(np.histogram(u, 20, (0, 1))[0] - 5000).max() < 400
    for lag in (1, 2, 64):
        assert abs(np.corrcoef(u[:-lag], u[lag:])[0, 1]) < 0.015


def test_seeds_are_independent():
    positions = np.arange(50_000)
    one, two = (uniform_at(positions, derive(seed, "flip")) for seed in (0, 1))
    assert abs(np.corrcoef(one, two)[0, 1]) < 0.02


@pytest.mark.parametrize("parts", [(0,), (-1,), (2**64,), (10**40, "step", 3), ("",), (0, "noise", 2**63)])
def test_derive_gives_63_bits_that_seed_everything(parts):
    seed = derive(*parts)
    assert 0 <= seed < 2**63
    assert seed == derive(*parts)
    assert rng_for(*parts).initial_seed() == seed
    assert 0 <= uniform_at(np.array([1]), seed)[0] < 1


def test_derive_is_the_same_for_ever():
    assert derive(0, "step", 0) == 7316601067076945981
    assert derive(10**40) == 6351039970393244563


def test_derive_tells_parts_apart():
    parts = [(1, 23), (12, 3), (123,), (3, 12), (1, "noise", 2), (1, "step", 2), (1, 2, "noise"), ()]
    assert len({derive(*each) for each in parts}) == len(parts)
    seeds = np.array([derive(0, "step", step) for step in range(5000)])
    assert len(np.unique(seeds)) == 5000
    assert (seeds / 2**63).mean() == pytest.approx(0.5, abs=0.02)


def test_generator_is_fresh_each_time():
    draws = [torch.rand(3, generator=rng_for(1, "noise", step)) for step in (0, 0, 1)]
    assert torch.equal(draws[0], draws[1])
    assert not torch.equal(draws[0], draws[2])


def test_default_generator_is_reseeded():
    draws = []
    for seed in (derive(1), derive(2), derive(1)):
        seed_default_generators(seed)
        draws.append(torch.rand(3))
    assert torch.equal(draws[0], draws[2])
    assert not torch.equal(draws[0], draws[1])
    assert torch.equal(draws[0], torch.rand(3, generator=rng_for(1)))
