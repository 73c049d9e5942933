"""Weights from elsewhere: files alone, other classes and sizes of images, and layers that stay frozen (FreezeD)."""

import pytest
import torch
from conftest import TINY, ganrun
from test_configs import SMALL, composed

from ganrun.errors import UserError
from ganrun.files.checkpoint import load_checkpoint
from ganrun.freezing import freeze, layers_of
from ganrun.training.build import build
from ganrun.training.state import init_from
from ganrun.training.transfer import Weights, by_names, copy_what_fits

RUN = [*TINY, "dataset.limit=24", "batch_size=8", "evaluate.every=0", "conditional=projection", "model=resnet"]
RUN += ["critic.norm=spectral", "loss=hinge"]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A conditional run on ten digits, 16 x 16, with both of its files, and one fine-tuned from it."""
    path = tmp_path_factory.mktemp("transfer")
    ganrun(*RUN, "steps=2", "export.discriminator=true", "run_dir=source", cwd=path)
    frozen = [*RUN, "init_from=source", "freeze_discriminator=2", "checkpoint.every=2"]
    ganrun(*frozen, "steps=4", "run_dir=tuned", cwd=path)
    return path


def state(run):
    return load_checkpoint(run / "checkpoints" / "last.ckpt")["state_dict"]


def test_frozen_layers_stay_and_a_resume_is_exact(place):
    before, after = state(place / "source"), state(place / "tuned")
    d = "recipe.adversary.discriminator."
    moved = {key.removeprefix(d) for key in before if not torch.equal(before[key], after[key]) and key.startswith(d)}
    moved = {key for key in moved if not key.endswith(("._u", "._v"))}
    names = {key.removeprefix(d) for key in before if key.startswith(d) and key.endswith(("original", "bias"))}
    first = {key for key in names if key.startswith(("stages.0.", "stages.1."))}
    assert moved == names - first and len(first) == 10
    step = place / "tuned" / "checkpoints" / "step-000002.ckpt"
    ganrun(f"resume={step}", "steps=4", cwd=place)
    again = state(place / "tuned")
    assert again.keys() == after.keys() and all(torch.equal(again[key], after[key]) for key in after)


def made(*words):
    return build(composed(*SMALL, *words)[0])


@pytest.mark.parametrize(
    ("words", "first"),
    [
        (["model=dcgan"], ["blocks.0", "blocks.2 blocks.3", "head"]),
        (["model=dcgan", "critic.norm=none", "loss=wgan-gp"], ["blocks.0", "blocks.2", "head"]),
        (["model=resnet"], ["stages.0", "stages.1", "stages.2", "head"]),
        (["model=mlp"], ["hidden.0", "hidden.2", "hidden.4", "head"]),
    ],
)
def test_layers_in_order(words, first):
    found = layers_of(made(*words).module.recipe.adversary.discriminator)
    assert [" ".join(each) for each in found] == first


def test_a_wrapper_has_the_layers_of_its_network():
    inner = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.LayerNorm(3), torch.nn.ReLU(), torch.nn.Linear(3, 1))

    class Wrapper(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.network = torch.nn.ModuleDict({"inner": inner})

    first, last = layers_of(Wrapper())
    assert (list(first), list(last)) == (["network.inner.0", "network.inner.1"], ["network.inner.3"])


def test_refusals():
    recipe = made("model=dcgan").module.recipe
    with pytest.raises(UserError, match=r"freeze_discriminator=3: adversary\.discriminator has 3 layers or blocks"):
        freeze(recipe, 3)
    with pytest.raises(UserError, match="freeze_discriminator=1: untrained layers would stay untrained; it needs init"):
        composed("freeze_discriminator=1")


@pytest.mark.parametrize("name", ["generator", "discriminator"])
def test_a_file_alone(place, name):
    words = ["conditional=projection", "model=resnet", "critic.norm=spectral", "loss=hinge"]
    parts = made(*words, "generator.width=8", "discriminator.width=8")
    notes = init_from(parts, str(place / "source" / f"{name}.safetensors"))
    other = "adversary.discriminator" if name == "generator" else "generator"
    assert len(notes) == 1 and notes[0].endswith(f"it does not hold {other}, which start anew")
    source, own = state(place / "source"), parts.module.state_dict()
    prefix = "ema.average.0." if name == "generator" else "recipe.adversary.discriminator."
    here = "recipe.generator." if name == "generator" else prefix
    for key in [key for key in source if key.startswith(prefix)]:
        assert torch.equal(own[here + key.removeprefix(prefix)], source[key]), key
    if name == "generator":
        assert all(torch.equal(own[key], source[key]) for key in source if key.startswith(prefix))
    with pytest.raises(UserError, match="there is no such file"):
        init_from(parts, "nowhere.safetensors")
    if name == "generator":
        parts.module.frozen = freeze(parts.module.recipe, 1)
        with pytest.raises(UserError, match=r"has no weights of their shape for discriminator\.stages\.0\."):
            init_from(parts, str(place / "source" / "generator.safetensors"))


def test_other_classes_keep_those_of_the_same_name(place, monkeypatch):
    monkeypatch.setattr("ganrun.training.build.dry_run", lambda *_: 0)  # the data have ten classes
    words = ["conditional=projection", "model=resnet", "critic.norm=spectral", "loss=hinge"]
    parts = made(*words, "generator.width=8", "discriminator.width=8", "conditional.num_classes=3")
    parts.data.classes = ["7", "new", "2"]
    before = {key: value.clone() for key, value in parts.module.state_dict().items()}
    (note,) = init_from(parts, str(place / "source"))
    assert "of 3 classes here and 10 there, 2 keep their weights by name: discriminator.head.embed" in note
    source, own = state(place / "source"), parts.module.state_dict()
    embed = next(key for key in own if "head.embed" in key and own[key].shape[0] == 3)
    assert torch.equal(own[embed][0], source[embed][7]) and torch.equal(own[embed][2], source[embed][2])
    assert torch.equal(own[embed][1], before[embed][1])
    scale = "recipe.generator.stages.0.0.norms.0.0.scale.weight"  # of conditional batch norm: columns
    assert torch.equal(own[scale][:, [0, 2]], source[scale][:, [7, 2]])


def test_as_many_other_classes_are_taken_in_order_and_this_is_said(place):
    words = ["conditional=projection", "model=resnet", "critic.norm=spectral", "loss=hinge"]
    parts = made(*words, "generator.width=8", "discriminator.width=8")
    parts.data.classes = [f"digit {i}" for i in range(10)]
    (note,) = init_from(parts, str(place / "source"))
    assert note.endswith("its classes have other names, and their weights are taken in order")


@pytest.mark.parametrize(
    ("own", "there", "expected"),
    [
        (torch.zeros(2, 3), torch.arange(9.0).view(3, 3), [[6, 7, 8], [0, 0, 0]]),  # rows: c, new
        (torch.zeros(1, 4), torch.arange(5.0).view(1, 5), [[0, 1, 4, 0]]),  # two others, then columns of classes
        (torch.zeros(2), torch.arange(3.0), [2, 0]),
        (torch.zeros(3, 1), torch.zeros(4, 1), None),  # rows beside those of classes
        (torch.zeros(2, 3), torch.zeros(3, 4), None),
        (torch.zeros(2, 3), torch.zeros(2, 5), None),
    ],
)
def test_by_names(own, there, expected):
    found = by_names(own, there, ["c", "new"], ["a", "b", "c"])
    assert found is None if expected is None else found.tolist() == expected


def test_another_resolution_lists_what_fits(place):
    words = ["conditional=projection", "model=resnet", "critic.norm=spectral", "loss=hinge", "dataset.resolution=32"]
    parts = made(*words, "generator.width=8", "discriminator.width=8")
    (note,) = init_from(parts, str(place / "source"))
    source, own = state(place / "source"), parts.module.state_dict()
    alike = [key for key in own if key in source and own[key].shape == source[key].shape]
    assert all(torch.equal(own[key], source[key]) for key in alike if ".stages.1" in key)
    new = ("discriminator.stages.1.shortcut.0", "discriminator.stages.3.convs.0", "generator.stages.2.0.convs.0")
    assert "tensors are copied; new here: " in note and all(f"{layer}, " in note for layer in new)


@pytest.mark.parametrize(("model", "stages"), [("r3gan", ["stages"]), ("stylegan2", ["blocks"])])
@pytest.mark.parametrize(("here", "there"), [(32, 16), (16, 32)])
def test_stages_of_another_resolution_are_counted_from_the_smallest_map(model, stages, here, there):
    words = [f"model={model}", *(["generator.w_dim=8"] if model == "stylegan2" else [])]
    parts, source = (made(*words, f"dataset.resolution={side}").module for side in (here, there))
    given = Weights(source.state_dict())
    note = copy_what_fits(parts, given, "init_from=x")
    old, new = source.recipe.adversary.discriminator, parts.recipe.adversary.discriminator
    for name in stages:
        shared = min(len(getattr(old, name)), len(getattr(new, name)))
        for a, b in zip(getattr(old, name)[-shared:], getattr(new, name)[-shared:], strict=True):
            assert shared and all(torch.equal(p, q) for p, q in zip(a.parameters(), b.parameters(), strict=True))
    assert ("new here" if here > there else "not used") in note
