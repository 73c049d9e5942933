"""What follows a collapse: nothing, a stop, a way back; exact to resume wherever a run is killed."""

import csv
import json
import shutil
import signal
import time

import pytest
import torch
from conftest import TINY
from forked import Run, run
from test_configs import SMALL, composed
from test_kill import assert_same, assert_same_run, files
from test_processes import TWO, both_to_the_end

from ganrun.files.checkpoint import load_checkpoint
from ganrun.seeding import derive, of_attempt
from ganrun.training.build import build

BAD = [*TINY, "loss=minimax", "optimizer.discriminator.lr=1e-2", "optimizer.generator.lr=1e-4"]  # D saturates at once
BAD += ["collapse.every=5", "collapse.num_samples=64", "evaluate.every=10", "checkpoint.every=10", "sample_every=20"]
BAD += ["log_every=5", "steps=60", "run_dir=run", "dataset.flip=true"]
BACK = [*BAD, "on_collapse=rollback", "steps=28"]  # seen at 25, gone back to 10, twice


def result(path):
    return json.loads((path / "run" / "result.json").read_text())


def last(path):
    return load_checkpoint(path / "run" / "checkpoints" / "last.ckpt")


@pytest.fixture(scope="module")
def rolled(tmp_path_factory):
    """A run that goes back twice and then reaches its end."""
    path = tmp_path_factory.mktemp("rolled")
    done = run(*BACK, cwd=path)
    return path, done


@pytest.fixture(scope="module")
def collapsed(tmp_path_factory):
    """A run that its collapse has stopped."""
    path = tmp_path_factory.mktemp("collapsed")
    done = run(*BAD, "on_collapse=stop", cwd=path, check=4)
    return path, done


@pytest.fixture
def copied(collapsed, tmp_path):
    shutil.copytree(collapsed[0] / "run", tmp_path / "run")


def test_a_fit_is_built_again_from_data_that_lie_elsewhere():
    """As on a GPU, where a run that went back used to fail."""
    parts = build(composed(*SMALL)[0])
    parts.data.held = {key: samples.to("meta") for key, samples in parts.data.held.items()}
    again = build(parts.cfg, before=parts)
    assert again.data is parts.data and again.scorer is parts.scorer and again.module is not parts.module
    assert again.activation_bytes == parts.activation_bytes > 0


def test_warning_changes_nothing(tmp_path):
    for name, choice in {"off": "null", "warn": "warn"}.items():
        run(*BAD, f"on_collapse={choice}", f"run_dir={name}", "checkpoint.keep=null", cwd=tmp_path)
    null, warn = (tmp_path / name for name in ("off", "warn"))
    assert files(null) == files(warn)
    for name in [name for name in files(null) if name.endswith(".ckpt")]:
        one, other = (load_checkpoint(path / name) for path in (null, warn))
        assert all(torch.equal(value, other["state_dict"][key]) for key, value in one["state_dict"].items()), name
    assert (null / "generator.safetensors").read_bytes() == (warn / "generator.safetensors").read_bytes()
    found = [json.loads((path / "result.json").read_text())["collapse"] for path in (null, warn)]
    assert found[0] == [] and "discriminator" in [finding["kind"] for finding in found[1]]


def test_stop_saves_tells_and_can_be_gone_on_with(collapsed, copied, tmp_path):
    done, stopped = collapsed[1], result(tmp_path)
    (found,) = stopped["collapse"]
    assert stopped["status"] == "collapsed" and found["action"] == "stop" and found["step"] == stopped["steps"] < 60
    assert last(tmp_path)["global_step"] == stopped["steps"]
    assert done.err.splitlines()[-1].startswith(found["text"]) and done.out.splitlines()[-1] == "run"
    assert "the best state, step " in done.err and "run/checkpoints/best.ckpt" in done.err
    assert "go on with: ganrun resume=run" in done.err
    run("resume=run", cwd=tmp_path, check=4)  # it is seen again
    assert [finding["step"] for finding in result(tmp_path)["collapse"]] == [found["step"], found["step"] + 15]
    run("resume=run", "on_collapse=warn", cwd=tmp_path)
    assert result(tmp_path)["status"] == "finished" and len(result(tmp_path)["collapse"]) > 2


def test_a_collapse_seen_in_the_step_of_a_score_goes_back_before_it(tmp_path):
    done = run(*BACK, "collapse.patience=4", "steps=38", cwd=tmp_path, check=None)
    (found, *_) = result(tmp_path)["collapse"]
    assert found["step"] % 10 == 0 and found["action"] == "rollback"
    back = int(done.out.split("back at step ")[1].split(" ")[0])
    assert back < found["step"] - 15, "to a state before the first sign"


def test_a_kill_before_a_stop_is_written_down_changes_nothing(copied, tmp_path):
    stopped, before = result(tmp_path), last(tmp_path)
    (tmp_path / "run" / "result.json").write_text(json.dumps({"status": "running", "goal": 60}))
    run("resume=run", cwd=tmp_path, check=4)
    again = result(tmp_path)
    assert [again[key] for key in ("status", "steps", "collapse")] == [
        stopped[key] for key in ("status", "steps", "collapse")
    ]
    assert all(torch.equal(value, before["state_dict"][key]) for key, value in last(tmp_path)["state_dict"].items())


def test_a_score_of_another_protocol_is_another_course(tmp_path):
    settings = [
        *TINY,
        "checkpoint.every=0",
        "sample_every=0",
        "on_collapse=stop",
        "collapse.every=1000",
        "collapse.patience=1",
    ]
    run(*settings, "metric=[fid]", "metric/features=none", "evaluate.every=10", "steps=20", "run_dir=run", cwd=tmp_path)
    run("resume=run", "steps=40", "evaluate.num_samples=8", cwd=tmp_path)  # a FID of few samples is far larger
    assert result(tmp_path)["status"] == "finished" and not result(tmp_path)["collapse"]


def test_after_a_way_back_the_generator_is_that_of_the_best_state(tmp_path):
    started = Run(*BACK, "checkpoint.every=0", "steps=2000", cwd=tmp_path)
    back = tmp_path / "run" / "generator.safetensors"
    started.wait_for(back)  # nothing but a way back writes it before the end
    started.kill()
    assert back.read_bytes() == (tmp_path / "run" / "best.safetensors").read_bytes()


def test_sweep_goes_on_after_a_collapsed_job(tmp_path):
    strong = "optimizer.discriminator.lr=1e-2,1e-5"
    args = ["on_collapse=stop", "collapse.patience=4", "steps=30", "run_dir=sweep"]
    run("-m", strong, *[arg for arg in BAD if "discriminator.lr" not in arg], *args, cwd=tmp_path, check=1)
    rows = list(csv.DictReader((tmp_path / "sweep" / "results.csv").read_text().splitlines()))
    assert [row["status"] for row in rows] == ["collapsed", "finished"]
    assert rows[0]["reason"].startswith("collapse at step")


def test_rollback_takes_lower_learning_rates_and_another_path(rolled):
    path, done = rolled
    ended, found = result(path), result(path)["collapse"]
    assert ended["status"] == "finished" and [finding["action"] for finding in found] == ["rollback"] * len(found)
    assert (
        len(found) == 2 and "(1 of 3)" in found[0]["text"] and "0.25 x the learning rates (2 of 3)" in found[1]["text"]
    )
    assert done.out.count("back at step") == 2
    content = last(path)
    assert content["ganrun"]["attempt"] == 2
    rates = [group["lr"] for state in content["optimizer_states"] for group in state["param_groups"]]
    assert rates == pytest.approx([1e-2 / 4, 1e-4 / 4])
    assert of_attempt(7, 0) == 7 and of_attempt(7, 1) == derive(7, "attempt", 1) != of_attempt(7, 2)


def test_no_rollback_is_left(tmp_path):
    run(*BACK, "steps=60", "collapse.rollbacks=1", cwd=tmp_path, check=4)
    assert [finding["action"] for finding in result(tmp_path)["collapse"]] == ["rollback", "stop"]
    assert "1 of 1 rollbacks are used up" in result(tmp_path)["reason"]
    run("resume=run", "collapse.rollbacks=2", cwd=tmp_path, check=None)
    assert last(tmp_path)["ganrun"]["attempt"] == 2


def test_nothing_to_go_back_to(tmp_path):
    run(*BACK, "steps=60", "evaluate.every=50", "checkpoint.every=50", cwd=tmp_path, check=4)
    assert "no best checkpoint to go back to; on_collapse=warn goes on" in result(tmp_path)["reason"]


def test_a_stopped_run_goes_back_when_asked_to(copied, tmp_path):
    run("resume=run", "on_collapse=rollback", cwd=tmp_path, check=None)
    actions = [finding["action"] for finding in result(tmp_path)["collapse"]]
    assert actions[:2] == ["stop", "rollback"] and last(tmp_path)["ganrun"]["attempt"] == actions.count("rollback")


@pytest.mark.parametrize("setting", ["metric=[]", "evaluate.every=0"])
def test_rollback_without_scores_is_refused(setting, tmp_path):
    refused = run(*BACK, setting, cwd=tmp_path, check=2)
    assert f"{setting} gives none" in refused.err and refused.err.count("\n") == 1 and not list(tmp_path.iterdir())
    refused = run(*BAD, "collapse.lr_factor=1.5", cwd=tmp_path, check=2)
    assert "collapse.lr_factor=1.5; expected more than 0, up to 1" in refused.err


# killed while it goes back: a loss of the user's own pulls the plug

PLUG = """
import os
from ganrun.training import run
from ganrun.losses import Minimax


def killing(name, moment, number):
    call = getattr(run, name)
    calls = []

    def killed(*args, **kwargs):
        calls.append(name)
        if moment == "before" and len(calls) == number:
            os.kill(os.getpid(), 9)
        result = call(*args, **kwargs)
        if moment == "after" and len(calls) == number:
            os.kill(os.getpid(), 9)
        return result

    setattr(run, name, killed)


if "PLUG" in os.environ:
    name, moment, number = os.environ["PLUG"].split()
    killing(name, moment, int(number))


class Own(Minimax):
    pass
"""
OWN = ["--config-dir", "my", "loss._target_=own_plug.Own"]
MOMENTS = ["save_rolled_back before 1", "save_rolled_back after 1", "prepare after 2", "save_rolled_back after 2"]


def write_plug(path):
    (path / "my").mkdir()
    (path / "my" / "own_plug.py").write_text(PLUG)


@pytest.fixture(scope="module")
def unharmed(tmp_path_factory):
    path = tmp_path_factory.mktemp("unharmed")
    write_plug(path)
    run(*OWN, *BACK, cwd=path)
    assert len(result(path)["collapse"]) == 2
    return path


@pytest.mark.parametrize("moment", MOMENTS)
def test_kill_while_it_goes_back(moment, unharmed, tmp_path):
    write_plug(tmp_path)
    run(*OWN, *BACK, cwd=tmp_path, check=137, env={"PLUG": moment})
    run("--config-dir", "my", "resume=run", "trust=[own_plug]", cwd=tmp_path)
    assert_same_run(unharmed / "run", tmp_path / "run")
    assert result(unharmed)["collapse"] == result(tmp_path)["collapse"]


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
@pytest.mark.parametrize(
    "text", ["back to the best state with 0.5 ", "back at step", "back to the best state with 0.25 "]
)
def test_end_around_a_rollback(text, number, rolled, tmp_path):
    killed = Run(*BACK, cwd=tmp_path)
    log = tmp_path / "run" / "train.log"
    while killed.process.is_alive() and not (log.exists() and text in log.read_text()):
        time.sleep(0.001)
    killed.kill(number)
    killed.wait()
    run("resume=run", cwd=tmp_path)
    if number == signal.SIGKILL:
        assert_same_run(rolled[0] / "run", tmp_path / "run")
    for key in ("state_dict", "optimizer_states", "callbacks"):  # Lightning counts an epoch more after a stop
        assert_same(last(rolled[0])[key], last(tmp_path)[key], key)
    assert result(rolled[0])["collapse"] == result(tmp_path)["collapse"]


def test_two_processes_go_back_together(tmp_path):
    run(*BACK, *TWO, cwd=tmp_path)
    found = result(tmp_path)["collapse"]
    assert [finding["action"] for finding in found] == ["rollback"] * len(found) and found
    assert last(tmp_path)["ganrun"]["attempt"] == len(found) and result(tmp_path)["status"] == "finished"


def test_processes_of_a_launcher_stop_and_go_back_alike(tmp_path):
    ranks = both_to_the_end(*BAD, "on_collapse=stop", cwd=tmp_path, check=4)
    assert ranks[1].out == "" and result(tmp_path)["status"] == "collapsed"
    ranks = both_to_the_end("resume=run", "on_collapse=rollback", "collapse.rollbacks=1", cwd=tmp_path, check=4)
    assert last(tmp_path)["ganrun"]["attempt"] == ranks[0].out.count("back at step") == 1


@pytest.mark.soak
def test_two_processes_killed_while_they_go_back(tmp_path):
    for name in ("one", "other"):
        (tmp_path / name).mkdir()
    run(*BACK, *TWO, cwd=tmp_path / "one")
    killed = Run(*BACK, *TWO, cwd=tmp_path / "other")
    log = tmp_path / "other" / "run" / "train.log"
    while killed.process.is_alive() and not (log.exists() and "back at step" in log.read_text()):
        time.sleep(0.001)
    killed.kill()
    killed.wait()
    run("resume=run", cwd=tmp_path / "other")
    assert_same(last(tmp_path / "one"), last(tmp_path / "other"), "last")
    assert result(tmp_path / "one")["collapse"] == result(tmp_path / "other")["collapse"]
