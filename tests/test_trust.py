"""A config, a checkpoint or a generator that a stranger wrote runs none of the stranger's code."""

import contextlib
import hashlib
import io
import os
import pickle
import sys
from pathlib import Path

import pytest
import torch
import yaml
from conftest import ROOT
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from ganrun.config.groups import config_dir
from ganrun.config.trust import RUN_ROOMS, check_trusted, trusted_class
from ganrun.errors import UserError
from ganrun.files.checkpoint import FORMAT, MARK, load_checkpoint

UNTRUSTED = [  # the module part lies outside
    "os.system",
    "posix.system",
    "builtins.eval",
    "subprocess.Popen",
    "functools.partial",
    "hydra.utils.instantiate",
    "torch.hub.load",
    "torch.load",
    "torch.optimal.Adam",
    "ganrun_evil.Net",
    "canary_package.Net",
    "canary_package.ganrun.losses.Hinge",
    "ganrun.cli.run",
    "ganrun.files.run_dir.RunDir",
    "ganrun.callbacks.log.MetricsFile",
    "ganrun.sampling.generator_file.import_module",
    "ganrun.config.trust.import_module",
    "ganrun.load_generator",
    "ganrun.losses",
    "ganrun",
]
NOT_DEFINED_THERE = [  # the module part lies inside, yet what it holds does not
    "ganrun.data.images.Path",
    "ganrun.data.torchvision_sets.import_module",
    "ganrun.data.torchvision_sets.open_torchvision",
    "ganrun.networks.dcgan.UserError",
    "ganrun.losses.cross_entropy",
    "ganrun.losses.Absent",
    "ganrun.losses.__class__",
    "ganrun.networks.dcgan",
    "torch.optim.lr_scheduler",
    "torch.optim.sgd.Tensor",
]
NOT_A_MODULE = [
    "ganrun.data.images.os.system",
    "ganrun.data.images.io.open",
    "ganrun.data.images.ImageFolder.find",
    "ganrun.losses.canary_package.Net",
    "torch.optim.adam.torch.hub.load",
]
NO_NAME = [
    "", "ganrun", ".ganrun.losses.Hinge", "..losses.Hinge", "ganrun..losses.Hinge", "ganrun.losses.Hinge.",
    "ganrun.losses.Hinge\n", "ganrun.losses. Hinge", "ganrun.losses.\ud800", "ganrun.losses.\x1b[2J",
    "ganrun/losses.py", "ganrun.losses:Hinge", "ganrun.losses.Hinge()", "ganrun.losses." + "a." * 5000 + "b",
    3, None, True, 1.5, [16**9999],
    ["ganrun.losses.Hinge"], {"_target_": "os.system"}, b"ganrun.losses.Hinge", Path("ganrun.losses.Hinge"),
]  # fmt: skip
PACKAGE = """
import os, subprocess
from subprocess import Popen
from ganrun.losses import Hinge
class Net: pass
def make(): pass
instance = Net()
"""
BROKEN = "raise RuntimeError('no such driver\\nsecond line')\n"


@pytest.fixture
def canary(tmp_path, monkeypatch) -> Path:
    """The file that importing canary_package, on the path, would leave."""
    path = tmp_path / "canary"
    (tmp_path / "canary_package.py").write_text(f"open({str(path)!r}, 'w').close()\nclass Net: pass\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "canary_package", raising=False)
    return path


@pytest.fixture
def my_package(tmp_path, monkeypatch) -> None:
    (tmp_path / "trust_mine").mkdir()
    (tmp_path / "trust_mine" / "__init__.py").write_text("")
    (tmp_path / "trust_mine" / "nets.py").write_text(PACKAGE)
    (tmp_path / "trust_mine" / "broken.py").write_text(BROKEN)
    monkeypatch.syspath_prepend(tmp_path)
    yield
    for name in [name for name in sys.modules if name.split(".")[0] == "trust_mine"]:
        del sys.modules[name]


def refused(act, *args, match: str, **kwargs) -> str:
    """The message of a refusal: one printable line of a sensible length."""
    with pytest.raises(UserError, match=match) as caught:
        act(*args, **kwargs)
    text = str(caught.value)
    assert text.isprintable() and len(text) < 1000
    return text


@pytest.mark.parametrize("name", UNTRUSTED + NOT_DEFINED_THERE + NO_NAME)
def test_refuses_names(name, canary):
    text = refused(trusted_class, name, RUN_ROOMS, key="loss._target_", match=r"^loss\._target_ names ")
    assert all(room in text for room in RUN_ROOMS) and "pass trust=[package]" in text
    assert not canary.exists()


@pytest.mark.parametrize("name", NOT_A_MODULE)
def test_refuses_to_go_through_what_a_module_imported(name, canary):
    refused(trusted_class, name, RUN_ROOMS, match="cannot be imported")
    assert not canary.exists()


@pytest.mark.parametrize("name", ["torch.optim.lr_scheduler.StepLR", "torch.optim.swa_utils.AveragedModel"])
def test_of_torch_optim_only_optimizers_pass(name):
    refused(trusted_class, name, RUN_ROOMS, match=f"{name}; of torch.optim only optimizers")


@pytest.mark.parametrize("name", ["torch.optim.Adam", "torch.optim.adam.Adam", "ganrun.losses.Hinge"])
def test_passes_its_own(name):
    assert trusted_class(name, RUN_ROOMS).__name__ == name.rpartition(".")[2]


def test_a_refused_name_imports_nothing(monkeypatch):
    imported = []
    monkeypatch.setattr("ganrun.config.trust.import_module", imported.append)
    for name in UNTRUSTED + NO_NAME:
        refused(trusted_class, name, RUN_ROOMS, match="names")
    assert not imported


def test_a_package_passes_once_it_is_trusted(my_package):
    refused(trusted_class, "trust_mine.nets.Net", RUN_ROOMS, match="names trust_mine.nets.Net; trusted are only")
    assert "trust_mine" not in sys.modules
    for packages in (["trust_mine"], "trust_mine", ("os", "trust_mine.nets"), iter(["trust_mine"])):
        assert trusted_class("trust_mine.nets.Net", packages).__name__ == "Net"
    assert trusted_class("trust_mine.nets.Hinge", [*RUN_ROOMS, "trust_mine"]).__module__ == "ganrun.losses"


@pytest.mark.parametrize("name", ["Popen", "os", "make", "instance", "Absent"])
def test_a_trusted_package_lends_its_trust_to_no_other(my_package, name):
    refused(trusted_class, f"trust_mine.nets.{name}", ["trust_mine"], match="trusted are only classes defined in")


@pytest.mark.parametrize("name", ["trust_mine.nets.os.system", "trust_mine.absent.Net", "trust_mine.broken.Net"])
def test_what_cannot_be_imported_is_said_in_one_line(my_package, name):
    refused(trusted_class, name, ["trust_mine"], match=f"names {name}, which cannot be imported: (No module|no such)")


@pytest.mark.parametrize("packages", ["trust", "trust_min", "trust_mine.net", "", [""], [None], 3, None, ["."], [[]]])
def test_trust_is_of_whole_names(my_package, packages):
    refused(trusted_class, "trust_mine.nets.Net", packages, match="trusted are only|^trust=")


def composed(*overrides: str) -> dict:
    """A config as a run saves it."""
    with initialize_config_dir(str(config_dir()), version_base="1.3"):
        cfg = compose("train", list(overrides))
    cfg.run_dir = "unused"
    cfg.dataset.num_classes = 0  # of a folder of images only its files tell
    return OmegaConf.to_container(cfg, resolve=True)


@pytest.mark.parametrize(
    "overrides",
    [
        [],
        ["dataset=mnist", "model=mlp", "optimizer=rmsprop", "loss=wgan"],
        ["dataset=image-folder", "dataset.path=/images", "loss=dragan", "ema=none", "conditional=label"],
        ["penalty=[r1,r2,gradient]", "augment=[instance-noise]", "term=[feature-matching]", "trainer=ddp"],
    ],
)
def test_what_ganrun_composes_passes(overrides):
    check_trusted(composed(*overrides))


def targets(node) -> list[dict]:
    """All nodes with `_target_`."""
    children = node.values() if isinstance(node, dict) else node if isinstance(node, list) else ()
    own = [node] if isinstance(node, dict) and "_target_" in node else []
    return own + [found for child in children for found in targets(child)]


def test_all_classes_of_the_configs_pass():
    files = set((ROOT / "configs").rglob("*.yaml")) - set((ROOT / "configs" / "hydra").rglob("*"))  # Hydra's own nodes
    nodes = [n for file in files for n in targets(yaml.safe_load(file.read_text()))]
    assert len({node["_target_"] for node in nodes}) > 30
    for node in nodes:
        trusted_class(node["_target_"], RUN_ROOMS)


EVIL = {"_target_": "canary_package.Net"}
SPECIAL = {"_target_": "ganrun.losses.Hinge", "_recursive_": False, "_convert_": "none", "_partial_": True}


@pytest.mark.parametrize(
    ("config", "key"),
    [
        ({"loss": EVIL}, "loss"),
        (EVIL, ""),
        ({"a": [[{"b": [EVIL]}]]}, "a.0.0.b.0"),
        ({"loss": {"_target_": "ganrun.losses.Hinge", "deep": EVIL}}, "loss.deep"),
        ({"loss": {"_target_": "ganrun.losses.Hinge", "_args_": [EVIL]}}, "loss._args_.0"),
        ({"loss": {**SPECIAL, "deep": EVIL}}, "loss.deep"),
        ({"trainer": {"strategy": EVIL}}, "trainer.strategy"),
        ({1: {None: EVIL}}, "1.None"),
    ],
)
def test_finds_a_hostile_target_wherever_it_lies(config, key, canary):
    where = f"{key}._target_".lstrip(".")
    text = refused(check_trusted, config, match="canary_package.Net; trusted are only")
    assert text.startswith(f"{where} names ") and not canary.exists()
    check_trusted(config, trust=["canary_package"])
    assert canary.exists()


NO_OPTIMIZERS = ["os.system", "canary_package.Net", "ganrun.losses.Hinge", "Adam", "torch.optim.lr_scheduler.StepLR",
                 ["torch.optim.Adam"], {"_partial_": True}, None]  # fmt: skip


@pytest.mark.parametrize("name", NO_OPTIMIZERS)
def test_the_optimizer_of_a_player_is_one_of_torchs(name, canary):
    config = composed()
    config["optimizer"]["generator"]["optimizer"] = name
    refused(check_trusted, config, match=r"^optimizer\.generator\.optimizer names ")
    assert not canary.exists()


def test_the_optimizer_of_a_player_may_be_the_users(my_package):
    config = composed()
    config["optimizer"]["generator"]["optimizer"] = "trust_mine.nets.Net"
    refused(check_trusted, config, match=r"^optimizer\.generator\.optimizer names trust_mine")
    check_trusted(config, trust=["trust_mine"])


def test_a_subclass_imports_what_its_base_does(tmp_path, my_package):
    code = "from ganrun.optim import PlayerOptimizer\nclass Mine(PlayerOptimizer): pass\n"
    (tmp_path / "trust_mine" / "optim.py").write_text(code)
    config = {"optimizer": {"_target_": "trust_mine.optim.Mine", "optimizer": "os.system"}}
    refused(check_trusted, config, ["trust_mine"], match=r"^optimizer\.optimizer names os.system")


@pytest.mark.parametrize(
    "name", ["utils.download_url", "import_module", "folder.os.system", "canary_package.Net", "", 3]
)
def test_a_torchvision_set_is_one_of_torchvisions(name, canary):
    config = composed("dataset=mnist")
    config["dataset"]["dataset"] = name
    refused(check_trusted, config, match=r"^dataset\.dataset names torchvision\.datasets\.")
    assert not canary.exists()


@pytest.mark.parametrize("text", ["${oc.env:HOME}", "a ${steps}", "${evil:touch}", "\\${x}", "\x1b${x}"])
def test_refuses_what_would_be_resolved(text):
    refused(check_trusted, {"a": [{"steps": text}]}, match=r"^a\.0\.steps=.*final values")


@pytest.mark.parametrize("config", [None, [], "text", 3, [EVIL]])
def test_refuses_a_config_that_is_none(config):
    refused(check_trusted, config, match="expected keys with values")


def test_keys_are_shown_on_one_line():
    refused(check_trusted, {"\x1b[2J\n": EVIL, 16**9999: 1}, match=r"^'\\x1b\[2J\\n'\._target_ names")


@pytest.mark.parametrize(
    "text",
    [
        "a: !!python/object/apply:os.system ['touch {}']",
        "!!python/object/new:os.system ['touch {}']",
        "a: !!python/module:canary_package",
        "a: !!python/name:canary_package.Net",
    ],
)
def test_yaml_builds_no_objects(tmp_path, canary, text):
    file = tmp_path / "config.yaml"
    file.write_text(text.format(canary))
    for read in (OmegaConf.load, lambda file: yaml.safe_load(file.read_text())):
        with pytest.raises(yaml.YAMLError):
            read(file)
    assert not canary.exists()
    if "apply" in text:
        yaml.unsafe_load(file.read_text())  # what is refused would have run
        assert canary.exists()


class Touch:
    """Pickled, it is a call that makes a file."""

    def __init__(self, path: Path):
        self.command = f"touch {path}"

    def __reduce__(self):
        return os.system, (self.command,)


def by_torch(content, *, zipped: bool = True) -> bytes:
    file = io.BytesIO()
    torch.save(content, file, _use_new_zipfile_serialization=zipped)
    return file.getvalue()


def signed(data: bytes) -> bytes:
    """With the checksum that ganrun's own files have: anybody can write one."""
    return data + MARK + hashlib.blake2b(data, digest_size=32).hexdigest().encode()


PAYLOADS = {
    "pickle": pickle.dumps,
    "old torch": lambda touch: by_torch(touch, zipped=False),
    "torch": by_torch,
    "among good content": lambda touch: by_torch({"ganrun": {"format": FORMAT}, "state_dict": {"weight": touch}}),
}


@pytest.mark.parametrize("sign", [bytes, signed], ids=["plain", "signed"])
@pytest.mark.parametrize("payload", PAYLOADS.values(), ids=PAYLOADS)
def test_a_checkpoint_runs_nothing(tmp_path, payload, sign):
    canary, file = tmp_path / "canary", tmp_path / "last.ckpt"
    file.write_bytes(sign(payload(Touch(canary))))
    refused(load_checkpoint, file, match="last.ckpt")
    assert not canary.exists()


@pytest.mark.parametrize("payload", PAYLOADS.values(), ids=PAYLOADS)
def test_the_payloads_would_have_run(tmp_path, payload):
    canary, file = tmp_path / "canary", tmp_path / "last.ckpt"
    file.write_bytes(payload(Touch(canary)))
    with contextlib.suppress(RuntimeError):  # a plain pickle lacks torch's magic number: found once it has run
        torch.load(file, weights_only=False)
    assert canary.exists()


@pytest.mark.parametrize(
    "content", [[], 3, "text", torch.zeros(2), None, {}, {"ganrun": None}, {"ganrun": {"format": 0}}]
)
def test_refuses_content_of_another_kind(tmp_path, content):
    file = tmp_path / "last.ckpt"
    file.write_bytes(signed(by_torch(content)))
    refused(load_checkpoint, file, match="last.ckpt")
