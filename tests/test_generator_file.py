"""The exported generator: it samples the same everywhere, and reading it runs nobody's code."""

import io
import pickle
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

import ganrun
from ganrun.errors import UserError
from ganrun.networks import dcgan, mlp
from ganrun.noise import Normal, Uniform
from ganrun.sampling.generator_file import SamplingGenerator, load_generator, save_generator

MLP = {"_target_": "ganrun.networks.mlp.Generator", "z_dim": 3, "channels": 1, "resolution": 8, "width": 8}
DCGAN = {"_target_": "ganrun.networks.dcgan.Generator", "z_dim": 3, "channels": 3, "resolution": 16, "width": 8}
VECTORS = {**MLP, "channels": 2, "resolution": None}
NOISE = {"_target_": "ganrun.noise.Normal", "z_dim": 3}
FAMILIES = {MLP["_target_"]: mlp.Generator, DCGAN["_target_"]: dcgan.Generator}


def make(config=DCGAN, noise=Normal, *, classes=(), value_range=(-1, 1)) -> tuple[SamplingGenerator, dict]:
    """A generator that does not fit its untrained statistics, and its description."""
    torch.manual_seed(0)
    config = {**config, "num_classes": len(classes), "value_range": value_range and list(value_range)}
    settings = {key: value for key, value in config.items() if key != "_target_"}
    generator = FAMILIES[config["_target_"]](**settings)
    labels = torch.zeros(32, dtype=torch.int64) if classes else None
    with torch.no_grad():
        for parameter in generator.parameters():
            parameter += 0.2 * torch.randn_like(parameter)
        generator(torch.randn(32, 3), labels)  # batch norm's running statistics move
    target = {"_target_": f"ganrun.noise.{noise.__name__}", "z_dim": 3}
    sampling = SamplingGenerator(generator.eval(), noise(3), value_range=value_range, classes=list(classes))
    about = {"value_range": value_range and list(value_range), "classes": list(classes)}
    return sampling, {"networks": {"generator": config}, "noise": target, **about}


@pytest.fixture
def saved(tmp_path):
    """Path and SamplingGenerator of a saved dcgan."""
    sampling, description = make()
    save_generator(tmp_path / "generator.safetensors", sampling.state_dict(), description)
    return tmp_path / "generator.safetensors", sampling


def rewrite(path, **changes) -> None:
    """Changes keys of the header; generator: the config of that network."""
    if "generator" in changes:
        changes["networks"] = {"generator": changes.pop("generator")}
    header = path.with_suffix(".yaml")
    header.write_text(yaml.safe_dump({**yaml.safe_load(header.read_text()), **changes}))


def test_files_of_format_1_still_load(saved):
    path, sampling = saved
    header = yaml.safe_load(path.with_suffix(".yaml").read_text())
    older = {"format": 1, "generator": header["networks"]["generator"], "noise": header["noise"]}
    older |= {key: header[key] for key in ("value_range", "classes")}
    path.with_suffix(".yaml").write_text(yaml.safe_dump(older))
    torch.testing.assert_close(load_generator(path).sample(3), sampling.sample(3), rtol=0, atol=0)


@pytest.mark.parametrize(
    ("config", "noise", "settings", "shape"),
    [
        (DCGAN, Normal, {}, (3, 16, 16)),
        (DCGAN, Uniform, {"classes": ("cat", "dög")}, (3, 16, 16)),
        (MLP, Uniform, {"value_range": (0, 1)}, (1, 8, 8)),
        (VECTORS, Normal, {"value_range": None}, (2,)),
    ],
)
def test_round_trip(tmp_path, config, noise, settings, shape):
    sampling, description = make(config, noise, **settings)
    path = tmp_path / "generator.safetensors"
    save_generator(path, sampling.state_dict(), description)
    assert sorted(file.name for file in path.parent.iterdir()) == ["generator.safetensors", "generator.yaml"]
    loaded = ganrun.load_generator(str(path))
    torch.testing.assert_close(loaded.state_dict(), sampling.state_dict(), rtol=0, atol=0)
    assert loaded.classes == list(settings.get("classes", ()))
    samples = loaded.sample(5, seed=3)
    assert samples.shape == (5, *shape)
    torch.testing.assert_close(samples, sampling.sample(5, seed=3), rtol=0, atol=0)


def test_loaded_is_frozen_and_in_eval_mode(saved):
    loaded = load_generator(saved[0])
    assert not any(module.training for module in loaded.modules())
    assert not any(parameter.requires_grad for parameter in loaded.parameters())
    assert not loaded.sample(2).requires_grad


def test_prefix_does_not_depend_on_num(saved):
    _, sampling = saved
    five = sampling.sample(num=5)
    torch.testing.assert_close(five[:3], sampling.sample(3))
    torch.testing.assert_close(five[:1], sampling.sample(1))
    assert not torch.allclose(five[0], five[1])
    assert not five.requires_grad


def test_no_sample_is_drawn_twice(saved):
    _, sampling = saved
    z = torch.cat([sampling.draw(range(600), 0), sampling.draw(range(600), 1)])
    assert len(z.unique(dim=0)) == 1200


def test_chunks_join_in_order():
    sampling, _ = make(VECTORS, value_range=None, classes=("a", "b", "c"))
    labels = []
    handle = sampling.generator.register_forward_pre_hook(lambda _module, args: labels.append(args[1]))
    many = sampling.sample(600)
    handle.remove()
    assert many.shape == (600, 2)
    assert len(labels) > 1 and torch.equal(torch.cat(labels), torch.arange(600) % 3)
    torch.testing.assert_close(many[:3], sampling.sample(3))
    torch.testing.assert_close(many[:300], sampling.sample(300))


def test_seed_decides(saved):
    _, sampling = saved
    before = torch.get_rng_state()
    first = sampling.sample(2, seed=1)
    torch.testing.assert_close(sampling.sample(2, seed=1), first, rtol=0, atol=0)
    assert not torch.allclose(sampling.sample(2, seed=2), first)
    assert torch.equal(torch.get_rng_state(), before)


def test_labels():
    sampling, _ = make(MLP, classes=("a", "b", "c"))
    turns = sampling.sample(5)
    torch.testing.assert_close(sampling.sample(5, label=[0, 1, 2, 0, 1]), turns)
    torch.testing.assert_close(sampling.sample(5, label=torch.tensor([0, 1, 2, 0, 1])), turns)
    ones = sampling.sample(5, label=1)
    torch.testing.assert_close(sampling.sample(5, label=[1] * 5), ones)
    torch.testing.assert_close(ones[1], turns[1])
    assert not torch.allclose(ones[0], turns[0])


BAD_CLASS = "expected names of classes, or indices from 0 to 1, several in brackets; .*valid: a, b"


@pytest.mark.parametrize("label", [2, -1, [0, 1, 2], [[0, 1, 1]], [], True, 1.0, "c", ["a", "c", "b"], {}, 10**30])
def test_refuses_labels(label):
    sampling, _ = make(MLP, classes=("a", "b"))
    with pytest.raises(UserError, match=BAD_CLASS):
        sampling.sample(3, label=label)


@pytest.mark.parametrize("label", [[0, 1], ["a"], torch.tensor([0, 1]), np.array([0, 1, 1, 1])])
def test_refuses_a_number_of_labels(label):
    sampling, _ = make(MLP, classes=("a", "b"))
    with pytest.raises(UserError, match="expected 3 classes, one for each sample, or one for all"):
        sampling.sample(3, label=label)


@pytest.mark.parametrize("classes", [(), ("cat", "dog", "owl")])
def test_batches_are_what_sample_makes(classes):
    sampling, _ = make(MLP, classes=classes)
    images, labels = zip(*sampling.batches(7, seed=3, batch_size=4), strict=True)
    torch.testing.assert_close(torch.cat(images), sampling.sample(7, seed=3))
    assert torch.cat(labels).tolist() == [0, 1, 2, 0, 1, 2, 0] if classes else labels == (None, None)


def test_no_two_samples_share_their_noise():
    sampling, _ = make(MLP, classes=("a", "b"))
    drawn = torch.cat([sampling.draw(range(700), seed) for seed in (0, 1)])
    assert len(drawn.unique(dim=0)) == 1400


def test_classes_by_name():
    sampling, _ = make(MLP, classes=("a", "b", "7"))
    torch.testing.assert_close(sampling.sample(3, label=["7", 1, "a"]), sampling.sample(3, label=[2, 1, 0]))
    torch.testing.assert_close(sampling.sample(3, label="b"), sampling.sample(3, label=np.int64(1)))
    with pytest.raises(UserError, match='did you mean the name "7"'):  # an index is never taken for a name
        sampling.sample(3, label=7)


def test_refuses_label_of_an_unconditional_generator(saved):
    with pytest.raises(UserError, match="unconditional"):
        saved[1].sample(2, label=0)


@pytest.mark.parametrize("num", [0, -1])
def test_refuses_num(saved, num):
    with pytest.raises(UserError, match=f"num={num}; expected at least 1"):
        saved[1].sample(num)


@pytest.mark.parametrize(("value_range", "scale", "shift"), [((0, 1), 2, -1), ((-1, 1), 1, 0), (None, 1, 0)])
def test_samples_are_mapped_to_minus_one_to_one(value_range, scale, shift):
    sampling, _ = make(VECTORS if value_range is None else MLP, value_range=value_range)
    seen = []
    sampling.generator.register_forward_hook(lambda _module, _args, output: seen.append(output))
    samples = sampling.sample(8)
    torch.testing.assert_close(samples, scale * seen[0] + shift)
    assert samples.min() < 0 < samples.max()


@pytest.mark.parametrize("part", ["generator", "noise"])
@pytest.mark.parametrize(
    "target",
    [
        "os.system",
        "subprocess.getoutput",
        "ganrun.networks_evil.Generator",
        "posix.system",
        "ganrun.losses.Hinge",  # a run's config may name it, a generator may not
        "ganrun.networks.mlp.data_shape",
        "ganrun.networks.dcgan.UserError",
    ],
)
def test_refuses_untrusted_targets(saved, tmp_path, part, target):
    canary = tmp_path / "canary"
    keyword = "cmd" if target == "subprocess.getoutput" else "command"
    rewrite(saved[0], **{part: {"_target_": target, keyword: f"touch {canary}"}})
    message = rf"generator.yaml: {part}._target_ names {target}; trusted are only .*: pass trust=\[package\] to add one"
    with pytest.raises(UserError, match=message):
        load_generator(saved[0])
    assert not canary.exists()


def test_what_is_refused_would_have_run(saved, tmp_path, monkeypatch):
    (tmp_path / "evil_networks.py").write_text(
        "from pathlib import Path\n\nclass Evil:\n    def __init__(self, path):\n        Path(path).touch()\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    rewrite(saved[0], generator={"_target_": "evil_networks.Evil", "path": str(tmp_path / "canary")})
    with pytest.raises(UserError, match=r"generator\._target_ names evil_networks\.Evil; trusted are only"):
        load_generator(saved[0])
    assert "evil_networks" not in sys.modules and not (tmp_path / "canary").exists()
    with pytest.raises(UserError, match="cannot be read as a generator"):
        load_generator(saved[0], trust=["evil_networks"])
    assert (tmp_path / "canary").exists()


@pytest.mark.parametrize("trust", [3, None, [""], ["my_networks."], "../my", [["my_networks"]]])
def test_refuses_trust_that_names_no_package(saved, trust):
    with pytest.raises(UserError, match=r"^trust=.*; expected names of Python packages, such as trust=\[my_package\]$"):
        load_generator(saved[0], trust=trust)


def test_refuses_python_objects_in_the_yaml(saved, tmp_path):
    canary = tmp_path / "canary"
    saved[0].with_suffix(".yaml").write_text(f"!!python/object/apply:os.system ['touch {canary}']")
    with pytest.raises(UserError, match="cannot be read as a generator"):
        load_generator(saved[0])
    assert not canary.exists()


def test_trusts_what_the_caller_names(saved, tmp_path, monkeypatch):
    (tmp_path / "my_networks.py").write_text("from ganrun.networks.dcgan import Generator\n")
    monkeypatch.syspath_prepend(tmp_path)
    path, sampling = saved
    config = yaml.safe_load(path.with_suffix(".yaml").read_text())["networks"]["generator"]
    rewrite(path, generator={**config, "_target_": "my_networks.Generator"})
    with pytest.raises(UserError, match="names my_networks"):
        load_generator(path)
    for trust in (["my_networks"], "my_networks", iter(["my_networks"])):
        torch.testing.assert_close(load_generator(path, trust=trust).sample(2), sampling.sample(2))


class Touch:
    """Pickled, it is a call that makes a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


@pytest.mark.parametrize("payload", [pickle.dumps, lambda touch: saved_by_torch({"stem.0.weight": touch})])
def test_refuses_a_pickle_in_place_of_tensors(saved, tmp_path, payload):
    saved[0].write_bytes(payload(Touch(tmp_path / "canary")))
    with pytest.raises(UserError, match="cannot be read as a generator"):
        load_generator(saved[0])
    assert not (tmp_path / "canary").exists()


def saved_by_torch(content) -> bytes:
    file = io.BytesIO()
    torch.save(content, file)
    return file.getvalue()


@pytest.mark.parametrize("suffix", [".safetensors", ".yaml"])
def test_refuses_a_missing_file(saved, suffix):
    missing = saved[0].with_suffix(suffix)
    missing.unlink()
    with pytest.raises(UserError, match=rf"{missing.name}: no such file; .* together"):
        load_generator(saved[0])


@pytest.mark.parametrize("keep", [0, 4, 100, -1])
def test_refuses_truncated_tensors(saved, keep):
    saved[0].write_bytes(saved[0].read_bytes()[:keep])
    with pytest.raises(UserError, match="cannot be read as a generator"):
        load_generator(saved[0])


@pytest.mark.parametrize(
    "text",
    ["", "[]", "{", "3", "format: 1", "format: 1\ngenerator: x\nnoise: y", "format: 1\ngenerator: {}\nnoise: {}"],
)
def test_refuses_a_broken_yaml(saved, text):
    saved[0].with_suffix(".yaml").write_text(text)
    with pytest.raises(UserError, match="cannot be read as a generator"):
        load_generator(saved[0])


@pytest.mark.parametrize("got", [None, 0, 3])
def test_refuses_another_format(saved, got):
    rewrite(saved[0], format=got)
    with pytest.raises(UserError, match=f"format {got}; this ganrun reads formats 1 and 2"):
        load_generator(saved[0])


@pytest.mark.parametrize("change", [{"width": 4}, {"resolution": 30}, {"typo": 1}, {"norm": "none"}])
def test_refuses_networks_that_do_not_fit(saved, change):
    config = yaml.safe_load(saved[0].with_suffix(".yaml").read_text())["networks"]["generator"]
    rewrite(saved[0], generator={**config, **change})
    with pytest.raises(UserError):
        load_generator(saved[0])
