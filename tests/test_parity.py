"""Presets, from the command line to the weights, against loops written by hand in plain torch.

The loops share nothing with ganrun but the initial networks, the batches, and the seed of what a step draws.
"""

import copy
from functools import partial

import pytest
import torch
from test_configs import composed
from test_golden import in_double
from torch import nn
from torch.nn.functional import binary_cross_entropy_with_logits, relu

from ganrun.seeding import derive, seed_default_generators
from ganrun.training.build import build

STEPS, BATCH = 3, 6
SMALL = ["generator.width=4", "discriminator.width=4", "generator.z_dim=5", f"batch_size={BATCH}", "dataset.limit=40"]


def cross_entropy(logits, target):
    return binary_cross_entropy_with_logits(logits, torch.full_like(logits, target))


def logistic(critic, real, fake, label):
    return cross_entropy(critic(real, label).logits, 1.0) + cross_entropy(critic(fake, label).logits, 0.0)


def hinge(critic, real, fake, label):
    return relu(1 - critic(real, label).logits).mean() + relu(1 + critic(fake, label).logits).mean()


def wasserstein(critic, real, fake, label):
    return critic(fake, label).logits.mean() - critic(real, label).logits.mean()


def unit_norm(critic, points, label):
    """10 E (|gradient| - 1)^2, one sample at a time."""
    total = 0
    for i, x in enumerate(points):
        x = x[None].detach().requires_grad_()
        (gradient,) = torch.autograd.grad(critic(x, label[i : i + 1]).logits.sum(), x, create_graph=True)
        total = total + (gradient.square().sum().sqrt() - 1) ** 2
    return 10 * total / len(points)


def wgan_gp(critic, real, fake, label):
    epsilon = torch.rand(BATCH, 1, 1, 1, dtype=real.dtype)
    points = [e * x + (1 - e) * y for e, x, y in zip(epsilon, real, fake, strict=True)]
    return wasserstein(critic, real, fake, label) + unit_norm(critic, points, label)


def dragan(critic, real, fake, label):
    noise, alpha = torch.rand_like(real), torch.rand(BATCH, 1, 1, 1, dtype=real.dtype)
    deviation = (real - real.mean()).square().mean().sqrt()
    points = [x + a * 0.5 * deviation * n for a, x, n in zip(alpha, real, noise, strict=True)]
    return logistic(critic, real, fake, label) + unit_norm(critic, points, label)


def non_saturating(logits):
    return cross_entropy(logits, 1.0)


def minus_mean(logits):
    return -logits.mean()


def adam(lr, *betas):
    return partial(torch.optim.Adam, lr=lr, betas=betas)


DCGAN_ADAM = adam(2e-4, 0.5, 0.999)
RMSPROP = partial(torch.optim.RMSprop, lr=5e-5, alpha=0.99)
GAMES = {  # the discriminator's loss, the generator's, moves of the discriminator, the optimizer, weight clipping
    "loss=non-saturating": (logistic, non_saturating, 1, DCGAN_ADAM, None),
    "loss=hinge schedule.discriminator=2": (hinge, minus_mean, 2, DCGAN_ADAM, None),
    "loss=hinge conditional=label": (hinge, minus_mean, 1, DCGAN_ADAM, None),
    "loss=wgan": (wasserstein, minus_mean, 5, RMSPROP, 0.01),
    "loss=wgan-gp": (wgan_gp, minus_mean, 5, adam(1e-4, 0.0, 0.9), None),
    "loss=wgan-gp schedule.share=false": (wgan_gp, minus_mean, 5, adam(1e-4, 0.0, 0.9), None),
    "loss=wgan-gp conditional=label": (wgan_gp, minus_mean, 5, adam(1e-4, 0.0, 0.9), None),
    "loss=dragan": (dragan, non_saturating, 1, adam(1e-4, 0.5, 0.9), None),
}


def play(line: str, generator: nn.Module, critic: nn.Module, rounds: list[dict]) -> nn.Module:
    """Trains both networks; returns the generator's average."""
    critic_loss, generator_loss, moves, optimizer, clip = GAMES[line]
    generator_step, critic_step = optimizer(generator.parameters()), optimizer(critic.parameters())
    average = copy.deepcopy(generator)
    for step, batch in enumerate(rounds):
        seed_default_generators(derive(0, "step", step, 0, 0))
        parts = [
            dict(zip(batch, rows, strict=True)) for rows in zip(*(v.split(BATCH) for v in batch.values()), strict=True)
        ]
        for part in parts[:moves]:
            fake = generator(part["z"], part["label"])
            critic_step.zero_grad()
            critic_loss(critic, part["real"], fake.detach(), part["label"]).backward()
            critic_step.step()
            for weight in critic.parameters():
                weight.data.clamp_(-(clip or 1e9), clip or 1e9)
        if "share=false" in line:
            part = parts[moves]
            fake = generator(part["z"], part["label"])
        generator_step.zero_grad()
        generator_loss(critic(fake, part["label"]).logits).backward()
        generator_step.step()
        decay = min(0.999, (1 + step) / (10 + step))
        for mean, weight in zip(average.parameters(), generator.parameters(), strict=True):
            mean.data = decay * mean.data + (1 - decay) * weight.data
        average.load_state_dict({**average.state_dict(), **dict(generator.named_buffers())})
    return average


@pytest.mark.parametrize("line", GAMES)
def test_a_preset_equals_a_loop_written_by_hand(line):
    parts = build(composed(*SMALL, *line.split(), "dataset.resolution=8")[0])
    recipe = parts.module.recipe
    networks = copy.deepcopy((recipe.generator, recipe.adversary.discriminator))
    module, rounds = in_double(parts, steps=STEPS)
    generator, critic = (network.double() for network in networks)
    initial = copy.deepcopy((generator.state_dict(), critic.state_dict()))
    average = play(line, generator, critic, rounds)
    trained = (recipe.generator, recipe.adversary.discriminator)
    for mine, theirs, before in zip(trained, (generator, critic), initial, strict=True):
        for key, value in theirs.state_dict().items():  # weights, and batch norm's statistics
            if not key.startswith("head.bias"):  # whose gradient is exactly 0 in a Wasserstein game
                assert (value - before[key]).abs().max() > 1e-6, f"{key} never moved"
            torch.testing.assert_close(mine.state_dict()[key], value, rtol=0, atol=1e-10, msg=key)
    for key, value in average.state_dict().items():
        torch.testing.assert_close(module.ema.average[0].state_dict()[key], value, rtol=0, atol=1e-10, msg=key)
