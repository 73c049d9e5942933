"""Searches: Optuna proposes the jobs of a sweep; kills lose nothing; hopeless trials end early."""

import csv
import json
import signal
import time

import optuna
import pytest
import yaml
from conftest import ROOT, TINY, ganrun, last_line
from forked import Run, run
from hydra.core.override_parser.overrides_parser import OverridesParser
from test_rollback import BAD

from ganrun.commands.train.search import STUDY, distribution
from ganrun.commands.train.sweep import with_space
from ganrun.errors import UserError

ARGS = [*TINY, "dataset.limit=64", "steps=6", "evaluate.every=2", "checkpoint.every=2", "sample_every=0"]
SPACE = ["optimizer.lr=tag(log,interval(1e-5,1e-2))", "loss=hinge,wgan"]
TPE = ["hydra/sweeper=tpe", "run_dir=search"]


def study(folder):
    return optuna.load_study(storage=f"sqlite:///{folder / 'optuna.db'}", study_name=STUDY)


def states(folder):
    return [trial.state.name for trial in study(folder).get_trials()]


def rows(folder):
    return list(csv.DictReader((folder / "results.csv").read_text().splitlines()))


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    path = tmp_path_factory.mktemp("search")
    done = ganrun("-m", *SPACE, *TPE, "hydra.sweeper.n_trials=4", *ARGS, cwd=path)
    return path / "search", done


def test_every_trial_is_a_run_and_the_best_is_told(whole):
    folder, done = whole
    assert states(folder) == ["COMPLETE"] * 4 and len(rows(folder)) == 4 and last_line(done) == "search"
    values = {row["overrides"]: float(row["sliced-wasserstein"]) for row in rows(folder)}
    best = study(folder).best_trial
    assert best.value == min(values.values())
    told = [line for line in done.stdout.splitlines() if f"optimizer.lr={best.params['optimizer.lr']}" in line]
    assert "4 trials: 4 complete" in done.stdout and "best trial" in done.stdout and len(told) >= 2
    for trial in study(folder).get_trials():
        assert 1e-5 <= trial.params["optimizer.lr"] <= 1e-2 and trial.params["loss"] in ("hinge", "wgan")


def test_two_kills_end_with_the_same_trials(whole, tmp_path):
    line = ["-m", *SPACE, *TPE, "hydra.sweeper.n_trials=4", *ARGS]
    for number in (1, 3):
        going = Run(*line, cwd=tmp_path)
        until = time.monotonic() + 120
        while len(list((tmp_path / "search").glob("*/checkpoints/last.ckpt"))) < number:
            assert going.process.is_alive() and time.monotonic() < until
            time.sleep(0.01)
        going.kill(signal.SIGKILL)
        going.wait()
    run("resume=search", cwd=tmp_path)
    had, got = (
        {tuple(t.params.items()): t.value for t in study(f).get_trials()} for f in (whole[0], tmp_path / "search")
    )
    assert had == got and states(tmp_path / "search") == ["COMPLETE"] * 4


@pytest.mark.soak
def test_thirty_trials_through_two_kills(tmp_path):
    line = ["-m", *SPACE, *TPE, "hydra.sweeper.n_trials=30", *ARGS]
    for seconds in (6, 9):
        going = Run(*line, cwd=tmp_path)
        time.sleep(seconds)
        going.kill(signal.SIGKILL)
        going.wait()
    done = run("resume=search", cwd=tmp_path)
    run(*(word if word != "run_dir=search" else "run_dir=unharmed" for word in line), cwd=tmp_path)
    assert states(tmp_path / "search") == ["COMPLETE"] * 30
    had, got = study(tmp_path / "unharmed").best_trial, study(tmp_path / "search").best_trial
    assert (had.params, had.value) == (got.params, got.value)
    assert f"optimizer.lr={got.params['optimizer.lr']}" in done.out.partition("best trial")[2]


def test_more_trials_extend_a_search(whole, tmp_path):
    import shutil

    shutil.copytree(whole[0], tmp_path / "search")
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "search").glob("*/generator.safetensors")}
    ganrun("-m", *SPACE, *TPE, "hydra.sweeper.n_trials=5", *ARGS, cwd=tmp_path)
    assert len(rows(tmp_path / "search")) == 5 and all(path.stat().st_mtime_ns == t for path, t in before.items())


def test_grid_and_several_objectives(tmp_path):
    words = ["loss=hinge,wgan", "seed=1,2", "hydra/sweeper=grid", "hydra.sweeper.by=[sliced-wasserstein,seconds]"]
    done = ganrun("-m", *words, *ARGS, "run_dir=grid", cwd=tmp_path)
    assert len(rows(tmp_path / "grid")) == 4 and "Pareto front" in done.stdout
    found = study(tmp_path / "grid")
    assert [direction.name for direction in found.directions] == ["MINIMIZE"] * 2
    for trial in found.best_trials:
        others = [other.values for other in found.get_trials()]
        assert not any(all(a < b for a, b in zip(other, trial.values, strict=True)) for other in others)


def test_hopeless_trials_end_early_and_say_so(tmp_path):
    rates = "optimizer.lr=1e-3,2e-3,1e-9,2e-9,3e-9"
    words = [rates, "hydra/sweeper=grid", "hydra.sweeper.pruner=halving", "evaluate.every=1", "steps=12"]
    done = ganrun(
        "-m", *words, *(arg for arg in ARGS if "every=2" not in arg and "steps" not in arg), "run_dir=h", cwd=tmp_path
    )
    table = rows(tmp_path / "h")
    pruned = [row for row in table if row["status"] == "pruned"]
    assert pruned and len(table) == 5 and "given up by the search after" in pruned[0]["reason"]
    assert states(tmp_path / "h").count("PRUNED") == len(pruned)
    steps = [json.loads((tmp_path / row["path"] / "result.json").read_text())["steps"] for row in pruned]
    assert all(n < 12 for n in steps) and "pruned" in done.stdout


def test_a_collapsed_trial_ends_and_counts_as_pruned(tmp_path):
    """A search stops them without being asked to."""
    strong = [arg for arg in BAD if "discriminator.lr" not in arg and not arg.startswith("run_dir")]
    words = ["optimizer.discriminator.lr=1e-2,1e-5", "hydra/sweeper=grid", "collapse.patience=4", "steps=30"]
    done = ganrun("-m", *strong, *words, "run_dir=c", cwd=tmp_path, check=None)
    found = rows(tmp_path / "c")
    assert [row["status"] for row in found] == ["collapsed", "finished"] and states(tmp_path / "c") == [
        "PRUNED",
        "COMPLETE",
    ]
    assert found[0]["reason"].startswith("collapse at step") and "1 complete, 1 pruned" in done.stdout


def test_a_failed_trial_is_told_and_the_search_goes_on(tmp_path):
    words = ["dataset.resolution=16,30", "hydra/sweeper=grid", "run_dir=f"]
    done = ganrun("-m", *words, *ARGS, cwd=tmp_path, check=1)
    assert sorted(states(tmp_path / "f")) == ["COMPLETE", "FAIL"] and "dcgan cannot build it" in done.stderr


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["seed=1,2", "hydra/sweeper=tp"], "hydra/sweeper"),
        (["hydra/sweeper=tpe"], "nothing to search; give a key several values"),
        (["seed=1,2", "hydra/sweeper=tpe", "hydra.sweeper.n_trials=0"], "n_trials=0; expected at least 1"),
        (["seed=1,2", "hydra/sweeper=tpe", "hydra.sweeper.at_once=0"], "at_once=0; expected at least 1, or null"),
        (["seed=1,2", "hydra/sweeper=tpe", "hydra.sweeper.by=fid"], "hydra.sweeper.by=fid; "),
        (["optimizer.lr=interval(0,1)", "hydra/sweeper=grid"], "optimizer.lr has no list of values"),
        (["seed=1,2", "hydra/sweeper=tpe", "hydra.sweeper.pruner=no"], "hydra.sweeper.pruner=no; "),
        (["sweep=nothing"], "there is no such search space; valid: losses, rates, width"),
    ],
    ids=lambda case: " ".join(case) if isinstance(case, list) else "",
)
def test_mistakes_are_one_line_and_leave_nothing(words, told, tmp_path):
    refused = ganrun("-m", *words, *ARGS, cwd=tmp_path, check=2)
    assert told in refused.stderr and refused.stderr.count("\n") == 1 and not list(tmp_path.iterdir())


@pytest.mark.parametrize("file", sorted((ROOT / "configs" / "sweep").glob("*.yaml")), ids=lambda file: file.stem)
def test_spaces_are_sweeps_that_hydra_understands(file):
    args = with_space(["-m", f"sweep={file.stem}", "steps=1"])
    overrides = OverridesParser.create().parse_overrides(args[1:])
    assert {each.key_or_group for each in overrides} == {*yaml.safe_load(file.read_text()), "steps"}
    assert all(each.is_sweep_override() for each in overrides if each.key_or_group != "steps")
    assert all(distribution(each) for each in overrides if each.key_or_group != "steps")


def test_what_is_typed_wins_over_a_space_and_own_spaces_are_found(tmp_path):
    (tmp_path / "sweep").mkdir()
    (tmp_path / "sweep" / "mine.yaml").write_text("seed: 1,2\nloss: hinge\n")
    found = with_space(["-m", "--config-dir", str(tmp_path), "sweep=mine", "loss=wgan"])
    assert found == ["-m", "--config-dir", str(tmp_path), "loss=wgan", "seed=1,2"]
    with pytest.raises(UserError, match="did you mean mine"):
        with_space(["-m", "--config-dir", str(tmp_path), "sweep=mien"])


@pytest.mark.parametrize(
    ("word", "kind"),
    [
        ("a=1,2", optuna.distributions.CategoricalDistribution(["1", "2"])),
        ("a=range(0,3)", optuna.distributions.CategoricalDistribution(["0", "1", "2"])),
        ("a=tag(log,range(1,9))", optuna.distributions.IntDistribution(1, 8, log=True)),
        ("a=interval(0,1)", optuna.distributions.FloatDistribution(0, 1)),
        ("a=tag(log,interval(1e-3,1))", optuna.distributions.FloatDistribution(1e-3, 1, log=True)),
    ],
)
def test_distributions(word, kind):
    (override,) = OverridesParser.create().parse_overrides([word])
    assert distribution(override) == kind
