"""Sweeps that go on: what is over is left out, what was cut off is resumed to the bit, new values extend."""

import csv
import json
import random
import shutil
import signal
import subprocess
import sys
import time

import pytest
import torch
import yaml
from conftest import TINY, ganrun, last_line, own_loss
from forked import Run, run
from scipy.stats import ttest_ind

from ganrun.commands.train.jobs import LONGEST, check_extends, combinations, name_of
from ganrun.commands.train.significance import verdict
from ganrun.commands.train.table import collect, over_seeds, so_far, write_results
from ganrun.errors import UserError

ARGS = [
    *TINY,
    "dataset.limit=64",
    "steps=12",
    "checkpoint.every=2",
    "sample_every=0",
    "evaluate.every=6",
    "log_every=4",
]
AXES = ["loss=hinge,wgan-gp", "seed=1,2"]


def table(sweep):
    return list(csv.DictReader((sweep / "results.csv").read_text().splitlines()))


def weights(run_dir):
    return torch.load(run_dir / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]


def assert_same_weights(one, other):
    a, b = weights(one), weights(other)
    assert a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A sweep that nothing interrupts."""
    path = tmp_path_factory.mktemp("whole")
    ganrun("-m", *AXES, *ARGS, "run_dir=sweep", cwd=path)
    return path / "sweep"


@pytest.fixture
def copied(whole, tmp_path):
    shutil.copytree(whole, tmp_path / "sweep")
    return tmp_path / "sweep"


def begun(sweep):
    """How often each job began, and how often it ended."""
    logs = {path.parent.name: path.read_text() for path in sweep.glob("*/train.log")}
    return {name: (text.count(" start at step "), text.count(" finished at step ")) for name, text in logs.items()}


class TestNames:
    @pytest.mark.parametrize(
        ("overrides", "axes", "name"),
        [
            (["loss=hinge", "steps=4", "seed=1"], {"loss", "seed"}, "loss=hinge,seed=1"),
            (["optimizer/discriminator=rmsprop"], {"optimizer/discriminator"}, "optimizer.discriminator=rmsprop"),
            (["+trainer.x=1"], {"trainer.x"}, "+trainer.x=1"),
            (["seed=1"], set(), "run"),
        ],
    )
    def test_a_job_is_called_by_its_values_on_the_axes(self, overrides, axes, name):
        assert name_of(overrides, axes) == name

    def test_what_no_file_name_should_hold_is_told_apart_by_a_hash(self):
        names = [name_of([f"dataset.path={path}"], {"dataset.path"}) for path in ("/a/b", "/a_b", "/a b", "a" * 300)]
        assert len(set(names)) == 4 and all(len(name) <= LONGEST and "/" not in name for name in names)

    def test_combinations_are_those_of_hydra(self):
        words = ["-m", "loss=hinge,wgan", "seed=range(0,3)", "hydra/launcher=joblib", "steps=4"]
        jobs = combinations(words)
        assert len(jobs) == 6 and jobs[4] == ["loss=wgan", "seed=1", "steps=4"]


class TestExtending:
    BEFORE = ("-m", "loss=hinge,wgan", "seed=1,2", "steps=4")

    @pytest.mark.parametrize(
        "words", ["loss=hinge seed=1,2 steps=4", "loss=lsgan seed=range(0,9) steps=4", "steps=4,8 loss=wgan seed=1"]
    )
    def test_other_values_on_axes(self, words, tmp_path):
        check_extends(tmp_path, list(self.BEFORE), words.split())

    @pytest.mark.parametrize(
        ("words", "told"),
        [
            ("loss=hinge seed=1,2 steps=5", "steps: got 5, had 4"),
            ("loss=hinge seed=1,2", "steps: got nothing, had 4"),
            ("loss=hinge seed=1,2 steps=4 batch_size=8", "batch_size: got 8, had nothing"),
            (
                "seed=1,2 batch_size=8",
                "loss: got nothing, had hinge,wgan; steps: got nothing, had 4; batch_size: got 8",
            ),
        ],
    )
    def test_anything_else_is_named(self, words, told, tmp_path):
        with pytest.raises(UserError) as refused:
            check_extends(tmp_path, list(self.BEFORE), words.split())
        assert told in str(refused.value) and "\n" not in str(refused.value)

    def test_new_values_run_and_old_jobs_do_not(self, copied, tmp_path):
        before = {name: (copied / name / "result.json").read_bytes() for name in begun(copied)}
        ganrun("-m", "loss=hinge,wgan-gp", "seed=2,3", *ARGS, "run_dir=sweep", cwd=tmp_path)
        assert {name: (copied / name / "result.json").read_bytes() for name in before} == before
        rows = table(copied)
        assert len(rows) == 6 and all(row["status"] == "finished" for row in rows)
        assert set(begun(copied).values()) == {(1, 1)}
        done = ganrun("resume=sweep", cwd=tmp_path)
        assert len(table(copied)) == 6 and set(begun(copied).values()) == {(1, 1)} and last_line(done) == "sweep"

    def test_other_jobs_are_refused(self, copied, tmp_path):
        before = sorted(path.name for path in copied.iterdir())
        refused = ganrun("-m", *AXES, *ARGS, "steps=9", "run_dir=sweep", cwd=tmp_path, check=2)
        assert "steps: got 9, had 12" in refused.stderr and refused.stderr.count("\n") == 1
        assert sorted(path.name for path in copied.iterdir()) == before


class TestResume:
    @pytest.mark.parametrize("attempt", range(2))
    def test_kills_at_random_moments_change_nothing(self, attempt, whole, tmp_path):
        self.kill_and_go_on(whole, tmp_path, kills=3, seed=attempt)

    @pytest.mark.soak
    @pytest.mark.parametrize("attempt", range(5))
    def test_many_kills_at_random_moments_change_nothing(self, attempt, whole, tmp_path):
        self.kill_and_go_on(whole, tmp_path, kills=20, seed=10 + attempt)

    def kill_and_go_on(self, whole, tmp_path, kills, seed):
        rng = random.Random(seed)
        sweep = tmp_path / "sweep"
        for _ in range(kills):
            words = ["resume=sweep"] if (sweep / "sweep.yaml").exists() else ["-m", *AXES, *ARGS, "run_dir=sweep"]
            going = Run(*words, cwd=tmp_path)
            time.sleep(rng.uniform(0.3, 3))
            if going.process.is_alive():
                going.kill(signal.SIGKILL)
            going.wait()
        words = ["resume=sweep"] if (sweep / "sweep.yaml").exists() else ["-m", *AXES, *ARGS, "run_dir=sweep"]
        run(*words, cwd=tmp_path)
        assert [row["status"] for row in table(sweep)] == ["finished"] * 4
        for name in begun(whole):
            assert_same_weights(whole / name, sweep / name)
        assert all(ended == 1 for _, ended in begun(sweep).values()), "a job ran twice"
        for one, other in zip(table(whole), table(sweep), strict=True):
            assert one["overrides"] == other["overrides"]
            assert one["sliced-wasserstein"] == other["sliced-wasserstein"]

    def test_the_same_line_again_goes_on_too(self, whole, tmp_path):
        line = ["-m", *AXES, *ARGS, "run_dir=sweep"]
        going = Run(*line, cwd=tmp_path)
        going.wait_for(tmp_path / "sweep" / "loss=hinge,seed=2" / "checkpoints" / "last.ckpt")
        going.kill(signal.SIGINT)
        assert going.wait() == 130 and "of 4 jobs are left; go on with: ganrun resume=sweep" in going.err
        run(*line, cwd=tmp_path)
        assert {row["status"] for row in table(tmp_path / "sweep")} == {"finished"}
        assert_same_weights(whole / "loss=hinge,seed=2", tmp_path / "sweep" / "loss=hinge,seed=2")

    def test_from_elsewhere(self, copied, whole, tmp_path):
        """Files that the line names are those seen from where it was typed."""
        (tmp_path / "other").mkdir()
        shutil.rmtree(copied / "loss=hinge,seed=1")
        done = ganrun(f"resume={copied}", cwd=tmp_path / "other")
        assert last_line(done) == str(copied) and not list((tmp_path / "other").iterdir())
        assert_same_weights(whole / "loss=hinge,seed=1", copied / "loss=hinge,seed=1")
        lines = (copied / "sweep.yaml").read_text()
        (copied / "sweep.yaml").write_text(lines.replace(f"cwd: {whole.parent}", f"cwd: {tmp_path}/gone"))
        refused = ganrun(f"resume={copied}", cwd=tmp_path, check=2)
        assert "it was started in" in refused.stderr and refused.stderr.count("\n") == 1

    def test_one_owner(self, copied, tmp_path):
        going = Run("-m", "loss=hinge", "seed=7", *ARGS, "steps=12,1000000", "run_dir=both", cwd=tmp_path)
        going.wait_for(tmp_path / "both" / "steps=1000000" / "checkpoints" / "last.ckpt")
        refused = ganrun("-m", "loss=hinge", "seed=7", *ARGS, "steps=12,1000000", "run_dir=both", cwd=tmp_path, check=2)
        going.kill()
        going.wait()
        assert "is being trained by another process" in refused.stderr

    @pytest.mark.parametrize(
        ("words", "told"),
        [
            (["steps=9"], "a sweep goes on as it is; got steps=9; valid: sweep.retry_failed=, sweep.retry="),
            (["sweep.again=true"], "sweep.again=true: there is no such key; "),
            (["sweep.retry=-1"], "expected how often, such as 2"),
            (["sweep.retry_failed=perhaps"], "expected true or false"),
        ],
    )
    def test_mistakes(self, words, told, copied, tmp_path):
        refused = ganrun("resume=sweep", *words, cwd=tmp_path, check=2)
        assert told in refused.stderr and refused.stderr.count("\n") == 1

    @pytest.mark.parametrize("content", ["", "- 1", "format: 9\nlines: []", "format: 1\nlines: [{args: 3}]", "{"])
    def test_a_spoilt_list_of_lines(self, content, copied, tmp_path):
        (copied / "sweep.yaml").write_text(content)
        refused = ganrun("resume=sweep", cwd=tmp_path, check=2)
        assert "sweep.yaml: " in refused.stderr and refused.stderr.count("\n") == 1


FAILS = """
from pathlib import Path
from ganrun.losses import Hinge
class Fails(Hinge):
    def generator(self, real, fake):
        if not Path("mended").exists():
            raise ValueError("not mended")
        return super().generator(real, fake)
"""


def test_failed_jobs_are_tried_again_only_when_asked(tmp_path):
    own = own_loss(tmp_path, FAILS)
    line = [*own[:2], "-m", "loss=own,hinge", "seed=1,2", *ARGS, "run_dir=sweep"]
    failed = ganrun(*line, cwd=tmp_path, check=1)
    assert "2 of 4 jobs failed; try them again with: ganrun resume=sweep sweep.retry_failed=true" in failed.stderr
    (tmp_path / "mended").touch()
    ganrun("resume=sweep", cwd=tmp_path, check=1)
    assert [row["status"] for row in table(tmp_path / "sweep")] == ["failed", "failed", "finished", "finished"]
    ganrun("resume=sweep", "sweep.retry_failed=true", cwd=tmp_path)
    assert {row["status"] for row in table(tmp_path / "sweep")} == {"finished"}
    assert {ended for _, ended in begun(tmp_path / "sweep").values()} == {1}


ODD = """
import pytorch_lightning as pl
class Odd(pl.Callback):
    def __init__(self, *, seed: int):
        self.seed = seed
    def on_train_batch_end(self, trainer, *args):
        if self.seed % 8 == 7 and trainer.global_step == 8:
            raise ValueError(f"seed {self.seed} is odd")
"""


@pytest.mark.soak
def test_forty_jobs_of_which_five_fail_through_two_kills(tmp_path):
    """35 results as of plain runs, and five reasons."""
    (tmp_path / "my" / "callbacks").mkdir(parents=True)
    (tmp_path / "my" / "own.py").write_text(ODD)
    (tmp_path / "my" / "callbacks" / "odd.yaml").write_text("odd: {_target_: own.Odd, seed: '${seed}'}\n")
    own, rng = ["--config-dir", "my", "callbacks=[odd]"], random.Random(0)
    line = [*own, "-m", "seed=range(0,40)", *ARGS, "run_dir=sweep"]
    for ended in (9, 24):
        going = Run(*line, cwd=tmp_path)
        while len(list((tmp_path / "sweep").glob("*/generator.safetensors"))) < ended:
            assert going.process.is_alive()
            time.sleep(0.05)
        time.sleep(rng.uniform(0, 1))
        going.kill()
        going.wait()
    done = ganrun("resume=sweep", cwd=tmp_path, check=1)
    rows = table(tmp_path / "sweep")
    assert [row["status"] for row in rows] == ["failed" if i % 8 == 7 else "finished" for i in range(40)]
    reasons = [row["reason"] for row in rows if row["status"] == "failed"]
    assert reasons == [f"ValueError: seed {seed} is odd" for seed in range(7, 40, 8)]
    assert "35 of 40 jobs done, 5 failed, 0 left" in done.stdout and all(reason in done.stderr for reason in reasons)
    assert all(ended == (i % 8 != 7) for i, (_, ended) in enumerate(by_seed(tmp_path / "sweep")))
    for seed in (seed for seed in range(40) if seed % 8 != 7):
        ganrun(*own, *ARGS, f"seed={seed}", f"run_dir=plain/{seed}", cwd=tmp_path)
        assert_same_weights(tmp_path / "plain" / str(seed), tmp_path / "sweep" / f"seed={seed}")


def by_seed(sweep):
    return [count for _, count in sorted(begun(sweep).items(), key=lambda pair: int(pair[0].removeprefix("seed=")))]


GREEDY = """
import torch
from ganrun.losses import Hinge
class Greedy(Hinge):
    def generator(self, real, fake):
        if len(fake.logits if hasattr(fake, "logits") else fake) > 4:
            torch.empty(2**46)
        return super().generator(real, fake)
"""


def test_a_job_without_memory_is_tried_in_smaller_passes(tmp_path):
    own = own_loss(tmp_path, GREEDY)
    words = [*own[2:], *ARGS]
    failed = ganrun(*own[:2], "-m", "seed=1,2", *words, "run_dir=once", "sweep.retry=1", cwd=tmp_path, check=1)
    assert "out of memory" in table(tmp_path / "once")[0]["reason"] and "micro_batch=4" in failed.stderr
    ganrun(*own[:2], "-m", "seed=1,2", *words, "run_dir=twice", "sweep.retry=2", cwd=tmp_path)
    log = (tmp_path / "twice" / "seed=1" / "train.log").read_text()
    assert "tried again with micro_batch=8: out of memory" in log and "tried again with micro_batch=4" in log
    ganrun(*own[:2], *words, "seed=1", "micro_batch=4", "run_dir=plain", cwd=tmp_path)
    assert_same_weights(tmp_path / "plain", tmp_path / "twice" / "seed=1")


LATER_GREEDY = GREEDY.replace(
    "        if len(", "        self.moves = getattr(self, 'moves', 0) + 1\n        if self.moves > 6 and len("
)


def test_a_job_that_runs_out_of_memory_later_goes_on_from_what_is_saved(tmp_path):
    """In smaller passes from there on, which changes.yaml remembers."""
    own = own_loss(tmp_path, LATER_GREEDY)
    words = [*own[2:], *ARGS, "run_dir=sweep"]
    ganrun(*own[:2], "-m", "seed=1", *words, "sweep.retry=2", cwd=tmp_path)
    run_dir = tmp_path / "sweep" / "run"
    log, changes = (
        (run_dir / "train.log").read_text(),
        yaml.safe_load((run_dir / ".hydra" / "changes.yaml").read_text()),
    )
    assert log.count(" start at step 0 ") == 1 and log.count(" start at step 6 ") == 1
    assert [(each["key"], each["got"]) for each in changes] == [("micro_batch", 8), ("micro_batch", 4)]
    ganrun("resume=sweep", cwd=tmp_path)
    assert table(tmp_path / "sweep")[0]["status"] == "finished"


def test_how_far_it_is(tmp_path):
    def row(status, name, **more):
        return {"overrides": name, "status": status, "path": str(tmp_path / name), "seconds": None, **more}

    done = [
        row("finished", "seed=1", fid=3.0) | {"seconds": 40.0},
        row("collapsed", "seed=2", fid=2.5) | {"seconds": 20},
    ]
    left = [row("failed", "seed=3"), row("not started", "seed=4"), row("not started", "seed=5")]
    told = "2 of 5 jobs done, 1 failed, 2 left, about 0:01:00 of training; best fid 2.5: seed=2"
    assert so_far([*done, *left]) == told
    assert so_far(left) == "0 of 3 jobs done, 1 failed, 2 left"


class TestSeeds:
    def test_three_by_three_are_three_lines(self, tmp_path):
        done = ganrun("-m", "loss=hinge,lsgan,wgan", "seed=range(0,3)", *ARGS, "steps=2", "run_dir=s", cwd=tmp_path)
        groups = over_seeds(collect(tmp_path / "s", []))
        assert len(groups) == 3 and all(len(group.values["sliced-wasserstein"]) == 3 for group in groups)
        lines = [line for line in done.stdout.splitlines() if "±" in line]
        assert len(lines) == 3 and all("3" in line for line in lines)
        assert "Welch's t = " in done.stdout and "(n = 3 and 3)" in done.stdout

    def test_mean_deviation_and_test_by_hand(self):
        one, other = [1.0, 2.0, 3.0, 4.0], [11.0, 12.5, 14.0]
        told = verdict("fid", ("a", one), ("b", other))
        t, p = ttest_ind(one, other, equal_var=False)
        assert told.startswith("fid: a and b differ: -10, ") and f"t = {t:.2f}, p = {p:.2g}" in told
        low, high = (float(word.rstrip(",")) for word in told.split("interval ")[1].split(" (")[0].split(" to "))
        assert -12 < low < -10 < high < -8  # standard error of the difference: 1.08

    def test_what_cannot_be_told(self):
        assert (
            verdict("fid", ("a", [1.0]), ("b", [2.0, 3.0]))
            == "fid: one seed cannot tell whether a and b differ (n = 1 and 2)"
        )
        assert "a and b cannot be told apart" in verdict("fid", ("a", [1.0, 2.0, 3.0]), ("b", [1.5, 2.0, 3.1]))

    def test_without_a_sweep_over_seeds_there_is_nothing_to_average(self, whole, tmp_path):
        rows = [row for row in collect(whole, []) if "seed=1" in row["overrides"]]
        assert len(rows) == 2 and over_seeds(rows) == []


def made(folder, num):
    """So many jobs that have ended, one of them with a spoilt result."""
    for i in range(num):
        job = folder / f"seed={i}"
        (job / ".hydra").mkdir(parents=True)
        (job / ".hydra" / "overrides.yaml").write_text(f"- seed={i}\n- loss=hinge\n")
        content = {"status": "finished", "seconds": i, "scores": {"fid": {"final": i / 2, "better": "lower"}}}
        (job / "result.json").write_text(json.dumps(content)[: -1 if i == 7 else None])


def test_results_of_a_thousand_jobs(tmp_path):
    """In one pass, whatever state each is in; the next pass reads again only what has changed."""
    made(tmp_path, 1000)
    rows = collect(tmp_path, [])
    assert len(rows) == 1000 and sum(row["status"] == "finished" for row in rows) == 999
    write_results(tmp_path, rows)
    assert json.loads((tmp_path / "results.json").read_text()) == rows
    assert {row["overrides"]: row["fid"] for row in table(tmp_path)}["seed=8 loss=hinge"] == "4.0"
    (tmp_path / "seed=8" / "result.json").write_text('{"status": "failed", "reason": "odd"}')
    (changed,) = (now for now, before in zip(collect(tmp_path, []), rows, strict=True) if now != before)
    assert changed["status"] == "failed" and changed["reason"] == "odd"


WRITER = """
import json, sys
from pathlib import Path
from ganrun.commands.train.table import update_results
for i in map(int, sys.argv[1:]):
    content = {"status": "finished", "scores": {"fid": {"final": i / 2 + 1, "better": "lower"}}}
    Path(f"seed={i}/part").write_text(json.dumps(content))
    Path(f"seed={i}/part").replace(f"seed={i}/result.json")
    update_results(Path(), [])
"""


def test_the_table_is_right_under_parallel_writers(tmp_path):
    """Whichever of them is the last."""
    made(tmp_path, 40)
    shares = [[str(i) for i in range(40) if i % 4 == part] for part in range(4)]
    going = [subprocess.Popen([sys.executable, "-c", WRITER, *share], cwd=tmp_path) for share in shares]
    assert [each.wait(120) for each in going] == [0] * 4
    found = {row["overrides"]: row["fid"] for row in table(tmp_path)}
    assert found == {f"seed={i} loss=hinge": str(i / 2 + 1) for i in range(40)}
    assert len(json.loads((tmp_path / "results.json").read_text())) == 40 and not list(tmp_path.glob(".*partial"))


def test_what_is_over_is_not_launched_again(copied, tmp_path):
    """Not even composed: a resume of a thousand finished jobs has little to do."""
    shutil.rmtree(copied / "loss=hinge,seed=2")
    done = ganrun("resume=sweep", cwd=tmp_path)
    assert done.stdout.count("jobs done") == 1
