"""Residual networks and spectral norm: published parameter counts, formulas by hand, gradients, clear refusals."""

import math

import pytest
import torch
from hydra.utils import instantiate
from test_configs import SMALL, composed
from torch import nn
from torch.nn.functional import one_hot

from ganrun.errors import UserError
from ganrun.networks import dcgan, deep_conv, resnet
from ganrun.networks.attention import SelfAttention
from ganrun.networks.heads import Head
from ganrun.networks.layers import ConditionalBatchNorm
from ganrun.networks.residual import INITS, DiscriminatorBlock, GeneratorBlock
from ganrun.networks.spectral import spectral_normalise
from ganrun.penalties import R1
from ganrun.training.build import build

TEN, PROJECTION = {"num_classes": 10}, {"num_classes": 10, "condition": "projection"}


def thousand(classes=1000):
    return {"num_classes": classes}, {"num_classes": classes, "condition": "projection"}


C32, B32 = {"z_dim": 128, "resolution": 32}, {"z_dim": 80, "resolution": 32, "width": 96, "latents": "chunks"}
BIG = {"latents": "chunks", "embedding": 128}
DEEP = {"z_dim": 128, "width": 128, "latents": "whole", "embedding": 128, "depth": 2, "plan": "biggan-deep"}
DEEP_D = {"width": 128, "depth": 2, "plan": "biggan-deep"}
COUNTS = {  # generator, discriminator, trainable parameters of both: from the networks' published logs and code
    "R, batch norm in D": (C32, {"norm": "batch"}, 4_276_739, 1_055_879),
    "R, SNGAN": (C32, {}, 4_276_739, 1_053_825),
    "ProjGAN": (C32 | TEN, PROJECTION | {"norm": "batch"}, 4_304_387, 1_057_159),
    "ACGAN": (C32 | TEN, TEN | {"condition": "classes", "norm": "batch"}, 4_304_387, 1_057_159),
    "SNGAN cond": (C32 | TEN, PROJECTION, 4_304_387, 1_055_105),
    "SAGAN": (C32 | TEN | {"attention": 16}, PROJECTION | {"attention": 16}, 4_386_308, 1_075_586),
    "BigGAN 32": (B32 | TEN | {"embedding": 128, "attention": 16}, PROJECTION | {"width": 96, "attention": 16},
                  9_416_196, 2_415_170),
    "BigGAN 32 uncond": (B32 | {"attention": 16}, {"width": 96, "attention": 16}, 8_825_092, 2_413_250),
    "ReACGAN": (B32 | TEN | {"embedding": 128, "attention": 16},
                TEN | {"condition": "embedding", "width": 96, "attention": 16}, 9_416_196, 2_517_186),
    "BigGAN-PyTorch CIFAR": (C32 | TEN, PROJECTION | {"widths": [4, 4, 4, 4], "downs": 2}, 4_304_387, 4_207_361),
    "SNGAN 48": (C32 | {"resolution": 48}, {"hidden": "in"}, 4_878_083, 10_141_441),
    "SNGAN 64": (C32 | {"resolution": 64}, {"hidden": "in"}, 12_220_675, 10_141_441),
    "SNGAN 64 cond": (C32 | {"resolution": 64} | thousand()[0], thousand()[1] | {"hidden": "in"},
                      17_974_915, 11_165_441),
    "SNGAN 128": (C32 | {"resolution": 128}, {"hidden": "in"}, 32_150_787, 29_017_857),
    "SNGAN 128 cond": (C32 | {"resolution": 128} | thousand()[0], thousand()[1] | {"hidden": "in"},
                       41_996_931, 30_041_857),
    "SNGAN 128 wide": (C32 | {"resolution": 128} | thousand()[0], thousand()[1], 41_996_931, 39_443_137),
    "SAGAN 128": (C32 | {"resolution": 128, "attention": 64} | thousand()[0], thousand()[1] | {"attention": 64},
                  42_017_412, 39_448_258),
    "SNGAN Tiny": (C32 | {"resolution": 64} | thousand(200)[0], thousand(200)[1], 13_366_915, 19_747_521),
    "SAGAN Tiny": (C32 | {"resolution": 64, "attention": 32} | thousand(200)[0], thousand(200)[1] | {"attention": 32},
                   13_387_396, 19_752_642),
    "BigGAN Tiny": ({"z_dim": 100, "resolution": 64, "width": 80, "attention": 32} | BIG | thousand(200)[0],
                    thousand(200)[1] | {"width": 80, "attention": 32}, 17_335_204, 30_796_722),
    "BigGAN 64": ({"z_dim": 100, "resolution": 64, "plan": "biggan", "attention": 32} | BIG | thousand(200)[0],
                  thousand(200)[1] | {"plan": "biggan", "attention": 32}, 31_763_716, 19_752_642),
    "BigGAN 128": ({"z_dim": 120, "resolution": 128, "width": 96, "attention": 64} | BIG | thousand()[0],
                   thousand()[1] | {"width": 96, "attention": 64}, 70_433_988, 87_982_370),
    "BigGAN 256": ({"z_dim": 140, "resolution": 256, "width": 96, "attention": 64} | BIG | thousand()[0],
                   thousand()[1] | {"width": 96, "attention": 64}, 82_235_844, 99_225_890),
    "BigGAN-deep 32": (DEEP | {"resolution": 32, "attention": 16} | TEN, DEEP_D | PROJECTION | {"attention": 16},
                       7_762_948, 2_908_930),
    "BigGAN-deep 128": (DEEP | {"resolution": 128, "attention": 64} | thousand()[0],
                        DEEP_D | thousand()[1] | {"attention": 64}, 50_244_484, 34_590_210),
    "BigGAN-deep 256": (DEEP | {"resolution": 256, "attention": 64} | thousand()[0],
                        DEEP_D | thousand()[1] | {"attention": 64}, 55_736_708, 38_247_426),
}  # fmt: skip


def count(network):
    return sum(p.numel() for p in network.parameters() if p.requires_grad)


@pytest.mark.parametrize("name", COUNTS)
def test_published_parameter_counts(name):
    """On meta tensors, which hold no numbers. Spectral norm has no parameters, so it is left out."""
    g, d, of_g, of_d = COUNTS[name]
    with torch.device("meta"):
        assert count(resnet.Generator(channels=3, **g)) == of_g
        assert count(resnet.Discriminator(**{"channels": 3, "resolution": g["resolution"], "norm": "none"} | d)) == of_d


def test_deep_conv_counts():
    """StudioGAN's DCGAN, LSGAN and GGAN, with batch norm in the discriminator."""
    with torch.device("meta"):
        assert count(deep_conv.Generator(z_dim=128, channels=3, resolution=32)) == 3_812_355
        assert count(deep_conv.Discriminator(channels=3, resolution=32, norm="batch")) == 2_931_009


@pytest.mark.parametrize("resolution", [8, 16, 32, 28, 48, [32, 64]], ids=str)
@pytest.mark.parametrize("depth", [0, 1, 2])
def test_sizes_and_shapes(resolution, depth):
    height, width = (resolution, resolution) if isinstance(resolution, int) else resolution
    common = {"channels": 2, "resolution": resolution, "width": 4, "depth": depth, "num_classes": 3}
    label = torch.tensor([0, 2, 1])
    fake = resnet.Generator(z_dim=8, **common)(torch.randn(3, 8), label)
    verdict = resnet.Discriminator(**common, condition="projection")(fake, label)
    assert fake.shape == (3, 2, height, width) and fake.abs().max() <= 1
    assert verdict.logits.shape == (3,) and verdict.features.dim() == 2


class TestSpectralNorm:
    def layers(self):
        torch.manual_seed(0)
        return nn.ModuleDict({
            "conv": nn.Conv2d(3, 8, 3), "up": nn.ConvTranspose2d(6, 4, 4), "linear": nn.Linear(5, 7),
            "embedding": nn.Embedding(6, 9), "norm": nn.BatchNorm2d(4),
        })  # fmt: skip

    def test_the_largest_singular_value_becomes_one(self):
        layers = self.layers()
        before = {name: layer.weight.detach().clone() for name, layer in layers.items()}
        spectral_normalise(layers)
        for name in ("conv", "up", "linear", "embedding"):
            for _ in range(100):
                weight = layers[name].weight
            weight = weight.detach()
            matrix = weight.transpose(0, 1) if name == "up" else weight
            assert torch.linalg.matrix_norm(matrix.flatten(1), 2).item() == pytest.approx(1, abs=1e-4)
            exact = before[name].transpose(0, 1) if name == "up" else before[name]
            largest = torch.linalg.svdvals(exact.flatten(1))[0]
            assert torch.allclose(weight * largest, before[name], atol=1e-4)
        assert torch.equal(layers["norm"].weight, before["norm"])

    def test_one_step_a_pass_in_training_and_none_in_eval_mode(self):
        layer = nn.Sequential(nn.Linear(20, 20))
        torch.manual_seed(1)
        nn.init.normal_(layer[0].weight)
        spectral_normalise(layer)
        u = layer[0].parametrizations.weight[0]._u
        layer.eval()
        start = u.clone()
        layer(torch.randn(2, 20))
        assert torch.equal(u, start)
        layer.train()
        w, v = layer[0].parametrizations.weight.original.detach(), layer[0].parametrizations.weight[0]._v.clone()
        layer(torch.randn(2, 20))
        expected = w @ v
        assert torch.allclose(u, expected / expected.norm(), atol=1e-6)

    def test_in_autocast_the_singular_value_keeps_its_digits(self):
        torch.manual_seed(0)
        layer = nn.Linear(50, 50)
        spectral_normalise(layer)
        layer.eval()
        exact = layer.weight.clone()
        with torch.autocast("cpu", torch.bfloat16):
            assert layer.weight.dtype == torch.float32 and torch.equal(layer.weight, exact)

    @pytest.mark.parametrize("network", [dcgan, deep_conv, resnet])
    def test_batch_norm_is_never_normalised_and_its_condition_is(self, network):
        generator = network.Generator(
            z_dim=4, channels=1, resolution=16, width=4, spectral=True, condition="batch-norm", num_classes=3
        )
        normalised = [name for name, m in generator.named_modules() if hasattr(m, "parametrizations")]
        kinds = (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)
        assert normalised == [name for name, m in generator.named_modules() if isinstance(m, kinds)]
        assert any(name.endswith("scale") for name in normalised)


def test_the_shared_embedding_is_not_normalised():
    """As in BigGAN-PyTorch and StudioGAN."""
    generator = resnet.Generator(z_dim=4, channels=1, resolution=8, width=4, spectral=True, embedding=3, num_classes=2)
    assert not hasattr(generator.embed, "parametrizations") and hasattr(generator.stem, "parametrizations")


@pytest.mark.parametrize("resolution", [8, 16, 28, 32, 40, 48, 56, 64, 96, [24, 40]], ids=str)
@pytest.mark.parametrize("plan", ["sngan", "biggan"])
def test_every_pixel_counts(resolution, plan):
    """No row is left over when sides are halved."""
    size = (resolution, resolution) if isinstance(resolution, int) else resolution
    torch.manual_seed(0)
    critic = resnet.Discriminator(channels=1, resolution=resolution, width=4, plan=plan, norm="none")
    x = torch.randn(1, 1, *size, requires_grad=True)
    critic(x).logits.backward()
    assert (x.grad != 0).float().mean() == 1


def test_pooling_by_the_mean_or_the_sum():
    torch.manual_seed(0)
    critic, x = resnet.Discriminator(channels=1, resolution=16, width=4), torch.randn(2, 1, 16, 16)
    critic.eval()
    summed = critic(x).features
    critic.pool = "mean"
    assert torch.allclose(critic(x).features * 8 * 8, summed, rtol=1e-5)


def test_conditional_batch_norm_by_hand():
    torch.manual_seed(0)
    layer, x = ConditionalBatchNorm(3, 2, eps=1e-4), torch.randn(5, 3, 4, 4)
    y = one_hot(torch.tensor([0, 1, 1, 0, 1]), 2).float()
    mean, var = x.mean((0, 2, 3), keepdim=True), x.var((0, 2, 3), unbiased=False, keepdim=True)
    expected = (x - mean) / (var + 1e-4).sqrt()
    for i in range(5):
        scale, shift = layer.scale.weight @ y[i], layer.shift.weight @ y[i]
        expected[i] = expected[i] * (1 + scale)[:, None, None] + shift[:, None, None]
    assert torch.allclose(layer(x, y), expected, atol=1e-5)


def test_attention_is_the_naive_one():
    torch.manual_seed(0)
    layer, x = SelfAttention(16), torch.randn(2, 16, 4, 6)
    assert torch.equal(layer(x), x)  # at first
    layer.scale.data.fill_(0.7)
    expected = x.clone()
    for b in range(2):
        q, k, v = (conv(x[b : b + 1])[0] for conv in (layer.query, layer.key, layer.value))
        k, v = (
            torch.stack([t[:, i : i + 2, j : j + 2].amax((1, 2)) for i in (0, 2) for j in (0, 2, 4)], 1) for t in (k, v)
        )
        for i in range(4):
            for j in range(6):
                scores = torch.stack([(q[:, i, j] * k[:, n]).sum() for n in range(6)])
                share = scores.exp() / scores.exp().sum()
                attended = sum(share[n] * v[:, n] for n in range(6))
                expected[b, :, i, j] += 0.7 * (layer.out.weight[:, :, 0, 0] @ attended)
    assert torch.allclose(layer(x), expected, atol=1e-5)


def test_projection_by_hand():
    torch.manual_seed(0)
    head, features, label = Head(4, "projection", 3), torch.randn(5, 4), torch.tensor([2, 0, 1, 1, 2])
    logits = head(features, label).logits
    for i in range(5):
        expected = head.weight[0] @ features[i] + head.bias[0] + head.embed.weight[label[i]] @ features[i]
        assert torch.allclose(logits[i], expected, atol=1e-6)


def test_logits_that_follow_from_those_of_classes():
    torch.manual_seed(0)
    features, label = torch.randn(5, 4), torch.tensor([2, 0, 1, 1, 2])
    verdict = Head(4, "classes-alone", 3)(features)
    assert torch.allclose(verdict.logits, verdict.classes.exp().sum(1).log(), atol=1e-6)
    verdict = Head(4, "classes-and-fake", 3)(features, label)
    assert verdict.classes.shape == (5, 4)
    assert torch.equal(verdict.logits, verdict.classes[range(5), label] - verdict.classes[:, 3])


def test_blocks_by_hand():
    """With convolutions that pass on what they are given, what is left is the order of the steps."""
    generator = GeneratorBlock(2, 2, norm="none", features=0, eps=1e-5)
    discriminator, first = (
        DiscriminatorBlock(2, 2, hidden=2, down=True, first=first, norm="none") for first in (False, True)
    )
    for block in (generator, discriminator, first):
        for layer in (*block.convs, *(m for m in block.shortcut.modules() if isinstance(m, nn.Conv2d))):
            nn.init.dirac_(layer.weight)
            nn.init.zeros_(layer.bias)
    x = torch.randn(1, 2, 4, 4)
    larger = x.repeat_interleave(2, 2).repeat_interleave(2, 3)
    assert torch.allclose(generator(x, None), larger.relu() + larger)
    shrunk = torch.nn.functional.avg_pool2d
    assert torch.allclose(discriminator(x), shrunk(x.relu() + x, 2), atol=1e-6)
    assert torch.allclose(first(x), shrunk(x.relu(), 2) + shrunk(x, 2), atol=1e-6)


@pytest.mark.parametrize("init", INITS)
def test_initial_weights(init):
    torch.manual_seed(0)
    generator = resnet.Generator(z_dim=16, channels=3, resolution=16, width=32, init=init, num_classes=4)
    inside = generator.stages[0][0].convs[1].weight
    n = inside[0].numel()
    expected = {
        "normal": 0.02,
        "orthogonal": 1 / math.sqrt(n),
        "xavier": math.sqrt(2 * 2 / (2 * n)),
        "msr": math.sqrt(2 / n),
    }
    assert inside.std().item() == pytest.approx(expected[init], rel=0.05)
    assert all(m.bias.abs().max() == 0 for m in generator.modules() if isinstance(m, nn.Conv2d))
    scale = generator.stages[0][0].norms[0][0].scale.weight
    assert (scale.abs().max() == 0) == (init == "xavier")
    if init == "orthogonal":
        flat = inside.flatten(1)
        assert torch.allclose(flat @ flat.T, torch.eye(len(flat)), atol=1e-4)


@pytest.mark.parametrize("norm", ["spectral", "batch", "none"])
def test_a_penalty_reaches_every_weight(norm):
    """Through attention and the projection: the gradient of R1 by a finite difference, in float64."""
    torch.manual_seed(0)
    critic = resnet.Discriminator(
        channels=1, resolution=16, width=2, norm=norm, attention=8, condition="projection", num_classes=3
    ).double()
    critic.attention["0"].scale.data.fill_(0.5)
    critic.eval()
    x, label = torch.randn(4, 1, 16, 16, dtype=torch.float64), torch.tensor([0, 1, 2, 0])

    def penalty():
        return R1(10.0)(lambda image: critic(image, label).logits, x, x)

    penalty().backward()
    moved = {name: p for name, p in critic.named_parameters() if p.grad is not None and p.grad.abs().max() > 0}
    assert any("query" in name for name in moved) and any("embed" in name for name in moved)
    for p in list(moved.values())[:: max(1, len(moved) // 6)]:
        at = p.grad.abs().flatten().argmax()
        with torch.no_grad():
            values = []
            for step in (1e-6, -2e-6):
                p.view(-1)[at] += step
                with torch.enable_grad():
                    values.append(penalty().item())
            p.view(-1)[at] += 1e-6
        assert (values[0] - values[1]) / 2e-6 == pytest.approx(p.grad.flatten()[at].item(), rel=1e-3, abs=1e-6)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["generator.latents=chunks", "generator.z_dim=10"], "z_dim=10 has no 3 equal parts"),
        (["generator.attention=15"], "generator.attention=15: no block puts out that height; valid: 8, 16, half, null"),
        (
            ["discriminator.attention=32"],
            "discriminator.attention=32: no block puts out that height; valid: 8, half, null",
        ),
        (["generator.widths=[4,4]"], "generator.widths=[4, 4]; expected 3 numbers above 0"),
        (["generator.plan=resnet"], "generator.plan=resnet; "),
        (["discriminator.hidden=wide"], "discriminator.hidden=wide; valid: in, out"),
        (["generator.init=he"], "init=he; "),
        (["generator.norm=layer", "conditional=projection"], "only norm=batch can be given a condition"),
        (["discriminator.downs=9"], "discriminator.downs=9; expected 0 to 3"),
        (["generator.condition=both"], "generator.condition=both; "),
        (["discriminator.pool=max"], "discriminator.pool=max; did you mean mean?"),
        (["discriminator=patchgan", "conditional=projection"], "this discriminator has no projection of the label"),
    ],
)
def test_mistakes_are_one_line(words, told):
    from ganrun.config.check import check

    with pytest.raises(UserError) as refused:
        cfg = composed(*SMALL, "model=resnet", *words)[0]
        check(cfg, words)
        build(cfg)
    assert told in str(refused.value) and "\n" not in str(refused.value)


EXPERIMENTS = {  # parameters of both, moves of the discriminator, steps, batch, (rate, betas, schedule)
    "dcgan": (3_812_355, 2_931_009, 2, 200_000, 64, (2e-4, [0.5, 0.999], "constant")),
    "lsgan": (3_812_355, 2_931_009, 2, 200_000, 64, (2e-4, [0.5, 0.999], "constant")),
    "hinge": (3_812_355, 2_931_009, 2, 200_000, 64, (2e-4, [0.5, 0.999], "constant")),
    "wgan": (4_276_739, 1_055_879, 5, 100_000, 64, (2e-4, [0.5, 0.999], "constant")),
    "wgan-gp": (4_276_739, 1_053_825, 5, 100_000, 64, (2e-4, [0.0, 0.9], "linear")),
    "dragan": (4_276_739, 1_053_825, 5, 100_000, 64, (2e-4, [0.5, 0.999], "constant")),
    "sngan": (4_276_739, 1_053_825, 5, 50_000, 64, (2e-4, [0.0, 0.9], "linear")),
    "sngan-conditional": (4_304_387, 1_055_105, 5, 50_000, 64, (2e-4, [0.0, 0.9], "linear")),
    "sagan": (4_386_308, 1_075_586, 5, 100_000, 64, (2e-4, [0.5, 0.999], "constant")),
    "acgan": (4_304_387, 1_057_159, 5, 100_000, 64, (2e-4, [0.5, 0.999], "constant")),
    "projgan": (4_304_387, 1_057_159, 5, 100_000, 64, (2e-4, [0.5, 0.999], "constant")),
    "biggan": (9_416_196, 2_415_170, 5, 100_000, 64, (2e-4, [0.5, 0.999], "constant")),
    "reacgan": (9_416_196, 2_517_186, 5, 100_000, 128, (2.8284e-4, [0.5, 0.999], "constant")),
}


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_experiments_are_as_published(name):
    of_g, of_d, moves, steps, batch, adam = EXPERIMENTS[name]
    cfg, _ = composed(f"experiment={name}")
    cfg.generator.spectral = False  # it has no parameters, and meta tensors no singular values
    cfg.discriminator.norm = cfg.critic.norm.replace("spectral", "none")
    with torch.device("meta"):
        generator, discriminator = (instantiate(cfg[key], _convert_="all") for key in ("generator", "discriminator"))
    assert (count(generator), count(discriminator)) == (of_g, of_d)
    assert (cfg.schedule.discriminator, cfg.steps, cfg.batch_size) == (moves, steps, batch)
    for player in (cfg.optimizer.generator, cfg.optimizer.discriminator):
        assert (player.lr, list(player.betas), player.lr_schedule) == adam and player.optimizer == "torch.optim.Adam"
        assert player.get("eps", 1e-8) == (1e-8 if name in ("sngan", "sngan-conditional", "wgan-gp") else 1e-6)
    assert cfg.optimizer.discriminator.clip_weights == (0.01 if name == "wgan" else None)
    assert list(cfg.penalty) == {"wgan-gp": ["gradient"], "dragan": ["dragan"]}.get(name, [])
    assert (cfg.ema.get("decay"), cfg.ema.get("start")) == (
        (0.9999, 1000) if name in ("biggan", "reacgan") else (None, None)
    )
