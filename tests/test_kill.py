"""kill -9 at any moment: a resume ends as the run would have, and nothing is left over."""

import json
import random
import shutil
import time

import numpy as np
import pytest
import torch
from conftest import TINY
from forked import Run, run
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from ganrun.files.checkpoint import damage

ARGS = [*TINY, "steps=30", "run_dir=run", "penalty=[r1]", "log_every=2"]
ARGS += ["sample_every=6", "evaluate.every=4", "checkpoint.every=1", "optimizer.lr_schedule=cosine"]
PARALLEL = 8  # parts that test processes share among them


@pytest.fixture(scope="module")
def reference(undecoded, tmp_path_factory):
    """The run without a kill, and how long it takes."""
    path = tmp_path_factory.mktemp("reference")
    began = time.monotonic()
    args = [*ARGS, *undecoded]
    run(*args, cwd=path)
    return path / "run", time.monotonic() - began, args


def files(path):
    return sorted(p.relative_to(path).as_posix() for p in path.rglob("*") if p.is_file() and "events" not in p.name)


def metrics(path):
    lines = [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in line.items() if key != "images_per_second"} for line in lines]


def assert_same_run(one, other):
    """All that a run leaves, apart from times."""
    assert files(one) == files(other)
    for name in (name for name in files(one) if name.endswith(".ckpt")):
        assert damage(one / name) is None
        assert_same(*(torch.load(path / name, weights_only=True) for path in (one, other)), name)
    for name in (name for name in files(one) if name.endswith(".png")):
        assert np.array_equal(*(np.asarray(Image.open(path / name)) for path in (one, other))), name
    assert (one / "generator.safetensors").read_bytes() == (other / "generator.safetensors").read_bytes()
    assert metrics(one) == metrics(other)
    results = [json.loads((path / "result.json").read_text()) for path in (one, other)]
    assert results[0]["status"] == results[1]["status"] == "finished" and results[0]["scores"] == results[1]["scores"]
    boards = [
        EventAccumulator(str(path / "tensorboard"), size_guidance={"images": 0}).Reload() for path in (one, other)
    ]
    assert boards[0].Tags() == boards[1].Tags()
    for tag in boards[0].Tags()["scalars"]:
        points = [[(event.step, event.value) for event in board.Scalars(tag)] for board in boards]
        if tag != "images_per_second":
            assert points[0] == points[1], tag
        assert len({step for step, _ in points[0]}) == len(points[0]), f"{tag} holds a step twice"
    images = [[event.step for event in board.Images("samples")] for board in boards]
    assert images[0] == images[1] == sorted(set(images[0]))


def assert_same(a, b, where):
    """Nested containers of tensors and numbers, to the bit."""
    assert type(a) is type(b), where
    if isinstance(a, dict):
        assert a.keys() == b.keys(), where
        for key in a.keys() - {"seconds"}:
            assert_same(a[key], b[key], f"{where}.{key}")
    elif isinstance(a, list | tuple):
        assert len(a) == len(b), where
        for i, pair in enumerate(zip(a, b, strict=True)):
            assert_same(*pair, f"{where}.{i}")
    else:
        assert torch.equal(a, b) if torch.is_tensor(a) else a == b, where


def kill_and_resume(reference, path, share, workers=0):
    """Kills the process group after that share of the time a run takes; then resumes, and starts again if need be."""
    unharmed, seconds, args = reference
    args = [*args, f"dataset.num_workers={workers}"]
    killed = Run(*args, cwd=path, env={"TMPDIR": "/dev/shm"})  # another file system
    killed.process.join(share * seconds)
    if killed.process.is_alive():
        killed.kill()
    killed.process.join()
    if (path / "run" / ".hydra" / "config.yaml").exists():
        run("resume=run", cwd=path)
    else:
        run(*args, cwd=path)
    return unharmed, path / "run"


@pytest.mark.parametrize("seed", range(5))
def test_random_kill(reference, tmp_path, seed):
    share = (seed + random.Random(time.time_ns()).random()) / 5
    print("share", share)  # shown when it fails
    assert_same_run(*kill_and_resume(reference, tmp_path, share))


@pytest.mark.parametrize("missing", [["result.json"], ["result.json", "generator.yaml", "generator.safetensors"]])
def test_kill_after_the_last_checkpoint(reference, tmp_path, missing):
    """What is written after it is written again, without a step more."""
    shutil.copytree(reference[0], tmp_path / "run")
    for name in missing:
        (tmp_path / "run" / name).unlink()
    run("resume=run", cwd=tmp_path)
    assert_same_run(reference[0], tmp_path / "run")


@pytest.mark.soak
@pytest.mark.parametrize("part", range(PARALLEL))
def test_hundred_random_kills(reference, tmp_path, part):
    draw = random.Random(f"kills {part}")
    for i in range(13 if part < 4 else 12):
        path = tmp_path / str(i)
        path.mkdir()
        share = draw.random()
        print("share", share)
        assert_same_run(*kill_and_resume(reference, path, share))
        shutil.rmtree(path)


def test_kill_with_workers(reference, tmp_path):
    one, other = kill_and_resume(reference, tmp_path, 0.7, workers=2)
    assert_same_run(one, other)
