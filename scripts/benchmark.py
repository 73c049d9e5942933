"""Times a step of ganrun, of a plain PyTorch loop and of a peer-style loop, side by side in one run.

ganrun  the real path: a composed config, `build`, and a Lightning fit with all its callbacks
plain   the same mathematics written for speed, without Lightning: fakes shared by the two players, the opponent
        frozen, channels_last, foreach averaging, uint8 images held on the device, no value read to the host
peer    the same mathematics as public GAN scripts mostly write it: fresh fakes for every move, with a graph that the
        discriminator's move wastes, nothing frozen, contiguous, a PNG decoded for each sample, `.item()` each move

All start from the same weights and take turns within one process: a round is so many steps of each, so that whatever
else the machine does slows all three alike. One more round before the first is warm-up. A step is one round of the
schedule; with wgan-gp that is five moves of the critic and one of the generator. On a machine that is busy with other
work set OMP_NUM_THREADS below its number of cores: small networks spend their time waiting for a thread otherwise.
"""

import argparse
import contextlib
import copy
import io
import json
import operator
import os
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import pytorch_lightning as pl
import torch
from hydra import compose, initialize_config_dir
from PIL import Image
from rich.table import Table
from torch import Tensor
from torch.utils.data import DataLoader
from torchvision.transforms.functional import to_pil_image, to_tensor

from ganrun.callbacks.watch import Watch, send
from ganrun.configs import config_dir
from ganrun.experiment.build import Parts, build
from ganrun.experiment.fit import Fit
from ganrun.experiment.report import console
from ganrun.experiment.train_log import logging_to
from ganrun.losses import cross_entropy, logistic, wasserstein
from ganrun.module import GANModule
from ganrun.optim import total_norm
from ganrun.penalties import input_gradient, per_sample_uniform, unit_norm
from ganrun.run_dir import RunDir
from ganrun.signals import Signals

TINY = [f"{net}.{key}" for net in ("generator", "discriminator") for key in ("width=128", "depth=2", "growth=1")]
LOSSES = {  # the discriminator's and the generator's
    "non-saturating": (logistic, partial(cross_entropy, target=1.0)),
    "wgan-gp": (wasserstein, lambda fake: -fake.mean()),
}
MODELS = {  # overrides, and steps a round for each loss
    "dcgan-32": (["model=dcgan", "dataset=digits", "dataset.resolution=32"], (10, 4)),
    "dcgan-64": (["model=dcgan", "dataset=digits", "dataset.resolution=64", "dataset.channels=3"], (4, 2)),
    "mlp-ring": (["model=mlp", "dataset=ring", "generator.z_dim=16", *TINY], (300, 60)),
}
ROWS = {
    f"{model}-{loss}": ([*overrides, f"loss={loss}"], steps)
    for model, (overrides, numbers) in MODELS.items()
    for loss, steps in zip(LOSSES, numbers, strict=True)
}
# Nothing beside the steps, and an average that is the same at every step.
QUIET = ["metric=[]", "sample_every=0", "checkpoint.every=0", "evaluate.every=0", "ema.warmup=1"]


class Loop:
    """What the two loops share: networks that start as ganrun's, its formulas and its settings."""

    memory_format: torch.memory_format

    def __init__(self, parts: Parts, device: torch.device):
        cfg, recipe = parts.cfg, parts.module.recipe
        wgan_gp = "gradient" in cfg.penalty
        self.discriminator_loss, self.generator_loss = LOSSES["wgan-gp" if wgan_gp else "non-saturating"]
        self.penalty_weight = cfg.penalty.gradient.weight if wgan_gp else 0.0
        self.critic_moves, self.batch_size, self.z_dim = cfg.schedule.discriminator, cfg.batch_size, cfg.noise.z_dim
        self.average_weight = 1 - cfg.ema.decay
        self.device = device
        self.generator = copy.deepcopy(recipe.generator).to(memory_format=self.memory_format)
        self.discriminator = copy.deepcopy(recipe.adversary.discriminator).to(memory_format=self.memory_format)
        self.average = copy.deepcopy(self.generator).requires_grad_(False)
        adam = partial(torch.optim.Adam, lr=cfg.optimizer.lr, betas=tuple(cfg.optimizer.betas))
        self.generator_adam = adam(self.generator.parameters())
        self.discriminator_adam = adam(self.discriminator.parameters())
        self.reals = self.batches(parts.data)

    def fakes(self) -> Tensor:
        return self.generator(torch.randn(self.batch_size, self.z_dim, device=self.device))

    def critic(self, x: Tensor) -> Tensor:
        return self.discriminator(x).logits

    def against(self, real: Tensor, fake: Tensor) -> Tensor:
        """The discriminator's loss on detached fakes."""
        loss = self.discriminator_loss(self.critic(real), self.critic(fake))
        if not self.penalty_weight:
            return loss
        epsilon = per_sample_uniform(real)
        gradient = input_gradient(self.critic, epsilon * real + (1 - epsilon) * fake)
        return loss + self.penalty_weight * unit_norm(gradient)

    def copy_buffers(self) -> None:
        for kept, buffer in zip(self.average.buffers(), self.generator.buffers(), strict=True):
            kept.copy_(buffer)


def update(adam: torch.optim.Optimizer, loss: Tensor) -> None:
    adam.zero_grad(set_to_none=True)
    loss.backward()
    adam.step()


class Plain(Loop):
    memory_format = torch.channels_last

    def batches(self, data):
        stored = data.read(torch.arange(len(data)))["real"].to(self.device)
        whole = len(data) // self.batch_size * self.batch_size
        while True:
            for indices in torch.randperm(len(data), device=self.device)[:whole].split(self.batch_size):
                real = data.to_range(stored[indices])
                yield real.contiguous(memory_format=self.memory_format) if real.dim() == 4 else real

    def step(self) -> None:
        for move in range(1, self.critic_moves + 1):
            with torch.set_grad_enabled(move == self.critic_moves):  # the last move's fakes serve the generator too
                fake = self.fakes()
            update(self.discriminator_adam, self.against(next(self.reals), fake.detach()))
        self.discriminator.requires_grad_(False)
        update(self.generator_adam, self.generator_loss(self.critic(fake)))
        self.discriminator.requires_grad_(True)
        with torch.no_grad():
            torch._foreach_lerp_([*self.average.parameters()], [*self.generator.parameters()], self.average_weight)
            self.copy_buffers()


class Peer(Loop):
    memory_format = torch.contiguous_format

    def batches(self, data):
        reals = data.read(torch.arange(len(data)))["real"]
        samples, collate = ([png(real) for real in reals], decode) if reals.dim() == 4 else (list(reals), None)
        loader = DataLoader(samples, self.batch_size, shuffle=True, drop_last=True, collate_fn=collate)
        while True:
            for real in loader:
                yield real.to(self.device)

    def step(self) -> None:
        for _ in range(self.critic_moves):
            loss = self.against(next(self.reals), self.fakes().detach())
            update(self.discriminator_adam, loss)
            loss.item()
        loss = self.generator_loss(self.critic(self.fakes()))
        update(self.generator_adam, loss)
        loss.item()
        for average, live in zip(self.average.parameters(), self.generator.parameters(), strict=True):
            average.data.mul_(1 - self.average_weight).add_(live.data, alpha=self.average_weight)
        self.copy_buffers()


class FiniteCheck:
    """What a step of ganrun does to notice NaN and infinity, and nothing else."""

    def __init__(self, module: GANModule):
        self.module, self.watch = module, Watch(Signals(), ())

    def step(self) -> None:
        numbers = {}
        for i, move in enumerate(self.module.moves):
            parameters = self.module.player_optimizers[move.player].parameters
            numbers[f"gradient {i}"] = total_norm([p.grad for p in parameters if p.grad is not None])
            numbers[f"weight {i}"] = total_norm(parameters)
        self.watch.sent.append(send(0, numbers))
        self.watch.look(wait=False)


def png(image: Tensor) -> bytes:
    to_pil_image(image).save(file := io.BytesIO(), format="PNG")
    return file.getvalue()


def decode(files: list[bytes]) -> Tensor:
    return torch.stack([to_tensor(Image.open(io.BytesIO(file))) * 2 - 1 for file in files])


class TakeTurns(pl.Callback):
    """Times ganrun's fit from within; after every `steps` steps the other loops take as many."""

    def __init__(self, parts: Parts, steps: int):
        self.parts, self.steps = parts, steps
        self.times: dict[str, list[float]] = {name: [] for name in ("ganrun", "plain", "peer", "finite")}  # ms a step
        self.outside: list[float] = []  # of ganrun's ms a step those outside training_step
        self.inside, training_step = 0.0, parts.module.training_step

        def timed(*args: Any) -> None:
            began = time.perf_counter()
            training_step(*args)
            self.inside += 1000 * (time.perf_counter() - began)

        parts.module.training_step = timed

    def on_train_start(self, trainer, pl_module) -> None:
        plain, peer = Plain(self.parts, pl_module.device), Peer(self.parts, pl_module.device)
        self.loops = {"plain": plain, "peer": peer, "finite": FiniteCheck(pl_module)}
        self.inside, self.mark = 0.0, clock()

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx) -> None:
        if trainer.global_step % self.steps:
            return
        self.times["ganrun"].append((clock() - self.mark) / self.steps)
        self.outside.append(self.times["ganrun"][-1] - self.inside / self.steps)
        for name, loop in self.loops.items():
            began = clock()
            for _ in range(self.steps):
                loop.step()
            self.times[name].append((clock() - began) / self.steps)
        self.inside, self.mark = 0.0, clock()


def clock() -> float:
    """Milliseconds, read once the device has done all that it was given."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return 1000 * time.perf_counter()


class Memory(pl.Callback):
    """Resident MiB after the first step and after each quarter of them."""

    def __init__(self, steps: int):
        self.marks = {1, *(steps * quarter // 4 for quarter in range(1, 5))}
        self.resident: dict[int, float] = {}

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx) -> None:
        if trainer.global_step in self.marks:
            pages = int(Path("/proc/self/statm").read_text().split()[1])
            self.resident[trainer.global_step] = pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def watch(overrides: list[str], steps: int, make_callback: Callable[[Parts], pl.Callback]) -> Any:
    """Trains as the command line does, with one callback more, and returns that."""
    with tempfile.TemporaryDirectory() as folder:
        with initialize_config_dir(str(config_dir()), version_base="1.3"):
            parts = build(compose("train", [*overrides, f"steps={steps}", f"run_dir={folder}"]))
        run, callback = RunDir(folder), make_callback(parts)
        run.make()
        with logging_to(run.log), Signals() as signals, contextlib.redirect_stdout(io.StringIO()):
            fit = Fit(parts, run, None, signals)
            fit.trainer.callbacks.append(callback)  # the last: a step ends when all the others have seen it
            result = fit.run_to_end()
    if result["signal"]:
        sys.exit(128 + result["signal"])
    return callback


def measure(name: str, rounds: int, steps: int | None) -> dict[str, Any]:
    """Milliseconds a step; ratios and differences are medians of each round's."""
    overrides, default_steps = ROWS[name]
    steps = steps or default_steps
    print(f"{name}: {rounds} rounds of {steps} steps", file=sys.stderr)
    turns = watch([*overrides, *QUIET], (rounds + 1) * steps + 1, lambda parts: TakeTurns(parts, steps))
    times = {loop: taken[1 : rounds + 1] for loop, taken in turns.times.items()}
    turn = list(zip(times["ganrun"], times["plain"], times["peer"], strict=True))
    spreads = {k: {"median": median(t), "min": min(t), "max": max(t), "rounds": t} for k, t in times.items()}
    return {"steps": steps, **spreads} | {
        "ganrun_over_plain": median(ganrun / plain for ganrun, plain, _ in turn),
        "peer_over_ganrun": median(peer / ganrun for ganrun, _, peer in turn),
        "ganrun_minus_plain": median(ganrun - plain for ganrun, plain, _ in turn),
        "finite_over_ganrun": median(map(operator.truediv, times["finite"], times["ganrun"])),
        "outside_training_step": median(turns.outside[1 : rounds + 1]),
    }


def report(rows: dict[str, dict[str, Any]], title: str) -> None:
    table, screen = Table(title=title), console()
    for column in ("row", "ganrun", "plain", "peer", "ganrun/plain", "peer/ganrun"):
        table.add_column(column, justify="left" if column == "row" else "right", no_wrap=True)
    for name, row in rows.items():
        spreads = (row[loop] for loop in ("ganrun", "plain", "peer"))
        times = ["{} ({}-{})".format(*(ms(s[key]) for key in ("median", "min", "max"))) for s in spreads]
        table.add_row(name, *times, f"{row['ganrun_over_plain']:.2f}", f"{row['peer_over_ganrun']:.2f}")
    screen.print(table)
    for name, row in rows.items():
        share = row["finite_over_ganrun"]
        screen.print(
            f"{name}: noticing NaN and infinity {ms(row['finite']['median'])} ms a step, {share:.1%} of ganrun"
        )
        if name.startswith("mlp"):
            screen.print(
                f"{name}: Lightning's loop, loader and callbacks {row['outside_training_step']:.2f} ms a step; "
                f"ganrun - plain {row['ganrun_minus_plain']:.2f} ms"
            )


def ms(value: float) -> str:
    return f"{value:.0f}" if value >= 1000 else f"{value:.1f}" if value >= 100 else f"{value:.2f}"


def named(text: str) -> list[str]:
    """Rows by the beginning of their names."""
    for name in text.split(","):
        if not any(row.startswith(name) for row in ROWS):
            raise argparse.ArgumentTypeError(f"there is no row {name}; valid: {', '.join(ROWS)}")
    return [row for row in ROWS if row.startswith(tuple(text.split(",")))]


def positive(text: str) -> int:
    if int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text}; expected at least 1")
    return int(text)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=positive, default=5, help="after the one of warm-up (default 5)")
    parser.add_argument("--steps", type=positive, help="a round (default: by row, a few seconds a round on two cores)")
    parser.add_argument("--rows", type=named, default=list(ROWS), help=f"of {','.join(ROWS)}; dcgan-32 means both")
    parser.add_argument("--memory", type=positive, metavar="STEPS", help="instead: memory over a fit of the tiny mlp")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all that was measured")
    options = parser.parse_args()
    warnings.filterwarnings("ignore", module="pytorch_lightning|typing_extensions")
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else f"CPU, threads: {torch.get_num_threads()}"
    load = os.getloadavg()[0]
    found: dict[str, Any] = {"device": device, "torch": torch.__version__, "load": load}
    if options.memory:
        overrides, _ = ROWS["mlp-ring-non-saturating"]
        found["memory"] = watch(overrides, options.memory, lambda _: Memory(options.memory)).resident
        print("resident: " + ", ".join(f"{mib:.1f} MiB at step {step:,}" for step, mib in found["memory"].items()))
    else:
        found["rows"] = {name: measure(name, options.rounds, options.steps) for name in options.rows}
        report(found["rows"], f"ms a step, median (min-max) of {options.rounds} rounds, {device}, load {load:.1f}")
    if options.json:
        options.json.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
