"""SeFa: eigenvectors by hand and by numpy, effects that are known, which weights take z, and the command."""

import numpy as np
import pytest
import torch
from conftest import TINY, ganrun
from PIL import Image
from test_truncation_w import sampling as of_styles
from torch import nn

from ganrun.errors import UserError
from ganrun.networks import dcgan, deep_conv, fastgan, mlp, r3gan, resnet, stylegan2
from ganrun.networks.layers import ConditionalBatchNorm
from ganrun.networks.modulated import Modulated
from ganrun.noise import Normal
from ganrun.sampling.directions import find, sefa, walks, weights_of_z
from ganrun.sampling.generator import SamplingGenerator
from ganrun.sampling.latents import Latents


def made_of(network, z_dim=6, classes=()) -> SamplingGenerator:
    return SamplingGenerator(network, Normal(z_dim), value_range=(-1, 1), classes=list(classes)).eval()


def test_eigenvectors_by_hand():
    vectors, values = sefa(torch.tensor([[0.0, 3.0, 0.0], [2.0, 0.0, 0.0]]))
    assert vectors.tolist() == [[0, 1, 0], [1, 0, 0], [0, 0, 1]] and values.tolist() == [9, 4, 0]


def test_eigenvectors_are_numpys():
    weight = np.random.default_rng(0).normal(size=(30, 7))
    values, vectors = np.linalg.eig(weight.T @ weight)
    order = values.argsort()[::-1]
    found, eigenvalues = sefa(torch.from_numpy(weight))
    np.testing.assert_allclose(eigenvalues, values[order], rtol=1e-5)
    np.testing.assert_allclose(np.abs((found.numpy() * vectors.T[order]).sum(1)), 1, rtol=1e-5)


def test_in_a_linear_synthesis_an_image_moves_by_the_root_of_the_eigenvalue():
    made = of_styles()
    base = Latents(made.draw([0], 4))
    for layers in (None, [0, 1], [2, 2]):
        found = find(made, 4, layers)
        images = walks(made, base, found, [-2.0, 0.0, 2.0]).flatten(2)
        first, last = layers or (0, 2)
        moved = torch.einsum("kw,lwp->kp", found.vectors, made.generator.maps[first : last + 1])
        torch.testing.assert_close(images[:, 2] - images[:, 1], 2 * moved, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(images[:, 1] - images[:, 0], 2 * moved, rtol=1e-4, atol=1e-5)
        if first == last:
            torch.testing.assert_close(moved.square().sum(1), found.eigenvalues, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("architecture", stylegan2.ARCHITECTURES)
@torch.no_grad()
def test_stylegan2_says_which_weights_take_each_style(architecture):
    """As forward passes show: each layer is given another w."""
    torch.manual_seed(0)
    settings = {"z_dim": 6, "w_dim": 5, "mapping_layers": 1, "architecture": architecture}
    network = stylegan2.Generator(channels=1, resolution=16, width=4, **settings).eval()
    styles, given = network.styles(torch.randn(1, 6)) + torch.arange(6.0)[:, None], []
    for layer in [each for each in network.modules() if isinstance(each, Modulated)]:
        layer.register_forward_hook(lambda layer, inputs, _: given.append((inputs[1], layer.style.weight)))
    network.synthesis(styles)
    weights = network.style_weights()
    assert len(weights) == network.num_styles == 6
    for k, weight in enumerate(weights):
        assert torch.equal(torch.cat([own for w, own in given if torch.equal(w, styles[:, k])]), weight), k


def test_dcgan_and_others_by_their_first_layer():
    settings = {"z_dim": 6, "channels": 1, "resolution": 32}
    layers = {
        "dcgan": (dcgan.Generator(**settings, width=4, num_classes=2), lambda g: g.stem[0].weight[:, :6]),
        "mlp": (mlp.Generator(**settings, width=4), lambda g: g.hidden[0].weight),
        "deep-conv": (deep_conv.Generator(**settings, width=4), lambda g: g.stem[0].weight),
        "resnet": (resnet.Generator(**settings, width=4, num_classes=2), lambda g: g.stem.weight),
        "r3gan": (r3gan.Generator(**settings, width=16), lambda g: g.basis.scale.weight),
        "fastgan": (fastgan.Generator(**settings, width=4), lambda g: g.stem[0].weight.flatten(1).T),
    }
    for name, (network, weight) in layers.items():
        made = made_of(network, classes=("a", "b") if getattr(network, "num_classes", 0) else ())
        (found,) = weights_of_z(made)
        assert torch.equal(found, weight(network)), name
        directions = find(made, 2)
        base = Latents(made.draw([0], 0), "z", made.turn() if made.turn() is None else made.turn()[:1])
        images = walks(made, base, directions, [0.0, 1.5])
        moved = Latents(base.values + 1.5 * directions.vectors[1:2], "z", base.labels).images(made)
        torch.testing.assert_close(images[1, 1], moved[0])
        torch.testing.assert_close(images[0, 0], base.images(made)[0])


def test_columns_of_biggan_are_those_of_its_parts_of_z():
    network = resnet.Generator(
        z_dim=8, channels=1, resolution=32, width=4, latents="chunks", num_classes=3, embedding=5
    )
    weights = weights_of_z(made_of(network, 8, "abc"))
    norms = [layer for module in network.modules() if isinstance(module, ConditionalBatchNorm)
             for layer in (module.scale, module.shift)]  # fmt: skip
    assert len(weights) == 1 + len(norms)
    assert torch.equal(weights[0][:, :2], network.stem.weight) and not weights[0][:, 2:].any()
    assert torch.equal(weights[1][:, 2:4], norms[0].weight[:, 5:]) and not weights[1][:, :2].any()
    assert torch.equal(find(made_of(network, 8, "abc"), 1, [0, 0]).vectors[:, 2:], torch.zeros(1, 6))


class Squared(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(6, 4)

    def forward(self, z, label=None):
        return self.linear(z.square()).view(-1, 1, 2, 2)


def test_refusals():
    made = made_of(Squared())
    with pytest.raises(UserError, match="no linear layer of this generator takes z as it is"):
        find(made, 1)
    with pytest.raises(UserError, match=r"layers=\[1,3\]; expected \[first,last\] within 0 to 2, .* take w"):
        find(of_styles(), 1, [1, 3])
    with pytest.raises(UserError, match="num=5; expected at most 4, the numbers in w"):
        find(of_styles(), 5)


def test_command(tmp_path):
    words = ["steps=1", "sample_every=0", "evaluate.every=0", "dataset.limit=64", "conditional=label", "run_dir=run"]
    ganrun(*TINY, *words, cwd=tmp_path)
    done = ganrun("directions", "from=run", "num=3", "columns=5", "label=3", cwd=tmp_path)
    assert done.stdout == "directions.png\n"
    with np.load(tmp_path / "directions.npz") as file:
        np.testing.assert_allclose(np.linalg.norm(file["directions"], axis=1), 1, rtol=1e-5)
        assert file["directions"].shape == (3, 100) and (np.diff(file["eigenvalues"]) <= 0).all()
    with Image.open(tmp_path / "directions.png") as image:
        assert image.width > image.height
    for word, told in {
        "num=1000": "num=1000; expected at most 100, the numbers in z",
        "layers=[0]": "layers=[0]; expected the first and the last",
        "layers=[0,1]": "layers=[0,1]; expected [first,last] within 0 to 0",
        "reach=0": "reach=0; expected more than 0",
        "out=x.npz": "out=x.npz: this makes a .png",
        "out=directions.png": "out=directions.png exists; overwrite=true",
        "latents=nope": "latents=nope cannot be read",
    }.items():
        refused = ganrun("directions", "from=run", "out=y.png", word, cwd=tmp_path, check=2).stderr
        assert told in refused and refused.count("\n") == 1, refused
