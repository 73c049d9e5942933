"""FastGAN: published parameter counts, blocks by hand, two sizes in a game, decoders, and a checkout's own numbers."""

import importlib.util
import os
from pathlib import Path

import pytest
import torch
from test_configs import composed, run_steps
from test_module import fitted
from torch import nn
from torch.nn.functional import adaptive_avg_pool2d, avg_pool2d, conv2d, interpolate, leaky_relu, silu
from torch.nn.utils.parametrize import is_parametrized, remove_parametrizations

from ganrun.adversary import Adversary
from ganrun.errors import UserError
from ganrun.losses import Hinge, hinge
from ganrun.networks import excitation
from ganrun.networks.excitation import Downscaling, Excitation, Noise
from ganrun.networks.fastgan import Discriminator, Generator, quarter_of
from ganrun.networks.resnet import Discriminator as Another
from ganrun.penalties import R2, input_gradient
from ganrun.recipes.fastgan import FastGAN
from ganrun.recipes.gan import GAN
from ganrun.reconstruction import Reconstruction
from ganrun.training.nodes import build_node

COUNTS = {256: (29_127_846, 11_526_160), 512: (29_174_392, 11_526_496), 1024: (29_176_512, 11_528_192)}
TINY = {"channels": 3, "width": 4}


def count(network):
    return sum(p.numel() for p in network.parameters())


@pytest.mark.parametrize("resolution", COUNTS)
def test_published_parameter_counts(resolution, monkeypatch):
    monkeypatch.setattr(excitation, "spectral_normalise", lambda network: None)  # which needs numbers to begin with
    with torch.device("meta"):
        generator = Generator(z_dim=256, channels=3, resolution=resolution)
        discriminator = Discriminator(channels=3, resolution=resolution)
    assert (count(generator), count(discriminator)) == COUNTS[resolution]
    assert count(discriminator.decoders) == 3_139_488


def test_the_experiment_has_the_authors_settings():
    cfg, notes = composed("experiment=fastgan")
    assert (cfg.steps, cfg.batch_size, cfg.generator.z_dim, notes) == (50_000, 8, 256, [])
    assert cfg.generator.width == cfg.discriminator.width == 64
    assert cfg.loss.margin == [0.8, 1.0] and cfg.augment.diffaugment.policy == ["color", "translation"]
    for player in (cfg.optimizer.generator, cfg.optimizer.discriminator):
        assert (player.optimizer, player.lr, player.betas) == ("torch.optim.Adam", 2e-4, [0.5, 0.999])
    assert (cfg.ema.decay, cfg.ema.warmup, cfg.term.reconstruction.weight) == (0.999, 1, 8.0)


SIZES = {  # of images -> of the smaller ones, excitations in G and D, side of reconstructions, logits
    32: (16, 0, 0, 32, 50),
    64: (32, 1, 1, 64, 50),
    128: (64, 2, 2, 128, 50),
    256: (128, 3, 3, 128, 50),
    512: (128, 4, 3, 128, 50),
    48: (24, 0, 0, 48, 162),  # from a base of 6: 9 x 9 patches
}


@pytest.mark.parametrize("resolution", SIZES)
def test_sizes(resolution):
    channels = 3 if resolution < 64 else 1
    side, of_g, of_d, rebuilt, logits = SIZES[resolution]
    shape = {"channels": channels, "resolution": resolution, "width": 4}
    generator, discriminator = Generator(z_dim=8, **shape).eval(), Discriminator(**shape)
    z = torch.randn(2, 8)
    images, small = generator(z, both=True)
    assert images.shape == (2, channels, resolution, resolution) and small.shape == (2, channels, side, side)
    assert torch.equal(generator(z), images) and max(images.abs().max(), small.abs().max()) <= 1
    verdict = discriminator(images, None, small)
    assert verdict.logits.shape == (2, logits) and verdict.features.shape == (2, 32 + 16)
    assert (len(generator.excitations), len(discriminator.excitations)) == (of_g, of_d)
    for target, decoded in discriminator.rebuilt(verdict.maps):
        assert target.shape == decoded.shape == (2, channels, rebuilt, rebuilt)
    verdict.logits.sum().backward()
    assert all(p.grad is not None for name, p in discriminator.named_parameters() if "decoders" not in name)


def test_a_shorter_reach_excites_small_images_and_a_label_is_taken():
    shape = {"channels": 1, "resolution": [32, 64], "width": 4, "reach": 2, "num_classes": 3}
    generator, discriminator = Generator(z_dim=8, **shape), Discriminator(**shape)
    assert (len(generator.excitations), len(discriminator.excitations)) == (2, 1)
    label = torch.tensor([0, 2])
    fake = generator(torch.randn(2, 8), label)
    verdict = discriminator(fake, label)
    assert fake.shape == (2, 1, 32, 64) and verdict.logits.shape == (2, 5 * 13 * 2)
    assert not torch.allclose(verdict.logits, discriminator(fake, label.flip(0)).logits)


@torch.no_grad()
def test_blocks_by_hand():
    torch.manual_seed(0)
    small, large = torch.randn(2, 3, 8, 8, dtype=torch.float64), torch.randn(2, 5, 16, 16, dtype=torch.float64)
    excite = Excitation(3, 5).double()
    h = silu(conv2d(adaptive_avg_pool2d(small, 4), excite.layers[1].weight))
    torch.testing.assert_close(excite(small, large), large * torch.sigmoid(conv2d(h, excite.layers[3].weight)))

    down, x = Downscaling(3, 4).double().eval(), torch.randn(2, 3, 8, 8, dtype=torch.float64)
    scale = 1 / (1 + 1e-5) ** 0.5  # of batch norm at first
    long = leaky_relu(conv2d(x, down.main[0].weight, stride=2, padding=1) * scale, 0.2)
    long = leaky_relu(conv2d(long, down.main[3].weight, padding=1) * scale, 0.2)
    short = leaky_relu(conv2d(avg_pool2d(x, 2), down.direct[1].weight) * scale, 0.2)
    torch.testing.assert_close(down(x), (long + short) / 2)


def test_noise_is_fixed_in_eval_mode_and_counts_nothing_at_first():
    noise, x = Noise((4, 4)), torch.zeros(64, 3, 4, 4)
    assert torch.equal(noise(x), x)
    nn.init.constant_(noise.weight, 2.0)
    first, second = noise(x), noise(x)
    assert not torch.equal(first, second) and torch.equal(first[:, 0], first[:, 2])
    assert first.std().item() == pytest.approx(2.0, rel=0.1)
    assert torch.equal(noise.eval()(x), noise(x)) and torch.equal(noise(x)[:1, :1], 2 * noise.fixed)


def test_quarters():
    x = torch.arange(16).view(1, 1, 4, 4)
    assert [quarter_of(x, i).flatten().tolist() for i in range(4)] == [
        [0, 1, 4, 5], [2, 3, 6, 7], [8, 9, 12, 13], [10, 11, 14, 15]
    ]  # fmt: skip


def test_targets_of_what_is_decoded():
    """Over several draws, each quarter comes; the others are the whole image."""
    torch.manual_seed(0)
    discriminator, x = Discriminator(resolution=32, **TINY), torch.randn(2, 3, 32, 32)
    maps = discriminator(x).maps
    quarters = set()
    for _ in range(30):
        (whole, _), (part, _), (again, _) = discriminator.rebuilt(maps)
        assert torch.equal(whole, x) and torch.equal(again, x)
        quarters |= {i for i in range(4) if torch.equal(part, interpolate(quarter_of(x, i), size=(32, 32)))}
    assert quarters == {0, 1, 2, 3}


def test_margins_of_the_hinge():
    real, fake = torch.zeros(100_000), torch.zeros(100_000)
    torch.manual_seed(0)
    loss = Hinge(margin=(0.8, 1.0))
    assert loss.discriminator(real, fake).item() == pytest.approx(1.8, abs=1e-3)
    assert loss.margins(real).aminmax().min >= 0.8 and loss.margins(real).aminmax().max <= 1
    assert torch.equal(Hinge().discriminator(real, fake), hinge(real, fake)) and Hinge(margin=0.5).margins(real) == 0.5
    assert loss.generator(None, fake + 2).item() == -2
    for wrong in (0, -1.0, [1.0, 0.8], [0, 1]):
        with pytest.raises(ValueError, match="margin="):
            Hinge(margin=wrong)


def game(**settings):
    torch.manual_seed(0)
    generator, discriminator = Generator(z_dim=8, resolution=32, **TINY), Discriminator(resolution=32, **TINY)
    recipe = FastGAN(generator, Adversary(discriminator, Hinge()), **settings)
    batch = {"z": torch.randn(2, 8), "real": torch.randn(2, 3, 32, 32)}
    return recipe, batch, recipe.generate(batch)


def test_the_discriminator_sees_the_generators_own_smaller_fakes():
    recipe, batch, generated = game()
    judge, discriminator = recipe.judge(batch, generated), recipe.adversary.discriminator.eval()
    fake, small, real = generated["fake"], generated["small"], batch["real"]
    assert torch.equal(judge(fake).logits, discriminator(fake, None, small).logits)
    assert not torch.equal(judge(fake).logits, discriminator(fake).logits)
    assert torch.equal(judge(real).logits, discriminator(real, None, real[:, :, ::2, ::2]).logits)
    recipe.players()["generator"].losses(batch, generated).total().backward()
    assert recipe.generator.to_small.parametrizations.weight.original.grad.abs().sum() > 0


def test_a_penalty_at_fakes_leaves_them_their_own_smaller_version():
    recipe, batch, generated = game()
    adversary, discriminator = recipe.adversary.eval(), recipe.adversary.discriminator
    plain = adversary.discriminator_losses(recipe.judge(batch, generated), batch["real"], generated["fake"])
    adversary.penalties["r2"] = R2(1.0)
    losses = adversary.discriminator_losses(recipe.judge(batch, generated), batch["real"], generated["fake"])
    torch.testing.assert_close(losses.terms["adversarial"], plain.terms["adversarial"])
    gradient = input_gradient(lambda x: discriminator(x).logits, generated["fake"])
    torch.testing.assert_close(losses.terms["r2"], gradient.square().sum(1).mean() / 2)


def test_the_term_moves_the_decoders_and_what_they_decode():
    recipe, batch, generated = game(terms={"reconstruction": Reconstruction(nn.MSELoss(), weight=2.0)})
    generated = {key: value.detach() for key, value in generated.items()}
    losses = recipe.players()["discriminator"].losses(batch, generated)
    assert "reconstruction" not in recipe.players()["generator"].losses(batch, generated).terms
    losses.terms["reconstruction"].backward()
    moved = {name for name, p in recipe.adversary.discriminator.named_parameters() if p.grad is not None}
    assert any("decoders.2" in name for name in moved) and any(name.startswith("stem") for name in moved)
    assert not any(name.startswith(("head", "small_head")) for name in moved)
    torch.manual_seed(1)
    judge = recipe.judge(batch, generated)
    value = recipe.terms["reconstruction"](recipe, judge, batch, generated)
    torch.manual_seed(1)
    pairs = recipe.adversary.discriminator.rebuilt(judge(batch["real"]).maps)
    torch.testing.assert_close(value, 2 * sum((x - y).square().mean() for x, y in pairs))


def test_networks_that_do_not_go_together():
    recipe, batch, generated = game()
    term = Reconstruction(nn.MSELoss())
    with pytest.raises(UserError, match="discriminator=fastgan"):
        other = GAN(recipe.generator, Adversary(Another(channels=3, resolution=32, width=4), Hinge()))
        term(other, other.judge(batch, generated), batch, generated)
    for generator, discriminator in (
        (Generator(z_dim=8, resolution=32, small=False, **TINY), recipe.adversary.discriminator),
        (recipe.generator, Another(channels=3, resolution=32, width=4)),
    ):
        with pytest.raises(UserError, match="with others expected recipe=gan"):
            FastGAN(generator, Adversary(discriminator, Hinge()))


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["dataset.resolution=16"], "fastgan cannot build it; valid: 32, 64, 128, 256, 512, 1024"),
        (["dataset=ring"], "fastgan builds images, but this dataset has vectors"),
        (["generator.widths=[1]", "dataset.resolution=32"], "generator.widths=[1]; expected 4 numbers"),
        (["generator.reach=0", "dataset.resolution=32"], "reach=0; expected at least 1"),
    ],
)
def test_mistakes_are_one_line(words, told):
    with pytest.raises(UserError) as refused:
        build_node(composed("model=fastgan", *words)[0], "generator")
    assert told in str(refused.value) and "\n" not in str(refused.value)


BOTH = ["dataset.resolution=32", "model=fastgan", "generator.reach=2", "discriminator.reach=2", "precision=32-true"]


@pytest.mark.parametrize("words", [["penalty=[r1]"], ["conditional=label", "augment=[ada]"], ["recipe=gan"]], ids=str)
def test_runs(words):
    module = run_steps(*BOTH, *words)
    trained = module.recipe.generator.to_small.parametrizations.weight.original.grad is not None
    assert trained == (words != ["recipe=gan"])


def test_bfloat16():
    module = fitted(*BOTH, "precision=bf16-mixed")
    assert {value.dtype for value in module.terms.values()} == {torch.float32}


OF_G = {"init": "stem", "to_128": "to_small", "to_big": "to_image"}
OF_G |= {f"feat_{8 << i}": f"stages.{i}" for i in range(8)} | {f"se_{64 << i}": f"excitations.{i}" for i in range(4)}
OF_D = {"down_from_big": "stem", "rf_big": "head", "rf_small": "small_head"}
OF_D |= {f"down_{4 << i}": f"blocks.{i}" for i in range(5)}
OF_D |= {f"se_{2 << i}_{16 << i}": f"excitations.{i}" for i in range(3)}
OF_D |= {f"decoder_{part}": f"decoders.{i}" for i, part in enumerate(("big", "part", "small"))}


def without_norm(module):
    """Without spectral norm, old or new, and in eval mode."""
    for layer in module.modules():
        if hasattr(layer, "weight_orig"):
            nn.utils.remove_spectral_norm(layer)
        if is_parametrized(layer):
            remove_parametrizations(layer, "weight")
    return module.double().eval()


def copied(theirs, ours, names):
    """Their weights, all drawn anew, in our network, part by part."""
    theirs, ours = without_norm(theirs), without_norm(ours)
    for their, our in names.items():
        if hasattr(theirs, their):
            fill(getattr(theirs, their), [ours.get_submodule(our)])
    if hasattr(theirs, "down_from_small"):
        fill(theirs.down_from_small, [ours.small_stem, ours.small_blocks])
    return theirs


def fill(source, parts):
    given = list(source.state_dict().values())
    taking = [x for part in parts for name, x in part.state_dict().items() if "fixed" not in name]
    for mine, their in zip(taking, given, strict=True):
        if their.is_floating_point() and len(their) > 1:  # their noise, which is always drawn, keeps its weight of 0
            their.copy_(torch.rand_like(their) + 0.5 if their.dim() == 1 else torch.randn_like(their) * 0.1)
        mine.copy_(their)


@torch.no_grad()
@pytest.mark.parametrize("resolution", [256, 1024])
def test_with_copied_weights_a_checkout_gives_the_same(resolution):
    if "GANRUN_FASTGAN" not in os.environ:
        pytest.skip("set GANRUN_FASTGAN to a checkout of FastGAN's code, with models.py")
    spec = importlib.util.spec_from_file_location("fastgan_models", Path(os.environ["GANRUN_FASTGAN"]) / "models.py")
    theirs = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(theirs)
    torch.manual_seed(0)
    squashed = (-1, 1) if resolution == 1024 else None  # smaller images are not, in their code
    ours, critic = (
        Generator(z_dim=8, channels=3, resolution=resolution, width=16, value_range=squashed),
        Discriminator(channels=3, resolution=resolution),
    )
    z, g = torch.randn(2, 8, dtype=torch.float64), copied(theirs.Generator(16, 8, 3, resolution), ours, OF_G)
    for a, b in zip(g(z), ours(z, both=True), strict=True):
        assert a.std() > 0.01
        torch.testing.assert_close(b, a)
    d = copied(theirs.Discriminator(64, 3, resolution), critic, OF_D)
    x, small = (torch.randn(1, 3, side, side, dtype=torch.float64) for side in (resolution, 128))
    verdict = critic(x, None, small)
    expected = [each.view(1, -1) for each in d([x, small], "fake").chunk(2)]  # of the image, and of the smaller one
    torch.testing.assert_close(verdict.logits, torch.cat(expected, 1))
    torch.manual_seed(1)
    part = int(torch.randint(4, ()))
    whole, again, quarter = d([x, small], "real", part=part)[1]
    torch.manual_seed(1)
    for (_, decoded), expected in zip(critic.rebuilt(verdict.maps), (whole, quarter, again), strict=True):
        torch.testing.assert_close(decoded, expected)
