"""What a user waits for besides steps, measured for scripts/benchmark --costs."""

import contextlib
import io
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from hydra import compose, initialize_config_dir
from loops import ROWS

from ganrun.config.groups import config_dir
from ganrun.data.base import Data
from ganrun.data.datamodule import Rounds
from ganrun.files.run_dir import RunDir
from ganrun.progress import console
from ganrun.sampling.generator_file import SamplingGenerator
from ganrun.signals import Signals
from ganrun.training.build import Parts, build
from ganrun.training.fit import Fit
from ganrun.training.train_log import logging_to

GANRUN = Path(sys.executable).parent / "ganrun"
SIZES = (1_000, 60_000)  # images
SMALL = ["model=dcgan", "dataset=digits", "dataset.resolution=32", "generator.width=8", "discriminator.width=8"]
JOBS = 40
STEPS = 50  # of a job


def clock() -> float:
    """Milliseconds, read once the device has done all that it was given."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return 1000 * time.perf_counter()


def composed(overrides: list[str]) -> Parts:
    with initialize_config_dir(str(config_dir()), version_base="1.3"):
        return build(compose("train", overrides))


def watch(overrides: list[str], steps: int, make_callback: Callable[[Parts], pl.Callback]) -> Any:
    """Trains as the command line does, with one callback more, and returns that."""
    with tempfile.TemporaryDirectory() as folder:
        parts = composed([*overrides, f"steps={steps}", f"run_dir={folder}"])
        run, callback = RunDir(folder), make_callback(parts)
        run.make()
        with logging_to(run.log), Signals() as signals, contextlib.redirect_stdout(io.StringIO()):
            fit = Fit(parts, run, None, signals)
            fit.trainer.callbacks.append(callback)  # the last: a step ends when all the others have seen it
            result = fit.run_to_end()
    if result["signal"]:
        sys.exit(128 + result["signal"])
    return callback


class Memory(pl.Callback):
    """Resident MiB after the first step and after each quarter of them."""

    def __init__(self, steps: int):
        self.marks = {1, *(steps * quarter // 4 for quarter in range(1, 5))}
        self.resident: dict[int, float] = {}

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx) -> None:
        if trainer.global_step in self.marks:
            pages = int(Path("/proc/self/statm").read_text().split()[1])
            self.resident[trainer.global_step] = pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def memory(steps: int = 20_000) -> dict[int, float]:
    """Resident MiB through a long fit of the tiny mlp."""
    found = watch(ROWS["mlp-ring-non-saturating"][0], steps, lambda _: Memory(steps)).resident
    say("resident: " + ", ".join(f"{mib:.1f} MiB at step {step:,}" for step, mib in found.items()))
    return found


class StepTimes(pl.Callback):
    """Milliseconds of each step."""

    def __init__(self):
        self.times: list[float] = []

    def on_train_start(self, trainer, pl_module) -> None:
        self.mark = clock()

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx) -> None:
        now = clock()
        self.times.append(now - self.mark)
        self.mark = now


def hold(data: Data, num: int) -> None:
    """So many random images in place of a set's own."""
    shape = (num, *data.shape)
    images = torch.randint(256, shape, dtype=torch.uint8).contiguous(memory_format=torch.channels_last)
    data.held = {"real": images}


def sizes(steps: int = 300, rounds: int = 5) -> dict[str, Any]:
    """A step's time by the number of images, of a network so small that the data's share can be seen."""

    def prepared(num: int) -> Callable[[Parts], StepTimes]:
        return lambda parts: hold(parts.data, num) or StepTimes()

    times: dict[int, list[float]] = {num: [] for num in SIZES}
    for _ in range(rounds):
        for num in SIZES:
            times[num].append(median(watch([*SMALL, "metric=[]", "on_collapse=null"], steps, prepared(num)).times[20:]))
    ratio = median(large / small for small, large in zip(*(times[num] for num in SIZES), strict=True))
    data = composed([*SMALL, "run_dir=none"]).data
    hold(data, SIZES[1])
    rows = Rounds(data, batch_size=64, num_batches=1, seed=0)
    per_epoch = SIZES[1] // 64
    taken = np.array([timed(rows.__getitem__, i) for i in range(10 * per_epoch)])
    ends = [(epoch * SIZES[1]) // 64 for epoch in range(1, 10)]
    found = {"ms": {num: median(each) for num, each in times.items()}, "ratio": ratio,
             "round_ms": float(np.median(taken)), "round_at_epoch_end_ms": float(np.median(taken[ends]))}  # fmt: skip
    say(f"step with {SIZES[1]:,} images / with {SIZES[0]:,}: {ratio:.3f}; to choose a batch takes "
        f"{found['round_ms']:.3f} ms, at the end of an epoch {found['round_at_epoch_end_ms']:.2f} ms")  # fmt: skip
    return found


def timed(act: Callable[..., Any], *args: Any) -> float:
    began = time.perf_counter()
    act(*args)
    return 1000 * (time.perf_counter() - began)


def command(*args: str) -> tuple[float, float]:
    """Seconds of wall and of CPU time that `ganrun *args` takes, in a directory of its own."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    with tempfile.TemporaryDirectory() as folder:
        wall = timed(lambda: subprocess.run([GANRUN, *args], cwd=folder, check=True, capture_output=True)) / 1000
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def sweep() -> dict[str, float]:
    """What a job of a sweep costs beyond its steps."""
    jobs = f"seed=range(0,{JOBS})"
    words = ["-m", "dataset=ring", "model=mlp"]
    whole, short, single = (
        command(*words, *more)[0] for more in ([jobs, f"steps={STEPS}"], [jobs, "steps=1"], ["seed=0", "steps=1"])
    )
    step = (whole - short) / JOBS / (STEPS - 1)
    found = {"seconds": whole, "single": single, "a_job": (whole - single) / (JOBS - 1), "a_step": step}
    found["beyond_steps"] = found["a_job"] - STEPS * step
    say(f"sweep of {JOBS} jobs of {STEPS} steps: {whole:.1f} s; a job {found['a_job']:.2f} s, of which "
        f"{found['beyond_steps']:.2f} s beyond its steps")  # fmt: skip
    return found


def side_by_side(steps: int = 2000, jobs: int = 4) -> dict[str, float]:
    """Jobs a minute of a sweep that runs one at a time with all cores, and several at once that share the cores."""
    words = ["-m", *SMALL, f"steps={steps}", f"seed=range(0,{jobs})", "metric=[]"]
    at_once = {1: [], 2: ["hydra/launcher=joblib", "hydra.launcher.n_jobs=2"]}
    found = {f"{num} at once": 60 * jobs / command(*words, *more)[0] for num, more in at_once.items()}
    say("jobs a minute: " + ", ".join(f"{name}: {each:.1f}" for name, each in found.items()))
    return found


def start(rounds: int = 5) -> dict[str, float]:
    """--help, the composed config, and a run of one step, beside importing torch and Lightning."""
    bare = [sys.executable, "-c", "import torch, pytorch_lightning"]
    found = {
        "help_cpu": median(command("--help")[1] for _ in range(rounds)),
        "config_cpu": median(command("--cfg", "job")[1] for _ in range(rounds)),
        "one_step": median(command("dataset=ring", "model=mlp", "steps=1")[0] for _ in range(rounds)),
        "imports": median(timed(lambda: subprocess.run(bare, check=True)) / 1000 for _ in range(rounds)),
    }
    say(f"ganrun --help {found['help_cpu']:.2f} s of CPU, --cfg job {found['config_cpu']:.2f} s; a run of one step "
        f"{found['one_step']:.1f} s, of which importing torch and Lightning is {found['imports']:.1f} s")  # fmt: skip
    return found


def sampling(num: int = 2000) -> dict[str, float]:
    """Images a second of a loaded generator, beside the bare network on noise that is there already."""
    parts = composed(["model=dcgan", "dataset=digits", "dataset.resolution=32", "run_dir=none"])
    network = parts.module.recipe.generator.eval()
    generator = SamplingGenerator(network, parts.module.noise, value_range=(-1, 1), classes=[])
    noise = torch.randn(num, parts.cfg.noise.z_dim)

    @torch.no_grad()
    def bare() -> None:
        for z in noise.split(256):
            network(z)

    pairs = [(timed(generator.sample, num), timed(bare)) for _ in range(6)][1:]
    found = {"images_per_second": num / median(own for own, _ in pairs) * 1000,
             "over_bare": median(own / plain for own, plain in pairs)}  # fmt: skip
    say(f"sampling: {found['images_per_second']:,.0f} images/s, {found['over_bare']:.2f} of the bare network's time")
    return found


def say(text: str) -> None:
    console().print(text)


COSTS = {each.__name__.replace("_", "-"): each for each in (start, sizes, sampling, sweep, side_by_side, memory)}
