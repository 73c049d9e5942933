"""What each preset decides, beside the papers and their authors' code; and that classes and YAML agree on defaults."""

import inspect
from collections.abc import Iterator

import pytest
import torch
import yaml
from conftest import ROOT, TINY, ganrun, last_line
from hydra.utils import get_object, instantiate
from omegaconf import DictConfig, OmegaConf
from test_configs import SMALL, composed
from torch import nn

from ganrun.config.groups import options
from ganrun.training.build import build
from ganrun.training.nodes import build_node
from ganrun.training.norm import norm_notes

ADAM = ("Adam", {"lr": 2e-4, "betas": (0.5, 0.999), "eps": 1e-8, "weight_decay": 0})  # DCGAN, section 4
RMSPROP = {
    "alpha": 0.99,
    "eps": 1e-8,
    "momentum": 0,
    "centered": False,
    "weight_decay": 0,
}  # torch's own, as in WGAN's code
LOSSES = {  # class, penalties (weight, every), moves of the discriminator, optimizer of both, its clipping, its norm
    "non-saturating": ("NonSaturating", {}, 1, ADAM, None, "batch"),
    "minimax": ("Minimax", {}, 1, ADAM, None, "batch"),
    "lsgan": ("LeastSquares", {}, 1, ADAM, None, "batch"),
    "lsgan-cyclegan": ("LeastSquaresOfCycleGAN", {}, 1, ADAM, None, "batch"),
    "hinge": ("Hinge", {}, 1, ADAM, None, "batch"),
    "relativistic-pairing": ("RelativisticPairing", {}, 1, ADAM, None, "batch"),
    "relativistic-average": ("RelativisticAverage", {}, 1, ADAM, None, "batch"),
    "dual-contrastive": ("DualContrastive", {}, 1, ADAM, None, "batch"),
    "r3gan": ("RelativisticPairing", {"r1": (1, 1), "r2": (1, 1)}, 1, ADAM, None, "none"),
    # Arjovsky et al. 2017, algorithm 1
    "wgan": ("Wasserstein", {}, 5, ("RMSprop", RMSPROP | {"lr": 5e-5}), 0.01, "batch"),
    # Gulrajani et al. 2017, algorithm 1 and section 4
    "wgan-gp": (
        *("Wasserstein", {"gradient": (10, 1)}, 5),
        *(("Adam", ADAM[1] | {"lr": 1e-4, "betas": (0.0, 0.9)}), None, "none"),
    ),
    # Kodali et al. 2017, the authors' code
    "dragan": (
        *("NonSaturating", {"dragan": (10, 1)}, 1),
        *(("Adam", ADAM[1] | {"lr": 1e-4, "betas": (0.5, 0.9)}), None, "none"),
    ),
    # Mescheder et al. 2018, their experiments on images
    "non-saturating-r1": ("NonSaturating", {"r1": (10, 1)}, 1, ("RMSprop", RMSPROP | {"lr": 1e-4}), None, "none"),
}
OPTIMIZERS = {
    "adam": ADAM,
    "adamw": ("AdamW", ADAM[1] | {"weight_decay": 0.01}),
    "rmsprop": ("RMSprop", RMSPROP | {"lr": 5e-5}),
    "sgd": ("SGD", {"lr": 1e-2, "momentum": 0, "weight_decay": 0, "nesterov": False}),
}


def settings_of(cfg: DictConfig, player: str) -> tuple[str, dict, float | None]:
    """What the config makes of one player's optimizer: its class, all that it was given, and weight clipping."""
    made = build_node(cfg.optimizer, player)([nn.Parameter(torch.zeros(1))])
    (group,) = made.optimizer.param_groups
    return type(made.optimizer).__name__, group, made.clip_weights


@pytest.mark.parametrize("loss", options("loss"))
def test_a_loss_alone_brings_its_papers_setting(loss):
    kind, penalties, moves, (optimizer, settings), clip, norm = LOSSES[loss]
    cfg = composed(f"loss={loss}")[0]
    assert cfg.loss._target_ == f"ganrun.losses.{kind}"
    assert (cfg.loss.get("smoothing", 0), cfg.loss.discriminator_factor) == (0, 1)
    assert {name: (node.weight, node.every) for name, node in cfg.penalty.items()} == penalties
    assert (cfg.schedule.discriminator, cfg.schedule.generator) == (moves, 1)
    assert cfg.discriminator.norm == norm
    for player, clips in (("discriminator", clip), ("generator", None)):
        name, group, clipped = settings_of(cfg, player)
        assert (name, {key: group[key] for key in settings}, clipped) == (optimizer, settings, clips), player


@pytest.mark.parametrize("option", options("optimizer"))
def test_optimizers_defaults(option):
    expected, settings = OPTIMIZERS[option]
    for player in ("generator", "discriminator"):
        name, group, clipped = settings_of(composed(f"optimizer={option}")[0], player)
        assert (name, {key: group[key] for key in settings}, clipped) == (expected, settings, None)


@pytest.mark.parametrize("option", options("optimizer"))
def test_one_players_own_optimizer_has_its_kinds_defaults(option):
    """Beside another kind, of which it takes only what both have."""
    other = "sgd" if option == "rmsprop" else "rmsprop"
    expected, settings = OPTIMIZERS[option]
    name, group, _ = settings_of(composed(f"optimizer={other}", f"optimizer/generator={option}")[0], "generator")
    own = settings.keys() - OPTIMIZERS[other][1].keys()
    assert name == expected and own
    assert {key: group[key] for key in own} == {key: settings[key] for key in own}


def test_everything_elses_defaults():
    cfg = OmegaConf.to_container(composed()[0], resolve=True)
    average = {"decay": 0.999, "warmup": 10, "start": 0, "standing": 0, "statistics": "copied"}
    assert cfg["ema"] == {"_target_": "ganrun.ema.EMA", "_partial_": True, **average}
    assert cfg["noise"] == {"_target_": "ganrun.noise.Normal", "z_dim": 100}
    order = [("discriminator", 1), ("generator", 1), ("share", True), ("generator_batch", None), ("lazy_moves", False)]
    assert [*cfg["schedule"].items()] == order
    assert cfg["batch_size"] == 64 and cfg["optimizer"]["lr_schedule"] == "constant"
    assert cfg["generator"]["width"] == cfg["discriminator"]["width"] == 64
    assert (cfg["generator"]["slope"], cfg["discriminator"]["slope"]) == (0, 0.2)  # ReLU, LeakyReLU: DCGAN, section 3
    assert cfg["optimizer"]["clip_gradients"] is None and cfg["augment"] == cfg["term"] == cfg["penalty"] == {}


GROUPS = (
    "generator",
    "discriminator",
    "loss",
    "penalty",
    "term",
    "augment",
    "ema",
    "noise",
    "recipe",
    "optimizer/player",
)
FILES = [path for group in GROUPS for path in sorted((ROOT / "configs" / group).glob("*.yaml"))]


def targets(node: object) -> Iterator[dict]:
    """Every part of a YAML that names a class."""
    if isinstance(node, dict):
        yield from [node] if "_target_" in node else []
        for below in node.values():
            yield from targets(below)


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.relative_to(ROOT / "configs").as_posix())
def test_a_class_and_its_yaml_have_the_same_defaults(file):
    for node in targets(yaml.safe_load(file.read_text())):
        for name, parameter in inspect.signature(get_object(node["_target_"])).parameters.items():
            here = node.get(name, "${")
            told = name != "unit"  # what a ramp counts is its paper's choice
            if told and parameter.default is not parameter.empty and "${" not in str(here):
                assert here == parameter.default, (node["_target_"], name)


def has_batch_norm(cfg: DictConfig) -> bool:
    return any(isinstance(module, nn.BatchNorm2d) for module in instantiate(cfg.discriminator).modules())


@pytest.mark.parametrize("penalty", ["r1", "r2", "gradient", "dragan"])  # for others see test_regularisers.py
def test_a_penalty_takes_batch_norm_away(penalty):
    assert not has_batch_norm(composed("loss=wgan", f"penalty=[{penalty}]")[0])


@pytest.mark.parametrize("line", ["", "loss=wgan-gp penalty=[]", "penalty=[r1] critic.norm=batch"])
def test_without_a_penalty_or_named_batch_norm_is_there(line):
    assert has_batch_norm(composed(*line.split())[0])


SAYS = {
    "loss=hinge": ([], []),
    "loss=wgan-gp": (["critic.norm=none: penalty gradient looks at single samples"], []),
    "penalty=[r1,r2]": (["critic.norm=none: penalty r1 and r2 look at single samples"], []),
    "penalty=[r1] discriminator.norm=layer": ([], []),
    "penalty=[r1] discriminator.norm=batch": (
        [],
        [
            "penalty r1 looks at single samples, which the discriminator's batch norm mixes; "
            "discriminator.norm=none leaves it out"
        ],
    ),
    "penalty=[r1] discriminator=mlp": ([], []),
}


@pytest.mark.parametrize("line", SAYS)
def test_what_is_said_of_batch_norm(line):
    assert norm_notes(build(composed(*SMALL, *line.split())[0])) == SAYS[line]


OWN_PENALTY = """# @package _global_
# A penalty of my own
penalty: {own: {_target_: own_penalties.Own, weight: 1.0}}
critic: {norm: none}
"""


def test_a_users_penalty_takes_batch_norm_away_and_says_so(tmp_path):
    (tmp_path / "my" / "penalty").mkdir(parents=True)
    (tmp_path / "my" / "own_penalties.py").write_text("from ganrun.penalties import R1\nclass Own(R1): pass\n")
    (tmp_path / "my" / "penalty" / "own.yaml").write_text(OWN_PENALTY)
    done = ganrun("--config-dir", "my", "penalty=[own]", *TINY, "steps=1", "metric=[]", cwd=tmp_path)
    told = "critic.norm=none: penalty own looks at single samples"
    run = tmp_path / last_line(done)
    assert told in done.stdout and told in (run / "train.log").read_text()
    config = OmegaConf.load(run / ".hydra" / "config.yaml")
    assert config.critic.norm == config.discriminator.norm == "none"
