"""Every YAML composes and instantiates; experiments and every combination of the choices run."""

import pytest
import torch
import yaml
from conftest import ROOT
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from ganrun.config.check import MULTI_SELECT, check
from ganrun.config.groups import config_dir, groups, options
from ganrun.data.datamodule import Rounds
from ganrun.training.build import build
from ganrun.training.fit import make_trainer

SMALL = ["steps=2", "batch_size=4", "generator.width=4", "discriminator.width=4", "dataset.limit=12"]
OFFLINE = {"digits", "gaussian", "ring", "grid", "swiss-roll"}


def composed(*overrides):
    with initialize_config_dir(str(config_dir()), version_base="1.3"):
        cfg = compose("train", list(overrides))
    cfg.run_dir = "unused"
    return cfg, check(cfg, overrides)


def run_steps(*overrides):
    """Two real steps in a real Lightning fit; returns the module."""
    parts = build(composed(*SMALL, *overrides)[0])
    trainer = make_trainer(parts.cfg, logger=False, callbacks=[])
    trainer.fit(parts.module, datamodule=parts.datamodule)
    assert trainer.global_step == 2
    values = torch.stack(list(parts.module.terms.values()))
    assert torch.isfinite(values).all(), parts.module.terms
    return parts.module


@pytest.mark.parametrize(("group", "option"), [(g, o) for g in groups() for o in options(g)])
def test_every_option_composes_and_passes_its_check(group, option):
    value = f"[{option}]" if group in MULTI_SELECT else option
    extra = ["model=mlp"] if option in OFFLINE - {"digits"} else []
    extra += ["noise.z_dim=1"] if option in ("unet", "resnet-translator") else []  # which take no noise
    cfg, _ = composed(f"{group}={value}", *extra)
    OmegaConf.to_container(cfg, resolve=True, throw_on_missing=True)


@pytest.mark.parametrize(
    "file", sorted((ROOT / "configs").rglob("*.yaml")), ids=lambda f: f.relative_to(ROOT).as_posix()
)
def test_yaml_is_short_and_described(file):
    lines = file.read_text().splitlines()
    assert file.parent.name == "configs" or len(lines) <= 26
    assert any(line.startswith("# ") and "@package" not in line for line in lines[:2])
    assert yaml.safe_load(file.read_text()) is not None


@pytest.mark.parametrize("experiment", options("experiment"))
def test_experiment_runs(experiment, data_dir):
    words = [f"experiment={experiment}", f"data_dir={data_dir}"]
    cfg = composed(*words)[0]
    if cfg.dataset.name == "cifar10":  # which is not on every machine
        words += ["dataset=digits", "dataset.resolution=32", "dataset.channels=3"]
    if cfg.dataset.name == "image-folder":
        words += ["dataset=digits", "dataset.channels=3"]
    if "labelled" in cfg:
        words += ["labelled=10"]  # there are few images
    run_steps(*words)


@pytest.mark.parametrize("loss", options("loss"))
@pytest.mark.parametrize("where", ["dataset=digits model=dcgan", "dataset=digits model=mlp", "dataset=ring model=mlp"])
def test_every_loss_runs(loss, where):
    module = run_steps(f"loss={loss}", *where.split())
    assert {"discriminator/adversarial", "generator/adversarial"} <= module.terms.keys()


ALL_PENALTIES = ["r1", "r2", "gradient", "dragan"]  # for the others see test_regularisers.py


@pytest.mark.parametrize("loss", options("loss"))
@pytest.mark.parametrize("conditional", ["none", "label"])  # for the others see test_conditioning.py
def test_every_penalty_with_every_loss_and_condition(loss, conditional):
    chosen = f"penalty=[{','.join(ALL_PENALTIES)}]"
    module = run_steps(chosen, f"loss={loss}", f"conditional={conditional}", "dataset.resolution=8", "critic.norm=none")
    assert {f"discriminator/{penalty}" for penalty in ALL_PENALTIES} <= module.terms.keys()


def test_conditional_networks_use_the_label():
    module = run_steps("conditional=label")
    z = torch.randn(2, 100).repeat(2, 1)
    with torch.no_grad():
        fake = module.recipe.generator.eval()(z, torch.tensor([0, 0, 1, 1]))
    assert not torch.allclose(fake[:2], fake[2:])


@pytest.mark.parametrize("option", options("optimizer"))
def test_every_optimizer_moves_both_players(option):
    torch.manual_seed(0)
    before = build(composed(*SMALL, f"optimizer={option}")[0]).module.recipe.state_dict()
    before = {key: value.clone() for key, value in before.items()}
    after = run_steps(f"optimizer={option}").recipe.state_dict()
    for key in ("generator.stem.0.weight", "adversary.discriminator.head.weight"):
        assert not torch.equal(before[key], after[key]), key


def test_mixed_optimizers_and_noise_and_terms():
    module = run_steps(
        "optimizer/discriminator=rmsprop", "noise=uniform", "term=[feature-matching]", "augment=[instance-noise]"
    )
    kinds = [type(player.optimizer).__name__ for player in module.player_optimizers.values()]
    assert kinds == ["RMSprop", "Adam"] and "generator/feature-matching" in module.terms


CASES = {
    "loss=wgan-gp optimizer.generator.lr=9e-4": ("optimizer.generator.lr", 9e-4, "optimizer.discriminator.lr", 1e-4),
    "optimizer.lr=3e-4 optimizer.generator.lr=9e-4": (
        *("optimizer.generator.lr", 9e-4),
        *("optimizer.discriminator.lr", 3e-4),
    ),
    "loss=wgan-gp discriminator.norm=layer": ("discriminator.norm", "layer", "penalty.gradient.weight", 10.0),
    "loss=wgan-gp penalty=[]": ("penalty", {}, "schedule.discriminator", 5),
    "loss=dragan penalty=[]": ("discriminator.norm", "batch", "optimizer.lr", 1e-4),
    "loss=wgan-gp penalty=[r1]": ("penalty.r1.weight", 10.0, "penalty.gradient", None),
    "loss=hinge penalty=[r1] critic.norm=batch": ("discriminator.norm", "batch", "penalty.r1.weight", 10.0),
    "loss=dragan discriminator.norm=batch": ("discriminator.norm", "batch", "critic.norm", "none"),
}


@pytest.mark.parametrize("line", CASES)
def test_command_line_wins_over_presets(line):
    cfg = composed(*line.split())[0]
    key_a, value_a, key_b, value_b = CASES[line]
    assert OmegaConf.select(cfg, key_a) == value_a and OmegaConf.select(cfg, key_b) == value_b


def test_schedule_order_survives_a_preset():
    cfg = composed("loss=wgan-gp", "schedule=generator-first")[0]
    order = [("generator", 1), ("discriminator", 5), ("share", True), ("generator_batch", None), ("lazy_moves", False)]
    assert list(cfg.schedule.items()) == order


def test_shadowed_learning_rate_is_told():
    cfg, _ = composed("loss=wgan-gp", "optimizer.lr=3e-4")
    cfg.optimizer.generator.lr = 1e-3  # as an experiment would set it
    assert "optimizer.lr=0.0003 does not reach it" in check(cfg, ["optimizer.lr=3e-4"])[0]


def test_image_folder_from_config(tmp_path):
    from PIL import Image

    for name in ("cat", "dog"):
        (tmp_path / name).mkdir()
        Image.new("RGB", (20, 10), (255, 0, 0)).save(tmp_path / name / "a.png")
    cfg, _ = composed("dataset=image-folder", f"dataset.path={tmp_path}", "conditional=label", *SMALL[1:4])
    parts = build(cfg)
    assert cfg.dataset.num_classes == 2 and parts.data.classes == ["cat", "dog"]
    batch = parts.data.complete(Rounds(parts.data, batch_size=4, num_batches=1, seed=0)[0])
    assert batch["real"].shape == (4, 3, 32, 32) and batch["real"][0, :, 16, 16].tolist() == [255, 0, 0]
