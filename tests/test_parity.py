"""The module against the textbook: one step written out by hand, on the same weights, reals and noise."""

import copy

import pytest
import pytorch_lightning as pl
import torch
from torch.nn.functional import binary_cross_entropy_with_logits
from torch.utils.data import DataLoader

from ganrun.adversary import Adversary
from ganrun.ema import EMA
from ganrun.losses import NonSaturating
from ganrun.module import GANModule
from ganrun.networks.dcgan import Discriminator, Generator
from ganrun.noise import Normal
from ganrun.optim import PlayerOptimizer
from ganrun.recipes.gan import GAN
from ganrun.schedule import Schedule

STEPS, BATCH, LR, BETAS, DECAY = 3, 8, 2e-3, (0.5, 0.999), 0.9


class Recorded(Normal):
    """Normal noise that remembers what it drew."""

    def __init__(self, z_dim):
        super().__init__(z_dim)
        self.drawn = []

    def draw(self, num, rng):
        self.drawn.append(super().draw(num, rng))
        return self.drawn[-1]


def optimizer(parameters):
    return PlayerOptimizer(parameters, optimizer="torch.optim.Adam", lr=LR, betas=BETAS)


def average(networks):
    return EMA(networks, decay=DECAY, warmup=1)


def run_trainer(module, reals):
    """Rounds of `reals`, (steps, rows, C, H, W), through a real Trainer in double precision."""
    trainer = pl.Trainer(
        max_epochs=1, precision="64-true", accelerator="cpu", logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip
    trainer.fit(module, DataLoader([{"real": real} for real in reals], batch_size=None))
    assert trainer.global_step == len(reals)


def loss(logits, target):
    return binary_cross_entropy_with_logits(logits, torch.full_like(logits, target))


def play(generator, discriminator, reals, noises):
    """DCGAN's loop with nothing clever in it. Returns the averages of the generator's weights."""
    generator_adam = torch.optim.Adam(generator.parameters(), lr=LR, betas=BETAS)
    discriminator_adam = torch.optim.Adam(discriminator.parameters(), lr=LR, betas=BETAS)
    averages = [weight.detach().clone() for weight in generator.parameters()]
    for batch, noise in zip(reals, noises, strict=True):
        for real, z in zip(batch.split(BATCH), noise.split(BATCH), strict=True):
            fake = generator(z)
            discriminator.zero_grad()
            loss(discriminator(real).logits, 1.0).backward()
            loss(discriminator(fake.detach()).logits, 0.0).backward()
            discriminator_adam.step()
        generator.zero_grad()
        loss(discriminator(fake).logits, 1.0).backward()
        generator_adam.step()
        weights = [weight.detach() for weight in generator.parameters()]
        averages = [DECAY * old + (1 - DECAY) * new for old, new in zip(averages, weights, strict=True)]
    return averages


@pytest.mark.filterwarnings("ignore:.*LeafSpec", "ignore:.*does not have many workers")  # Lightning's own
@pytest.mark.parametrize("critic_moves", [1, 2])
def test_module_equals_a_loop_written_by_hand(critic_moves):
    torch.manual_seed(0)
    generator = Generator(z_dim=5, channels=1, resolution=16, width=4)
    discriminator = Discriminator(channels=1, resolution=16, width=4)
    initial = copy.deepcopy((generator.state_dict(), discriminator.state_dict()))
    reals = torch.rand(STEPS, critic_moves * BATCH, 1, 16, 16, dtype=torch.float64) * 2 - 1
    recipe = GAN(copy.deepcopy(generator), Adversary(copy.deepcopy(discriminator), NonSaturating()))
    noise, schedule = Recorded(5), Schedule({"discriminator": critic_moves, "generator": 1})
    optimizers = {"discriminator": optimizer, "generator": optimizer}
    module = GANModule(
        recipe.to(memory_format=torch.channels_last), noise, schedule, optimizers, batch_size=BATCH, ema=average
    )
    run_trainer(module, reals)

    averages = play(generator.double(), discriminator.double(), reals, noise.drawn)
    trained = (recipe.generator, recipe.adversary.discriminator)
    for mine, theirs, before in zip(trained, (generator, discriminator), initial, strict=True):
        for key, value in theirs.state_dict().items():  # weights, and batch norm's statistics
            assert (value - before[key]).abs().max() > 1e-4, f"{key} never moved"
            torch.testing.assert_close(mine.state_dict()[key], value, rtol=0, atol=1e-6, msg=key)
    torch.testing.assert_close([*module.ema.average.parameters()], averages, rtol=0, atol=1e-6)
