"""Adversarial losses against values worked out by hand, and against torch's binary cross-entropy."""

import pytest
import torch
from torch.nn.functional import binary_cross_entropy_with_logits

from ganrun.losses import (
    Hinge,
    LeastSquares,
    Minimax,
    NonSaturating,
    RelativisticAverage,
    RelativisticPairing,
    Wasserstein,
    cross_entropy,
)

# For logits (2, -1) of reals and (0.5, -3) of fakes: discriminator, generator.
BY_HAND = {
    NonSaturating: (1.2314270, 1.7613322),
    Minimax: (1.2314270, -0.5113322),
    LeastSquares: (((1 + 4) / 2 + (0.25 + 9) / 2) / 2, (0.25 + 16) / 4),
    Hinge: ((0 + 2) / 2 + (1.5 + 0) / 2, 1.25),
    Wasserstein: (-1.25 - 0.5, 1.25),
    RelativisticPairing: (0.1641706, 1.9141706),
    RelativisticAverage: (0.6684392, 4.1684392),
}
SMOOTHED = [NonSaturating, Minimax, LeastSquares]
RELATIVISTIC = [RelativisticPairing, RelativisticAverage]
SHAPES = [(8,), (4, 3, 5), (2, 1, 6, 6)]
every_loss = pytest.mark.parametrize("loss", BY_HAND)


def logits(*shape: int) -> tuple[torch.Tensor, torch.Tensor]:
    real, fake = 3 * torch.randn(2, *shape, generator=torch.Generator().manual_seed(0))
    return real, fake


def bce(x: torch.Tensor, target: float) -> torch.Tensor:
    return binary_cross_entropy_with_logits(x, torch.full_like(x, target))


@every_loss
def test_by_hand(loss):
    real, fake = torch.tensor([2.0, -1.0]), torch.tensor([0.5, -3.0])
    discriminator, generator = BY_HAND[loss]
    assert loss().discriminator(real, fake).item() == pytest.approx(discriminator, abs=1e-6)
    assert loss().generator(real, fake).item() == pytest.approx(generator, abs=1e-6)


@pytest.mark.parametrize(
    ("loss", "expected"), [(NonSaturating, 1.2814270), (Minimax, 1.2814270), (LeastSquares, 3.5175)]
)
def test_smoothing_by_hand(loss, expected):
    real, fake = torch.tensor([2.0, -1.0]), torch.tensor([0.5, -3.0])
    assert loss(smoothing=0.1).discriminator(real, fake).item() == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("target", [0.0, 0.3, 0.9, 1.0])
@pytest.mark.parametrize("shape", SHAPES)
def test_cross_entropy_is_torchs(target, shape):
    x, _ = logits(*shape)
    torch.testing.assert_close(cross_entropy(x, target), bce(x, target))


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("shape", SHAPES)
def test_discriminators_are_cross_entropies(smoothing, shape):
    real, fake = logits(*shape)
    expected = bce(real, 1 - smoothing) + bce(fake, 0)
    for loss in (NonSaturating, Minimax):
        torch.testing.assert_close(loss(smoothing=smoothing).discriminator(real, fake), expected)
    torch.testing.assert_close(RelativisticPairing().discriminator(real, fake), bce(real - fake, 1))
    average = bce(real - fake.mean(), 1) + bce(fake - real.mean(), 0)
    torch.testing.assert_close(RelativisticAverage().discriminator(real, fake), average)


@pytest.mark.parametrize("shape", SHAPES)
def test_generators_are_cross_entropies(shape):
    real, fake = logits(*shape)
    torch.testing.assert_close(NonSaturating().generator(None, fake), bce(fake, 1))
    torch.testing.assert_close(Minimax().generator(None, fake), -bce(fake, 0))
    torch.testing.assert_close(RelativisticPairing().generator(real, fake), bce(fake - real, 1))
    average = bce(fake - real.mean(), 1) + bce(real - fake.mean(), 0)
    torch.testing.assert_close(RelativisticAverage().generator(real, fake), average)


@every_loss
def test_patches_weigh_as_much_as_samples(loss):
    real, fake = logits(2, 1, 6, 6)
    for player in (loss().discriminator, loss().generator):
        got = player(real, fake)
        assert got.shape == ()
        torch.testing.assert_close(got, player(real.flatten(), fake.flatten()))


@every_loss
def test_discriminator_factor_spares_the_generator(loss):
    real, fake = logits(8)
    halved = loss(discriminator_factor=0.5)
    torch.testing.assert_close(halved.discriminator(real, fake), loss().discriminator(real, fake) / 2)
    assert torch.equal(halved.generator(real, fake), loss().generator(real, fake))


@pytest.mark.parametrize("loss", SMOOTHED)
def test_smoothing_is_one_sided(loss):
    (real, fake), smoothed = logits(8), loss(smoothing=0.2)
    assert torch.equal(smoothed.generator(None, fake), loss().generator(None, fake))
    (gradient,) = torch.autograd.grad(smoothed.discriminator(real, fake.requires_grad_()), fake)
    (expected,) = torch.autograd.grad(loss().discriminator(real, fake), fake)
    torch.testing.assert_close(gradient, expected)


@every_loss
def test_players_pull_logits_apart_and_together(loss):
    real, fake = (x.clamp(0.1, 0.5).requires_grad_() for x in logits(8))  # between the targets of every loss
    up, down = torch.autograd.grad(loss().discriminator(real, fake), (real, fake))
    assert (up < 0).all() and (down > 0).all()  # descent raises D(x) and lowers D(G(z))
    (up,) = torch.autograd.grad(loss().generator(real, fake), fake)
    assert (up < 0).all()


@every_loss
def test_extreme_logits_stay_finite(loss):
    real = torch.tensor([1e4, -1e4, 0.0, 1e4], requires_grad=True)
    fake = torch.tensor([-1e4, 1e4, 1e4, 0.0], requires_grad=True)
    for player in (loss().discriminator, loss().generator):
        total = player(real, fake)
        gradients = torch.autograd.grad(total, (real, fake), allow_unused=True)
        assert total.isfinite() and all(g is None or g.isfinite().all() for g in gradients)


@every_loss
def test_who_needs_real_logits(loss):
    real, fake = logits(8)
    assert loss.needs_real == (loss in RELATIVISTIC)
    unmoved = torch.equal(loss().generator(real, fake), loss().generator(real + 1, fake))
    assert unmoved != loss.needs_real


@every_loss
@pytest.mark.parametrize("factor", [0.0, -1.0])
def test_refuses_factor(loss, factor):
    with pytest.raises(ValueError, match=f"discriminator_factor={factor}; expected more than 0"):
        loss(discriminator_factor=factor)


@pytest.mark.parametrize("loss", SMOOTHED)
@pytest.mark.parametrize("smoothing", [-0.1, 1.0])
def test_refuses_smoothing(loss, smoothing):
    with pytest.raises(ValueError, match=f"smoothing={smoothing}; expected 0 <= smoothing < 1"):
        loss(smoothing=smoothing)
