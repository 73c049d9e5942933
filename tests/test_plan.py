"""`ganrun plan`: its arithmetic on numbers by hand, and a whole command beside the run that it is about."""

import copy
import json

import pytest
import torch
from conftest import ganrun
from torch import nn

from ganrun.commands.ls.listing import bytes_of
from ganrun.commands.plan import estimate, planning, telling
from ganrun.errors import OutOfMemory, UserError
from ganrun.training import resources, trial
from ganrun.training.flops import Flops

MIB = 1 << 20
MLP = ["dataset=ring", "model=mlp", "generator.width=8", "discriminator.width=8", "batch_size=16", "steps=10",
       "evaluate.num_samples=64", "evaluate.every=4", "sample_every=4", "checkpoint.every=3",
       "log_every=2"]  # fmt: skip
FOUND = {
    "device": "cpu", "threads": 1, "notes": [], "caches": [], "left_out": ["logger csv"], "ways": [],
    "config": {"steps": 1000, "batch_size": 64, "precision": "32-true", "keep": 2},
    "sizes": {"batch_size": 64, "micro_batch": 16},
    "networks": {"generator": {"generator": 5}, "discriminator": {"adversary.discriminator": 6}},
    "activation_bytes": MIB, "images": 16,
    "kinds": {"": 900, "10": 90, "10,100": 10}, "flops": {"": 100, "10": 300, "10,100": 500},
    "times": {"": [[0.1, 0.2, 0], [0.1, 0.2, 0], [9.0, 9.0, 0]], "10": [[0.3, 0.4, 0]]},
    "untimed": [[2.1, 1.0, 0]],
    "start": {"seconds": 5.0, "cpu": 4.0}, "imports": {"seconds": 3.0, "cpu": 2.0},
    "every": {"logs": 300, "pictures": 250, "looks": 100, "scores": 300, "checkpoints": 250},
    "events": {"logs": [[0.1, 0.1, 10], [0.01, 0.01, 8]], "pictures": [[1.0, 1.0, 100], [0.5, 0.5, 90]],
               "looks": [[0.2, 0.2, 5]], "scores": [[30.0, 30.0, 9]], "checkpoints": [[2.0, 2.0, 0], [1.0, 1.0, 0]]},
    "end": [1.5, 1.0, 0],
    "files": {"checkpoint": 1000, "best checkpoint": 900, "generators": 200, "snapshot": 0, "about": 50, "picture": 30,
              "curves at the start": 7},
    "memory": {"peak": 600 * MIB, "steps": 500 * MIB, "room": 10_000 * MIB},
}  # fmt: skip


def found(**changes):
    return copy.deepcopy(FOUND) | changes


def test_flops_of_a_linear_network_by_hand():
    """A product of (3, 4) and (4, 5) has 3 * 4 * 5 multiplications; its two gradients as many each."""
    network, x = nn.Linear(4, 5), torch.randn(3, 4, requires_grad=True)
    with Flops() as counter:
        y = network(x)
    assert counter.total == 2 * 3 * 4 * 5
    with Flops() as counter:
        y.square().sum().backward()
    assert counter.total == 2 * (2 * 3 * 4 * 5)


def test_how_often_things_happen():
    assert estimate.counts(found()) == {"logs": 4, "pictures": 4, "looks": 10, "scores": 4, "checkpoints": 3}
    never = found(every={"logs": 50, "pictures": 0, "looks": 100, "scores": 0, "checkpoints": 0})
    assert estimate.counts(never) == {"logs": 20, "pictures": 1, "looks": 10, "scores": 1, "checkpoints": 0}
    assert [estimate.times(*pair) for pair in ((10, 5), (11, 5), (4, 5), (4, 0))] == [2, 3, 1, 1]


def test_time_by_hand():
    """Steps that were never timed cost by their FLOPs; the first of an event may cost more than the others."""
    parts = estimate.time_of(found())
    assert parts["steps"] == pytest.approx(900 * 0.1 + 90 * 0.3 + 10 * 0.5)
    assert parts["start-up"] == pytest.approx(5 + 2.1 - 0.122)
    assert parts["logs"] == pytest.approx(0.1 + 3 * 0.01) and parts["pictures"] == pytest.approx(1 + 3 * 0.5)
    assert parts["looks"] == pytest.approx(2) and parts["scores"] == 120 and parts["end"] == 1.5
    assert parts["checkpoints"] == pytest.approx(2 + 2 * 1)
    cpu = estimate.time_of(found(), estimate.CPU)
    assert cpu["steps"] == pytest.approx(900 * 0.2 + 90 * 0.4 + 10 * 1.0) and cpu["start-up"] == pytest.approx(4.774)
    assert estimate.flops_of(found()) == pytest.approx(0.9 * 100 + 0.09 * 300 + 0.01 * 500)


def test_disk_by_hand():
    parts = estimate.disk_of(found())
    assert parts["checkpoints"] == 2 * 1000 + 900 and parts["generators"] == 200
    assert parts["pictures"] == 5 * 30 and parts["about the run"] == 50
    assert parts["curves"] == 7 + (10 + 3 * 8) + (100 + 3 * 90) + 10 * 5 + 4 * 9
    odd = found(config=FOUND["config"] | {"steps": 1100, "keep": None})  # last.ckpt is no step's
    assert estimate.disk_of(odd)["checkpoints"] == (4 + 1) * 1000 + 900


def test_largest_batch_is_a_line_through_two_trials():
    assert estimate.factor(found()) == 8  # 7 * 16 MiB more are the first above 64
    assert estimate.factor(found(memory=FOUND["memory"] | {"room": 1300 * MIB})) == 0
    large = found(images=128, memory={"steps": 500 * MIB + 112 * 2 * MIB})
    line = estimate.Line.through(found(), large)
    assert line == (2 * MIB, 468 * MIB) and line.largest(10_000 * MIB) == 4766
    flat = estimate.Line.through(found(), found(images=128))
    assert flat.each == MIB / 2, "noise must not make batches free"


def test_ways_and_savings():
    quick = found(times={"": [[0.05, 0, 0]], "10": [[0.15, 0, 0]]}, untimed=[[8.161, 0, 0]])
    tried = estimate.way("compile=true", quick, found())
    assert tried.gain == pytest.approx(2) and tried.pays_after == round((8.1 - 1.978) / 0.061)
    assert "2.00 x the steps/s, faster" in telling.way(tried._asdict())
    slow = estimate.way("precision=32-true", found(), quick)
    assert slow.pays_after is None and telling.way(slow._asdict()).endswith("0.50 x the steps/s, slower")
    (saving,) = estimate.savings(found())
    assert saving[:3] == ("scores", "evaluate.every", 600) and saving.seconds == 60


def test_a_sweep_is_the_sum_of_its_jobs_in_one_process():
    plans = [planning.of_run(["seed=1"], found()) | {"trial": i == 0} for i in range(3)]
    total = planning.of_sweep(plans, [], left_out=0)
    assert total["seconds"] == pytest.approx(3 * plans[0]["seconds"] - 2 * 3)
    assert total["cpu_seconds"] == pytest.approx(3 * plans[0]["cpu_seconds"] - 2 * 2)
    assert total["disk_bytes"] == 3 * plans[0]["disk_bytes"] and total["peak_memory_mib"] == 600
    assert planning.of_sweep(plans, [], left_out=3)["seconds"] == pytest.approx(2 * total["seconds"])
    assert "3 jobs not tried, since budget=60" in telling.sweep(planning.of_sweep(plans, [], left_out=3), 60)


def test_jobs_that_cost_the_same():
    jobs, flags = planning.jobs_of(["-m", "loss=hinge,wgan", "seed=range(0,3)", "run_dir=x", "--config-dir", "my"])
    assert len(jobs) == 6 and flags == ["--config-dir", "my"]
    assert len({planning.cost_key(job) for job in jobs}) == 2
    assert planning.cost_key(["batch_size=3", "seed=1"]) != planning.cost_key(["batch_size=4", "seed=1"])


def test_what_is_printed_of_a_plan():
    plan = planning.of_run(["model=dcgan"], found())
    plan |= {
        "largest_batch": {"images": 4766, "mib_an_image": 2.0, "how": "extrapolated from 16 and 128 images a pass"}
    }
    lines = telling.run(plan).splitlines()
    assert all(len(line.partition("  ")[0]) <= 13 for line in lines)
    text = " ".join(telling.run(plan).split())
    for part in ("generator 5; discriminator 6; 11 in all", "scores (4) 2 min 0 s", "4,766 images a pass", "logger csv",
                 "evaluate.every=600: 60 s less", "600.0 MiB at the peak"):  # fmt: skip
        assert part in text, text
    assert telling.scaled(1.5e9) == "1.5 G" and telling.duration(3700) == "1 h 1 min"


def test_kinds_of_steps():
    """R1 every 16 steps, path length every 4."""
    from ganrun.lazy import Lazy

    module = nn.ModuleList([Lazy(1.0, 16), Lazy(1.0, 4), Lazy(1.0)])
    assert trial.kinds(32, trial.intervals(module)) == {"4,16": 2, "4": 6, "": 24}
    assert trial.kinds(1600, [4, 16]) == {"4,16": 100, "4": 300, "": 1200}
    assert trial.kinds(7, []) == {"": 7}


def test_what_memory_cannot_hold_is_refused_before_it_is_tried(monkeypatch):
    from types import SimpleNamespace

    from omegaconf import OmegaConf

    cfg = OmegaConf.create({"batch_size": 64, "micro_batch": None, "schedule": {}, "precision": "32-true"})
    module = SimpleNamespace(recipe=nn.Linear(1, 1))
    parts = SimpleNamespace(cfg=cfg, module=module, activation_bytes=MIB)
    monkeypatch.setattr(resources, "room", lambda device: 1000 * MIB)
    monkeypatch.setattr(resources, "resident", lambda: 850 * MIB)
    with pytest.raises(
        OutOfMemory, match=r"64 images needs about 64 MiB for activations, and 50 MiB .* about 49 images"
    ):
        resources.refuse_too_large(parts, torch.device("cpu"))
    resources.refuse_too_large(SimpleNamespace(**vars(parts) | {"activation_bytes": MIB // 2}), torch.device("cpu"))


@pytest.fixture(scope="module")
def planned(tmp_path_factory):
    """The plan as JSON, made in an empty folder with another for temporary files, and the run that it is about."""
    place = tmp_path_factory.mktemp("plan")
    (place / "here").mkdir()
    (place / "tmp").mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TMPDIR", str(place / "tmp"))
        done = ganrun("plan", *MLP, "json=true", "seconds=0", cwd=place / "here")
    assert not [*(place / "here").iterdir(), *(place / "tmp").iterdir()], "a plan left something behind"
    ganrun(*MLP, "run_dir=run", cwd=place)
    return json.loads(done.stdout), place / "run"


def test_a_whole_plan_by_hand(planned):
    """Layers of 2 -> 8 -> 8 -> 8 -> 2 and 2 -> 8 -> 8 -> 8 -> 1 with biases; FLOPs as in test_benchmark.py."""
    plan, _ = planned
    layers = [(2, 8), (8, 8), (8, 8), (8, 2)], [(2, 8), (8, 8), (8, 8), (8, 1)]
    counts = [sum(a * b + b for a, b in sizes) for sizes in layers]
    assert sorted(plan["parameters"].values()) == sorted(counts)
    generator, discriminator = (sum(2 * 16 * a * b for a, b in sizes) for sizes in layers)
    first = 2 * 16 * 2 * 8  # of either network
    expected = 3 * generator - first + (3 + 2 + 3) * discriminator - 2 * first
    assert plan["flops_per_step"] == expected
    assert plan["times"] == {"logs": 5, "pictures": 3, "looks": 0, "scores": 3, "checkpoints": 3}
    assert plan["seconds"] == pytest.approx(sum(plan["seconds_of"].values())) and plan["steps_per_second"] > 0
    assert 0 < plan["peak_memory_mib"] < plan["memory_mib"] and plan["largest_batch"]["images"] > 16
    assert plan["largest_batch"]["how"].startswith("extrapolated from 16 and ")


def test_disk_within_a_quarter_of_what_the_run_takes(planned):
    plan, run = planned
    assert plan["disk_bytes"] == pytest.approx(bytes_of(run), rel=0.25)


def test_a_sweep_measures_equal_jobs_once(tmp_path):
    done = ganrun("plan", "-m", *MLP, "seed=1,2", "seconds=0", cwd=tmp_path)
    assert not done.stderr and not list(tmp_path.iterdir())
    assert "seed=2  (as the job above)" in done.stdout and "2 jobs, one after the other: " in done.stdout


@pytest.mark.parametrize("line", ["loss=wgann", "+optimizer.foo=1", "generator.width=0", "dataset=ring"])
def test_the_same_mistake_gives_the_same_line(line, tmp_path):
    refused = ganrun("plan", line, cwd=tmp_path, check=2).stderr
    assert refused == ganrun(line, cwd=tmp_path, check=2).stderr and not list(tmp_path.iterdir())


MISTAKES = {
    "resume=x": "a plan is that of a new run",
    "sweep.retry=1": "add -m",
    "seconds=-1": "expected at least 0",
    "tries=1": "expected true or false",
    "--foo": "there is no such flag",
    "-m seed=1,2 hydra/sweeper=tpe": "a search chooses its jobs as it goes",
    "-m optimizer.lr=interval(0,1)": "needs the values of each job",
    "-m seed=1,2 sweep.foo=1": "there is no such key",
}


@pytest.mark.parametrize("line", MISTAKES)
def test_a_mistake_of_a_plans_own_is_one_line(line, tmp_path, monkeypatch, capfd):
    from ganrun import cli

    monkeypatch.chdir(tmp_path)
    assert cli.run(["plan", *line.split(" ")]) == 2
    err = capfd.readouterr().err
    assert MISTAKES[line] in err and err.count("\n") == 1 and not list(tmp_path.iterdir())


def test_several_processes_are_refused(tmp_path):
    words = ["trainer=ddp", "trainer.devices=2", "trainer.accelerator=cpu", "seconds=0"]
    assert "measures one process" in ganrun("plan", *MLP, *words, cwd=tmp_path, check=2).stderr


def test_errors_of_a_plan_are_user_errors():
    with pytest.raises(UserError, match="needs the values"):
        planning.jobs_of(["-m", "optimizer.lr=interval(0,1)"])
