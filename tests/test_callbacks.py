"""Callbacks and loggers beside ganrun's own: those that come with it, and a user's, in whole runs and resumed."""

import csv
import json
import sys

import pytest
import torch
import yaml
from conftest import TINY
from forked import run
from test_configs import SMALL as BUILT
from test_configs import composed
from test_runs import assert_same_state, state

from ganrun.errors import UserError
from ganrun.loggers import InRun
from ganrun.training.build import build

SMALL = [*TINY, "log_every=1", "on_collapse=null", "dataset.limit=64", "checkpoint.every=0", "sample_every=0"]
OWN = '''
from pathlib import Path

import pytorch_lightning as pl
import torch
from pytorch_lightning.loggers.logger import Logger


class Shrink(pl.Callback):
    """Makes the generator smaller in each step, by more from step to step."""

    def __init__(self, by: float = 1e-3):
        self.by, self.count, self.losses = by, 0, []

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.count += 1
        self.losses.append(float(pl_module.terms["generator/adversarial"]))
        with torch.no_grad():
            for p in pl_module.recipe.generator.parameters():
                p.mul_(1 - self.by * self.count)

    def state_dict(self):
        return {"count": self.count, "losses": self.losses}

    def load_state_dict(self, state):
        self.count, self.losses = state["count"], list(state["losses"])


class Enough(pl.Callback):
    def __init__(self, after: int):
        self.after = after

    def on_train_batch_end(self, trainer, *args):
        trainer.should_stop = trainer.should_stop or trainer.global_step == self.after


class Unreadable(pl.Callback):
    def state_dict(self):
        return {"where": Path("x")}


class Lines(Logger):
    name = version = None

    def __init__(self, file: str):
        super().__init__()
        self.file = Path(file)

    def log_hyperparams(self, params):
        self.write("steps", params["steps"])

    def log_metrics(self, metrics, step=None):
        for name, value in metrics.items():
            self.write(step, name)

    def write(self, *words):
        with self.file.open("a") as file:
            print(*words, file=file)


class Nothing:
    pass
'''
TRUST = ["--config-dir", "my", "trust=[own_watchers]"]


@pytest.fixture
def place(tmp_path):
    (tmp_path / "my").mkdir()
    (tmp_path / "my" / "own_watchers.py").write_text(OWN)
    nodes = {
        "callbacks/shrink": {"by": 1e-3, "_target_": "own_watchers.Shrink"},
        "callbacks/enough": {"after": 3, "_target_": "own_watchers.Enough"},
        "callbacks/unreadable": {"_target_": "own_watchers.Unreadable"},
        "callbacks/nothing": {"_target_": "own_watchers.Nothing"},
        "logger/lines": {"file": "lines.txt", "_target_": "own_watchers.Lines"},
        "logger/none-of-it": {"_target_": "own_watchers.Nothing"},
    }
    for path, node in nodes.items():
        file = tmp_path / "my" / f"{path}.yaml"
        file.parent.mkdir(exist_ok=True)
        file.write_text(f"# My own\n{yaml.safe_dump({file.stem: node})}")
    return tmp_path


def test_a_callback_of_ones_own_acts_and_is_resumed_with_its_state_to_the_bit(place):
    own = ["--config-dir", "my", "callbacks=[shrink]", "callbacks.shrink.by=2e-3", *SMALL]
    run(*own, "steps=6", "run_dir=whole", cwd=place)
    run(*own, "steps=3", "run_dir=parts", cwd=place)
    refused = run("resume=parts", "steps=6", cwd=place, check=2).err
    assert "callbacks.shrink._target_ names own_watchers.Shrink" in refused and refused.count("\n") == 1
    run("resume=parts", "steps=6", *TRUST, cwd=place)
    assert_same_state(place / "whole", place / "parts")
    states = [state(place / name)["callbacks"]["Shrink"] for name in ("whole", "parts")]
    assert states[0] == states[1] and states[0]["count"] == len(states[0]["losses"]) == 6
    run(*SMALL, "steps=6", "run_dir=without", cwd=place)
    bias = "recipe.generator.to_image.0.weight"
    assert not torch.equal(state(place / "whole")["state_dict"][bias], state(place / "without")["state_dict"][bias])


def test_a_logger_of_ones_own_gets_all_scalars(place):
    args = ["--config-dir", "my", "logger=[lines]", *SMALL, "evaluate.every=2"]
    run(*args, "steps=3", "run_dir=r", cwd=place)
    run("resume=r", "steps=4", *TRUST, cwd=place)
    got = [line.split() for line in (place / "lines.txt").read_text().splitlines()]
    assert got[0] == ["steps", "3"]
    ours = [json.loads(line) for line in (place / "r" / "metrics.jsonl").read_text().splitlines()]
    assert got[1:] == [[str(line["step"]), name] for line in ours for name in line if name != "step"]
    assert ["4", "generator/adversarial"] in got and ["2", "score/sliced-wasserstein"] in got


def test_a_callback_may_end_a_run_that_can_go_on(place):
    done = run("--config-dir", "my", "callbacks=[enough]", *SMALL, "steps=9", "run_dir=r", cwd=place)
    assert "stopped by a callback; go on with: ganrun resume=r" in done.err
    assert json.loads((place / "r" / "result.json").read_text())["steps"] == 3
    run("resume=r", *TRUST, cwd=place)
    assert json.loads((place / "r" / "result.json").read_text())["steps"] == 9


def test_a_state_that_no_resume_could_read_is_refused_when_it_is_saved(place):
    args = ["--config-dir", "my", "callbacks=[unreadable]", *SMALL, "steps=4", "checkpoint.every=2", "run_dir=r"]
    err = run(*args, cwd=place, check=2).err
    assert "callback Unreadable: its state_dict() holds something else" in err and err.count("\n") == 1
    assert not list((place / "r" / "checkpoints").iterdir())


@pytest.mark.parametrize(
    ("word", "message"),
    [
        (
            "callbacks=[nothing]",
            "callbacks.nothing: own_watchers.Nothing makes a Nothing; expected a pytorch_lightning.",
        ),
        ("logger=[none-of-it]", "expected a pytorch_lightning.loggers.logger.Logger or ganrun.loggers.InRun"),
        ("callbacks=[shrink] callbacks.shrink.bye=1", "callbacks.shrink.bye: there is no such key"),
        ("callbacks.rates.every=2", "rates is not selected; add callbacks=[rates]"),
        ("trainer.callbacks=1", "trainer.callbacks: "),
    ],
)
def test_a_mistake_is_one_line_and_leaves_nothing(place, word, message):
    before = sorted(place.iterdir())
    err = run("--config-dir", "my", *word.split(), *SMALL, cwd=place, check=2).err
    assert message in err and err.count("\n") == 1 and sorted(place.iterdir()) == before


@pytest.mark.parametrize("package", ["wandb", "mlflow"])
def test_a_logger_without_its_package_names_it(package, monkeypatch):
    monkeypatch.setattr("ganrun.loggers.find_spec", lambda name: None)
    cfg, _ = composed(*BUILT, f"logger=[{package}]")
    with pytest.raises(UserError, match=f"^logger.{package}: {package} is not installed: pip install {package}$"):
        build(cfg)


@pytest.mark.parametrize("package", ["wandb", "mlflow"])
def test_a_logger_is_made_once_its_package_is_there(package, monkeypatch):
    monkeypatch.setattr("ganrun.loggers.find_spec", lambda name: sys)
    (logger,) = build(composed(*BUILT, f"logger=[{package}]")[0]).loggers
    assert isinstance(logger, InRun)


def test_csv_of_each_start_and_the_models_table(tmp_path):
    done = run(*SMALL, "logger=[csv]", "callbacks=[model-summary]", "steps=2", "run_dir=r", cwd=tmp_path)
    assert "recipe.generator.stem" in done.out and "Trainable params" in done.out
    run("resume=r", "steps=3", cwd=tmp_path)
    for version, steps in enumerate([["1", "2"], ["3"]]):
        with (tmp_path / "r" / "csv" / f"version_{version}" / "metrics.csv").open() as file:
            assert [row["step"] for row in csv.DictReader(file) if row["generator/adversarial"]] == steps


def test_a_config_from_before_these_keys_goes_on(tmp_path):
    """A run that was killed before its first checkpoint, whose config says nothing of what came later."""
    args = [*SMALL, "steps=4", "term=[feature-matching]", "optimizer.lr_schedule=linear"]
    run(*args, "run_dir=new", cwd=tmp_path)
    run(*args, "run_dir=old", "steps=4", cwd=tmp_path)
    file = tmp_path / "old" / ".hydra" / "config.yaml"
    config = yaml.safe_load(file.read_text())
    del config["callbacks"], config["logger"], config["ema"]["start"]
    for terms in (config["term"], config["recipe"]["terms"]):
        del terms["feature-matching"]["every"]
    for node in (config["optimizer"], *(config["optimizer"][player] for player in ("generator", "discriminator"))):
        del node["decay_start"]
    file.write_text(yaml.safe_dump(config, sort_keys=False))
    for path in [*(tmp_path / "old" / "checkpoints").iterdir(), *(tmp_path / "old").glob("[a-z]*.*")]:
        path.unlink()
    run("resume=old", cwd=tmp_path)
    assert_same_state(tmp_path / "new", tmp_path / "old")
