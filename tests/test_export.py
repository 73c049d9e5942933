"""Exported files agree with load_generator for every network, batch size and label, and say nothing of their author."""

import io
import json
import logging
from functools import cache

import pytest
import torch
from conftest import ganrun
from test_readme import code_block
from torch import nn
from torch.onnx._internal.exporter import _registration

from ganrun.attributes import Attribute
from ganrun.commands.export.exporting import compare, of_onnx, of_pt2, quiet, to_onnx, to_pt2, traced
from ganrun.config.groups import options
from ganrun.errors import Failure
from ganrun.networks import dcgan, deep_conv, fastgan, mlp, r3gan, resnet, resnet_translator, stylegan2, unet
from ganrun.noise import Codes, Normal, Uniform
from ganrun.sampling.generator import SamplingGenerator
from ganrun.sampling.portable import of_samples, of_translation, simplify
from ganrun.sampling.translator import Translator

AGES = [Attribute("age", "number", 30.0, 10.0, 1.0, 90.0), Attribute("smiling", "binary", 0.5, 0.5, 0.0, 1.0)]
IMAGE = {"z_dim": 12, "channels": 3, "resolution": 8, "num_classes": 3}
UNCONDITIONAL = IMAGE | {"num_classes": 0}
STYLE = {"width": 8, "w_dim": 8, "mapping_layers": 1}
BIG = {"width": 8, "widths": [1, 1], "spectral": True, "attention": 8}
SIDES = {"channels": 1, "source_channels": 3, "resolution": 16, "width": 4}
GENERATORS = {  # of every model, with every way in which a label enters
    "mlp": lambda: mlp.Generator(width=8, value_range=(-1, 1), **IMAGE),
    "mlp points": lambda: mlp.Generator(z_dim=3, channels=2, resolution=None, width=8),
    "dcgan": lambda: dcgan.Generator(width=4, spectral=True, condition="batch-norm", **IMAGE),
    "dcgan attributes": lambda: dcgan.Generator(width=4, norm="layer", value_range=(0, 1), **IMAGE | {"num_classes": 2}),
    "dcgan codes": lambda: dcgan.Generator(width=4, **UNCONDITIONAL),
    "deep-conv": lambda: deep_conv.Generator(width=4, spectral=True, **IMAGE),
    "resnet": lambda: resnet.Generator(width=4, widths=[1, 1], condition="concatenate", **IMAGE),
    "sagan": lambda: resnet.Generator(**BIG, **IMAGE),
    "biggan": lambda: resnet.Generator(embedding=5, latents="chunks", **BIG, **IMAGE),
    "biggan-deep": lambda: resnet.Generator(embedding=5, latents="whole", depth=1, **BIG, **IMAGE),
    "r3gan": lambda: r3gan.Generator(width=16, widths=[1, 1], blocks=1, **IMAGE),
    "stylegan2": lambda: stylegan2.Generator(modulation="weights", clamp=256.0, **STYLE, **IMAGE),
    "stylegan2 orig": lambda: stylegan2.Generator(architecture="orig", **STYLE, **UNCONDITIONAL),
    "stylegan2 resnet": lambda: stylegan2.Generator(architecture="resnet", mixing=0.9, **STYLE, **IMAGE | {"num_classes": 2}),
    "fastgan": lambda: fastgan.Generator(width=4, reach=2, **IMAGE | {"resolution": 32}),
}  # fmt: skip
TRANSLATORS = {
    "pix2pix": lambda: unet.Generator(depth=2, value_range=(0, 1), **SIDES),
    "cyclegan": lambda: resnet_translator.Generator(blocks=1, residual=True, **SIDES | {"source_channels": 1}),
}
SAME = {"projected-gan": "fastgan"}  # models whose generator is another one's


@pytest.fixture(scope="module", autouse=True)
def quickly_translated():
    """torch's table of operations is made once, not for each network, and pytest does not record its traces."""
    with pytest.MonkeyPatch.context() as patch:
        made = staticmethod(cache(_registration.ONNXRegistry.from_torchlib))
        patch.setattr(_registration.ONNXRegistry, "from_torchlib", made)
        patch.setattr(logging.getLogger("torch.__trace"), "disabled", True)
        yield


def given(network: nn.Module) -> nn.Module:
    """The network with numbers in all that is 0 or 1 at first, as after training."""
    network.eval().requires_grad_(False)
    for name, value in network.state_dict().items():
        if value.dim() == 0 and value.is_floating_point():
            value.fill_(0.5)
        elif name.endswith("running_var"):
            value.uniform_(0.5, 2)
        elif name.endswith(("w_mean", "running_mean")):
            value.normal_()
    return network


def sampling(name: str) -> SamplingGenerator:
    torch.manual_seed(0)
    network = given(GENERATORS[name]())
    noise = Codes(12, [3], 1) if "codes" in name else Uniform(12) if name == "dcgan" else Normal(3 if "points" in name else 12)
    attributes = AGES if name in ("dcgan attributes", "stylegan2 resnet") else []
    labelled = getattr(network, "num_classes", 0) or "mapping" in dir(network) and network.mapping.num_classes
    classes = [f"c{i}" for i in range(3)] if labelled and not attributes else []
    value_range = None if "points" in name else (0, 1) if name == "dcgan attributes" else (-1, 1)
    return SamplingGenerator(network, noise, value_range=value_range, classes=classes, attributes=attributes)


def translator(name: str) -> Translator:
    torch.manual_seed(0)
    network = given(TRANSLATORS[name]())
    channels = {"generator": (1 if name == "cyclegan" else 3, 1)}
    value_range = (0, 1) if name == "pix2pix" else (-1, 1)
    return Translator({"generator": network}, value_range=value_range, channels=channels, between={"generator": ("a", "b")})


def graph(name: str):
    return of_samples(sampling(name)) if name in GENERATORS else of_translation(translator(name))


@pytest.mark.parametrize("name", [*GENERATORS, *TRANSLATORS])
def test_both_formats_agree_with_the_original(name):
    original, plain = graph(name), graph(name)
    simplify(plain.network)
    with quiet():
        program = traced(plain)
        files = [to_onnx(program, plain), to_pt2(program, plain)]
        runs = [load(content) for load, content in zip((of_onnx, of_pt2), files, strict=True)]
    for run in runs:
        assert "0.0e+00" in (said := compare(run, original, name)) or "e-0" in said
    ways = sampling(name) if name in GENERATORS else translator(name)
    case = original.cases[0]
    if name in GENERATORS:  # the very numbers of load_generator
        wanted = ways.decode(case["z"], case.get("label"), float(case["psi"]) if "psi" in case else None)
    else:
        wanted = ways.translate(case["images"])
    assert torch.allclose(runs[0](case), wanted, rtol=0, atol=1e-4)
    assert not any(trace in content for content in files for trace in (b"/ganrun/", b"site-packages", b"File "))


def test_every_model_is_among_them():
    assert {name.split()[0] for name in (*GENERATORS, *TRANSLATORS)} == set(options("model")) - set(SAME)
