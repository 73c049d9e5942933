"""`ganrun clean`: lists what nobody uses, deletes it only when asked, and touches nothing else."""

import os
import time

import pytest
from conftest import TINY, ganrun
from forked import Run
from PIL import Image

from ganrun.files.storage import hold

DAY = 86400
SET, OTHER = "a" * 32, "b" * 32


def aged(path, days):
    """The same file, last used so many days ago."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.exists():
        path.write_bytes(bytes(5000))
    then = time.time() - days * DAY
    os.utime(path, (then, then))
    return path


def everything(place):
    return sorted(path.relative_to(place).as_posix() for path in place.rglob("*") if path.is_file())


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run with three step checkpoints; the newest is last.ckpt too."""
    path = tmp_path_factory.mktemp("trained")
    ganrun(*TINY, "steps=6", "checkpoint.every=2", "checkpoint.keep=null", "evaluate.every=6", "run_dir=run", cwd=path)
    return path / "run"


@pytest.fixture
def place(trained, tmp_path):
    """Outputs and a cache in which everything is 40 days old, and files of the user's between them."""
    run = tmp_path / "outputs" / "run"
    run.parent.mkdir()
    os.system(f"cp -a {trained} {run}")  # with its hard links
    for path in run.rglob("*"):
        aged(path, 40) if path.is_file() else None
    aged(run / "checkpoints" / ".step-000002.ckpt.abcd.partial", 40)
    for name in (f"{SET}.pixels", f"{SET}.json", f"{SET}.lock", f"{SET}-77.partial", f"real-{SET}.ckpt", "mine.ckpt",
                 f"classifier-{'c' * 16}.ckpt", f"{SET}.png", "step-000002.ckpt", "real-1.ckpt"):  # fmt: skip
        aged(tmp_path / "cache" / name, 40)
    for name in ("step-mine.ckpt", "step-2.ckpt"):
        aged(run / "checkpoints" / name, 40)
    aged(tmp_path / "step-000002.ckpt", 40)
    return tmp_path


GO = {
    f"cache/{SET}.pixels", f"cache/{SET}.json", f"cache/{SET}-77.partial", f"cache/real-{SET}.ckpt",
    f"cache/classifier-{'c' * 16}.ckpt", "outputs/run/checkpoints/step-000002.ckpt",
    "outputs/run/checkpoints/step-000004.ckpt", "outputs/run/checkpoints/.step-000002.ckpt.abcd.partial",
}  # fmt: skip


def test_it_lists_first_and_deletes_only_when_asked(place):
    before = everything(place)
    listed = ganrun("clean", "cache_dir=cache", cwd=place).stdout
    assert "8 files, " in listed and "nothing is deleted without yes=true" in listed and "40 d" in listed
    assert everything(place) == before
    done = ganrun("clean", "cache_dir=cache", "yes=true", cwd=place)
    assert set(before) - set(everything(place)) == GO and "8 files deleted, " in done.stdout and not done.stderr
    assert "0 files deleted, 0 B freed" in ganrun("clean", "cache_dir=cache", "yes=true", cwd=place).stdout
    ganrun("resume=outputs/run", "steps=8", cwd=place)  # the run goes on without them


@pytest.mark.parametrize(
    ("words", "gone"),
    [
        (["what=prepared"], {name for name in GO if "cache/a" in name}),
        (["what=[features]"], {name for name in GO if "real" in name or "classifier" in name}),
        (["what=checkpoints", "of=outputs/run"], {name for name in GO if "outputs" in name}),
        (["days=41"], set()),
    ],
)
def test_what_and_days(words, gone, place):
    before = everything(place)
    ganrun("clean", "cache_dir=cache", "yes=true", *words, cwd=place)
    assert set(before) - set(everything(place)) == gone


def test_what_is_in_use_stays(place):
    """A set of which one file was read lately, or that a process prepares; a run that is being trained or that needs
    an earlier checkpoint."""
    aged(place / "cache" / f"{SET}.json", 1)
    aged(place / "cache" / f"{OTHER}.pixels", 40)
    (place / "outputs" / "run" / "checkpoints" / "last.ckpt").write_bytes(b"cut off")
    before = everything(place)
    with hold(place / "cache" / f"{OTHER}.lock"):
        done = ganrun("clean", "cache_dir=cache", "yes=true", cwd=place)
    assert f"{OTHER}.pixels: not deleted: another process prepares it" in done.stderr
    kept = {name for name in GO if "step-00000" in name and "partial" not in name} | {
        f"cache/{SET}.pixels",
        f"cache/{SET}.json",
    }
    assert set(before) - set(everything(place)) == GO - kept


def test_a_run_at_work_stays(tmp_path):
    going = Run(*TINY, "steps=100000", "checkpoint.every=1", "checkpoint.keep=null", "run_dir=run", cwd=tmp_path)
    going.wait_for(tmp_path / "run" / "checkpoints" / "step-000003.ckpt")
    ganrun("clean", "of=run", "cache_dir=none", "days=0", "yes=true", cwd=tmp_path)
    going.kill()
    going.wait()
    assert (tmp_path / "run" / "checkpoints" / "step-000001.ckpt").exists()


def test_using_a_prepared_set_or_statistics_counts(tmp_path):
    for i in range(20):
        (tmp_path / "images").mkdir(exist_ok=True)
        Image.effect_noise((16, 16), i + 1).save(tmp_path / "images" / f"{i}.png")
    words = [*TINY, "dataset=image-folder", "dataset.path=images", "dataset.resolution=16", "steps=1"]
    words += ["cache_dir=cache"]
    ganrun(*words, cwd=tmp_path)
    for path in (tmp_path / "cache").iterdir():
        aged(path, 40)
    ganrun(*words, cwd=tmp_path)
    ganrun("clean", "cache_dir=cache", "yes=true", "what=prepared", cwd=tmp_path)
    assert len(list((tmp_path / "cache").glob("*.pixels"))) == len(list((tmp_path / "cache").glob("*.json"))) == 1


@pytest.mark.parametrize(
    ("word", "told"),
    [
        ("of=nowhere", "of=nowhere: no run there"),
        ("what=all", "what=all; "),
        ("days=-1", "days=-1; expected at least 0"),
        ("yes=perhaps", "yes=perhaps; expected true or false"),
        ("keep=1", "keep"),
    ],
)
def test_mistakes_are_one_line(word, told, tmp_path):
    refused = ganrun("clean", word, cwd=tmp_path, check=2)
    assert told in refused.stderr and refused.stderr.count("\n") == 1
