"""Whole runs as subprocesses: the run directory, exact resume, sweeps, the wheel."""

import csv
import json
import shutil
import signal
import subprocess
import sys
import zipfile

import numpy as np
import pytest
import torch
import yaml
from conftest import ROOT, TINY, ganrun, last_line
from forked import Run
from forked import run as run_forked
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import ganrun as package
from ganrun import cli
from ganrun.commands.train import sweep
from ganrun.config.groups import LAUNCHERS

RUN = [*TINY, "log_every=4", "sample_every=8", "checkpoint.every=8", "evaluate.every=8", "dataset.limit=100"]
RUN += ["dataset.flip=true"]  # 100 samples at 16 a batch: epochs end within batches


def state(run):
    return torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)


def assert_same_state(a, b):
    """Weights, averages and optimizer states to the bit."""
    a, b = state(a), state(b)
    assert a["global_step"] == b["global_step"]
    assert a["state_dict"].keys() == b["state_dict"].keys() and any(k.startswith("ema.") for k in a["state_dict"])
    for key, value in a["state_dict"].items():
        assert torch.equal(value, b["state_dict"][key]), key
    for one, other in zip(a["optimizer_states"], b["optimizer_states"], strict=True):
        assert one["state"].keys() == other["state"].keys() and one["state"]
        for index, values in one["state"].items():
            for key, value in values.items():
                assert torch.equal(torch.as_tensor(value), torch.as_tensor(other["state"][index][key])), (index, key)


def scalars(run, tag):
    events = EventAccumulator(str(run / "tensorboard")).Reload()
    return [event.step for event in events.Scalars(tag)]


def metrics(run):
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def table(sweep):
    return list(csv.DictReader((sweep / "results.csv").read_text().splitlines()))


@pytest.fixture(scope="session")
def reference(tmp_path_factory):
    """40 steps without a stop."""
    path = tmp_path_factory.mktemp("reference")
    done = ganrun(*RUN, "steps=40", "run_dir=run", cwd=path)
    assert last_line(done) == "run"
    return path / "run"


def test_run_directory(reference):
    files = {p.relative_to(reference).as_posix() for p in reference.rglob("*") if p.is_file()}
    board = {name for name in files if name.startswith("tensorboard/")}
    assert files - board == {
        *(f".hydra/{name}.yaml" for name in ("config", "overrides", "hydra")),
        *(f"checkpoints/{name}.ckpt" for name in ("last", "best", "step-000032", "step-000040")),
        *(f"samples/{name}.png" for name in ("step-000008", "step-000016", "step-000024", "step-000032")),
        *("samples/step-000040.png", "samples/final.png"),
        *(".lock", "train.log", "metrics.jsonl", "generator.safetensors", "generator.yaml", "result.json"),
        *("best.safetensors", "best.yaml"),
    }
    assert len([name for name in board if "events" in name]) == 1
    result = json.loads((reference / "result.json").read_text())
    assert result["status"] == "finished" and result["steps"] == 40 and result["images_per_second"] > 0
    score = result["scores"]["sliced-wasserstein"]
    assert 0 < score["best"] <= score["final"] and score["protocol"]["num_fake"] == 64
    logged = [line["step"] for line in metrics(reference) if "generator/adversarial" in line]
    assert logged == list(range(4, 41, 4)) == scalars(reference, "generator/adversarial")
    assert [line["step"] for line in metrics(reference) if "score/sliced-wasserstein" in line] == [8, 16, 24, 32, 40]
    events = EventAccumulator(str(reference / "tensorboard"), size_guidance={"images": 0}).Reload()
    assert [image.step for image in events.Images("samples")] == [8, 16, 24, 32, 40]
    assert "_hparams_/session_start_info" in events.summary_metadata
    assert events.Scalars("hp/sliced-wasserstein")[-1].value == pytest.approx(score["final"])
    config = yaml.safe_load((reference / ".hydra" / "config.yaml").read_text())
    assert config["steps"] == 40 and config["dataset"]["limit"] == 100


def test_checkpoint_is_plain_and_generator_is_the_average(reference):
    content = state(reference)  # weights_only: tensors and plain containers
    assert content["ganrun"]["format"] == 3 and content["global_step"] == 40
    generator = package.load_generator(reference / "generator.safetensors")
    for key, value in generator.generator.state_dict().items():
        assert torch.equal(value, content["state_dict"][f"ema.average.0.{key}"])
    live = content["state_dict"]["recipe.generator.to_image.0.weight"]
    assert not torch.equal(live, generator.generator.to_image[0].weight)


def test_generator_files_alone_make_the_grid(reference, tmp_path):
    for name in ("generator.safetensors", "generator.yaml"):
        shutil.copy(reference / name, tmp_path)
    code = (
        "import sys, ganrun; g = ganrun.load_generator('generator.safetensors'); x = g.sample(5, seed=3)\n"
        "assert x.shape == (5, 1, 16, 16) and x.abs().max() <= 1, x.shape\n"
        "assert not {'sklearn', 'pytorch_lightning', 'hydra', 'torchvision'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True, timeout=120)


def test_resume_after_kill_is_exact(reference, tmp_path):
    args = [*RUN, "steps=40", "run_dir=run"]
    run = tmp_path / "run"
    going = Run(*args, cwd=tmp_path)
    going.wait_for(run / "checkpoints" / "step-000016.ckpt")
    going.kill()
    going.wait()
    before = (run / ".hydra" / "overrides.yaml").read_bytes()
    killed_at = state(run)["global_step"]
    done = ganrun("resume=run", cwd=tmp_path)
    assert last_line(done) == "run"
    assert killed_at < 40  # else nothing was tested
    assert_same_state(reference, run)
    assert (run / ".hydra" / "overrides.yaml").read_bytes() == before
    logged = [line["step"] for line in metrics(run) if "generator/adversarial" in line]
    assert logged == list(range(4, 41, 4)) == scalars(run, "generator/adversarial")
    names = sorted(path.name for path in (run / "checkpoints").iterdir())
    assert names == ["best.ckpt", "last.ckpt", "step-000032.ckpt", "step-000040.ckpt"]
    final = [np.asarray(Image.open(path / "samples" / "final.png")) for path in (run, reference)]
    assert np.array_equal(*final)


PATHS = {
    "prepared": [],
    "streamed": ["dataset.cache=null", "dataset.num_workers=2"],
    "decoded at the start": ["dataset.cache=null"],
}


def test_every_path_of_the_data_trains_the_same_and_resumes_on_any_other(tmp_path):
    (tmp_path / "images").mkdir()
    for i in range(20):
        noise = Image.effect_noise((20, 20), 5 + 10 * i)
        noise.resize((20 + i, 20)).save(tmp_path / "images" / f"{i}.png")
    folder = [*TINY, "dataset=image-folder", "dataset.path=images", "dataset.resolution=16", "dataset.flip=true"]
    folder += ["dataset.random_crop=2", "steps=4", "checkpoint.every=2", "checkpoint.keep=null"]
    runs = []
    for name, settings in PATHS.items():
        runs.append(tmp_path / name.replace(" ", "-"))
        ganrun(*folder, *settings, f"run_dir={runs[-1].name}", cwd=tmp_path)
    for run in runs[1:]:
        assert_same_state(runs[0], run)
    for run, settings in zip(runs, [PATHS["streamed"], ["dataset.cache=cache", "dataset.num_workers=0"]], strict=False):
        done = ganrun(f"resume={run.name}/checkpoints/step-000002.ckpt", *settings, cwd=tmp_path)
        assert last_line(done) == run.name
        assert_same_state(runs[2], run)


def test_extended_run_equals_one_with_its_schedule_horizon(tmp_path):
    decay = [*RUN, "optimizer.lr_schedule=linear", "augment=[instance-noise]"]
    ganrun(*decay, "steps=11", "run_dir=short", "optimizer.decay_steps=50", cwd=tmp_path)  # 11: between checkpoints
    ganrun("resume=short", "steps=18", cwd=tmp_path)
    horizon = ["optimizer.decay_steps=50", "augment.instance-noise.decay_steps=11"]
    ganrun(*decay, *horizon, "steps=18", "run_dir=long", cwd=tmp_path)
    assert_same_state(tmp_path / "long", tmp_path / "short")
    again = ganrun("resume=short", cwd=tmp_path)
    assert "nothing to do" in again.stdout and last_line(again) == "short"
    refused = ganrun("resume=short", "steps=5", cwd=tmp_path, check=2)
    assert "at step 18 already" in refused.stderr


def test_resume_from_an_earlier_checkpoint(reference, tmp_path):
    shutil.copytree(reference, tmp_path / "run")
    done = ganrun("resume=run/checkpoints/step-000032.ckpt", cwd=tmp_path)
    assert last_line(done) == "run"
    assert_same_state(reference, tmp_path / "run")
    logged = [line["step"] for line in metrics(tmp_path / "run") if "generator/adversarial" in line]
    assert logged == list(range(4, 41, 4)) == scalars(tmp_path / "run", "generator/adversarial")


def test_resume_refuses_what_it_may_not_change(reference, tmp_path):
    before = (reference / "result.json").read_bytes()
    refused = ganrun(
        f"resume={reference}", "loss=hinge", "batch_size=32", "log_every=7", "seed=0", cwd=tmp_path, check=2
    )
    assert "loss: got hinge, had non-saturating" in refused.stderr and "batch_size: got 32, had 16" in refused.stderr
    assert "seed" not in refused.stderr.split("it may change")[0] and refused.stderr.count("\n") == 1
    unknown = ganrun(f"resume={reference}", "stepz=50", cwd=tmp_path, check=2)
    assert "did you mean steps" in unknown.stderr
    assert (reference / "result.json").read_bytes() == before


def test_sigterm_saves_and_says_how_to_go_on(reference, tmp_path):
    run = tmp_path / "run"
    going = Run(*RUN, "steps=100000", "run_dir=run", cwd=tmp_path)
    going.wait_for(run / "checkpoints" / "last.ckpt")
    going.send(signal.SIGTERM)
    assert going.wait(timeout=60) == 143 and "ganrun resume=run" in going.err
    stopped = json.loads((run / "result.json").read_text())
    assert stopped["status"] == "stopped by SIGTERM" and stopped["steps"] == state(run)["global_step"]


def test_init_from_starts_from_another_runs_weights(reference, tmp_path):
    still = ["optimizer.lr=1e-12", "ema.warmup=1", "steps=1"]
    ganrun(*RUN, *still, f"init_from={reference}", "run_dir=tuned", cwd=tmp_path)
    tuned, source = state(tmp_path / "tuned"), state(reference)
    assert tuned["global_step"] == 1
    for key, value in source["state_dict"].items():
        if "running" not in key and "num_batches" not in key:
            close = 1e-6 if key.startswith("recipe.") else 2e-3  # the average takes one step towards the weights
            assert torch.allclose(tuned["state_dict"][key], value, atol=close), key
    other = ganrun(f"init_from={reference}", "model=mlp", "discriminator.width=48", "steps=1", cwd=tmp_path, check=2)
    assert "none of its layers has the shape of one here: " in other.stderr


def test_init_from_other_shapes_copies_what_fits(reference, tmp_path):
    grown = [*RUN, f"init_from={reference}", "dataset.channels=3", "steps=1", "optimizer.lr=1e-12", "ema=none"]
    done = ganrun(*grown, "run_dir=colour", cwd=tmp_path)
    told = " ".join(done.stdout.split())
    assert "tensors are copied; not copied: " in told and " there, " in told
    one, other = (state(path)["state_dict"] for path in (reference, tmp_path / "colour"))
    weights = [name for name in other if name.startswith("recipe.") and other[name].dim() > 1]
    alike = [name for name in weights if other[name].shape == one[name].shape]
    assert all(torch.allclose(other[name], one[name], atol=1e-6) for name in alike) and len(alike) == len(weights) - 2


def test_two_runs_in_one_second_get_two_directories(tmp_path):
    both = [Run(*TINY, "steps=1", "dataset.limit=100", cwd=tmp_path) for _ in range(2)]
    assert [process.wait() for process in both] == [0, 0]
    lines = [process.out.splitlines()[-1] for process in both]
    assert len(set(lines)) == 2
    assert all((tmp_path / line / "result.json").exists() for line in lines)
    refused = ganrun("steps=1", f"run_dir={lines[0]}", cwd=tmp_path, check=2)
    assert f"resume={lines[0]}" in refused.stderr


def test_sweep_survives_a_failure(tmp_path):
    args = [*TINY, "dataset.limit=64", "steps=2", "run_dir=sweep"]
    done = ganrun("-m", "loss=hinge,wgan-gp", "dataset.resolution=16,30", *args, cwd=tmp_path, check=1)
    assert last_line(done) == "sweep"
    rows = table(tmp_path / "sweep")
    assert [row["status"] for row in rows] == ["finished", "failed", "finished", "failed"]
    assert rows[2]["overrides"].startswith("loss=wgan-gp dataset.resolution=16")
    assert all(float(row["sliced-wasserstein"]) > 0 for row in rows[::2])
    assert all("dcgan cannot build it" in row["reason"] for row in rows[1::2])
    assert done.stderr.count("dcgan cannot build it") == 4  # as it happens, and in the list at the end
    assert all((tmp_path / row["path"] / "generator.yaml").exists() for row in rows[::2])


def test_jobs_of_a_sweep_side_by_side_are_the_same_runs(tmp_path):
    args = ["-m", "loss=hinge,wgan-gp", "dataset.resolution=16,30", *TINY, "dataset.limit=64", "steps=2"]
    ganrun(*args, "run_dir=one", cwd=tmp_path, check=1)
    joblib = ["hydra/launcher=joblib", "hydra.launcher.n_jobs=2", "run_dir=both"]
    done = ganrun(*args, *joblib, cwd=tmp_path, check=1)
    assert last_line(done) == "both"
    one, both = (table(tmp_path / name) for name in ("one", "both"))
    assert [row["status"] for row in both] == ["finished", "failed"] * 2
    for key in ("status", "sliced-wasserstein", "reason"):
        assert [row[key] for row in one] == [row[key] for row in both]
    name = "loss=wgan-gp,dataset.resolution=16"
    assert_same_state(tmp_path / "one" / name, tmp_path / "both" / name)


@pytest.mark.parametrize("launcher", ["another", "ray"])
def test_a_launcher_that_is_not_installed(launcher, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(LAUNCHERS, "another", ("unlike all others", "cluster"))
    monkeypatch.setattr(sweep, "find_spec", lambda name: None)
    assert cli.run(["-m", "seed=1,2", f"hydra/launcher={launcher}"]) == 2
    assert (
        capsys.readouterr().err == f"ganrun: hydra/launcher={launcher}: not installed; pip install 'ganrun[cluster]'\n"
    )
    assert not list(tmp_path.iterdir())


def test_sweep_over_experiments(tmp_path):
    args = ["dataset.limit=64", "steps=2", "batch_size=8", "evaluate.num_samples=8", "generator.width=8"]
    done = ganrun("-m", "experiment=scalar-gan", "seed=1,2", *args, cwd=tmp_path)
    rows = table(tmp_path / last_line(done))
    assert [row["status"] for row in rows] == ["finished", "finished"]
    assert float(rows[0]["sliced-wasserstein"]) != float(rows[1]["sliced-wasserstein"])


FROM_SITE = """
import sys
from pathlib import Path

def ours():
    return [name for name in sys.modules if name.partition(".")[0] == "ganrun"]

for name in ours():  # this process was forked with them
    del sys.modules[name]
sys.path.insert(0, sys.argv[1])
from ganrun import cli
code = cli.run(sys.argv[2:])
assert all(Path(sys.modules[name].__file__).is_relative_to(sys.argv[1]) for name in ours())
sys.exit(code)
"""


def test_wheel_runs_anywhere(tmp_path):
    build = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "-q", "-w", tmp_path, ROOT]
    subprocess.run(build, check=True, timeout=300)
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    shipped = {f"ganrun/{path.relative_to(ROOT).as_posix()}" for path in (ROOT / "configs").rglob("*.yaml")}
    shipped |= {p.relative_to(ROOT).as_posix() for p in (ROOT / "ganrun" / "commands" / "report" / "page").iterdir()}
    assert shipped <= names
    site = tmp_path / "site"
    install = [sys.executable, "-m", "pip", "install", "--no-deps", "-q", "--target", site, wheel]
    subprocess.run(install, check=True, timeout=300)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (tmp_path / "script.py").write_text(FROM_SITE)
    args = [str(site), *TINY, "steps=2", "dataset.limit=64", "run_dir=run"]
    run_forked(*args, cwd=elsewhere, script=tmp_path / "script.py")
    assert (elsewhere / "run" / "generator.safetensors").exists()


def test_two_processes_share_a_run_and_its_resume(tmp_path):
    both = ["trainer=ddp", "trainer.devices=2", "trainer.accelerator=cpu"]
    done = ganrun(*TINY, *both, "dataset.limit=100", "steps=3", "run_dir=run", cwd=tmp_path)
    assert last_line(done) == "run" and done.stdout.count("status ") == 1
    done = ganrun("resume=run", "steps=5", cwd=tmp_path)
    assert last_line(done) == "run" and done.stdout.count("status ") == 1
    assert state(tmp_path / "run")["global_step"] == 5
    assert [path.name for path in tmp_path.iterdir()] == ["run"], "a second output tree"
    alone = ganrun("resume=run", "steps=6", "trainer.devices=1", cwd=tmp_path, check=2)
    assert "trainer.devices: got 1, had 2" in alone.stderr


def test_a_thread_trains_resumes_and_samples(tmp_path):
    code = """
import sys, threading
from ganrun.cli import run
tiny = ["generator.width=8", "discriminator.width=8", "batch_size=16", "metric=[]"]
lines = [[*tiny, "steps=2", "run_dir=r"], ["resume=r", "steps=3"], ["sample", "from=r", "num=4"]]
codes = []
thread = threading.Thread(target=lambda: codes.extend(map(run, lines)))
thread.start()
thread.join()
sys.exit(codes != [0, 0, 0])
"""
    (tmp_path / "script.py").write_text(code)
    run_forked(cwd=tmp_path, script=tmp_path / "script.py")
    assert "trained in a thread" in (tmp_path / "r" / "train.log").read_text()
