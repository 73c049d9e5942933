"""Command lines: help, the choice of a command, and one clear line for every mistake."""

import subprocess
import sys

import pytest
from conftest import GANRUN, TINY, ganrun

from ganrun import __version__, cli
from ganrun.config import choices
from ganrun.config import groups as configs

MISTAKES = {
    "trian": "did you mean train",
    "modl=dcgan": "did you mean model?",
    "loss=wgann": "did you mean wgan or wgan-gp",
    "loss=[hinge,wgan]": "-m loss=hinge,wgan",
    "loss=wgan,hinge": "to sweep over them add -m: ganrun -m loss=wgan,hinge; a list goes in brackets",
    "optimizer.betas=0.5,0.9": "optimizer.betas=[0.5,0.9]",
    "loss=WGAN_GP": "did you mean wgan-gp",
    "model=none": (
        "valid: biggan, biggan-deep, cyclegan, dcgan, deep-conv, fastgan, mlp, pix2pix, projected-gan, r3gan, resnet"
    ),
    "conditional=true": (
        "valid: attributes, 2c, adc, auxiliary, d2d-ce, label, multi-hinge, none, projection, semi-supervised, twin"
    ),
    "dataset=no/such/place": "no such option, and no such folder",
    "dataset=/": "dataset=image-folder dataset.path=/",
    "seed =3": "seed=3",
    "seed = 3": "without spaces: seed=3",
    "seed= 3": "without spaces: seed=3",
    "seed : 3": "without spaces: seed=3",
    "seed:3": "expected key=value: seed=3",
    "loss wgan-gp": "without spaces: loss=wgan-gp",
    "resume": "expected resume=<value>",
    "--steps 3": "keys have no dashes: steps=3",
    "--batch-size=16": "keys have no dashes: batch_size=16",
    "--epochs 3": "keys have no dashes: steps=3",
    "--config-name x": "experiment=<name>",
    "-cn": "experiment=<name>",
    "lr=1e-3": "did you mean optimizer.lr?",
    "epochs=3": "did you mean steps?",
    "dataset.batch_size=3": "did you mean batch_size? valid: dataset.channels",
    "~penalty": "penalty=[] selects none",
    "~foo": "foo: there is no such key",
    "~optimizer.lr": "~optimizer.lr: it cannot be removed",
    "+seed=3": "leave out the +: seed=3",
    "+loss=hinge": "leave out the +: loss=hinge",
    "optimizer.generator=adam": "chosen by optimizer/generator=<option>",
    "penalty.weight=3": "choose an option first, as in penalty=[bcr] penalty.bcr.weight=",
    "pairs.factor=3": "choose an option first, as in pairs=super-resolution pairs.factor=",
    "++pairs.factor=3": "pairs is off",
    "penalty=[r1] penalty.r1=3": "expected one of its keys: penalty.r1.<key>=",
    "batch_size=1e1": "expected an integer, as batch_size=10",
    "seed=${nope}": "there is no key nope",
    "loss=null": "a group takes the name of an option",
    "~loss": "loss is missing",
    "penalty=[r3]": "did you mean r2 or r1 or cr?",
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
    "trainer.devices=-1": "all devices that there are need trainer=ddp",
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
    "init_from=/no/such.safetensors": "init_from=/no/such.safetensors: there is no such file",
    "freeze_discriminator=1": "it needs init_from=",
    "freeze_discriminator=-1 init_from=x": "freeze_discriminator=-1; expected at least 0",
    "export.generator=true": "export.generator: there is no such key",
    "ema=power ema.std=0.5": "ema.std=0.5; expected more than 0, up to 0.288",
    "callbacks=[posthoc-ema] callbacks.posthoc-ema.stds=[0.1,0.1]": "expected one or more lengths that differ",
    "resume=/no/such/run": "there is no such run directory or checkpoint",
    "resume=.": "not a run",
    "-m resume=x": "leave out -m",
    "loss=hinge loss.smoothing=0.1": (
        "loss.smoothing: there is no such key; did you mean loss.margin? valid: loss.margin, loss.discriminator_factor"
    ),
    "loss.smoothing=1.5": "loss.smoothing=1.5; expected 0 <= smoothing < 1",
    "loss.discriminator_factor=abc": "expected a number",
    "penalty=[] penalty.r1.weight=3": "add penalty=[r1]",
    "loss=wgan-gp penalty=[] penalty.gradient.weight=3": "add penalty=[gradient]",
    "penalty=[r1] penalty.r1.weight=-1": "penalty.r1.weight=-1; expected more than 0",
    "augment=[instance-noise] augment.instance-noise.std=0": "augment.instance-noise.std=0",
    "augment=[ada] augment.ada.p=2": "augment.ada.p=2; expected 0 to 1",
    "augment=[ada] augment.ada.p=0.5 augment.ada.target=0.7": "act only where p adapts",
    "augment=[ada] loss=wgan": "ada: p follows the sign of the discriminator's logits, but Wasserstein knows only",
    "augment=[ada] dataset=ring model=mlp": "it changes images, channels x height x width; these samples are 2",
    "augment=[diffaugment] augment.diffaugment.policy=[colour]": "policy=colour: there is no such change; did you mean",
    "conditional=label dataset=gaussian model=mlp": "no such label",
    "model=mlp critic.norm=layer": "critic.norm: nothing in this experiment reads it",
    "optimizer=rmsprop optimizer.betas=[0,1]": "optimizer.betas: there is no such key",
    "optimizer.lr=-1": "lr=-1; expected more than 0",
    "optimizer.lr_schedule=lin": "did you mean linear or constant-then-linear?",
    "optimizer.betas=3": "optimizer.discriminator: ",
    "ema.decay=2": "ema.decay=2; expected 0 <= decay < 1; ema=none is off",
    "schedule.discriminator=0": "expected at least 1 move a player",
    "generator.width=0": "generator.width=0; expected at least 1",
    "generator.norm=bach": "did you mean batch?",
    "generator.resolution=16 dataset.resolution=32": "makes samples of shape [1, 16, 16], but",
    "generator.num_classes=5": "was given no label",
    "trainer.devices=0": "trainer: ",
    "trainer.accelerator=foo": "valid: auto, cpu, cuda, gpu, mps",
    "precision=16": "valid: bf16-mixed, 32-true, auto",
    "hydra/launcher=joblib": "it acts in sweeps; add -m",
    "sweep=losses": "it acts in sweeps; add -m",
    "sweep.retry=1": "it acts in sweeps; add -m",
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
    assert suggests_nothing_refused(err.removeprefix("ganrun: ").strip().replace(line, "")), err
    assert list(tmp_path.iterdir()) == [], "a refused command left something behind"


def suggests_nothing_refused(told):
    """What was refused is never offered in place of itself, and nothing is spelt as Python has it."""
    got = told.partition("=")[2].partition(";")[0].partition(":")[0] if "=" in told.split(";")[0] else ""
    refused = {got or told.partition(":")[0]}
    offered = told.partition("valid: ")[2].split(";")[0].split(", ")
    meant = told.partition("did you mean ")[2].partition("?")[0].split(" or ")
    return not refused & {*offered, *meant} - {""} and "None" not in told and "DictConfig" not in told


MEANT = {  # what is typed -> what Hydra is given
    "ema=null": "ema=none",
    "ema=false": "ema=none",
    "conditional=off": "conditional=none",
    "penalty=none": "penalty=[]",
    "penalty=[none]": "penalty=[]",
    "augment=null": "augment=[]",
    "experiment=none": "~experiment",
    "metric/features=null": "metric/features=none",
    "-m ema=null,average": "-m ema=none,average",
    "-m penalty=none,[r1,r2]": "-m penalty=[],[r1,r2]",
    "loss=null": "loss=null",
    "seed=null": "seed=null",
    "--config-dir my experiment=2026": "--config-dir my experiment='2026'",
    "--config-dir my -m experiment=1e3,2026": "--config-dir my -m experiment='1e3','2026'",
    "experiment=2026": "experiment=2026",
}


@pytest.mark.parametrize("line", MEANT)
def test_nothing_by_any_name_and_options_named_like_numbers(line, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my" / "experiment").mkdir(parents=True)
    for name in ("2026", "1e3"):
        (tmp_path / "my" / "experiment" / f"{name}.yaml").write_text("# @package _global_\nsteps: 3\n")
    assert " ".join(choices.chosen(line.split(" "))) == MEANT[line]


OWN = {  # a YAML of a user's own -> what is told about it
    "experiment: steps: 3": "my/experiment/own.yaml: add `# @package _global_` as its first line",
    "experiment: steps: 3\n# @package _global_": "my/experiment/own.yaml: line 2: this header does not act",
    "experiment: # @package: _global_\nsteps: 3": "my/experiment/own.yaml: line 1: this header does not act",
    "experiment: defaults: [{override /loss: hinge}]": "without it its defaults",
    "experiment: # @package _global_\nsteps: 3\n\tseed: 4": "my/experiment/own.yaml: line 3: found character",
    "experiment: # @package _global_\nsteps: 3\nsteps: 4": "line 3: found duplicate key steps",
    "experiment: # @package _global_\nsteps: [3": "my/experiment/own.yaml: line ",
    "experiment: hello": "it holds a text; expected keys with values",
    "experiment: ": "it holds nothing",
    "experiment: # @package _global_\nsteps: ${stepz}": "steps=${stepz}: there is no key stepz; did you mean steps",
    "experiment: # @package _global_\nloss: hinge": "`- override /loss: hinge`",
    "experiment: # @package _global_\ndefaults: [override /loss: hinje]": "did you mean hinge",
    "experiment: # @package _global_\ndefaults: [/lass: x]": "lass=x: there is no such group (in the defaults of",
    "loss: loss: {_target_: ganrun.losses.Hinge}": "my/loss/own.yaml: add `# @package _global_` as its first line",
    "loss: # @package _global_\n_target_: ganrun.losses.Hinge": "put _target_ and its settings below `loss:`",
    "dataset: dataset: {name: x}": "remove the line `dataset:` and the indent",
}


@pytest.mark.parametrize("case", OWN)
def test_a_users_own_yaml_is_told_by_file_and_line(case, tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    group, _, text = case.partition(": ")
    file = tmp_path / "my" / group / "own.yaml"
    file.parent.mkdir(parents=True)
    file.write_text(text)
    assert cli.run(["--config-dir", "my", f"{group}=own", "batch_size=16"]) == 2
    err = capfd.readouterr().err
    assert OWN[case] in err and err.count("\n") == 1, err
    assert [path.name for path in tmp_path.iterdir()] == ["my"]


def test_other_files_of_a_users_own(tmp_path, monkeypatch, capfd):
    """One with the name of ganrun's own would never act; .yml is not seen; a `~` after the flag's = is expanded."""
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "my" / "loss").mkdir(parents=True)
    own = tmp_path / "my" / "loss" / "own.yml"
    own.write_text("_target_: ganrun.losses.Hinge\n")
    assert cli.run(["--config-dir=~/my", "loss=own"]) == 2
    assert "own.yml must end in .yaml" in capfd.readouterr().err
    own.rename(own.with_suffix(".yaml"))
    assert cli.run(["--config-dir=~/my", "loss=own", "--cfg", "job"]) == 0  # it needs no header: all is below loss
    own.with_suffix(".yaml").rename(own.with_name("hinge.yaml"))
    assert cli.run(["--config-dir=~/my", "loss=wgan"]) == 2
    assert "hinge.yaml: ganrun has a file of that name" in capfd.readouterr().err


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


def test_as_a_module():
    done = subprocess.run([sys.executable, "-m", "ganrun", "--version"], capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.stderr, done.returncode) == (f"ganrun {__version__}\n", "", 0)


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


def test_a_system_without_posix_locks_is_told_what_is_needed(tmp_path):
    code = "import sys; sys.modules['fcntl'] = None; from ganrun import cli; sys.exit(cli.run(sys.argv[1:]))"
    python = [sys.executable, "-c", code]
    done = subprocess.run([*python, "run_dir=r"], cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2 and not list(tmp_path.iterdir())
    assert done.stderr.splitlines() == [
        "ganrun: linux: the command needs Linux or macOS; on Windows run it in WSL; "
        "from Python, ganrun.load_generator works here"
    ]
    done = subprocess.run([*python, "--version"], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0
