"""Sweeps on many machines: by submitit, as SLURM and its stand-in start jobs, and by a Ray cluster of two workers."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import forked
import pytest
import slurm
import torch
from conftest import TINY, ganrun
from forked import Run
from test_sweep import assert_same_weights, begun, table

from ganrun.commands.train import workers
from ganrun.commands.train.workers import share_gpus

ARGS = [*TINY, "dataset.limit=64", "steps=100", "checkpoint.every=10", "sample_every=0", "evaluate.every=0"]
SEEDS = (1, 2)
SWEEP = ["-m", "seed=1,2", *ARGS, "run_dir=sweep"]


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """The same runs, each by itself."""
    path = tmp_path_factory.mktemp("plain")
    for seed in SEEDS:
        ganrun(*ARGS, f"seed={seed}", f"run_dir=seed={seed}", cwd=path)
    return path


def owner(run: Path) -> int:
    """The process that trains a run."""
    return json.loads((run / ".lock").read_text())["pid"]


def saved(run: Path) -> Path:
    return run / "checkpoints" / "last.ckpt"


def assert_as_plain(plain, sweep):
    assert [row["status"] for row in table(sweep)] == ["finished"] * len(SEEDS)
    for seed in SEEDS:
        assert_same_weights(plain / f"seed={seed}", sweep / f"seed={seed}")
    assert {ended for _, ended in begun(sweep).values()} == {1}


@pytest.mark.parametrize(("launcher", "killed"), [("submitit_local", True), ("submitit_slurm", False)])
def test_preempted_and_killed_jobs_of_a_queue_lose_nothing(launcher, killed, plain, tmp_path):
    """One is told by SIGUSR2 in the middle of training: it saves and is queued again. Another is killed, and its place
    in the queue is lost; once no job is at work it is started again."""
    env = slurm.install(tmp_path / "slurm") if launcher == "submitit_slurm" else None
    going = Run(*SWEEP, f"hydra/launcher={launcher}", cwd=tmp_path, env=env)
    preempted, other = (tmp_path / "sweep" / f"seed={seed}" for seed in SEEDS)
    hits = {preempted: signal.SIGUSR2} | ({other: signal.SIGKILL} if killed else {})
    while hits:
        assert going.process.is_alive(), going.err
        for run in [run for run in hits if saved(run).exists()]:
            os.kill(owner(run), hits.pop(run))
        time.sleep(0.01)
    assert going.wait() == 0, going.err
    assert ("a launcher's process died" in going.err) == killed
    log = (preempted / "train.log").read_text()
    assert "stopped by SIGUSR2" in log and log.count("start at step") == 2
    assert_as_plain(plain, tmp_path / "sweep")


def test_a_signal_to_the_first_process_stops_jobs_of_a_queue(tmp_path):
    going = Run(*SWEEP, "steps=100000", "hydra/launcher=submitit_local", cwd=tmp_path)
    for seed in SEEDS:
        going.wait_for(saved(tmp_path / "sweep" / f"seed={seed}"))
    going.send(signal.SIGTERM)
    assert going.wait() == 143, going.err
    assert "2 of 2 jobs are left; go on with: ganrun resume=sweep" in going.err
    assert {row["status"] for row in table(tmp_path / "sweep")} == {"stopped by SIGTERM"}


@pytest.fixture
def ray_cluster(tmp_path):
    """The address of a cluster of two workers."""
    ray, port = Path(sys.executable).parent / "ray", 20000 + os.getpid() % 20000
    place = Path("/tmp") / f"ray-{os.getpid()}"  # sockets need short names
    words = ["--head", f"--port={port}", "--include-dashboard=false", f"--temp-dir={place}"]
    words += ["--num-cpus=2", "--num-gpus=0", "--object-store-memory=100000000"]
    try:
        done = subprocess.run([ray, "start", *words], capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
        yield f"127.0.0.1:{port}"
    finally:
        subprocess.run([ray, "stop", "--force"], capture_output=True)
        shutil.rmtree(place, ignore_errors=True)


@pytest.mark.soak
def test_a_killed_worker_of_ray_loses_nothing(ray_cluster, plain, tmp_path):
    address = f"hydra.launcher.ray.init.address={ray_cluster}"
    going = Run(*SWEEP, "hydra/launcher=ray", address, cwd=tmp_path)
    going.wait_for(saved(tmp_path / "sweep" / "seed=1"))
    os.kill(owner(tmp_path / "sweep" / "seed=1"), signal.SIGKILL)
    assert going.wait() == 0, going.err
    log = (tmp_path / "sweep" / "seed=1" / "train.log").read_text()
    assert log.count("start at step") == 2
    assert_as_plain(plain, tmp_path / "sweep")


TAKE_A_TURN = """
import os, sys, time
from pathlib import Path
from ganrun.commands.train.workers import share_gpus

share_gpus(Path("."), ["3", "5"], 1)
Path("new-" + sys.argv[1]).write_text(os.environ["CUDA_VISIBLE_DEVICES"])
Path("new-" + sys.argv[1]).rename("has-" + sys.argv[1])
while not Path("over-" + sys.argv[1]).exists():
    time.sleep(0.01)
"""


class TestGPUs:
    def share(self, tmp_path, monkeypatch, visible, each):
        monkeypatch.setattr(workers, "_shares", shares := [])
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", ",".join(visible))
        share_gpus(tmp_path, visible, each)
        for lock in shares:
            lock.close()
        return os.environ["CUDA_VISIBLE_DEVICES"]

    @pytest.mark.parametrize(
        ("visible", "each", "mine"), [("35", 1, "3"), ("0123", 2, "0,1"), ("7", 1, "7"), ("012", 2, "0,1,2")]
    )
    def test_the_first_process_has_the_first_share(self, visible, each, mine, tmp_path, monkeypatch):
        assert self.share(tmp_path, monkeypatch, list(visible), each) == mine

    def test_processes_take_turns(self, tmp_path):
        """Five processes on two GPUs, each with one: three and two. A share is free again after a process."""
        (tmp_path / "script.py").write_text(TAKE_A_TURN)
        started = []
        for number in range(6):
            if number == 5:
                (tmp_path / "over-1").touch()
                started[1].wait()
            started.append(Run(str(number), cwd=tmp_path, script=tmp_path / "script.py"))
            started[-1].wait_for(tmp_path / f"has-{number}")
        assert [(tmp_path / f"has-{number}").read_text() for number in range(6)] == ["3", "5", "3", "5", "3", "5"]
        for each in started:
            each.process.kill()
            each.process.join()


def test_slurm_is_left_to_end_a_preempted_job_itself(monkeypatch):
    slept = []
    monkeypatch.setattr(workers.time, "sleep", slept.append)
    workers.give_back(signal.SIGTERM)
    monkeypatch.setenv("SUBMITIT_EXECUTOR", "slurm")
    workers.give_back(signal.SIGTERM)
    assert slept == [workers.GRACE]


def test_threads_are_shared_out_among_jobs_side_by_side(tmp_path):
    (tmp_path / "my" / "callbacks").mkdir(parents=True)
    (tmp_path / "my" / "own.py").write_text(
        "import pytorch_lightning as pl, torch\n"
        "class Threads(pl.Callback):\n"
        "    def on_train_start(self, trainer, module):\n"
        "        print(f'threads {torch.get_num_threads()}', flush=True)\n"
    )
    (tmp_path / "my" / "callbacks" / "threads.yaml").write_text("threads: {_target_: own.Threads}\n")
    (tmp_path / "script.py").write_text(
        "import os\nos.environ.pop('OMP_NUM_THREADS', None)\nfrom ganrun import cli\ncli.main()\n"
    )
    words = ["--config-dir", "my", "callbacks=[threads]", *SWEEP, "steps=2", "hydra/launcher=joblib"]
    done = forked.run(*words, "hydra.launcher.n_jobs=2", cwd=tmp_path, script=tmp_path / "script.py")
    cores = len(os.sched_getaffinity(0))
    assert done.out.count(f"threads {max(1, cores // 2)}") == 2, done.out + done.err
    assert torch.get_num_threads() >= 1
