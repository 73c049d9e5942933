"""What a resume changes for good: when it must be asked to, from which step on, and exactly, whoever goes on later."""

import json
import shlex
import shutil

import pytest
import torch
import yaml
from conftest import TINY
from forked import run
from PIL import Image

from ganrun.files.checkpoint import load_checkpoint

SMALL = [*TINY, "steps=4", "checkpoint.every=2", "checkpoint.keep=null", "metric=[]", "on_collapse=null"]
PENALISED = ["loss=hinge", "penalty=[r1]", "optimizer.generator.lr=3e-4"]
CHANGED = ["optimizer.lr=1e-3", "penalty.r1.weight=1", "change=true"]


def weights(path):
    return load_checkpoint(path / "checkpoints" / "last.ckpt")["state_dict"]


def same(one, other):
    return all(torch.equal(value, other[key]) for key, value in one.items())


def result(path):
    return json.loads((path / "result.json").read_text())


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("changes")
    run(*SMALL, *PENALISED, "run_dir=once", cwd=folder)
    for copy in ("twice", "without"):
        shutil.copytree(folder / "once", folder / copy)
    return folder


@pytest.fixture(scope="module")
def changed(place):
    run("resume=once", "steps=8", *CHANGED, cwd=place)
    run("resume=twice", "steps=6", *CHANGED, cwd=place)
    run("resume=twice", "steps=8", cwd=place)
    run("resume=without", "steps=8", cwd=place)
    return place


def test_a_later_resume_holds_to_the_change_exactly(changed):
    once, twice, without = (weights(changed / name) for name in ("once", "twice", "without"))
    assert same(once, twice) and not same(once, without)


def test_a_change_is_written_down_and_the_config_is_not(changed):
    made = {one["key"]: (one["step"], one["had"], one["got"]) for one in result(changed / "twice")["changes"]}
    assert made == {
        "optimizer.lr": (4, 2e-4, 1e-3),
        "optimizer.discriminator.lr": (4, 2e-4, 1e-3),  # the generator has a rate of its own
        "penalty.r1.weight": (4, 10.0, 1),
    }
    assert "optimizer.lr=0.001 from step 4 on (was 0.0002)" in (changed / "twice" / "train.log").read_text()
    config = yaml.safe_load((changed / "twice" / ".hydra" / "config.yaml").read_text())
    assert config["optimizer"]["lr"] == 2e-4 and config["penalty"]["r1"]["weight"] == 10.0


def test_from_a_checkpoint_before_it_a_change_does_not_hold(changed):
    shutil.copytree(changed / "once", changed / "back")
    run("resume=back/checkpoints/step-000002.ckpt", "steps=8", cwd=changed)
    assert result(changed / "back")["changes"] == []
    assert same(weights(changed / "back"), weights(changed / "without"))


def test_it_must_be_asked_for_and_says_how(place):
    asked = run("resume=without", "steps=9", "penalty.r1.weight=3", cwd=place, check=2).err
    assert (
        "got 3, had 10.0 unless it is asked to: ganrun resume=without steps=9 penalty.r1.weight=3 change=true" in asked
    )
    never = run("resume=without", "generator.width=16", "change=true", cwd=place, check=2).err
    anew = shlex.split(never.rpartition("a new run from its weights: ")[2])
    assert anew[0] == "ganrun" and anew[-2:] == ["init_from=without", "generator.width=16"]
    own = yaml.safe_load((place / "without" / ".hydra" / "overrides.yaml").read_text())
    assert anew[1:-2] == [word for word in own if not word.startswith(("generator.width=", "run_dir="))]


def test_a_file_of_changes_names_nothing_else(place):
    shutil.copytree(place / "without", place / "hostile")
    bad = [{"step": 0, "key": "generator._target_", "had": "x", "got": "os.system"}]
    (place / "hostile" / ".hydra" / "changes.yaml").write_text(yaml.safe_dump(bad))
    assert "no resume has changed" in run("resume=hostile", "steps=9", cwd=place, check=2).err


def test_where_data_lie_now_is_remembered(tmp_path):
    (tmp_path / "old").mkdir()
    for i in range(20):
        Image.effect_noise((16, 16), 30 + i).save(tmp_path / "old" / f"{i}.png")
    own = ["dataset=image-folder", "dataset.path=old", "dataset.resolution=16", "dataset.channels=1"]
    run(*SMALL, *own, "run_dir=r", cwd=tmp_path)
    (tmp_path / "old").rename(tmp_path / "new place")
    run("resume=r", "steps=5", "dataset.path=new place", cwd=tmp_path)
    run("resume=r", "steps=6", cwd=tmp_path)
    assert result(tmp_path / "r")["steps"] == 6


def test_other_metrics_score_from_a_resume_on(place, tmp_path):
    shutil.copytree(place / "once", tmp_path / "run")
    refused = run("resume=run", "metric=[coverage]", cwd=tmp_path, check=2)
    assert "unless it is asked to" in refused.err and "change=true" in refused.err
    refused = run("resume=run", "metric=[coverag]", "change=true", cwd=tmp_path, check=2)
    assert "metric=coverag: there is no such option; did you mean coverage" in refused.err
    steps = result(tmp_path / "run")["steps"]
    chosen = ["metric=[sliced-wasserstein,coverage]", "change=true", "evaluate.every=2"]
    run("resume=run", f"steps={steps + 2}", *chosen, cwd=tmp_path)
    (made,) = [one for one in result(tmp_path / "run")["changes"] if one["key"] == "metric"]
    assert made == {"step": steps, "key": "metric", "had": [], "got": ["sliced-wasserstein", "coverage"]}
    run("resume=run", f"steps={steps + 4}", cwd=tmp_path)  # a later one holds to it
    scores = result(tmp_path / "run")["scores"]
    assert list(scores) == ["sliced-wasserstein", "coverage"] and scores["coverage"]["step"] == steps + 4
