"""StyleGAN2: published parameter counts and settings, layers by hand, with copied weights the published outputs."""

import importlib
import math
import os
import sys
from itertools import product
from unittest import mock

import pytest
import torch
from conftest import ROOT, ganrun
from hydra.utils import instantiate
from omegaconf import OmegaConf
from test_configs import composed
from test_r3gan import assert_r1_reaches_every_weight
from torch import nn
from torch.nn.functional import conv2d, conv_transpose2d, one_hot

from ganrun.config.rules import follow
from ganrun.errors import UserError
from ganrun.networks.equalised import equalise
from ganrun.networks.heads import CONDITIONS
from ganrun.networks.mapping import Mapping
from ganrun.networks.minibatch_std import minibatch_std
from ganrun.networks.modulated import Modulated, StyledConv
from ganrun.networks.stylegan2 import Discriminator, Generator
from ganrun.networks.stylegan2_blocks import DiscriminatorBlock, Projection
from ganrun.training.nodes import build_node

CIFAR = {"resolution": 32}
CLASSES = CIFAR | {"num_classes": 10}
COUNTS = {  # of both, of the generator, of the discriminator; parameters of both, as published
    "cifar": (CIFAR, {"mapping_layers": 2}, {"architecture": "orig", "minibatch_std": 32}, 19_947_539, 20_720_641),
    "cifar, 10 classes": (
        *(CLASSES, {"mapping_layers": 2}, {"architecture": "orig", "condition": "projection"}),
        *(20_215_315, 23_089_664),
    ),
    "auto 32": ({"resolution": 32, "fmaps": 0.5}, {"mapping_layers": 2}, {}, 19_947_539, 21_507_073),
    "auto 64": ({"resolution": 64, "fmaps": 0.5}, {"mapping_layers": 2}, {}, 22_243_608, 23_407_361),
    "auto 128": ({"resolution": 128, "fmaps": 0.5}, {"mapping_layers": 2}, {}, 22_949_277, 23_882_369),
    "auto 256": ({"resolution": 256, "fmaps": 0.5}, {"mapping_layers": 2}, {}, 23_191_522, 24_001_089),
    "paper256": ({"resolution": 256, "fmaps": 0.5}, {}, {}, 24_767_458, 24_001_089),
    "stylegan2 256": ({"resolution": 256}, {}, {}, 30_034_338, 28_864_129),
    "stylegan2 1024": ({"resolution": 1024}, {}, {}, 30_370_060, 29_012_513),
}


def count(network):
    return sum(p.numel() for p in network.parameters() if p.requires_grad)


@pytest.mark.parametrize("name", COUNTS)
def test_published_parameter_counts(name):
    both, of_g, of_d, *expected = COUNTS[name]
    with torch.device("meta"):
        generator, critic = Generator(z_dim=512, channels=3, **both, **of_g), Discriminator(channels=3, **both, **of_d)
    assert [count(generator), count(critic)] == expected


def random(network, seed=0):
    """Draws all parameters anew, so that none is 0; in float64 and eval mode."""
    torch.manual_seed(seed)
    network.double().eval()
    for p in network.parameters():
        nn.init.normal_(p, 0.0, 0.5)
    return network


PEER = "GANRUN_STYLEGAN2_ADA"  # a checkout of NVlabs/stylegan2-ada-pytorch, whose reference operators run on a CPU
SHAPE = {"resolution": 32, "num_classes": 3, "width": 16, "fmaps": 0.125}  # 16, 16, 8, 4 channels


@pytest.fixture
def peer(monkeypatch):
    if PEER not in os.environ:
        pytest.skip(f"set {PEER} to a checkout")
    monkeypatch.syspath_prepend(ROOT / "scripts")
    opened = importlib.import_module("peers").open_peer(os.environ[PEER])
    with mock.patch.dict(sys.modules, opened.modules):  # its networks pickle themselves as they are made
        yield opened.modules["training.networks"]


def copy(pairs, theirs):
    """From their network, with weights drawn anew."""
    random(theirs).float()
    for own, other in pairs:
        own.copy_(other)


def weights(layer):
    """Raw weights, biases and buffers of a layer and those below, in their order."""
    named = {name.replace(".original", ""): value for name, value in layer.state_dict().items()}
    return {name.replace("parametrizations.", ""): value for name, value in named.items()}


@pytest.mark.parametrize("architecture", ["orig", "skip", "resnet"])
@torch.no_grad()
def test_copied_weights_give_the_peers_output(peer, architecture):
    """Also where what a layer puts out is clamped."""
    settings = {"architecture": architecture, "conv_clamp": 1.0, "num_fp16_res": 0}
    settings |= {"channel_base": 128, "channel_max": 16}
    sizes = {"img_resolution": 32, "img_channels": 3, "c_dim": 3}
    own = {"architecture": architecture, "clamp": 1.0, "channels": 3}
    theirs = peer.Generator(z_dim=6, w_dim=5, mapping_kwargs={"num_layers": 3}, synthesis_kwargs=settings, **sizes)
    mine = Generator(z_dim=6, w_dim=5, mapping_layers=3, **own, **SHAPE).eval()
    scripts = importlib.import_module("stylegan2_peer")
    copy(scripts.generator_pairs(mine, theirs), theirs)
    z, label = torch.randn(4, 6), torch.tensor([0, 2, 1, 1])
    images = theirs(z, one_hot(label, 3).float(), noise_mode="const")
    torch.testing.assert_close(mine(z, label), images, rtol=1e-5, atol=1e-5)

    theirs = peer.Discriminator(**sizes, **settings, epilogue_kwargs={"mbstd_group_size": 2})
    mine = Discriminator(condition="projection", minibatch_std=2, **own, **SHAPE)
    copy(scripts.discriminator_pairs(mine, theirs), theirs)
    logits = theirs(images, one_hot(label, 3).float()).squeeze(1)
    torch.testing.assert_close(mine(images, label).logits, logits, rtol=1e-5, atol=1e-5)


def dense(weight):
    """A kernel (out, in, 3, 3) after or before the low-pass, as one (out, in, 6, 6): by its definition."""
    taps, kernel = [1, 3, 3, 1], torch.zeros(*weight.shape[:2], 6, 6, dtype=weight.dtype)
    for y, x, a, b in product(range(4), range(4), range(3), range(3)):
        kernel[:, :, y + a, x + b] += taps[y] * taps[x] / 64 * weight[:, :, a, b]
    return kernel


@pytest.mark.parametrize("form", ["activations", "weights"])
@pytest.mark.parametrize("up", [False, True])
@pytest.mark.parametrize("demodulate", [True, False])
@torch.no_grad()
def test_modulated_convolution_by_sample(form, up, demodulate):
    """One sample after the other, its own weights made number by number; enlarged, a convolution of 6 x 6."""
    layer = random(Modulated(3, 4, 3, 5, demodulate=demodulate, gain=1.5, up=up, form=form))
    x, w = torch.randn(2, 3, 4, 6, dtype=torch.float64), torch.randn(2, 5, dtype=torch.float64)
    for i in range(2):
        style = layer.style.parametrizations.weight.original @ w[i] / math.sqrt(5) + layer.style.bias
        weight = torch.empty(4, 3, 3, 3, dtype=torch.float64)
        for out in range(4):
            own = [layer.parametrizations.weight.original[out, c] / math.sqrt(27) * style[c] for c in range(3)]
            norm = math.sqrt(sum((each**2).sum().item() for each in own) + 1e-8)
            weight[out] = torch.stack(own) * (1.5 / norm if demodulate else 1)
        if up:
            kernel = 4 * dense(weight).transpose(0, 1)
            expected = conv_transpose2d(x[i][None], kernel, stride=2)[:, :, 2:-2, 2:-2]
        else:
            expected = conv2d(x[i][None], weight, padding=1)
        torch.testing.assert_close(layer(x, w)[i], expected[0], rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_a_block_of_the_discriminator_by_a_direct_convolution():
    block = random(DiscriminatorBlock(3, 4, residual=True, clamp=None))
    x = torch.randn(2, 3, 6, 8, dtype=torch.float64)
    first = block.first.parametrizations.weight.original / math.sqrt(27)
    h = leaky(conv2d(x, first, block.first.bias / math.sqrt(2), padding=1))
    second = block.second.parametrizations.weight.original / math.sqrt(27)
    h = leaky(conv2d(h, dense(second), block.second.bias, stride=2, padding=2)) / math.sqrt(2)
    raw = block.shortcut[1].parametrizations.weight.original / math.sqrt(3)
    taps = torch.tensor([1, 3, 3, 1], dtype=torch.float64) / 8
    shrunk = conv2d(x, (raw[:, :, 0, 0, None, None] * taps[:, None] * taps), stride=2, padding=1)
    torch.testing.assert_close(block(x), h + shrunk / math.sqrt(2))


def leaky(x):
    return math.sqrt(2) * torch.where(x > 0, x, 0.2 * x)


@torch.no_grad()
def test_the_mapping_by_hand():
    torch.manual_seed(0)
    mapping = Mapping(4, 3, width=5, layers=2).double()
    assert mapping.layers[0].parametrizations.weight.original.std() > 50  # N(0, 1) over the multiplier 0.01
    z, label = torch.randn(2, 4, dtype=torch.float64), torch.tensor([2, 0])
    for own in weights(mapping).values():
        own.copy_(torch.randn_like(own))
    own = weights(mapping)
    for i, (row, c) in enumerate(zip(z, label, strict=True)):
        y = own["embed.weight"][:, c] / math.sqrt(3) + own["embed.bias"]
        w = torch.cat([each / each.square().mean().sqrt() for each in (row, y)])
        for layer in ("layers.0", "layers.1"):
            w = leaky(0.01 * (own[f"{layer}.weight"] @ w / math.sqrt(len(w)) + own[f"{layer}.bias"]))
        torch.testing.assert_close(mapping(z, label)[i], w, rtol=1e-5, atol=1e-8)
    torch.testing.assert_close(mapping(z, one_hot(label, 3).double()), mapping(z, label))  # as attributes


def test_minibatch_std_by_hand():
    """Four samples in groups of two: 0 with 2, 1 with 3."""
    x = torch.zeros(4, 2, 1, 2, dtype=torch.float64)
    x[0, 0, 0, 0], x[2, 0, 0, 0] = 1, 5  # standard deviation 2 at one of four places
    x[1, :, 0, 1], x[3, :, 0, 1] = -3, 3  # 3 at two of four
    out = minibatch_std(x, 2)
    assert torch.equal(out[:, :2], x) and out.shape == (4, 3, 1, 2)
    for i, expected in enumerate([0.5, 1.5, 0.5, 1.5]):
        assert out[i, 2].flatten().tolist() == pytest.approx([expected] * 2, abs=1e-4)
    assert torch.equal(minibatch_std(x[:3], 4)[:, 2], minibatch_std(x[:3], 3)[:, 2])  # as many as there are
    values = torch.randn(6, 1, 1, 1)
    assert torch.equal(minibatch_std(values, 4), minibatch_std(values, 3))  # 4 does not divide 6
    assert minibatch_std(x[:1], 4)[0, 2].abs().max() < 2e-4


@torch.no_grad()
def test_the_projection_by_hand():
    head, features = random(Projection(4, 3, layers=2)), torch.randn(2, 4, dtype=torch.float64)
    label = torch.tensor([2, 1])
    own = features @ head.linear.parametrizations.weight.original.T / 2 + head.linear.bias
    expected = (own * head.mapping(None, label)).sum(1) / 2
    torch.testing.assert_close(head(features, label).logits, expected)
    with pytest.raises(ValueError, match=r"conditional \(3 classes\) but was given no label"):
        head(features)


SMALL = {"channels": 3, "resolution": 16, "width": 8}


def test_initial_weights():
    torch.manual_seed(0)
    for gain, multiplier in ((1.0, 1.0), (math.sqrt(2), 0.01)):
        layer = equalise(nn.Linear(64, 512), gain=gain, lr_multiplier=multiplier, bias=1.0)
        assert layer.weight.std().item() == pytest.approx(gain / 8, rel=0.02)
        assert layer.parametrizations.weight.original.std().item() == pytest.approx(1 / multiplier, rel=0.02)
        assert torch.allclose(layer.bias, torch.tensor(gain))
    generator = Generator(z_dim=4, **SMALL)
    assert all(conv.strength == 0 for block in generator.blocks for conv in block.convs)


@torch.no_grad()
def test_noise_and_the_mean_of_w():
    """Anew in each pass of training; in eval mode an image is a function of z. w's mean follows in training alone."""
    generator = random(Generator(z_dim=4, w_dim=6, **SMALL)).float()
    z = torch.randn(3, 4)
    images = generator(z)
    assert torch.equal(images, generator(z)) and not generator.w_mean.any()
    torch.testing.assert_close(images[:1], generator(z[:1]))
    w = generator.mapping(z)
    assert w.shape == (3, 6) and generator.num_styles == 6  # sizes 4, 8, 16
    assert torch.equal(generator.synthesis(w[:, None].repeat(1, 6, 1)), images)
    generator.train()
    torch.manual_seed(0)
    drawn = [generator(z), generator(z)]
    assert not torch.allclose(drawn[0][0], drawn[1][0]) and not torch.allclose(drawn[0], images)
    torch.manual_seed(0)
    assert torch.equal(generator(z), drawn[0])
    torch.testing.assert_close(generator.w_mean, w.mean(0) * (1 - 0.995**3))
    assert "w_mean" in generator.state_dict() and not generator.w_mean.requires_grad
    silent = Generator(z_dim=4, noise_inputs=False, **SMALL)
    assert torch.equal(silent(z), silent(z)) and not any("noise" in name for name in silent.state_dict())


@torch.no_grad()
def test_each_style_reaches_its_own_layers():
    """The image of size 4 hears of styles 0 and 1; a later style changes the later layers only."""
    generator = random(Generator(z_dim=4, w_dim=6, **SMALL))
    styles, seen = torch.randn(2, 6, 6, dtype=torch.float64), []
    for block in generator.blocks:
        block.register_forward_hook(lambda _, given, out: seen.append(out))
    generator.synthesis(styles)
    whole = [*seen]
    reached = {  # style -> stages whose x changes, whose image changes
        0: ({0, 1, 2}, {0, 1, 2}), 1: ({1, 2}, {0, 1, 2}), 2: ({1, 2}, {1, 2}),
        3: ({2}, {1, 2}), 4: ({2}, {2}), 5: (set(), {2}),
    }  # fmt: skip
    for style, expected in reached.items():
        seen.clear()
        generator.synthesis(torch.cat([styles[:, :style], styles[:, style : style + 1] + 1, styles[:, style + 1 :]], 1))
        changed = ({i for i in range(3) if not torch.equal(seen[i][part], whole[i][part])} for part in (0, 1))
        assert tuple(changed) == expected, style


@pytest.mark.parametrize("architecture", ["orig", "skip", "resnet"])
@pytest.mark.parametrize(("resolution", "channels"), [(8, 1), (28, 3), ([16, 40], 5)], ids=str)
def test_sizes_and_shapes(architecture, resolution, channels):
    size = (resolution, resolution) if isinstance(resolution, int) else tuple(resolution)
    shape = {"channels": channels, "resolution": resolution, "width": 4, "architecture": architecture, "num_classes": 3}
    generator = Generator(z_dim=4, w_dim=4, mapping_layers=2, value_range=(-1, 1), **shape)
    fake = generator(torch.randn(3, 4), torch.rand(3, 3))
    assert fake.shape == (3, channels, *size) and fake.abs().max() <= 1
    fake.sum().backward()
    unmoved = {name for name, p in generator.named_parameters() if p.grad is None or not p.grad.any()}
    assert not unmoved
    x = fake.detach().requires_grad_()
    verdict = Discriminator(condition="projection", mapping_layers=2, **shape)(x, torch.tensor([0, 1, 2]))
    assert verdict.logits.shape == (3,) and verdict.features.shape == (3, 4)
    verdict.logits.sum().backward()
    assert (x.grad != 0).any(1).all()


def test_bfloat16_of_convolutions_alone():
    """Mapping, styles, sums of images and the end of the discriminator stay in float32."""
    generator = Generator(z_dim=6, w_dim=6, num_classes=3, **SMALL)
    critic = Discriminator(condition="projection", num_classes=3, **SMALL)
    half, full = [], []
    for module in (*generator.modules(), *critic.modules()):
        if isinstance(module, (StyledConv, DiscriminatorBlock)):
            module.register_forward_hook(lambda _, given, out: half.append(out.dtype))
        elif isinstance(module, nn.Linear):
            module.register_forward_hook(lambda _, given, out: full.append(out.dtype))
    with torch.autocast("cpu", torch.bfloat16):
        images = generator(torch.randn(2, 6), torch.tensor([0, 2]))
        verdict = critic(images, torch.tensor([0, 2]))
    assert images.dtype == verdict.logits.dtype == verdict.features.dtype == torch.float32
    assert set(half) == {torch.bfloat16} and len(half) == 5 + 2
    assert set(full) == {torch.float32} and len(full) == 9 + 8 + 11  # mapping, styles, end of the discriminator


def test_a_clamp_bounds_what_a_layer_puts_out():
    layer = random(StyledConv(3, 4, 5, (6, 6), noise=True, clamp=0.5)).float()
    out = layer(torch.randn(2, 3, 6, 6), torch.randn(2, 5))
    assert out.abs().max() == 0.5 and out.unique().numel() > 9


@pytest.mark.parametrize("condition", CONDITIONS)
def test_every_head_is_equalised(condition):
    critic = Discriminator(condition=condition, num_classes=3, mapping_layers=1, **SMALL)
    layers = [layer for layer in critic.head.modules() if isinstance(layer, (nn.Linear, nn.Embedding))]
    assert layers and all("weight" in layer.parametrizations for layer in layers)
    assert critic(torch.randn(4, 3, 16, 16), torch.tensor([0, 1, 2, 0])).logits.shape == (4,)


def test_a_penalty_reaches_every_weight():
    critic = random(Discriminator(condition="projection", num_classes=3, mapping_layers=1, **SMALL | {"width": 2}))
    x, label = torch.randn(4, 3, 16, 16, dtype=torch.float64), torch.tensor([0, 1, 2, 0])
    assert_r1_reaches_every_weight(critic, x, label)


AUTO = {  # resolution, devices -> batch, minibatch std, fmaps, rate, gamma, half-life in images: by the published rule
    (32, 1): (32, 4, 0.5, 0.0025, 0.0064, 10_000),
    (256, 1): (16, 4, 0.5, 0.0025, 0.8192, 5000),
    (256, 8): (64, 4, 0.5, 0.0025, 0.2048, 20_000),
    (1024, 1): (4, 4, 1.0, 0.002, 52.4288, 1250),
    (1024, 8): (32, 4, 1.0, 0.002, 6.5536, 10_000),
    ("128x256", 1): (16, 4, 0.5, 0.0025, 0.4096, 5000),
}


@pytest.mark.parametrize(("resolution", "devices"), AUTO)
def test_settings_that_follow_from_the_resolution(resolution, devices):
    expected = AUTO[resolution, devices]
    if isinstance(resolution, str):
        resolution = OmegaConf.create([int(side) for side in resolution.split("x")])
    batch = follow("batch_size", resolution, devices)
    found = [batch, follow("minibatch_std", batch, devices), follow("fmaps", resolution), follow("lr", resolution)]
    found += [follow("gamma", resolution, batch), follow("half_life", batch)]
    assert found == pytest.approx(expected)
    assert follow("steps", batch) == 25_000_000 // batch


def test_the_rule_in_a_config():
    words = ["dataset.resolution=[128,256]", "trainer=ddp", "trainer.devices=[0,1]"]
    cfg, notes = composed("experiment=stylegan2-auto", *words)
    own = cfg.discriminator
    rate, gamma = cfg.optimizer.generator.lr, cfg.penalty.r1.weight
    found = (cfg.batch_size, own.minibatch_std, own.fmaps, rate, gamma, cfg.ema.half_life, cfg.steps)
    assert found == pytest.approx((32, 4, 0.5, 0.0025, 0.2048, 10_000, 781_250)) and notes == []
    assert cfg.generator.fmaps == own.fmaps


def test_what_is_typed_wins_over_the_rule_which_follows_it():
    words = ["dataset.resolution=64", "batch_size=8", "generator.fmaps=1", "optimizer.lr=1e-3"]
    cfg, _ = composed("experiment=stylegan2-auto", *words)
    assert (cfg.batch_size, cfg.steps, cfg.optimizer.discriminator.lr) == (8, 3_125_000, 1e-3)
    assert cfg.penalty.r1.weight == pytest.approx(0.0002 * 64**2 / 8) and cfg.discriminator.fmaps == 1
    with pytest.raises(UserError, match="stylegan2 builds images, but this dataset has vectors; try model=mlp"):
        build_node(composed("experiment=stylegan2-auto", "dataset=ring", "augment=[]")[0], "generator")


@pytest.mark.parametrize("name", ["stylegan2", "stylegan2-ada"])
def test_experiments_are_as_published(name):
    cfg, notes = composed(f"experiment={name}")
    with torch.device("meta"):
        counts = [count(instantiate(cfg[player], _convert_="all")) for player in ("generator", "discriminator")]
    assert counts == list(COUNTS["cifar, 10 classes"][3:]) and cfg.generator.value_range is None and notes == []
    assert (cfg.batch_size, cfg.batch_size * cfg.steps, cfg.discriminator.minibatch_std) == (64, 10**8, 32)
    assert cfg.loss._target_ == "ganrun.losses.NonSaturating" and list(cfg.augment) == ["ada"] * ("ada" in name)
    assert list(cfg.penalty) == ["r1"] and (cfg.penalty.r1.weight, cfg.penalty.r1.every) == (0.01, 16)
    assert (cfg.ema.half_life, cfg.ema.rampup) == (500_000, 0.05)
    assert list(cfg.schedule.items())[:3] == [("generator", 1), ("discriminator", 1), ("share", False)]
    for player in (cfg.optimizer.generator, cfg.optimizer.discriminator):
        assert (player.optimizer, player.lr, player.betas) == ("torch.optim.Adam", 0.0025, [0.0, 0.99])


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["generator.fmaps=0"], "fmaps=0; expected more than 0"),
        (["discriminator.clamp=-1"], "clamp=-1; expected more than 0 (null = off)"),
        (["generator.architecture=skipped"], "generator.architecture=skipped; "),
        (["generator.modulation=both"], "generator.modulation=both; "),
        (["generator.mapping_layers=0"], "mapping_layers=0; expected at least 1"),
        (["dataset.resolution=30"], "stylegan2 cannot build it"),
        (["discriminator.condition=both"], "discriminator.condition=both; "),
    ],
)
def test_mistakes_are_one_line(words, told):
    with pytest.raises(UserError) as refused, torch.device("meta"):
        cfg = composed("model=stylegan2", *words)[0]
        for player in ("generator", "discriminator"):
            build_node(cfg, player)
    assert told in str(refused.value) and "\n" not in str(refused.value)


def test_a_run_says_what_it_chose_and_its_generator_samples(tmp_path):
    small = ["generator.width=8", "discriminator.width=8", "num_samples=16", "evaluate.num_samples=64", "steps=2"]
    words = ["dataset=digits", "augment=[]", "batch_size=8", "metric=[]", "run_dir=run"]
    done = ganrun("experiment=stylegan2-auto", *words, *small, cwd=tmp_path)
    assert "widths 8, 8, 8, standard deviation over groups of 4" in done.stdout
    assert f"r1 weight={0.0002 * 256 / 8}" in done.stdout and "half_life=2500.0" in done.stdout
    done = ganrun("sample", "from=run", "num=4", "out=pngs", cwd=tmp_path)
    assert done.returncode == 0 and len(list((tmp_path / "pngs").rglob("*.png"))) == 4
