"""What whole-command tests share: the real console script, small runs made once, and a data directory."""

import atexit
import fcntl
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import forked
import pytest
import quick
from PIL import Image

ROOT = Path(__file__).parent.parent
GANRUN = Path(sys.executable).parent / "ganrun"
TINY = ["generator.width=8", "discriminator.width=8", "batch_size=16", "evaluate.num_samples=64", "num_samples=16"]
if "PYTEST_XDIST_WORKER" not in os.environ:  # all workers share what is made once
    os.environ["GANRUN_CACHE"] = tempfile.mkdtemp(prefix="ganrun-tests-")
    os.environ["HF_DATASETS_CACHE"] = os.environ["GANRUN_CACHE"] + "/huggingface"
    atexit.register(shutil.rmtree, os.environ["GANRUN_CACHE"], ignore_errors=True)
if not os.environ.get("GANRUN_TEST_GPU"):
    os.environ["CUDA_VISIBLE_DEVICES"] = ""  # the fastest operations of a GPU do not repeat to the bit; see test_gpu.py
os.environ.setdefault("OMP_NUM_THREADS", "1")  # two test processes on two cores


def pytest_configure(config: pytest.Config) -> None:
    several = getattr(config.option, "numprocesses", None) and not config.option.collectonly
    if several and "PYTEST_XDIST_WORKER" not in os.environ:
        forked.share()


def ganrun(*args: str, cwd: Path, check: int | None = 0) -> subprocess.CompletedProcess:
    """Runs the command to its end in a process of its own; `check` is the exit code that it must end with."""
    done = forked.run(*args, cwd=cwd, check=check)
    return subprocess.CompletedProcess(args, done.wait(), done.out, done.err)


def made_once(name: str, make: Callable[[Path], None]) -> Path:
    """The folder that `make` fills. The first test process that asks makes it, and no test changes it."""
    folder = Path(os.environ["GANRUN_CACHE"]) / "once" / name
    folder.parent.mkdir(exist_ok=True)
    with folder.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not folder.with_suffix(".made").exists():  # the first, or the one before has failed
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
            make(folder)
            folder.with_suffix(".made").touch()
    return folder


def own_loss(folder: Path, code: str, **settings: object) -> list[str]:
    """A user's own class, the last of `code`, as a loss of their own; the words that choose it."""
    (folder / "my" / "loss").mkdir(parents=True)
    (folder / "my" / "own_losses.py").write_text(code)
    name = code.rpartition("class ")[2].partition("(")[0]
    node = {"_target_": f"own_losses.{name}", **settings}
    (folder / "my" / "loss" / "own.yaml").write_text(f"# @package _global_\n# My own\nloss: {json.dumps(node)}\n")
    return ["--config-dir", "my", "loss=own"]


@pytest.fixture(scope="session", autouse=True)
def quickly() -> None:
    quick.start()


@pytest.fixture(scope="session")
def undecoded(tmp_path_factory) -> list[str]:
    """What chooses a set that workers must decode, where there are any: 100 images of 16x16 in a folder."""
    folder = tmp_path_factory.mktemp("undecoded")
    for i in range(100):
        Image.effect_noise((16, 16), i + 1).save(folder / f"{i:02}.png")
    chosen = ["dataset=image-folder", f"dataset.path={folder}", "dataset.cache=null"]
    return [*chosen, "dataset.resolution=16", "dataset.channels=1", "dataset.flip=true"]


def last_line(done: subprocess.CompletedProcess) -> str:
    return done.stdout.splitlines()[-1]


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """Where MNIST lies, if it does: $GANRUN_DATA, or a shared folder beside the project."""
    for place in (os.environ.get("GANRUN_DATA"), ROOT.parent / "shared" / "data"):
        if place and (Path(place) / "MNIST" / "raw").is_dir():
            return Path(place)
    pytest.skip("MNIST is not on this machine: set GANRUN_DATA")
