"""R3GAN: published parameter counts and settings, layers and first outputs by hand, every ramp in a real run."""

import math

import pytest
import torch
from conftest import TINY, ganrun
from hydra.utils import instantiate
from test_configs import composed
from test_module import fitted
from torch import nn

from ganrun.ema import HalfLifeEMA
from ganrun.errors import UserError
from ganrun.game import Now
from ganrun.networks.r3gan import Block, Discriminator, Downsample, Generator, Projection, Upsample
from ganrun.penalties import R1
from ganrun.ramps import Constant, Linear, at
from ganrun.training.nodes import build_node

CIFAR = {"channels": 3, "resolution": 32}
IMAGENET = {"channels": 3, "width": 1536, "group_width": 32, "num_classes": 1000}
COUNTS = {  # generator, discriminator: of the published networks
    "CIFAR-10": (CIFAR | {"num_classes": 10}, 20_781_952, 21_280_512),
    "CIFAR-10 uncond": (CIFAR, 20_732_160, 20_683_776),
    "FFHQ-64": ({"channels": 3, "resolution": 64}, 22_429_824, 22_381_440),
    "FFHQ-256": ({"channels": 3, "resolution": 256}, 23_057_952, 23_009_568),
    "ImageNet-32": (IMAGENET | {"resolution": 32}, 82_914_304, 86_548_992),
    "ImageNet-64": (IMAGENET | {"resolution": 64, "widths": [1, 1, 1, 1, 1]}, 103_570_432, 107_205_120),
}


def count(network):
    return sum(p.numel() for p in network.parameters() if p.requires_grad)


@pytest.mark.parametrize("name", COUNTS)
def test_published_parameter_counts(name):
    settings, of_g, of_d = COUNTS[name]
    with torch.device("meta"):
        assert count(Generator(z_dim=64, **settings)) == of_g
        assert count(Discriminator(condition="projection", **settings)) == of_d


EXPERIMENTS = {  # counts, classes, images of the ramps, steps, batch, gamma, p and half-life at the end; from 0
    "r3gan": ("CIFAR-10", 10, 2e7, 488_281, 512, (0.05, 0.005), 0.55, 5e6),
    "r3gan-64": ("FFHQ-64", 0, 2e7, 78_125, 256, (2, 0.2), 0.3, 5e5),
    "r3gan-256": ("FFHQ-256", 0, 2e7, 78_125, 256, (150, 15), 0.3, 5e5),
    "r3gan-imagenet-32": ("ImageNet-32", 1000, 2e8, 48_828, 4096, (0.5, 0.05), 0.5, 5e7),
    "r3gan-imagenet-64": ("ImageNet-64", 1000, 2e8, 48_828, 4096, (1, 0.1), 0.4, 5e7),
}


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_experiments_are_as_published(name):
    row, classes, over, steps, batch, gamma, p, half_life = EXPERIMENTS[name]
    cfg, notes = composed(f"experiment={name}")
    cfg.dataset.num_classes = classes or None  # of an image folder they are found in the data
    with torch.device("meta"):
        counts = tuple(count(instantiate(cfg[player], _convert_="all")) for player in ("generator", "discriminator"))
    assert counts == COUNTS[row][1:] and cfg.generator.z_dim == 64 and cfg.generator.value_range is None
    assert (cfg.steps, cfg.batch_size, notes) == (steps, batch, [])
    assert list(cfg.schedule.items())[:3] == [("discriminator", 1), ("generator", 1), ("share", False)]
    assert cfg.loss._target_ == "ganrun.losses.RelativisticPairing" and list(cfg.penalty) == ["r1", "r2"]
    ramps = {(0.0, p): cfg.augment.r3gan.p, (0.0, half_life): cfg.ema.half_life}
    for player in (cfg.optimizer.generator, cfg.optimizer.discriminator):
        assert player.optimizer == "torch.optim.Adam" and "eps" not in player and player.betas[0] == 0
        ramps |= {(2e-4, 5e-5): player.lr, (0.9, 0.99): player.betas[1]}
        assert all(follows(*item, over) for item in ramps.items())
    for penalty in cfg.penalty.values():
        assert penalty.every == 1 and follows(gamma, penalty.weight, over)
    assert cfg.ema._target_ == "ganrun.ema.HalfLifeEMA" and cfg.ema.rampup is None and cfg.ema.statistics == "copied"


def follows(ends, node, over):
    """Half a cosine over so many images."""
    first, last = ends
    for share in (0, 0.25, 1, 2):
        expected = last + (first - last) * (1 + math.cos(math.pi * min(share, 1))) / 2
        assert at(instantiate(node), Now(0, 0, round(share * over))) == pytest.approx(expected)
    return True


def test_ramps_in_a_run():
    """What the second of two steps, after 8 of 16 images, was played with."""
    few = ["generator.width=8", "discriminator.width=8", "batch_size=8", "ramp_images=16", "steps=2"]
    module = fitted("experiment=r3gan", "dataset=digits", "dataset.resolution=8", *few, "precision=32-true")

    def half(first, last):
        return pytest.approx((first + last) / 2, rel=1e-6)

    for player in module.player_optimizers.values():
        (group,) = player.optimizer.param_groups
        assert group["lr"] == half(2e-4, 5e-5) and group["betas"] == (0.0, half(0.9, 0.99)) and group["eps"] == 1e-8
    adversary = module.recipe.adversary
    assert [at(adversary.penalties[name].weight, Now(1, 2, 8)) for name in ("r1", "r2")] == [half(0.05, 0.005)] * 2
    assert module.terms["discriminator/r3gan_p"].item() == half(0, 0.55)
    assert module.ema.decay_at(0, 8) == 0 and module.ema.decay_at(1, 8) == pytest.approx(0.5 ** (8 / 2.5e6))


def test_a_half_life_may_start_at_0_but_not_stay_there():
    live = (nn.Linear(1, 1),)
    assert HalfLifeEMA(live, half_life=Linear(0, 8, over=1), rampup=None).decay_at(0, 8) == 0
    for wrong in (0, Constant(0), Linear(-1, 8, over=1)):
        with pytest.raises(ValueError, match="expected more than 0 images"):
            HalfLifeEMA(live, half_life=wrong)


def random(network, seed=0):
    """Draws all parameters anew, so that none is 0; in float64."""
    torch.manual_seed(seed)
    network.double()
    for p in network.parameters():
        nn.init.normal_(p, 0.0, 0.3)
    return network


def leaky(x):
    return torch.where(x > 0, x, 0.2 * x)


@torch.no_grad()
def test_a_block_by_hand():
    block, x = random(Block(4, expansion=2, group_width=2)), torch.randn(2, 4, 3, 5, dtype=torch.float64)
    first, second, third = block.convs
    h = leaky(torch.einsum("oi,bihw->bohw", first.weight[:, :, 0, 0], x) + first.bias[:, None, None])
    inner = torch.zeros_like(h)
    for y in range(3):
        for x_ in range(5):
            for dy, dx in ((dy, dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1)):
                if 0 <= y + dy < 3 and 0 <= x_ + dx < 5:
                    for out in range(8):
                        group = slice(out // 2 * 2, out // 2 * 2 + 2)  # four groups of two channels
                        inner[:, out, y, x_] += h[:, group, y + dy, x_ + dx] @ second.weight[out, :, 1 + dy, 1 + dx]
    inner = leaky(inner + second.bias[:, None, None])
    expected = x + torch.einsum("oi,bihw->bohw", third.weight[:, :, 0, 0], inner)
    torch.testing.assert_close(block(x), expected)


def test_resampling_by_hand():
    """Zeros between pixels, then the filter; the filter, then every second pixel."""
    x, taps = torch.randn(4, 6, dtype=torch.float64), [1, 3, 3, 1]
    larger, smaller = torch.zeros(8, 12, dtype=torch.float64), torch.zeros(2, 3, dtype=torch.float64)
    for i, j in ((i, j) for i in range(4) for j in range(6)):
        for a, b in ((a, b) for a in range(4) for b in range(4)):
            weight = taps[a] * taps[b]
            y, x_ = 2 * i + a - 1, 2 * j + b - 1
            if 0 <= y < 8 and 0 <= x_ < 12:
                larger[y, x_] += weight / 16 * x[i, j]
            if (i + 1 - a) % 2 == 0 and (j + 1 - b) % 2 == 0 and 0 <= i + 1 - a < 4 and 0 <= j + 1 - b < 6:
                smaller[(i + 1 - a) // 2, (j + 1 - b) // 2] += weight / 64 * x[i, j]
    torch.testing.assert_close(Upsample()(x.expand(1, 2, 4, 6))[0, 1], larger)
    torch.testing.assert_close(Downsample()(x.expand(1, 2, 4, 6))[0, 1], smaller)


SMALL = {"channels": 3, "resolution": 16, "width": 32, "num_classes": 5}


@torch.no_grad()
def test_at_first_every_block_is_the_identity():
    """So the networks are linear: a basis, enlarged; and an image, shrunk."""
    torch.manual_seed(0)
    generator, critic = Generator(z_dim=6, **SMALL), Discriminator(condition="projection", **SMALL)
    z, label = 5 * torch.randn(4, 6), torch.tensor([0, 4, 2, 2])
    given = torch.cat([z, generator.embed.weight[:, label].T], 1)
    x = torch.stack([generator.basis.maps * (generator.basis.scale.weight @ row)[:, None, None] for row in given])
    expected = torch.einsum("oi,bihw->bohw", generator.to_image.weight[:, :, 0, 0], Upsample()(Upsample()(x)))
    images = generator(z, label)
    torch.testing.assert_close(images, expected, rtol=1e-4, atol=1e-5)
    assert images.abs().max() > 1  # not squashed
    x = torch.einsum("oi,bihw->bohw", critic.from_image.weight[:, :, 0, 0], Downsample()(Downsample()(images)))
    features = (x * critic.basis.weight[:, 0]).sum((2, 3))
    logits = [critic.head.embed.weight[:, label[i]] @ critic.head.linear.weight @ features[i] for i in range(4)]
    verdict = critic(images, label)
    torch.testing.assert_close(verdict.features, features, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(verdict.logits, torch.stack(logits), rtol=1e-3, atol=1e-4)


def test_initial_weights():
    torch.manual_seed(0)
    critic = Discriminator(channels=3, resolution=16, width=128, num_classes=10, condition="projection")
    blocks = [module for module in critic.modules() if isinstance(module, Block)]
    gain = math.sqrt(2 / 1.04) * 6 ** (-1 / 4)  # 6 blocks
    for block in blocks:
        assert block.convs[0].weight.std().item() == pytest.approx(gain / math.sqrt(128), rel=0.05)
        assert block.convs[1].weight.std().item() == pytest.approx(gain / math.sqrt(16 * 9), rel=0.05)
        assert block.convs[2].weight.abs().max() == block.convs[0].bias.abs().max() == 0
    assert len(blocks) == 6 and critic.basis.weight.std().item() == pytest.approx(1 / 4, rel=0.05)
    assert critic.head.linear.weight.std().item() == pytest.approx(1 / math.sqrt(128), rel=0.05)
    assert critic.head.embed.weight.std().item() == pytest.approx(1 / math.sqrt(128 * 10), rel=0.1)


def test_bfloat16_in_all_but_the_smallest_stage():
    generator, critic = Generator(z_dim=6, **SMALL), Discriminator(condition="projection", **SMALL)
    seen = {}

    def watch(name):
        return lambda _, given, out: seen.update({name: out.dtype})

    for prefix, network in (("G", generator), ("D", critic)):
        for name, module in network.named_modules():
            if isinstance(module, Block):
                module.register_forward_hook(watch(f"{prefix}.{name}"))
    z, label = torch.randn(2, 6), torch.tensor([1, 3])
    with torch.autocast("cpu", torch.bfloat16):
        verdict = critic(generator(z, label), label)
    assert verdict.logits.dtype == verdict.features.dtype == torch.float32
    assert len(seen) == 12
    for name, dtype in seen.items():
        assert dtype == (torch.float32 if ".stem." in name else torch.bfloat16), name


@pytest.mark.parametrize("resolution", [8, 28, 48, [16, 32]], ids=str)
def test_sizes_and_shapes(resolution):
    size = (resolution, resolution) if isinstance(resolution, int) else tuple(resolution)
    shape = {"channels": 2, "resolution": resolution, "width": 8}
    fake = Generator(z_dim=8, value_range=(-1, 1), **shape)(torch.randn(3, 8))
    x = fake.detach().requires_grad_()
    verdict = Discriminator(**shape)(x)
    assert fake.shape == (3, 2, *size) and fake.abs().max() <= 1
    assert verdict.logits.shape == (3,) and verdict.features.shape == (3, 8)
    verdict.logits.sum().backward()
    assert (x.grad != 0).all()


def assert_r1_reaches_every_weight(critic, x, label):
    """The gradient of R1 by a finite difference; biases only say where the slope changes."""

    def penalty():
        return R1(1.0)(lambda image: critic(image, label).logits, x, x)

    penalty().backward()
    for name, p in ((name, p) for name, p in critic.named_parameters() if "bias" not in name):
        i = p.grad.abs().flatten().argmax()
        values = []
        for step in (1e-6, -2e-6):
            p.data.view(-1)[i] += step
            values.append(penalty().item())
        p.data.view(-1)[i] += 1e-6
        slope = (values[0] - values[1]) / 2e-6
        assert p.grad.abs().max() > 0 and slope == pytest.approx(p.grad.flatten()[i].item(), rel=1e-3), name


def test_a_penalty_reaches_every_weight():
    critic = random(Discriminator(channels=1, resolution=16, width=4, blocks=1, num_classes=3, condition="projection"))
    x, label = torch.randn(4, 1, 16, 16, dtype=torch.float64), torch.tensor([0, 1, 2, 0])
    assert_r1_reaches_every_weight(critic, x, label)


def test_the_projection_needs_a_label():
    with pytest.raises(ValueError, match=r"conditional \(3 classes\) but was given no label"):
        Projection(4, 3)(torch.randn(2, 4))


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["generator.width=100"], "generator.group_width=16 does not divide the 200 channels inside a block "
                                  "(expansion 2 times 100); try generator.width=112"),
        (["discriminator.widths=[1,1]"], "discriminator.widths=[1, 1]; expected 3 numbers above 0"),
        (["generator.blocks=0"], "blocks=0; expected at least 1"),
        (["dataset.resolution=30"], "r3gan cannot build it"),
        (["dataset=ring"], "r3gan builds images, but this dataset has vectors; try model=mlp"),
        (["discriminator.condition=both"], "discriminator.condition=both; "),
    ],
)  # fmt: skip
def test_mistakes_are_one_line(words, told):
    with pytest.raises(UserError) as refused, torch.device("meta"):
        cfg = composed("model=r3gan", *words)[0]
        for player in ("generator", "discriminator"):
            build_node(cfg, player)
    assert told in str(refused.value) and "\n" not in str(refused.value)


def test_the_loss_comes_with_the_networks_unless_another_is_chosen():
    for words, penalties in (("", ["r1", "r2"]), ("loss=hinge", []), ("loss=wgan-gp", ["gradient"])):
        assert list(composed("model=r3gan", *words.split())[0].penalty) == penalties


def test_a_run_and_its_generator(tmp_path):
    small = ["generator.width=8", "discriminator.width=8", "steps=2", "metric=[]", "run_dir=run"]
    ganrun("experiment=r3gan-digits", *TINY, *small, cwd=tmp_path)
    done = ganrun("sample", "from=run", "num=4", "out=pngs", cwd=tmp_path)
    assert done.returncode == 0 and len(list((tmp_path / "pngs").rglob("*.png"))) == 4
