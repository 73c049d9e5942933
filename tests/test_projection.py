"""Projection: what the generator made is found again; its schedules, distances and files; the commands."""

import json

import numpy as np
import pytest
import torch
from conftest import TINY, ganrun
from PIL import Image
from test_truncation_w import sampling as of_styles
from torch import nn

from ganrun.config.places import quoted
from ganrun.errors import UserError
from ganrun.networks import dcgan
from ganrun.networks.frozen import Perceptual
from ganrun.noise import Codes, Normal, Uniform
from ganrun.sampling.generator import SamplingGenerator
from ganrun.sampling.latents import Latents, load, save
from ganrun.sampling.projection import Distance, lr_factor, noise_factor, project, seen, start


def of_noise(noise=Normal, classes=()) -> SamplingGenerator:
    torch.manual_seed(0)
    network = dcgan.Generator(z_dim=5, channels=1, resolution=8, width=8, num_classes=len(classes))
    with torch.no_grad():
        for parameter in network.parameters():
            parameter += 0.2 * torch.randn_like(parameter)
    made = SamplingGenerator(network, noise(5), value_range=(-1, 1), classes=list(classes))
    return made.eval().requires_grad_(False)


def test_schedules_by_hand():
    assert [lr_factor(x) for x in (0, 0.025, 0.05, 0.5, 0.75, 1)] == pytest.approx([0, 0.5, 1, 1, 1, 0])
    assert lr_factor(0.875) == pytest.approx(0.5)
    assert [noise_factor(x) for x in (0, 0.375, 0.75, 1)] == pytest.approx([0.05, 0.0125, 0, 0])


class Halves(nn.Module):
    """Maps that are the image itself, and its left half."""

    def forward(self, x):
        return [x, x[..., : x.shape[3] // 2]]


def test_distance_by_hand():
    a, b = torch.zeros(2, 2, 64, 64), torch.zeros(2, 2, 64, 64)
    a[:, 0], b[0, 1], b[1, 0] = 1, 1, 3  # at right angles; the same direction
    assert Distance(b)(a).tolist() == pytest.approx([1, 2])
    assert Distance(b, Halves(), weight=0.5)(a).tolist() == pytest.approx([1 + 0.5 * 2, 2])


def test_distance_of_features_is_the_perceptual_one():
    perceptual = Perceptual.__new__(Perceptual)
    nn.Module.__init__(perceptual)
    perceptual.features = Halves()
    a, b = torch.randn(2, 3, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    found = Distance(b, Halves(), weight=2.0)(a)
    torch.testing.assert_close(found.mean(), (a - b).square().mean() + 2 * perceptual(a, b))


@pytest.mark.parametrize(("size", "expected"), [((8, 16), (64, 128)), ((64, 80), (64, 80)), ((512, 256), (256, 128))])
def test_features_see_a_size_that_suits_them(size, expected):
    assert seen(torch.zeros(1, 1, *size)).shape[2:] == expected


@pytest.mark.parametrize("space", ["w", "w+", "z"])
def test_styles_are_found_again(space):
    made = of_styles().requires_grad_(False)
    targets = made.sample(3, seed=5)
    found = project(made, targets, ["a", "b", "c"], space=space, steps=200)
    assert all(after < 0.01 * before for before, after in zip(found.before, found.after, strict=True)), found
    torch.testing.assert_close(found.latents.images(made), found.images)
    assert found.latents.values.shape[1:] == {"w": (4,), "w+": (3, 4), "z": (5,)}[space]


def test_w_begins_at_its_mean_with_the_deviation_of_samples():
    made = of_styles(("a", "b"))
    begin = start(made, torch.zeros(2, 1, 4, 4), "w")
    assert torch.equal(begin.values, made.generator.w_mean.expand(2, -1))
    z, label = made.noise(4000, torch.Generator().manual_seed(7))["z"], torch.arange(4000) % 2
    w = made.styles(z, label)[:, 0]
    assert begin.std == pytest.approx((w - w.mean(0)).square().sum(1).mean().sqrt().item(), rel=0.05)
    of_b = start(made, torch.zeros(1, 1, 4, 4), "w", label=torch.tensor([1])).values
    torch.testing.assert_close(of_b[0], w[label == 1].mean(0), rtol=0, atol=0.05 * begin.std)


def test_z_and_the_class_of_the_nearest_sample_are_found():
    made = of_noise(classes=("a", "b", "c"))
    targets = made.sample(3, seed=5, label=[2, 0, 1])
    found = project(made, targets, ["x", "y", "z"], space="z", steps=250)
    assert found.latents.labels.tolist() == [2, 0, 1]
    assert all(after < 0.05 * before for before, after in zip(found.before, found.after, strict=True)), found
    asked = project(made, targets, ["x", "y", "z"], space="z", steps=1, label=torch.tensor([1]))
    assert asked.latents.labels.tolist() == [1, 1, 1]


def test_noise_stays_where_it_is_drawn():
    made = of_noise(Uniform)
    outside = made.decode(3 * torch.ones(1, 5))
    found = project(made, outside, ["x"], space="z", steps=60).latents.values
    assert found.abs().max() == 1
    z, begin = torch.tensor([[3.0, 0.2, 0.7, 5.0]]), torch.tensor([[0.0, 1.0, 0.0, 0.1]])
    codes = Codes(4, [2], 1)
    assert codes.confined(z, begin).tolist() == [[3.0, 1.0, 0.0, 1.0]]


def test_a_result_depends_on_seed_image_and_name_alone():
    made = of_noise()
    targets, settings = made.sample(3, seed=5), {"space": "z", "steps": 20}
    whole = project(made, targets, ["a", "b", "c"], **settings).latents.values
    torch.testing.assert_close(project(made, targets[1:2], ["b"], **settings).latents.values, whole[1:2])
    assert torch.equal(project(made, targets, ["a", "b", "c"], **settings).latents.values, whole)
    assert not torch.equal(project(made, targets, ["a", "b", "c"], seed=1, **settings).latents.values, whole)


class TestFile:
    def test_round_trip(self, tmp_path):
        given = Latents(torch.randn(2, 5), "z", torch.tensor([1, 0]), ["a.png", "é.png"], {"steps": 3})
        for name in ("a.npz", "b.npz"):
            save(tmp_path / name, given, before=[1.0, 2.0])
        assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()
        read = load(tmp_path / "a.npz", "latents=a.npz")
        assert torch.equal(read.values, given.values) and torch.equal(read.labels, given.labels)
        assert (read.space, read.names, read.about) == (given.space, given.names, given.about)

    @pytest.mark.parametrize(
        ("given", "told"),
        [
            (Latents(torch.zeros(1, 6)), "z has 6 numbers, but this generator's 5"),
            (Latents(torch.zeros(1, 5)), "of an unconditional generator, and this is a conditional one"),
            (Latents(torch.zeros(1, 5), "z", torch.tensor([2])), "expected labels from 0 to 1"),
            (Latents(torch.zeros(1, 5), "w"), "of w: it needs a style-based generator"),
        ],
    )
    def test_of_another_generator(self, given, told):
        with pytest.raises(UserError, match=told):
            given.check(of_noise(classes=("a", "b")), "latents=x.npz")

    def test_of_styles(self):
        with pytest.raises(UserError, match=r"w\+ has 2x4 numbers, but this generator's 3x4"):
            Latents(torch.zeros(1, 2, 4), "w+").check(of_styles(), "latents=x.npz")

    @pytest.mark.parametrize("content", [b"", b"text", {"latents": np.zeros((1, 2))}, {"latents": np.array([{}])}])
    def test_foreign(self, content, tmp_path):
        path = tmp_path / "x.npz"
        path.write_bytes(content) if isinstance(content, bytes) else np.savez(path, **content)
        with pytest.raises(UserError, match=r"latents=x\.npz cannot be read: .*; expected a latents\.npz"):
            load(path, "latents=x.npz")


def test_its_path_needs_no_quotes():
    words = ["latents=my run/é.npz", "generator.latents=chunks"]
    assert quoted(words) == ["latents='my run/é.npz'", words[1]]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A run with classes, and four of its own samples, one of which is of another size, beside a damaged file."""
    path = tmp_path_factory.mktemp("projection")
    words = ["steps=2", "sample_every=0", "evaluate.every=0", "conditional=label", "dataset.limit=64"]
    ganrun(*TINY, *words, "run_dir=run", cwd=path)
    ganrun("sample", "from=run", "num=3", "label=[3,4]", "out=own", cwd=path)
    with Image.open(path / "own" / "3" / "00000.png") as image:
        image.resize((20, 20)).save(path / "own" / "large.png")
    (path / "own" / "text.png").write_text("text")
    return path


SHORT = ["project", "from=run", "input=own", "steps=3", "features=none"]


def test_command(place):
    done = ganrun(*SHORT, "out=found", cwd=place, check=1)
    assert done.stderr.splitlines() == [
        "not projected: large.png: 20x20 pixels; expected 16x16; fit=crop, pad or resize fits it",
        "not projected: text.png: not an image that Pillow can read",
    ]
    assert "3/00000.png" in done.stdout and "before" in done.stdout and done.stdout.splitlines()[-1] == "found"
    with np.load(place / "found" / "latents.npz") as file:
        assert file["names"].tolist() == ["3/00000.png", "3/00002.png", "4/00001.png"]
        assert file["latents"].shape == (3, 100) and file["labels"].shape == (3,) and str(file["space"]) == "z"
        assert json.loads(str(file["about"]))["steps"] == 3 and len(file["before"]) == len(file["after"]) == 3
    with Image.open(place / "found" / "beside" / "4" / "00001.png") as image:
        assert image.width > image.height
    again = ["sample", "from=run", "latents=found/latents.npz"]
    ganrun(*again, "out=again.npz", cwd=place)
    with Image.open(place / "found" / "found" / "4" / "00001.png") as image:
        assert np.array_equal(np.load(place / "again.npz")["arr_0"][2, ..., 0], np.asarray(image))
    ganrun(*again, "interpolate=3", "frames=2", "out=walk.png", cwd=place)
    ganrun(*SHORT, "fit=resize", "out=found", "overwrite=true", "label=3", cwd=place, check=1)
    assert (place / "found" / "found" / "large.png").exists()
    done = ganrun("project", "from=run", "input=own/4/00001.png", "out=one", "steps=2", cwd=place)
    assert "distance of pixels and features of efficientnet-lite0" in done.stdout
    for words, told in [
        ([*again, "num=9"], "num=9; expected at most 4, the latents in found/latents.npz"),
        ([*again, "interpolate=9"], "interpolate=9: 9 keys, but 4 latents in found/latents.npz"),
        ([*again, "label=3"], "label=3: with latents= nothing is drawn"),
        (["sample", "from=run", "latents=nope.npz"], "latents=nope.npz cannot be read: "),
    ]:
        refused = ganrun(*words, "out=x.png", cwd=place, check=2).stderr
        assert told in refused and refused.count("\n") == 1


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["space=w"], "space=w: it needs a style-based generator"),
        (["space=v"], "space=v; expected one of z, w, w+ or null"),
        (["label=[3,4]"], "expected a single one"),
        (["steps=0"], "steps=0; expected at least 1"),
        (["lr=0"], "lr=0; expected more than 0"),
        (["weights=x.pth"], "they are those of features=<network of torchvision>"),
        (["features=efficientnet"], "features=efficientnet; did you mean efficientnet"),
        (["out=x.png"], "out=x.png: this makes a folder"),
        (["out=own"], "out=own is in input=own"),
        (["input=nope"], "input=nope: there is no such folder, .zip or image"),
        (["input=run"], "no image"),
    ],
)
def test_mistakes_are_one_line(words, told, place):
    refused = ganrun(*SHORT, "out=y", *words, cwd=place, check=2).stderr
    assert told in refused and refused.count("\n") == 1 and not (place / "y").exists()
