"""Several processes of one run, on the CPU: equal to one process, exact to resume, gone when one of them is gone."""

import csv
import json
import os
import shutil
import signal
import socket
import subprocess
import threading
import time
from multiprocessing import connection, get_context

import fresh
import pytest
import torch
from conftest import GANRUN, TINY, own_loss
from forked import Run, run
from torch import distributed

from ganrun.callbacks.watch import Watch
from ganrun.files.checkpoint import load_checkpoint
from ganrun.signals import Signals
from ganrun.training.processes import failures

ARGS = [*TINY, "run_dir=run", "dataset.limit=100", "log_every=2", "sample_every=4", "evaluate.every=4"]
ARGS += ["checkpoint.every=4", "steps=8", "precision=32-true"]
TWO = ["trainer=ddp", "trainer.devices=2", "trainer.accelerator=cpu"]


def state(path):
    return load_checkpoint(path / "checkpoints" / "last.ckpt")


def distance(one, other):
    """Largest difference between the weights, averages and statistics of two runs."""
    one, other = state(one)["state_dict"], state(other)["state_dict"]
    assert one.keys() == other.keys()
    return max((one[key].double() - other[key].double()).abs().max().item() for key in one)


def torchrun_variables(rank, port):
    names = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": 2, "LOCAL_WORLD_SIZE": 2, "GROUP_RANK": 0}
    names |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "TORCHELASTIC_RUN_ID": "none"}
    return {name: str(value) for name, value in names.items()}


def slurm_variables(rank, port):
    names = {"SLURM_NTASKS": 2, "SLURM_NTASKS_PER_NODE": 2, "SLURM_PROCID": rank, "SLURM_LOCALID": rank}
    names |= {"SLURM_NODEID": 0, "SLURM_NNODES": 1, "SLURM_NODELIST": "127.0.0.1", "SLURM_JOB_NAME": "gan"}
    names |= {"SLURM_JOB_ID": 17, "MASTER_PORT": port, "MASTER_ADDR": "127.0.0.1"}
    return {name: str(value) for name, value in names.items()}


def both(*args, cwd, variables=torchrun_variables, extra=None, script=None):
    """The two processes that a launcher starts."""
    with socket.socket() as found:
        found.bind(("", 0))
        port = found.getsockname()[1]
    return [
        Run(*args, *TWO, cwd=cwd, env={**variables(rank, port), **(extra or {})}, script=script) for rank in range(2)
    ]


def both_to_the_end(*args, check=0, **settings):
    ranks = both(*args, **settings)
    codes = [rank.wait() for rank in ranks]
    assert codes == [check, check], [rank.err for rank in ranks]
    return ranks


CASES = [["loss=non-saturating"], ["loss=hinge"], ["loss=non-saturating", "penalty=[r1]"]]
CASES += [["augment=[ada]", "augment.ada.every=3", "augment.ada.over=1000000000"]]  # p = 0, its statistic kept


@pytest.mark.parametrize("case", CASES, ids=" ".join)
def test_two_processes_equal_one(case, tmp_path):
    plain = [*case, "generator.norm=none", "discriminator.norm=none"]
    run(*ARGS, *plain, "run_dir=one", cwd=tmp_path)
    both_to_the_end(*ARGS, *plain, "run_dir=two", cwd=tmp_path)
    assert distance(tmp_path / "one", tmp_path / "two") < 1e-6
    start = [*plain, "seed=1"]  # the distance can tell runs apart
    run(*ARGS, *start, "run_dir=other", cwd=tmp_path)
    assert distance(tmp_path / "one", tmp_path / "other") > 1e-2


def test_one_process_writes_and_tells(tmp_path):
    ranks = both_to_the_end(*ARGS, cwd=tmp_path)
    assert ranks[0].out.splitlines()[-1] == "run" and ranks[1].out == ""
    assert [path.name for path in tmp_path.iterdir()] == ["run"], "a second output tree"
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if "generator/adversarial" in line] == [2, 4, 6, 8]
    assert sorted(path.name for path in (tmp_path / "run" / "samples").iterdir()) == [
        "final.png", "step-000004.png", "step-000008.png"
    ]  # fmt: skip


OWN = """
import torch
from ganrun.game import PerRank
from ganrun.networks.dcgan import Discriminator


class Pool(PerRank):
    def __init__(self):
        super().__init__()
        self.register_buffer("seen", torch.zeros(()))
        self.register_buffer("weights", torch.zeros(()))


class Remembering(Discriminator):
    '''Keeps a sum of what this process has seen, and lets it act.'''

    def __init__(self, **settings):
        super().__init__(**settings)
        self.pool = Pool()
        self.register_buffer("mean", torch.zeros(()))

    def forward(self, x, condition=None):
        if self.training:
            self.pool.seen += x.detach().mean()
            self.pool.weights.copy_(sum(p.detach().abs().sum() for p in self.parameters()))
            self.mean.lerp_(x.detach().mean(), 0.1)
        verdict = super().forward(x, condition)
        return verdict._replace(logits=verdict.logits + self.pool.seen + self.mean)
"""


@pytest.fixture
def remembering(tmp_path):
    """A discriminator with state of each process and state of all."""
    (tmp_path / "my" / "discriminator").mkdir(parents=True)
    (tmp_path / "my" / "own.py").write_text(OWN)
    yaml = "# Remembers\ndefaults: [dcgan, _self_]\n_target_: own.Remembering\n"
    (tmp_path / "my" / "discriminator" / "remembering.yaml").write_text(yaml)
    return ["--config-dir", "my", "discriminator=remembering"]


def test_resume_of_two_processes_is_exact_with_state_of_each(remembering, tmp_path):
    both_to_the_end(*remembering, *ARGS, "run_dir=whole", cwd=tmp_path)
    both_to_the_end(*remembering, *ARGS, "steps=5", "run_dir=parts", cwd=tmp_path)
    both_to_the_end("--config-dir", "my", "resume=parts", "steps=8", "trust=[own]", cwd=tmp_path)
    assert distance(tmp_path / "whole", tmp_path / "parts") == 0
    whole, parts = state(tmp_path / "whole"), state(tmp_path / "parts")
    own = [rank["recipe.adversary.discriminator.pool.seen"].item() for rank in whole["per_rank"]]
    assert own[0] != own[1] and 0 not in own
    assert own == [rank["recipe.adversary.discriminator.pool.seen"].item() for rank in parts["per_rank"]]
    assert whole["ganrun"]["world_size"] == 2
    sums = [rank["recipe.adversary.discriminator.pool.weights"] for rank in whole["per_rank"]]
    assert torch.equal(*sums) and sums[0] > 0, "the weights of the two processes differ"


def test_another_number_of_processes_is_refused(tmp_path):
    both_to_the_end(*ARGS, "steps=2", cwd=tmp_path)
    config = tmp_path / "run" / ".hydra" / "config.yaml"
    config.write_text(config.read_text().replace("devices: 2", "devices: 1"))  # as devices=auto elsewhere
    refused = run("resume=run", "steps=4", cwd=tmp_path, check=2)
    assert "trained by 2 processes, got 1" in refused.err and refused.err.count("\n") == 1


def test_statistics_are_everybodys(tmp_path):
    """Running means come from all rows: those of two processes are the mean of what each would have alone."""
    run(*ARGS, "steps=1", "run_dir=one", cwd=tmp_path)
    both_to_the_end(*ARGS, "steps=1", "run_dir=two", cwd=tmp_path)
    one, two = (state(tmp_path / name)["state_dict"] for name in ("one", "two"))
    means = [key for key in one if key.startswith("recipe.generator") and key.endswith("running_mean")]
    assert means
    first = means[0]  # of the stem: it sees the same noise in both
    assert torch.allclose(one[first], two[first], atol=1e-6) and one[first].abs().max() > 1e-4


def test_slurm_tasks_stop_together_and_requeue_once(tmp_path):
    (tmp_path / "tools").mkdir()
    scontrol = tmp_path / "tools" / "scontrol"
    scontrol.write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/asked\n')
    scontrol.chmod(0o755)
    extra = {"PATH": f"{scontrol.parent}:{os.environ['PATH']}"}
    ranks = both(*ARGS, "steps=1000000", cwd=tmp_path, variables=slurm_variables, extra=extra)
    ranks[0].wait_for(tmp_path / "run" / "checkpoints" / "last.ckpt")
    ranks[1].send(signal.SIGUSR1)  # one task is enough
    assert [rank.wait() for rank in ranks] == [138, 138]
    assert (tmp_path / "asked").read_text() == "requeue 17\n"


def test_a_task_of_several_independent_ones_is_a_run_of_its_own(tmp_path):
    """srun -n 2 with one device each: two runs, not two processes of one."""
    tasks = [Run(*ARGS, "steps=2", f"run_dir=task{i}", cwd=tmp_path, env=slurm_variables(i, 1)) for i in range(2)]
    assert [task.wait() for task in tasks] == [0, 0], tasks[1].err
    assert all((tmp_path / f"task{i}" / "result.json").exists() for i in range(2))


# processes that ganrun starts itself


def alive(pid):
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def further_process(going):
    """The pid of the second process of a run."""
    words = ["pgrep", "-P", str(going.process.pid), fresh.NAME]
    (found,) = subprocess.run(words, capture_output=True, text=True).stdout.split()
    return int(found)


def training(path, *args):
    going = Run(*ARGS, *TWO, "steps=1000000", *args, cwd=path)
    going.wait_for(path / "run" / "checkpoints" / "last.ckpt")
    return going, further_process(going)


@pytest.mark.parametrize(("number", "whom"), [(signal.SIGTERM, "process"), (signal.SIGINT, "group")])
def test_signal_ends_all_processes(number, whom, tmp_path):
    going, other = training(tmp_path)
    going.kill(number) if whom == "group" else going.send(number)
    assert going.wait(timeout=60) == 128 + number
    assert not alive(other)
    assert f"stopped by {number.name}; go on with: ganrun resume=run" in going.err and "Traceback" not in going.err


@pytest.mark.parametrize("victim", ["first", "other"])
def test_a_dying_process_ends_the_others_within_a_minute(victim, tmp_path):
    going, other = training(tmp_path)
    os.kill(going.process.pid if victim == "first" else other, signal.SIGKILL)
    until = time.monotonic() + 60
    while (alive(other) or going.process.is_alive()) and time.monotonic() < until:
        time.sleep(0.05)
    assert not alive(other) and not going.process.is_alive()
    if victim == "other":
        assert going.wait() == 1 and "another process of this run died with exit code -9" in going.err
        assert json.loads((tmp_path / "run" / "result.json").read_text())["status"] == "failed"
    saved = state(tmp_path / "run")["global_step"]
    run("resume=run", f"steps={saved + 1}", cwd=tmp_path)
    assert state(tmp_path / "run")["global_step"] == saved + 1


LAME = """
import torch
from ganrun.losses import Hinge


class Lame(Hinge):
    def generator(self, real, fake):
        if torch.distributed.is_initialized() and torch.distributed.get_rank() == 1:
            raise ValueError("only here")
        return super().generator(real, fake)
"""


def test_what_only_another_process_raises_is_told(tmp_path):
    done = run(*own_loss(tmp_path, LAME), *ARGS, *TWO, cwd=tmp_path, check=1)
    assert "ganrun: process 1: ValueError: only here" in done.err
    assert done.err.splitlines()[-1].startswith("ganrun: another process of this run failed, as told above")


def test_an_exit_code_that_another_thread_reads_at_this_moment_counts(monkeypatch):
    """That thread alone is told by the system; until it has noted the code, Python says None to all others."""
    process = get_context("fork").Process(target=os._exit, args=(17,))
    process.start()
    process_has_ended = connection.wait([process.sentinel], timeout=60)
    told, waitpid = threading.Event(), os.waitpid

    def late(*args):
        found = waitpid(*args)
        told.set()
        time.sleep(0.3)
        return found

    monkeypatch.setattr(os, "waitpid", late)
    thread = threading.Thread(target=lambda: process.exitcode)
    thread.start()
    assert process_has_ended and told.wait(60) and process.exitcode is None
    assert failures([process]) == [17]
    thread.join()


def test_infinity_in_another_process_is_told_by_the_first(tmp_path):
    spoilt = LAME.replace('raise ValueError("only here")', 'return super().generator(real, fake) + float("inf")')
    failed = run(*own_loss(tmp_path, spoilt), *ARGS, *TWO, cwd=tmp_path, check=3)
    assert "generator/adversarial (move 2 of 2) is inf at step 1" in failed.err and failed.err.count("\n") == 1


def test_left_over_variable_that_would_wait_for_ever(tmp_path):
    refused = run(*ARGS, *TWO, cwd=tmp_path, check=2, env={"LOCAL_RANK": "0"})
    assert "LOCAL_RANK is set, but not MASTER_PORT" in refused.err and not list(tmp_path.iterdir())


def test_port_that_is_taken_is_named(tmp_path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        refused = run(*ARGS, *TWO, cwd=tmp_path, check=2, env={"MASTER_PORT": str(port)})
    assert f"cannot meet at 127.0.0.1:{port}" in refused.err


def test_what_only_the_first_process_cannot_write_ends_all(tmp_path):
    going, other = training(tmp_path)
    (tmp_path / "run" / "checkpoints").rename(tmp_path / "moved")
    assert going.wait(timeout=60) == 1 and not alive(other)
    assert going.err.startswith("ganrun: cannot write run/") and going.err.count("\n") == 1


def test_sweep_of_runs_of_two_processes_survives_a_failure(tmp_path):
    rates = "optimizer.discriminator.lr=1e38,1e-4"
    done = run("-m", rates, *ARGS, *TWO, "run_dir=sweep", cwd=tmp_path, check=1)
    rows = list(csv.DictReader((tmp_path / "sweep" / "results.csv").read_text().splitlines()))
    assert [row["status"] for row in rows] == ["failed", "finished"], done.err
    assert "generator/adversarial" in rows[0]["reason"] and "Traceback" not in done.err
    assert [path.name for path in tmp_path.iterdir()] == ["sweep"], "a second output tree"


def test_torchrun(tmp_path):
    command = ["--standalone", "--nproc-per-node", "2", "--no-python", str(GANRUN), *ARGS, *TWO]
    done = run(*command, cwd=tmp_path, script=GANRUN.parent / "torchrun")
    assert done.out.splitlines()[-1] == "run" and done.out.count("status ") == 1
    shutil.rmtree(tmp_path / "run")
    refused = run("-m", "seed=1,2", *ARGS, cwd=tmp_path, check=2, env=torchrun_variables(0, 1))
    assert "-m under torchrun" in refused.err and not list(tmp_path.iterdir())


def test_a_signal_that_arrives_while_processes_agree_is_not_lost(monkeypatch):
    signals = Signals()
    watch = Watch(signals, ())
    watch._group = object()

    def meanwhile(seen, op, group):
        signals.received = int(signal.SIGTERM)

    monkeypatch.setattr(distributed, "all_reduce", meanwhile)
    assert not watch._heed(wait=True), "the others do not know of it yet"
    monkeypatch.setattr(distributed, "all_reduce", lambda seen, op, group: None)
    assert watch._heed(wait=True) and signals.received == signal.SIGTERM


DRAWING = """
import os
from pathlib import Path

import torch
from ganrun.losses import Hinge


class Drawing(Hinge):
    def discriminator(self, real, fake):
        Path("drawn-" + os.environ.get("LOCAL_RANK", "none")).write_text(str(torch.rand(3).tolist()))
        return super().discriminator(real, fake)
"""


def test_what_a_loss_draws_differs_from_process_to_process(tmp_path):
    """As a penalty's points between reals and fakes: else two processes would look at one epsilon twice."""
    run(*own_loss(tmp_path, DRAWING), *TINY, *TWO, "steps=1", "metric=[]", "run_dir=run", cwd=tmp_path)
    one, other = (json.loads((tmp_path / f"drawn-{rank}").read_text()) for rank in range(2))
    assert not set(one) & set(other)
