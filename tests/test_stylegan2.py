"""StyleGAN2: published parameter counts and settings, layers by hand, with copied weights the published outputs."""

import math
import os
import sys

import pytest
import torch
from torch import nn
from torch.nn.functional import conv2d, one_hot

from ganrun.networks.equalised import Scaled, equalise
from ganrun.networks.mapping import Mapping
from ganrun.networks.minibatch_std import minibatch_std
from ganrun.networks.modulated import Modulated, StyledConv
from ganrun.networks.stylegan2 import Discriminator, Generator
from ganrun.networks.stylegan2_blocks import DiscriminatorBlock, Projection

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
    monkeypatch.syspath_prepend(os.environ[PEER])
    import training.networks

    return training.networks


def weights(layer):
    """Raw weights, biases and buffers of a layer and those below, in their order."""
    named = {name.replace(".original", ""): value for name, value in layer.state_dict().items()}
    return {name.replace("parametrizations.", ""): value for name, value in named.items()}


def copy_layer(mine, theirs):
    own = weights(mine)
    for name, value in theirs.named_parameters():
        own[name].copy_(value)


def copy_mapping(mine, theirs):
    copy_layer(mine.embed, theirs.embed)
    for i, layer in enumerate(mine.layers):
        copy_layer(layer, getattr(theirs, f"fc{i}"))


def copy_styled(mine, theirs):
    copy_layer(mine.conv.style, theirs.affine)
    weights(mine)["conv.weight"].copy_(theirs.weight)
    mine.bias.copy_(theirs.bias)
    if hasattr(theirs, "noise_const"):
        mine.strength.copy_(theirs.noise_strength)
        mine.noise.copy_(theirs.noise_const)


@pytest.mark.parametrize("architecture", ["orig", "skip", "resnet"])
@torch.no_grad()
def test_copied_weights_give_the_peers_output(peer, architecture):
    """Also where what a layer puts out is clamped."""
    clamp, shape = 1.0, {"channel_base": 128, "channel_max": 16}
    settings = {"architecture": architecture, "conv_clamp": clamp, **shape, "num_fp16_res": 0}
    sizes = {"img_resolution": 32, "img_channels": 3, "c_dim": 3}
    theirs = peer.Generator(z_dim=6, w_dim=5, mapping_kwargs={"num_layers": 3}, synthesis_kwargs=settings, **sizes)
    random(theirs).float()
    more = {"architecture": architecture, "clamp": clamp, "channels": 3}
    mine = Generator(z_dim=6, w_dim=5, mapping_layers=3, **more, **SHAPE).eval()
    copy_mapping(mine.mapping, theirs.mapping)
    for i, block in enumerate(mine.blocks):
        other = getattr(theirs.synthesis, f"b{4 * 2**i}")
        for conv, name in zip(block.convs, ("conv0", "conv1") if i else ("conv1",), strict=True):
            copy_styled(conv, getattr(other, name))
        if block.to_image is not None:
            copy_styled(block.to_image, other.torgb)
        if block.shortcut is not None:
            copy_layer(block.shortcut[0], other.skip)
    mine.constant.copy_(theirs.synthesis.b4.const)
    z, label = torch.randn(4, 6), torch.tensor([0, 2, 1, 1])
    images = theirs(z, one_hot(label, 3).float(), noise_mode="const")
    torch.testing.assert_close(mine(z, label), images, rtol=1e-5, atol=1e-5)

    theirs = random(peer.Discriminator(**sizes, **settings, epilogue_kwargs={"mbstd_group_size": 2})).float()
    mine = Discriminator(condition="projection", minibatch_std=2, **more, **SHAPE)
    for i, block in enumerate(mine.blocks):
        other = getattr(theirs, f"b{32 // 2**i}")
        copy_layer(block.first, other.conv0)
        copy_layer(block.second, other.conv1)
        if block.shortcut is not None:
            copy_layer(block.shortcut[1], other.skip)
        if hasattr(other, "fromrgb"):
            copy_layer(mine.from_image[i], other.fromrgb)
    if architecture == "skip":
        copy_layer(mine.from_image[-1], theirs.b4.fromrgb)
    for layer, name in ((mine.conv, "conv"), (mine.dense, "fc"), (mine.head.linear, "out")):
        copy_layer(layer, getattr(theirs.b4, name))
    copy_mapping(mine.head.mapping, theirs.mapping)
    logits = theirs(images, one_hot(label, 3).float()).squeeze(1)
    torch.testing.assert_close(mine(images, label).logits, logits, rtol=1e-5, atol=1e-5)
