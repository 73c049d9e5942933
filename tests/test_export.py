"""Exported files agree with load_generator for every network, batch size and label, and say nothing of their author."""

import json
import logging
import zipfile
from functools import cache

import pytest
import torch
from conftest import TINY, ganrun
from test_readme import code_block
from torch import nn
from torch.onnx._internal.exporter import _registration

from ganrun import __version__, load_generator
from ganrun.attributes import Attribute
from ganrun.commands.export.exporting import compare, of_onnx, of_pt2, quiet, to_onnx, to_pt2, traced
from ganrun.config.groups import options
from ganrun.depth import to_pixels
from ganrun.errors import Failure
from ganrun.networks import dcgan, deep_conv, fastgan, mlp, r3gan, resnet, resnet_translator, stylegan2, unet
from ganrun.noise import Codes, Normal, Uniform
from ganrun.sampling.generator import SamplingGenerator
from ganrun.sampling.portable import of_samples, of_translation, simplify
from ganrun.sampling.translator import Translator

AGES = [Attribute("age", "number", 30.0, 10.0, 1.0, 90.0), Attribute("smiling", "binary", 0.5, 0.5, 0.0, 1.0)]
IMAGE = {"z_dim": 12, "channels": 3, "resolution": 8, "num_classes": 3}
TWO = IMAGE | {"num_classes": 2}
UNCONDITIONAL = IMAGE | {"num_classes": 0}
STYLE = {"width": 8, "w_dim": 8, "mapping_layers": 1}
BIG = {"width": 8, "widths": [1, 1], "spectral": True, "attention": 8}
SIDES = {"channels": 1, "source_channels": 3, "resolution": 16, "width": 4}
GENERATORS = {  # of every model, with every way in which a label enters
    "mlp": lambda: mlp.Generator(width=8, value_range=(-1, 1), **IMAGE),
    "mlp points": lambda: mlp.Generator(z_dim=3, channels=2, resolution=None, width=8),
    "dcgan": lambda: dcgan.Generator(width=4, spectral=True, condition="batch-norm", **IMAGE),
    "dcgan attributes": lambda: dcgan.Generator(width=4, norm="layer", value_range=(0, 1), **TWO),
    "dcgan codes": lambda: dcgan.Generator(width=4, **UNCONDITIONAL),
    "deep-conv": lambda: deep_conv.Generator(width=4, spectral=True, **IMAGE),
    "resnet": lambda: resnet.Generator(width=4, widths=[1, 1], condition="concatenate", **IMAGE),
    "sagan": lambda: resnet.Generator(**BIG, **IMAGE),
    "biggan": lambda: resnet.Generator(embedding=5, latents="chunks", **BIG, **IMAGE),
    "biggan-deep": lambda: resnet.Generator(embedding=5, latents="whole", depth=1, **BIG, **IMAGE),
    "r3gan": lambda: r3gan.Generator(width=16, widths=[1, 1], blocks=1, **IMAGE),
    "stylegan2": lambda: stylegan2.Generator(modulation="weights", clamp=256.0, **STYLE, **IMAGE),
    "stylegan2 orig": lambda: stylegan2.Generator(architecture="orig", **STYLE, **UNCONDITIONAL),
    "stylegan2 resnet": lambda: stylegan2.Generator(architecture="resnet", mixing=0.9, **STYLE, **TWO),
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
    noise = (
        Codes(12, [3], 1)
        if "codes" in name
        else Uniform(12)
        if name == "dcgan"
        else Normal(3 if "points" in name else 12)
    )
    attributes = AGES if name in ("dcgan attributes", "stylegan2 resnet") else []
    labelled = getattr(network, "num_classes", 0) or getattr(getattr(network, "mapping", None), "num_classes", 0)
    classes = [f"c{i}" for i in range(3)] if labelled and not attributes else []
    value_range = None if "points" in name else (0, 1) if name == "dcgan attributes" else (-1, 1)
    return SamplingGenerator(network, noise, value_range=value_range, classes=classes, attributes=attributes)


def translator(name: str) -> Translator:
    torch.manual_seed(0)
    network = given(TRANSLATORS[name]())
    channels = {"generator": (1 if name == "cyclegan" else 3, 1)}
    value_range = (0, 1) if name == "pix2pix" else (-1, 1)
    return Translator(
        {"generator": network}, value_range=value_range, channels=channels, between={"generator": ("a", "b")}
    )


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
        compare(run, original, name)  # raises Failure for more than 1e-4
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


def test_a_difference_is_refused():
    original, other = graph("mlp points"), sampling("mlp points")
    for value in (1e-3, float("nan")):
        other.generator.to_data[0].bias.add_(value)
        with pytest.raises(Failure, match="mine: the exported network is"):
            compare(lambda inputs: other.generator(inputs["z"]), original, "mine")


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    path = tmp_path_factory.mktemp("export")
    words = [*TINY, "conditional=label", "dataset.limit=32", "steps=1", "batch_size=8", "evaluate.every=0", "metric=[]"]
    ganrun(*words, "run_dir=run", cwd=path)
    return path


def test_sampling_without_ganrun(place, monkeypatch):
    """The README's lines; the file says what is needed, and its images are load_generator's, in 8 bits too."""
    done = ganrun("export", "from=run", cwd=place)
    said, out = done.stdout.splitlines()
    assert out == "generator.onnx" and said.endswith("differ in 8 bits") and "18 samples" in said and not done.stderr
    monkeypatch.chdir(place)
    names: dict = {}
    exec(code_block("python", "onnxruntime"), names)
    made = load_generator("run/generator.safetensors")
    wanted = made.decode(torch.from_numpy(names["z"]), torch.arange(16) % 10)
    assert torch.equal(to_pixels(torch.from_numpy(names["images"])), to_pixels(wanted))
    about = names["about"]
    assert about["noise"] == {"distribution": "normal", "size": 100} and about["classes"] == made.classes
    assert (about["ganrun"], about["value_range"], about["truncation"]) == (__version__, [-1, 1], "z")
    inputs = {each.name: each.shape for each in names["session"].get_inputs()}
    assert inputs == {"z": ["batch", 100], "label": ["batch"]}


def test_pt2_by_the_ending_of_its_name(place):
    ganrun("export", "from=run", "out=it.pt2", cwd=place)
    found = {"ganrun.json": ""}
    network = torch.export.load(place / "it.pt2", extra_files=found).module()
    assert json.loads(found["ganrun.json"])["trained"]["steps"] == 1
    assert network(z=torch.zeros(7, 100), label=torch.arange(7)).shape == (7, 1, 16, 16)
    assert str(place).encode() not in b"".join(whole(place / "it.pt2"))


def whole(path):
    with zipfile.ZipFile(path) as archive:
        yield from map(archive.read, archive.namelist())


def test_psi_is_off_by_default_and_acts_on_the_first_styles():
    made = sampling("stylegan2 orig")
    plain = of_samples(made, cutoff=1)
    simplify(plain.network)
    with quiet():
        run = of_onnx(to_onnx(traced(plain), plain))
    z = torch.randn(3, 12)
    assert torch.allclose(run({"z": z}), made.decode(z), rtol=0, atol=1e-4)
    assert torch.allclose(run({"z": z, "psi": torch.tensor(0.2)}), made.decode(z, None, 0.2, 1), rtol=0, atol=1e-4)
    assert not torch.allclose(made.decode(z, None, 0.2, 1), made.decode(z), atol=1e-3)


MISTAKES = {
    "out=x": "from= must be given",
    "from=run out=x.pth": "expected a file that ends in .onnx or .pt2",
    "from=run format=pt2 out=x.onnx": "expected a file that ends in .pt2",
    "from=run format=tflite": "expected one of onnx, pt2",
    "from=run out=no/x.onnx": "there is no folder no",
    "from=run out=x.onnx direction=a2b": "it is for translators",
    "from=run out=x.onnx truncation_cutoff=2": "it needs a style-based generator",
}


@pytest.mark.parametrize("words", MISTAKES)
def test_mistakes_are_one_line(words, place):
    done = ganrun("export", *words.split(), cwd=place, check=2)
    assert MISTAKES[words] in done.stderr and len(done.stderr.splitlines()) == 1 and not list(place.glob("x*"))
