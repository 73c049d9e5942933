"""Penalties against critics whose gradient is known: w.x and |x|^2 / 2."""

import pytest
import torch

from ganrun.game import Now
from ganrun.penalties import R1, R2, Dragan, GradientPenalty

W = torch.tensor([3.0, 0.0, 4.0, 0.0])  # |w| = 5
EVERY_PENALTY = {GradientPenalty: 16.0, Dragan: 16.0, R1: 12.5, R2: 12.5}  # unweighted, for the critic w.x
every_penalty = pytest.mark.parametrize("penalty", EVERY_PENALTY)


def linear(x):
    return x.flatten(1) @ W


def quadratic(x):
    """Its gradient at x is x."""
    return x.flatten(1).square().sum(1) / 2


def samples(*shape: int):
    real, fake = torch.randn(2, *shape, generator=torch.Generator().manual_seed(0))
    return real, fake


@every_penalty
@pytest.mark.parametrize("shape", [(1, 4), (3, 4), (6, 1, 2, 2)])
def test_linear_critic(penalty, shape):
    assert penalty(10.0)(linear, *samples(*shape)).item() == pytest.approx(10 * EVERY_PENALTY[penalty], rel=1e-5)


@every_penalty
def test_patch_logits_add_up(penalty):
    def patches(x):
        return torch.stack([x.flatten(1) @ W / 4, x.flatten(1) @ W * 3 / 4], 1)[:, None]  # (batch, 1, 2)

    assert penalty(1.0)(patches, *samples(3, 4)).item() == pytest.approx(EVERY_PENALTY[penalty], rel=1e-5)


def test_gradient_norm_is_per_sample():
    x = torch.tensor([[3.0, 4.0], [0.0, 1.0], [0.6, 0.8]])  # norms 5, 1, 1; of the whole batch 5.2
    assert GradientPenalty(1.0)(quadratic, x, x).item() == pytest.approx(16 / 3, rel=1e-5)
    assert R1(1.0)(quadratic, x, x).item() == pytest.approx((25 + 1 + 1) / 3 / 2)


def test_r1_looks_at_reals_and_r2_at_fakes():
    real, fake = torch.tensor([[1.0, 0.0], [0.0, 1.0]]), torch.tensor([[3.0, 0.0], [0.0, 3.0]])
    assert R1(2.0)(quadratic, real, fake).item() == pytest.approx(1)
    assert R2(2.0)(quadratic, real, fake).item() == pytest.approx(9)


def points_seen(penalty, real, fake):
    seen = []
    penalty(1.0)(lambda x: seen.append(x.detach()) or quadratic(x), real, fake)
    assert len(seen) == 1
    return seen[0]


def test_bfloat16_fakes_have_a_gradient_in_float32():
    fake = torch.randn(4, 5).bfloat16()
    penalty = R2(weight=1.0)(lambda x: (x.float() ** 3).sum(1), None, fake)
    assert penalty.dtype == torch.float32
    expected = 0.5 * (3 * fake.float() ** 2).square().sum(1).mean()
    torch.testing.assert_close(penalty, expected, rtol=1e-6, atol=0)


def test_one_epsilon_a_sample():
    seen = points_seen(GradientPenalty, torch.ones(64, 3, 2, 2), torch.zeros(64, 3, 2, 2)).flatten(1)
    epsilon = seen[:, 0]
    assert torch.equal(seen, epsilon[:, None].expand_as(seen))
    assert len(epsilon.unique()) == 64
    assert 0 <= epsilon.min() < 0.1 and 0.9 < epsilon.max() <= 1


def test_gradient_penalty_lies_between_reals_and_fakes():
    real, fake = samples(64, 5)
    fraction = (points_seen(GradientPenalty, real, fake) - fake) / (real - fake)
    torch.testing.assert_close(fraction, fraction[:, :1].expand_as(fraction), rtol=1e-3, atol=1e-3)
    assert fraction.min() > -1e-3 and fraction.max() < 1 + 1e-3


def test_dragan_by_hand(monkeypatch):
    """Two reals of two coordinates, (1, 3) and (5, 7): deviation sqrt(5); the gradient of |x|^2 / 2 at x is x."""
    alpha, noise = torch.tensor([[0.5], [1.0]]), torch.tensor([[0.2, 0.4], [0.6, 0.8]])
    monkeypatch.setattr(torch, "rand", lambda *shape, **_: alpha if shape == (2, 1) else None)
    monkeypatch.setattr(torch, "rand_like", lambda x: noise)
    half = 0.5 * 5**0.5
    first = (1 + 0.5 * half * 0.2, 3 + 0.5 * half * 0.4)
    second = (5 + half * 0.6, 7 + half * 0.8)
    expected = sum(((a**2 + b**2) ** 0.5 - 1) ** 2 for a, b in (first, second)) / 2
    real = torch.tensor([[1.0, 3.0], [5.0, 7.0]])
    assert Dragan(10.0)(quadratic, real, torch.full((2, 2), 1e3)).item() == pytest.approx(10 * expected, rel=1e-6)


def test_dragan_stays_around_the_data():
    real, fake = 3 * samples(64, 50)[0] + 2, torch.full((64, 50), 1e3)
    shift = (points_seen(Dragan, real, fake) - real) / (0.5 * real.std(correction=0))
    alpha = shift.amax(1)  # nearly: the largest of 50 coordinates of alpha * U[0, 1)
    assert shift.min() > -1e-4 and shift.max() < 1 + 1e-4
    assert 0 < alpha.min() < 0.1 and alpha.max() > 0.9  # one a sample, all of [0, 1)
    assert (shift / alpha[:, None]).std(1).min() > 0.2  # every coordinate has its own noise


@every_penalty
def test_gradient_reaches_the_critic(penalty):
    w = W.clone().requires_grad_()
    penalty(10.0)(lambda x: x @ w, *samples(3, 4)).backward()
    norm = 5
    expected = 10 * W if penalty in (R1, R2) else 10 * 2 * (norm - 1) * W / norm
    torch.testing.assert_close(w.grad, expected)


@every_penalty
def test_gradient_does_not_reach_the_samples(penalty):
    w = W.clone().requires_grad_()
    real, fake = (x.requires_grad_() for x in samples(3, 4))
    penalty(1.0)(lambda x: (x @ w).square(), 1 * real, 1 * fake).backward()
    assert w.grad.abs().sum() > 0
    assert real.grad is None and fake.grad is None


@every_penalty
def test_flat_critic_gives_finite_gradients(penalty):
    w = torch.zeros(4, requires_grad=True)
    value = penalty(1.0)(lambda x: x @ w, *samples(3, 4))
    value.backward()
    assert value.item() == (0.0 if penalty in (R1, R2) else 1.0)
    assert w.grad.isfinite().all()


@every_penalty
def test_lazy_is_multiplied_by_its_interval(penalty):
    every_step, lazy = penalty(0.5), penalty(0.5, every=16)
    torch.testing.assert_close(lazy(linear, *samples(3, 4)), 16 * every_step(linear, *samples(3, 4)))


@pytest.mark.parametrize(("every", "due"), [(1, [0, 1, 2, 3, 4, 5, 6, 7]), (3, [0, 3, 6]), (16, [0])])
def test_due(every, due):
    penalty = R1(1.0, every=every)
    got = []
    for step in range(8):
        penalty.now = Now(step, move=1, images=7 * step)  # the step alone decides
        got += [step] * penalty.due
    assert got == due


@every_penalty
@pytest.mark.parametrize(("settings", "message"), [({"weight": 0}, "leave it out"), ({"every": 0}, "every=0")])
def test_refuses(penalty, settings, message):
    with pytest.raises(ValueError, match=message):
        penalty(**{"weight": 1.0, **settings})
