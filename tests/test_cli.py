"""Command lines: help, the choice of a command, and one clear line for every mistake."""

import subprocess
import sys

import pytest
from conftest import GANRUN, TINY, ganrun

from ganrun import cli, configs

MISTAKES = {
    "trian": "did you mean train",
    "modl=dcgan": "did you mean model?",
    "loss=wgann": "did you mean wgan or wgan-gp",
    "loss=[hinge,wgan]": "-m loss=hinge,wgan",
    "loss=wgan,hinge": "--multirun",
    "loss=null": "a group takes the name of an option",
    "~loss": "loss is missing",
    "penalty=[r3]": "did you mean r2 or r1?",
    "experiment=scalar": "did you mean scalar-gan",
    "stepz=3": "did you mean steps?",
    "generator.widht=3": "did you mean generator.width",
    "+unknown=1": "unknown: there is no such key",
    "+unknown.deep=1": "unknown: there is no such key",
    "+model.x=1": "model: there is no such key",
    "++loss.bogus=1": "loss.bogus: there is no such key",
    "+generator.foo=1": "generator.foo: there is no such key",
    "+optimizer.foo=1": "optimizer.foo: nothing in this experiment reads it",
    "+optimizer.generator.foo=1": "unexpected keyword argument 'foo'",
    "steps=abc": "steps=abc; expected an integer",
    "generator.width=${nope}": "nope",
    "+optimizer.critic.lr=1": "optimizer.critic: there is no such player",
    "+penalty.r1={weight:3}": "add penalty=[r1]",
    "ema=none ++ema.decay=.9": "ema is off",
    "-m hydra.sweep.dir=x seed=1,2": "use run_dir=",
    "~dataset.channels": "dataset.channels",
    "+trainer.max_steps=5": "use steps=",
    "+trainer.gradient_clip_val=1": "use optimizer.clip_gradients=",
    "trainer=ddp trainer.num_nodes=2": "start it by torchrun or srun",
    "trainer.devices=2": "several devices need trainer=ddp",
    "trainer.devices=-1": "several devices need trainer=ddp",
    "trainer.devices=[1] trainer.accelerator=cpu": "picks GPUs by number, and this run is on the cpu; expected",
    "batch_size=3 trainer=ddp trainer.accelerator=cpu": "expected a multiple of 2",
    "discriminator.resolution=32": "discriminator: ",
    "discriminator.num_classes=5": "was given no label",
    "steps=true": "expected an integer",
    "steps=": "expected an integer",
    "batch_size=0": "batch_size=0; expected at least 1",
    "seed=-1": "expected at least 0",
    "checkpoint=3": "expected its keys",
    "debug=1": "expected true or false",
    "data_dir=null": "expected text",
    "steps=[1": "not an override",
    "=3": "a group takes the name of an option",
    "--foo": "there is no such flag",
    "hydra.run.dir=x": "use run_dir=",
    "dataset=ring": "dcgan builds images, but this dataset has vectors; try model=mlp",
    "dataset.resolution=30": "resolution=30: dcgan cannot build it",
    "dataset.resolution=[16]": "expected pixels as N or [H,W]",
    "dataset.fit=zoom": "expected one of resize, crop, pad",
    "dataset.value_range=[0,2]": "valid: [-1,1], [0,1]",
    "dataset.channels=2": "valid: 1 (grey), 3 (RGB)",
    "dataset.limit=0": "expected at least 1",
    "dataset.num_classes=7": "digits has 10 classes",
    "dataset=image-folder": "needs dataset.path",
    "dataset=image-folder dataset.path=/no/such/folder": "there is no such folder or .zip",
    "init_from=/no/such/run": "there is no such run directory or checkpoint",
    "resume=/no/such/run": "there is no such run directory or checkpoint",
    "resume=.": "not a run",
    "-m resume=x": "leave out -m",
    "loss=hinge loss.smoothing=0.1": "loss.smoothing: there is no such key; valid: loss.discriminator_factor",
    "loss.smoothing=1.5": "loss: smoothing=1.5; expected 0 <= smoothing < 1",
    "loss.discriminator_factor=abc": "expected a number",
    "penalty=[] penalty.r1.weight=3": "add penalty=[r1]",
    "loss=wgan-gp penalty=[] penalty.gradient.weight=3": "add penalty=[gradient]",
    "penalty=[r1] penalty.r1.weight=-1": "r1: weight=-1; expected more than 0",
    "augment=[instance-noise] augment.instance-noise.std=0": "instance-noise: std=0",
    "conditional=label dataset=gaussian model=mlp": "no such label",
    "model=mlp critic.norm=layer": "critic.norm: nothing in this experiment reads it",
    "optimizer=rmsprop optimizer.betas=[0,1]": "optimizer.betas: there is no such key",
    "optimizer.lr=-1": "lr=-1; expected more than 0",
    "optimizer.lr_schedule=lin": "did you mean linear?",
    "optimizer.betas=3": "optimizer.discriminator: ",
    "ema.decay=2": "ema: decay=2; expected 0 <= decay < 1; ema=none is off",
    "schedule.discriminator=0": "expected at least 1 move a player",
    "generator.width=0": "generator: width=0; expected at least 1",
    "generator.norm=bach": "did you mean batch?",
    "generator.resolution=16 dataset.resolution=32": "makes samples of shape [1, 16, 16], but",
    "generator.num_classes=5": "was given no label",
    "trainer.devices=0": "trainer: ",
    "trainer.accelerator=foo": "trainer: ",
    "precision=16": "valid: bf16-mixed, 32-true, auto",
    "hydra/launcher=joblib": "it acts in sweeps; add -m",
    "precision=null": "; valid: 32-true, auto, bf16-mixed",
    "compile=null": "valid: ",
    "dataset.resolution=1000000": "expected pixels as N or [H,W], up to 16384",
    "precision=16-mixed": "did you mean bf16-mixed?",
    "trainer.precision=32-true": "did you mean precision?",
    "trainer=ddp trainer.strategy=ddp": "trainer.strategy=ddp; valid: data-parallel",
    "compile=fast": "compile=fast; did you mean",
    "micro_batch=5 batch_size=16": "16 images a move and device are no multiple of it",
}


@pytest.mark.parametrize("line", MISTAKES)
def test_mistake_is_one_line_and_leaves_nothing(line, tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    assert cli.run([*line.split(" "), "steps=1"] if "steps" not in line else line.split(" ")) == 2
    out, err = capfd.readouterr()
    assert MISTAKES[line] in err, err
    assert err.startswith("ganrun: ") and err.count("\n") == 1 and "Traceback" not in out + err
    assert list(tmp_path.iterdir()) == [], "a refused command left something behind"


def test_mistake_in_a_real_process(tmp_path):
    done = subprocess.run([GANRUN, "loss=wgann"], cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1 and done.stdout == "" and list(tmp_path.iterdir()) == []


def test_refused_sweep_leaves_nothing(tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    assert cli.run(["-m", "loss=wgan,wgann", "steps=1"]) == 2
    assert "did you mean wgan" in capfd.readouterr().err
    assert not list(tmp_path.rglob("*.yaml"))


def test_debug_shows_the_traceback(tmp_path):
    done = ganrun("batch_size=0", "debug=true", cwd=tmp_path, check=1)
    assert "Traceback" in done.stderr and "batch_size=0; expected at least 1" in done.stderr


def test_presets_that_cannot_act_are_told(tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    assert cli.run(["loss=wgan-gp", "optimizer=rmsprop", "steps=1", "schedule.discriminator=1", *TINY]) == 0
    out = " ".join(capfd.readouterr().out.split())
    assert "optimizer.betas=[0.0, 0.9] comes from a preset and does not act" in out
    assert "optimizer.lr=0.0001 comes from a preset, not from optimizer=rmsprop" in out


def test_help_names_every_command_group_and_option(capsys):
    assert cli.run(["--help"]) == 0
    text = capsys.readouterr().out
    assert "  train " in text and text.count("\n  ganrun ") == 3
    for group in configs.groups():
        assert f"  {group}=" in text
        for option, description in configs.options(group).items():
            assert description, f"{group}/{option}.yaml has no description"
            assert f" {option:<20} {description}" in text
    for group in configs.MAIN_GROUPS:
        assert f"* {configs.defaults()[group]} " in text


@pytest.mark.parametrize("flags", [["--help"], ["--cfg", "job"], ["-sc", "query=bash"]])
def test_light_commands_import_no_torch(flags):
    code = (
        "import sys; from ganrun import cli\n"
        f"try: cli.run({flags!r})\n"
        "finally:\n  heavy = {'torch', 'pytorch_lightning'} & set(sys.modules)\n  assert not heavy, heavy"
    )
    env = {"COMP_LINE": "ganrun model=d", "COMP_POINT": "14", "PATH": ""}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


def test_completion_offers_options():
    env = {"COMP_LINE": "ganrun loss=wg", "COMP_POINT": "14"}
    done = subprocess.run([GANRUN, "-sc", "query=bash"], env=env, capture_output=True, text=True, timeout=60)
    assert done.stdout.split() == ["loss=wgan", "loss=wgan-gp"]


def test_no_words_at_all():
    assert configs.config_dirs_of([]) == configs.without_config_dirs([]) == []
    assert cli.pick([]) == ("train", [])


def test_user_config_dir(tmp_path):
    (tmp_path / "my" / "loss").mkdir(parents=True)
    (tmp_path / "my" / "loss" / "mine.yaml").write_text(
        "# @package _global_\n# My own loss\nloss:\n  _target_: ganrun.losses.Hinge\n"
    )
    done = ganrun("--config-dir", "my", "loss=mine", "--cfg", "job", "--package", "loss", cwd=tmp_path)
    assert "ganrun.losses.Hinge" in done.stdout
    assert "My own loss" in ganrun("--config-dir", "my", "--help", cwd=tmp_path).stdout
    refused = ganrun("--config-dir", "my", "loss=mina", cwd=tmp_path, check=2)
    assert "did you mean mine" in refused.stderr


def test_version(capsys):
    import ganrun

    assert cli.run(["--version"]) == 0
    assert capsys.readouterr().out == f"ganrun {ganrun.__version__}\n"


def test_mistake_beside_a_users_own_configs(tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my" / "loss").mkdir(parents=True)
    (tmp_path / "my" / "loss" / "mine.yaml").write_text("# @package _global_\nloss: {_target_: ganrun.losses.Hinge}\n")
    assert cli.run(["--config-dir", "my", "loss=mine", "stepz=3"]) == 2
    assert "did you mean steps" in capfd.readouterr().err
