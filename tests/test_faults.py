"""Faults injected into real processes: signals, full and vanished disks, damaged files, a second owner, NaN."""

import json
import os
import random
import shutil
import signal
import subprocess
import time
from contextlib import contextmanager

import numpy as np
import pytest
import torch
from conftest import GANRUN, TINY, own_loss
from forked import Run, run
from PIL import Image

from ganrun.files.checkpoint import damage, load_checkpoint, save_checkpoint
from ganrun.files.run_dir import RunDir

ARGS = [*TINY, "run_dir=run", "dataset.limit=100", "log_every=4", "sample_every=8", "evaluate.every=8"]
ARGS += ["checkpoint.every=8", "steps=40"]
LONG = [*ARGS, "steps=1000000"]


def result(path):
    return json.loads((path / "result.json").read_text())


def step_of(checkpoint):
    return load_checkpoint(checkpoint)["global_step"]


def training(path, *args, **settings):
    """A run in path/run that has saved something and goes on."""
    going = Run(*LONG, *args, cwd=path, **settings)
    going.wait_for(path / "run" / "checkpoints" / "last.ckpt")
    return going


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """40 steps; checkpoints of steps 32 and 40."""
    path = tmp_path_factory.mktemp("finished")
    run(*ARGS, cwd=path)
    return path / "run"


@pytest.fixture
def copied(finished, tmp_path):
    shutil.copytree(finished, tmp_path / "run")
    return tmp_path / "run"


# signals

HITS = [
    (signal.SIGTERM, "process", 0),
    (signal.SIGTERM, "group", 2),
    (signal.SIGINT, "process", 2),
    (signal.SIGINT, "group", 0),
    (signal.SIGHUP, "process", 0),
]


@pytest.mark.parametrize(("number", "whom", "workers"), HITS)
def test_signal_saves_and_says_how_to_go_on(number, whom, workers, undecoded, tmp_path):
    going = training(tmp_path, *undecoded, f"dataset.num_workers={workers}")
    going.kill(number) if whom == "group" else going.send(number)
    assert going.wait() == 128 + number
    assert f"stopped by {number.name}; go on with: ganrun resume=run" in going.err
    stopped = result(tmp_path / "run")
    assert stopped["status"] == f"stopped by {number.name}" and stopped["signal"] == number
    assert step_of(tmp_path / "run" / "checkpoints" / "last.ckpt") == stopped["steps"] >= 8
    again = run("resume=run", f"steps={stopped['steps'] + 1}", cwd=tmp_path)
    assert result(tmp_path / "run")["status"] == "finished", again.err


def test_signals_at_random_moments_never_lose_their_exit_code(tmp_path):
    draw = random.Random(5)
    for i in range(8):
        going = Run(*LONG, f"run_dir=run{i}", cwd=tmp_path)
        going.wait_for(tmp_path / f"run{i}" / "metrics.jsonl")
        time.sleep(draw.random() / 3)
        going.send(signal.SIGTERM)
        assert going.wait() == 143, going.err
        assert result(tmp_path / f"run{i}")["steps"] > 0


SLOW = """
import time
from ganrun.losses import Hinge


class Slow(Hinge):
    def generator(self, real, fake):
        time.sleep(3)
        return super().generator(real, fake)
"""


def test_second_interrupt_quits_at_once(tmp_path):
    going = Run(*own_loss(tmp_path, SLOW), *LONG, "checkpoint.every=1", cwd=tmp_path)
    going.wait_for(tmp_path / "run" / "checkpoints" / "last.ckpt")
    saved = step_of(tmp_path / "run" / "checkpoints" / "last.ckpt")
    time.sleep(0.7)  # into the three seconds of the next step
    going.send(signal.SIGINT)
    time.sleep(1)
    going.send(signal.SIGINT)
    assert going.wait(timeout=2) == 130, "it waited for the step to end"
    assert step_of(tmp_path / "run" / "checkpoints" / "last.ckpt") == saved


def test_the_echo_of_an_interrupt_is_no_second_one(tmp_path):
    going = training(tmp_path)
    for _ in range(3):  # as wrappers pass it on to a group that has it already
        going.kill(signal.SIGINT)
    assert going.wait() == 130
    assert result(tmp_path / "run")["status"] == "stopped by SIGINT"


SLOW_TO_BUILD = """
import time
from ganrun.losses import Hinge


class SlowToBuild(Hinge):
    def __init__(self):
        super().__init__()
        time.sleep(2)
"""


def test_signal_between_two_jobs_is_not_lost(tmp_path):
    """The next job is being built, or has just begun: it stops after its first step."""
    own = own_loss(tmp_path, SLOW_TO_BUILD)
    going = Run(*own[:2], "-m", *own[2:], *ARGS[:-1], "run_dir=sweep", "seed=1,2", "steps=1,1000000", cwd=tmp_path)
    going.wait_for(tmp_path / "sweep" / "seed=1,steps=1000000" / ".hydra" / "config.yaml")
    going.send(signal.SIGTERM)
    assert going.wait(timeout=60) == 143
    rows = (tmp_path / "sweep" / "results.csv").read_text().splitlines()
    assert "finished" in rows[1] and "stopped by SIGTERM" in rows[2]
    assert len(rows) == 5 and all(",not started," in row for row in rows[3:])
    assert result(tmp_path / "sweep" / "seed=1,steps=1000000")["steps"] == 1


def test_signal_in_a_job_that_fails_is_not_lost(tmp_path):
    own = own_loss(tmp_path, SLOW_TO_BUILD + "        raise ValueError('broken')\n")
    going = Run(*own[:2], "-m", *own[2:], *ARGS, "run_dir=sweep", "seed=1,2", cwd=tmp_path)
    going.wait_for(tmp_path / "sweep" / "seed=1" / ".hydra" / "config.yaml")
    going.send(signal.SIGTERM)
    assert going.wait(timeout=60) == 143
    rows = (tmp_path / "sweep" / "results.csv").read_text().splitlines()
    assert len(rows) == 3 and "broken" in rows[1] and ",not started,,sweep/seed=2," in rows[2]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signal_stops_the_whole_sweep(number, tmp_path):
    going = Run("-m", "seed=1,2,3", *LONG, "run_dir=sweep", cwd=tmp_path)
    going.wait_for(tmp_path / "sweep" / "seed=1" / "checkpoints" / "last.ckpt")
    going.kill(number)
    assert going.wait() == 128 + number
    left = {".lock", "multirun.yaml", "results.csv", "results.json", "seed=1", "sweep.yaml"}
    assert {path.name for path in (tmp_path / "sweep").iterdir()} == left
    rows = (tmp_path / "sweep" / "results.csv").read_text().splitlines()[1:]
    assert [row.split("seed=")[1][0] for row in rows] == ["1", "2", "3"]
    assert f",stopped by {number.name}," in rows[0] and all(",not started," in row for row in rows[1:])
    assert "3 of 3 jobs are left; go on with: ganrun resume=sweep" in going.err.splitlines()


JOBLIB = ["hydra/launcher=joblib", "hydra.launcher.n_jobs=2", "run_dir=sweep"]


def side_by_side(tmp_path, *words):
    """A sweep whose two first jobs have begun."""
    going = Run("-m", "seed=1,2,3", *words, *JOBLIB, cwd=tmp_path)
    for seed in (1, 2):
        going.wait_for(tmp_path / "sweep" / f"seed={seed}" / "checkpoints" / "last.ckpt")
    return going


@pytest.mark.parametrize("to", ["the whole group", "the first process alone"])
def test_signal_stops_jobs_side_by_side(to, tmp_path):
    going = side_by_side(tmp_path, *LONG)
    (going.kill if to == "the whole group" else going.send)(signal.SIGTERM)
    assert going.wait(timeout=60) == 143 and going.out.splitlines()[-1] == "sweep"
    assert (tmp_path / "sweep" / "results.csv").read_text().count("stopped by SIGTERM") == 2
    assert not (tmp_path / "sweep" / "seed=3" / "checkpoints").exists()
    assert not (tmp_path / "sweep" / ".stop").exists()


def test_a_killed_process_of_a_launcher_takes_no_job_with_it(tmp_path):
    """All of the pool's processes end then; the jobs go on from what they have saved."""
    args = [*ARGS, "steps=100", "checkpoint.every=10", "sample_every=0", "evaluate.every=0"]
    going = side_by_side(tmp_path, *args)
    os.kill(json.loads((tmp_path / "sweep" / "seed=1" / ".lock").read_text())["pid"], signal.SIGKILL)
    assert going.wait(timeout=200) == 0 and going.out.splitlines()[-1] == "sweep"
    assert (tmp_path / "sweep" / "results.csv").read_text().count(",finished,") == 3
    run(*args, "seed=1", "run_dir=alone", cwd=tmp_path)
    states = [
        torch.load(tmp_path / path / "checkpoints" / "last.ckpt")["state_dict"] for path in ("alone", "sweep/seed=1")
    ]
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])


def test_killed_sweep_leaves_a_table_of_what_has_ended(tmp_path):
    going = Run("-m", "seed=1,2", "steps=8,1000000", *ARGS[:-1], "run_dir=sweep", cwd=tmp_path)
    going.wait_for(tmp_path / "sweep" / "seed=1,steps=1000000" / "checkpoints" / "last.ckpt")
    going.kill()
    going.wait()
    lines = (tmp_path / "sweep" / "results.csv").read_text().splitlines()
    assert len(lines) == 5 and "finished" in lines[1] and all(",not started," in line for line in lines[3:])


@pytest.mark.parametrize(
    ("array", "job"), [({}, "17"), ({"SLURM_ARRAY_JOB_ID": "5", "SLURM_ARRAY_TASK_ID": "2"}, "5_2")]
)
def test_usr1_saves_and_requeues_the_slurm_job(array, job, tmp_path):
    tools = tmp_path / "tools"
    tools.mkdir()
    (tools / "scontrol").write_text(
        f'#!/bin/sh\necho "$@" > {tmp_path}/asked\ncp {tmp_path}/run/result.json {tmp_path}\n'
    )
    (tools / "scontrol").chmod(0o755)
    env = {"SLURM_JOB_ID": "17", "PATH": f"{tools}:{os.environ['PATH']}", **array}
    going = training(tmp_path, env=env)
    going.kill(signal.SIGUSR1)
    assert going.wait() == 128 + signal.SIGUSR1
    assert (tmp_path / "asked").read_text() == f"requeue {job}\n"
    assert result(tmp_path)["status"] == "stopped by SIGUSR1", "the job was requeued before all was saved"
    assert f"requeued SLURM job {job}" in (tmp_path / "run" / "train.log").read_text()


# storage


@contextmanager
def mounted(path, size):
    """A small file system of its own."""
    path.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", path], capture_output=True).returncode:
        pytest.skip("mounting a file system needs root")
    try:
        yield path
    finally:
        subprocess.run(["umount", "-l", path], check=True)


def test_full_disk(tmp_path):
    with mounted(tmp_path / "disk", "3m") as disk:
        full = run(*LONG, "run_dir=disk/run", "checkpoint.keep=null", cwd=tmp_path, check=1)
        assert full.err.count("\n") == 1 and "No space left on device" in full.err
        saved = step_of(disk / "run" / "checkpoints" / "last.ckpt")
        assert f"go on from step {saved} with: ganrun resume=disk/run" in full.err
        assert not list(disk.rglob("*.partial"))
        subprocess.run(["mount", "-o", "remount,size=60m", disk], check=True)
        run("resume=disk/run", f"steps={saved + 8}", cwd=tmp_path)
        assert step_of(disk / "run" / "checkpoints" / "last.ckpt") == saved + 8
        assert result(disk / "run")["status"] == "finished"


def test_full_disk_in_a_sweep(tmp_path):
    with mounted(tmp_path / "disk", "2m"):
        full = run("-m", "seed=1,2", *LONG, "checkpoint.keep=null", "run_dir=disk/sweep", cwd=tmp_path, check=1)
    assert full.err.count("failed: cannot write") == 4 and "Traceback" not in full.err


def test_checkpoints_turn_read_only(tmp_path):
    checkpoints = tmp_path / "run" / "checkpoints"
    going = training(tmp_path)
    if subprocess.run(["mount", "--bind", checkpoints, checkpoints], capture_output=True).returncode:
        going.kill()
        pytest.skip("mounting needs root")
    try:
        subprocess.run(["mount", "-o", "remount,ro,bind", checkpoints], check=True)
        assert going.wait() == 1
        assert "cannot write run/checkpoints/" in going.err and "Read-only file system" in going.err
        saved = step_of(checkpoints / "last.ckpt")
        assert f"go on from step {saved} with: ganrun resume=run" in going.err
        assert result(tmp_path / "run")["status"] == "failed"
    finally:
        subprocess.run(["umount", "-l", checkpoints], check=True)
    run("resume=run", f"steps={saved + 1}", cwd=tmp_path)


@pytest.mark.parametrize("place", ["/sys/run", "/etc/hostname/run"])
def test_run_directory_that_cannot_be_made(place, tmp_path):
    refused = run(*ARGS, f"run_dir={place}", cwd=tmp_path, check=2)
    assert f"run_dir={place}: cannot make this directory" in refused.err and refused.err.count("\n") == 1
    assert "run_dir=<folder> chooses another place" in refused.err


def test_read_only_run_is_not_resumed(copied, tmp_path):
    with mounted(tmp_path / "disk", "9m") as disk:
        shutil.copytree(copied, disk / "run")
        subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
        refused = run("resume=disk/run", "steps=50", cwd=tmp_path, check=2)
        assert "disk/run: cannot write there: Read-only file system" in refused.err


@pytest.mark.parametrize("gone", [".", "checkpoints", "tensorboard", "samples"])
def test_directory_vanishes(gone, tmp_path):
    going = training(tmp_path)
    going.wait_for(tmp_path / "run" / "generator.yaml")  # the last file of a save
    (tmp_path / "run" / gone).rename(tmp_path / "moved")
    assert going.wait() == 1
    assert going.err.startswith("ganrun: cannot write run/") and going.err.count("\n") == 1
    where = {".": "run is gone, and with it all that was saved", "checkpoints": "its checkpoints are gone"}
    assert where.get(gone, "go on from step ") in going.err
    if gone == ".":
        assert not (tmp_path / "run").exists(), "a part of it came back"
        return
    if gone == "checkpoints":  # a resume would write over all that is left
        left = {path: path.stat().st_mtime_ns for path in (tmp_path / "run").rglob("*") if path.name != ".lock"}
        assert "its checkpoints are gone" in run("resume=run", cwd=tmp_path, check=2).err
        assert all(path.stat().st_mtime_ns == before for path, before in left.items())
        (tmp_path / "moved").rename(tmp_path / "run" / "checkpoints")
    done = step_of(tmp_path / "run" / "checkpoints" / "last.ckpt")
    run("resume=run", f"steps={done + 1}", cwd=tmp_path)
    assert result(tmp_path / "run")["steps"] == done + 1


# damaged checkpoints


def truncate(path):
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size // 2)


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 3] ^= 4
    path.write_bytes(content)  # in place: hard links see it too


@pytest.mark.parametrize("harm", [truncate, flip, lambda path: path.write_bytes(b"")])
def test_damaged_last_checkpoint_gives_way_to_the_newest_good_one(harm, copied, finished, tmp_path):
    checkpoints = copied / "checkpoints"
    good = [path for path in checkpoints.iterdir() if path.name != "last.ckpt"]
    harm(checkpoints / "last.ckpt")
    (copied / "result.json").unlink()  # as if it had been killed
    newest = max((path for path in good if not damage(path)), key=step_of).name
    refused = run("resume=run/checkpoints/last.ckpt", cwd=tmp_path, check=2)
    assert refused.err.startswith("ganrun: run/checkpoints/last.ckpt: ") and refused.err.count("\n") == 1
    again = " ".join(run("resume=run", cwd=tmp_path).out.split())
    assert "warning: run/checkpoints/last.ckpt: " in again and f"going on from run/checkpoints/{newest}" in again
    assert "going on from" in (copied / "train.log").read_text()
    assert not any(map(damage, checkpoints.iterdir()))
    own, other = (load_checkpoint(path / "checkpoints" / "last.ckpt") for path in (copied, finished))
    assert all(torch.equal(value, other["state_dict"][key]) for key, value in own["state_dict"].items())


def test_no_good_checkpoint_is_told(copied, tmp_path):
    for path in (copied / "checkpoints").iterdir():
        truncate(path)
    refused = run("resume=run", "steps=50", cwd=tmp_path, check=2)
    assert "no checkpoint can be read" in refused.err and "last.ckpt" in refused.err and "best.ckpt" in refused.err


def test_every_flipped_bit_is_noticed(finished, tmp_path):
    whole = (finished / "checkpoints" / "last.ckpt").read_bytes()
    draw = random.Random(3)
    for place in [0, len(whole) - 1, *(draw.randrange(len(whole)) for _ in range(200))]:
        content = bytearray(whole)
        content[place] ^= 1 << draw.randrange(8)
        (tmp_path / "x.ckpt").write_bytes(content)
        assert damage(tmp_path / "x.ckpt"), f"byte {place} of {len(whole)}"
    (tmp_path / "x.ckpt").write_bytes(whole)
    assert damage(tmp_path / "x.ckpt") is None


@pytest.mark.parametrize("keep", ["0", "1", "null"])
def test_retention_keeps_a_good_checkpoint_at_every_moment(keep, tmp_path):
    going = training(tmp_path, "checkpoint.every=1", f"checkpoint.keep={keep}", "sample_every=0", "evaluate.every=0")
    last, seen = tmp_path / "run" / "checkpoints" / "last.ckpt", set()
    for _ in range(100):
        seen.add(step_of(last))
    going.kill()
    going.wait()
    kept = list((tmp_path / "run" / "checkpoints").glob("step-*.ckpt"))
    assert len(seen) > 3 and step_of(last) >= max(seen)
    assert len(kept) > 3 if keep == "null" else len(kept) <= int(keep) + 1


@pytest.mark.parametrize("other", [["generator.width=16"], ["seed=9"]])
def test_checkpoint_of_another_run_is_refused(other, copied, tmp_path):
    run(*ARGS, *other, "steps=16", "run_dir=other", cwd=tmp_path)
    shutil.copy(tmp_path / "other" / "checkpoints" / "last.ckpt", copied / "checkpoints" / "foreign.ckpt")
    before = {path: path.read_bytes() for path in (copied / "checkpoints").iterdir()}
    refused = run("resume=run/checkpoints/foreign.ckpt", cwd=tmp_path, check=2)
    assert "foreign.ckpt was not made by this run's config" in refused.err and refused.err.count("\n") == 1
    assert {path: path.read_bytes() for path in (copied / "checkpoints").iterdir()} == before


def test_edited_config_is_refused(copied, tmp_path):
    config = copied / ".hydra" / "config.yaml"
    config.write_text(config.read_text().replace("seed: 0", "seed: 1"))
    assert "config.yaml was edited" in run("resume=run", "steps=41", cwd=tmp_path, check=2).err


def test_edited_data_are_refused(tmp_path):
    (tmp_path / "images").mkdir()
    draw = np.random.default_rng(0)
    for i in range(20):
        Image.fromarray(draw.integers(256, size=(16, 16, 3), dtype=np.uint8)).save(tmp_path / "images" / f"{i:02}.png")
    folder = ["dataset=image-folder", "dataset.path=images", "dataset.resolution=16", "dataset.limit=null"]
    run(*ARGS, *folder, "steps=2", cwd=tmp_path)
    run("resume=run", "steps=3", "dataset.num_workers=1", cwd=tmp_path)
    Image.fromarray(draw.integers(256, size=(17, 16, 3), dtype=np.uint8)).save(tmp_path / "images" / "15.png")
    assert "the data set has changed: other contents" in run("resume=run", "steps=4", cwd=tmp_path, check=2).err


def test_extended_run_that_is_killed_goes_on_to_its_new_end(copied, finished, tmp_path):
    going = Run("resume=run", "steps=1000000", "checkpoint.every=0", cwd=tmp_path)
    while len((copied / "metrics.jsonl").read_text().splitlines()) < 20:
        time.sleep(0.01)
    going.kill()
    going.wait()
    again = Run("resume=run", "checkpoint.every=8", cwd=tmp_path)
    again.wait_for(copied / "checkpoints" / "step-000048.ckpt")
    again.kill()
    again.wait()
    run("resume=run", "steps=56", cwd=tmp_path, check=None)
    assert step_of(copied / "checkpoints" / "last.ckpt") >= 48


def test_files_that_a_user_added_are_left_alone(copied, tmp_path):
    checkpoints = copied / "checkpoints"
    for name in ("step-000032-good.ckpt", "step-abc.ckpt", "step-0032.ckpt"):
        shutil.copy(checkpoints / "step-000032.ckpt", checkpoints / name)
    (copied / "result.json").write_text("{")
    (copied / "metrics.jsonl").write_bytes((copied / "metrics.jsonl").read_bytes() + b'{"no": 1}\n\xff}\n')
    run("resume=run", "steps=64", cwd=tmp_path)
    names = {path.name for path in checkpoints.iterdir()}
    assert {"step-000032-good.ckpt", "step-abc.ckpt", "step-0032.ckpt", "step-000056.ckpt"} <= names
    assert "step-000040.ckpt" not in names and result(copied)["status"] == "finished"


def test_only_the_runs_own_names_are_its_checkpoints(tmp_path):
    (tmp_path / "checkpoints").mkdir()
    for name in (
        "step-32",
        "step-0032",
        "step-000032",
        "step-00000032",
        "step-000008",
        "step-1000000",
        "step-x",
        "step--1",
    ):
        (tmp_path / "checkpoints" / f"{name}.ckpt").touch()
    names = [path.stem for path in RunDir(tmp_path).step_checkpoints()]
    assert names == ["step-000008", "step-000032", "step-1000000"]


def test_finished_run_needs_nothing_whatever_ended_it(copied, tmp_path):
    ended = result(copied) | {"signal": 15}
    (copied / "result.json").write_text(json.dumps(ended))
    assert "nothing to do" in run("resume=run", cwd=tmp_path).out


def test_start_from_a_damaged_run_is_told(copied, tmp_path):
    truncate(copied / "checkpoints" / "last.ckpt")
    done = run(*ARGS, "run_dir=tuned", "init_from=run", "steps=1", cwd=tmp_path)
    assert "warning: init_from=run: run/checkpoints/last.ckpt: " in " ".join(done.out.split())


SINKS = f"""
import os, runpy, sys

sink = sys.argv.pop(1)
if sink == "pipe":
    reader, writer = os.pipe()
    os.close(reader)
    os.dup2(writer, 1)
elif sink == "full":
    os.dup2(os.open("/dev/full", os.O_WRONLY), 1)
else:
    os.closerange(0, 3)
    sys.stdin = sys.stdout = sys.stderr = None  # as Python finds them when it starts
runpy.run_path({str(GANRUN)!r}, run_name="__main__")
"""


def test_lost_standard_output_does_not_end_a_run(tmp_path):
    (tmp_path / "script.py").write_text(SINKS)
    script = {"cwd": tmp_path, "script": tmp_path / "script.py"}
    running = {name: Run(name, *ARGS, "steps=2", f"run_dir={name}", **script) for name in ("pipe", "full", "closed")}
    assert [each.wait() for each in running.values()] == [0, 0, 0]
    assert all(result(tmp_path / name)["status"] == "finished" for name in running)


def test_left_over_variables_of_a_launcher_change_nothing(tmp_path):
    env = {"RANK": "3", "WORLD_SIZE": "4", "LOCAL_RANK": "3", "SLURM_PROCID": "3"}
    run(*ARGS, "steps=2", cwd=tmp_path, env=env)
    assert (tmp_path / "run" / "metrics.jsonl").exists() and list((tmp_path / "run" / "tensorboard").glob("events*"))


# owners


def test_a_run_has_one_owner(tmp_path):
    going = training(tmp_path)
    refused = run("resume=run", cwd=tmp_path, check=2)
    assert f'run is being trained by another process: {{"pid": {going.process.pid}, "host": ' in refused.err
    assert refused.err.count("\n") == 1
    going.process.kill()  # the process alone: its workers would outlive it
    going.wait()
    saved = step_of(tmp_path / "run" / "checkpoints" / "last.ckpt")
    run("resume=run", f"steps={saved + 8}", cwd=tmp_path)


def test_orphaned_workers_end_and_own_nothing(undecoded, tmp_path):
    going = training(tmp_path, *undecoded, "dataset.num_workers=2")
    assert len(subprocess.run(["pgrep", "-g", str(going.group)], capture_output=True).stdout.split()) >= 3
    going.process.kill()
    going.wait()
    until = time.monotonic() + 30
    while subprocess.run(["pgrep", "-g", str(going.group)], capture_output=True).stdout and time.monotonic() < until:
        time.sleep(0.1)
    assert not subprocess.run(["pgrep", "-g", str(going.group)], capture_output=True).stdout, "workers outlive the run"
    saved = step_of(tmp_path / "run" / "checkpoints" / "last.ckpt")
    run("resume=run", f"steps={saved + 8}", cwd=tmp_path)


# numbers

SPOILT = """
from ganrun.losses import Hinge


class Spoilt(Hinge):
    def __init__(self, at: int, value: str, where: str):
        super().__init__()
        self.at, self.value, self.where, self.calls = at, float(value), where, -1  # the first call checks shapes

    def discriminator(self, real, fake):
        self.calls += 1
        loss = super().discriminator(real, fake)
        if self.calls == self.at and self.where == "gradient":
            fake.register_hook(lambda gradient: gradient * self.value)
        return loss * self.value if self.calls == self.at and self.where == "loss" else loss
"""


@pytest.mark.parametrize("every", [1, 1000])
@pytest.mark.parametrize(
    ("where", "value", "named"),
    [
        ("loss", "nan", "discriminator/adversarial (move 1 of 2) is nan"),
        ("loss", "inf", "discriminator/adversarial (move 1 of 2) is inf"),
        ("gradient", "nan", "discriminator/gradient_norm (move 1 of 2) is nan"),
        ("gradient", "inf", "discriminator/gradient_norm (move 1 of 2) is "),  # inf - inf is nan
        ("weight", "inf", "discriminator/weight_norm (move 1 of 2) is "),  # looked at in steps that log or save
    ],
)
def test_not_finite(where, value, named, every, tmp_path):
    own = own_loss(tmp_path, SPOILT, at=21, value="1", where="nowhere")
    args = [*own, *ARGS, f"log_every={every}", "sample_every=0", "evaluate.every=0"]
    spoil = [f"loss.where={where}", f"loss.value='{value}'"]
    if where == "weight":  # a learning rate that overflows in the first step
        args, spoil = [arg for arg in args if "checkpoint" not in arg], ["optimizer.discriminator.lr=1e38"]
        named = named if every == 1 else "generator/adversarial (move 2 of 2) is "  # what the weight spoils first
    failed = run(*args, *spoil, cwd=tmp_path, check=3)
    assert failed.err.count("\n") == 1 and named in failed.err
    step = 1 if where == "weight" else 21
    assert f"at step {step}; " in failed.err
    assert result(tmp_path / "run")["steps"] == step and named in result(tmp_path / "run")["reason"]
    logged = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert all(line["step"] < step for line in logged)
    if where != "weight":
        assert "the last finite state is run/checkpoints/last.ckpt, step 16" in failed.err
        weights = load_checkpoint(tmp_path / "run" / "checkpoints" / "last.ckpt")["state_dict"].values()
        assert all(value.isfinite().all() for value in weights)


def test_not_finite_in_a_sweep_is_one_failed_job(tmp_path):
    rates = "optimizer.discriminator.lr=1e38,1e-4"
    done = run("-m", rates, *ARGS, "run_dir=sweep", cwd=tmp_path, check=1)
    lines = (tmp_path / "sweep" / "results.csv").read_text().splitlines()
    assert "failed" in lines[1] and "generator/adversarial" in lines[1] and "finished" in lines[2], done.err


# determinism and upgrades


@pytest.mark.parametrize("extra", [[], ["deterministic=true", "loss=wgan-gp", "augment=[instance-noise]"]])
def test_same_config_same_bits(extra, tmp_path):
    for name in ("one", "other"):
        run(*ARGS, *extra, "steps=12", f"run_dir={name}", cwd=tmp_path)
    one, other = (load_checkpoint(tmp_path / name / "checkpoints" / "last.ckpt") for name in ("one", "other"))
    assert all(torch.equal(value, other["state_dict"][key]) for key, value in one["state_dict"].items())
    run(*ARGS, *extra, "steps=12", "seed=1", "run_dir=third", cwd=tmp_path)
    third = load_checkpoint(tmp_path / "third" / "checkpoints" / "last.ckpt")["state_dict"]
    assert any(not torch.equal(value, third[key]) for key, value in one["state_dict"].items())


def test_run_directory_of_another_format(copied, tmp_path):
    hydra = copied / ".hydra" / "hydra.yaml"
    text = hydra.read_text()
    assert "format: 2\n" in text
    for other, got in ((text.replace("format: 2", "format: 9"), 9), (text.split("ganrun:\n  format")[0], 0)):
        hydra.write_text(other)
        refused = run("resume=run", "steps=50", cwd=tmp_path, check=2)
        assert f"run: run directory of format {got}; this ganrun reads format 2" in refused.err


def test_checkpoint_of_another_format(copied, tmp_path):
    last = copied / "checkpoints" / "last.ckpt"
    content = load_checkpoint(last)
    content["ganrun"]["format"] = 7
    save_checkpoint(content, last)
    refused = run("resume=run/checkpoints/last.ckpt", "steps=50", cwd=tmp_path, check=2)
    assert "last.ckpt: checkpoint format 7; this ganrun reads format 3" in refused.err
    torch.save({**content, "ganrun": {"format": 1}}, last)  # as the first format was written
    refused = run("resume=run/checkpoints/last.ckpt", "steps=50", cwd=tmp_path, check=2)
    assert "not written by ganrun with checkpoint format 3" in refused.err


# hostile files


def test_hostile_run_directory_runs_nothing(copied, tmp_path):
    config = copied / ".hydra" / "config.yaml"
    text = config.read_text()
    canary = tmp_path / "canary"
    evil = f"  evil: {{_target_: os.system, _args_: ['touch {canary}']}}"
    config.write_text(text.replace("\nloss:\n", f"\nloss:\n{evil}\n"))
    refused = run("resume=run", "steps=50", cwd=tmp_path, check=2)
    assert "loss.evil._target_ names os.system" in refused.err and refused.err.count("\n") == 1
    config.write_text(text.replace("seed: 0", f"seed: !!python/object/apply:os.system ['touch {canary}']"))
    refused = run("resume=run", "steps=50", cwd=tmp_path, check=2)
    assert "config.yaml: cannot be read" in refused.err and refused.err.count("\n") == 1
    assert not canary.exists()


def test_own_classes_are_resumed_when_they_are_trusted(tmp_path):
    run(*own_loss(tmp_path, "from ganrun.losses import Hinge\nclass Mine(Hinge):\n    pass\n"), *ARGS, cwd=tmp_path)
    refused = run("--config-dir", "my", "resume=run", "steps=41", cwd=tmp_path, check=2)
    assert "loss._target_ names own_losses.Mine" in refused.err and "trust=[" in refused.err
    run("--config-dir", "my", "resume=run", "steps=41", "trust=[own_losses]", cwd=tmp_path)
    assert result(tmp_path / "run")["steps"] == 41


HUGE = """
import torch
from ganrun.losses import NonSaturating
class Huge(NonSaturating):
    calls = 0
    def generator(self, real, fake):
        Huge.calls += 1
        if Huge.calls > 12:
            torch.empty(2**46)  # 256 TiB
        return super().generator(real, fake)
"""


@pytest.mark.parametrize(
    ("words", "advice"),
    [
        (
            [],
            "with 16 images a pass on cpu; give micro_batch=8, which makes a step of smaller passes; go on from ",
        ),
        (["batch_size=12", "micro_batch=6"], "in step 6, with 6 images a pass on cpu; give micro_batch=4, which"),
        (["batch_size=1", "critic.norm=none"], "give smaller networks or images; "),
    ],
    ids=["whole", "passes", "one-image"],
)
def test_out_of_memory(words, advice, tmp_path):
    failed = run(*own_loss(tmp_path, HUGE), *ARGS, *words, cwd=tmp_path, check=1)
    assert "out of memory in step " in failed.err and advice in failed.err and failed.err.count("\n") == 1
    assert result(tmp_path / "run")["status"] == "failed" and "out of memory" in result(tmp_path / "run")["reason"]
