"""Times a step of ganrun, of a plain PyTorch loop and of a peer-style loop, side by side in one run.

ganrun  the real path: a composed config, `build`, and a Lightning fit with all its callbacks
plain   the same mathematics written for speed, without Lightning: fakes shared by the two players, the opponent
        frozen, channels_last, fused Adam, foreach averaging, uint8 images held on the device, nothing read to the host
peer    the same mathematics as public GAN scripts mostly write it: fresh fakes for every move, with a graph that the
        discriminator's move wastes, nothing frozen, contiguous, a PNG decoded for each sample, `.item()` each move

--peer adds the own trainer of a checkout of mimicry, PyTorch-StudioGAN, R3GAN or stylegan2-ada-pytorch, on the rows
that it is for, with the same networks, batch and images.

All start from the same weights and take turns within one process: a round is so many steps of each, so that whatever
else the machine does slows all alike. One more round before the first is warm-up. A step is one round of the schedule;
with wgan-gp that is five moves of the critic and one of the generator. StyleGAN2's path length and R1 are moves of
every 4th and 16th step: only rounds of a multiple of 16 steps show the mean. ganrun and plain are timed in fp32 and,
where the hardware multiplies it, in bf16; peers always in fp32. `of peak` is the share that ganrun's step reaches of
the speed at which this machine multiplies large matrices or convolves, whichever is faster, in that precision.

--costs measures all else that a user waits for, in place of the rows. On a machine that is busy with other work set
OMP_NUM_THREADS below its number of cores: small networks spend their time waiting for a thread otherwise.
"""

import argparse
import json
import operator
import os
import sys
import time
import warnings
from pathlib import Path
from statistics import median
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

import pytorch_lightning as pl
import torch
from costs import COSTS, clock, watch
from loops import ROWS, FiniteCheck, Peer, Plain
from peers import open_peer
from rich.table import Table
from style_loops import PeerStyles, PlainStyles
from torch.nn.functional import conv2d

from ganrun.progress import console
from ganrun.styles import StyleBased
from ganrun.training.build import Parts
from ganrun.training.flops import Flops
from ganrun.training.hardware import device_type, multiplies_bf16

# Nothing beside the steps, and an average that is the same at every step.
QUIET = ["metric=[]", "on_collapse=null", "sample_every=0", "checkpoint.every=0", "evaluate.every=0", "ema.warmup=1"]


class TakeTurns(pl.Callback):
    """Times ganrun's fit from within; after every `steps` steps the other loops take as many."""

    def __init__(self, parts: Parts, steps: int, peers: list[type]):
        self.parts, self.steps, self.peers = parts, steps, peers
        self.times: dict[str, list[float]] = {"ganrun": []}  # ms a step
        self.outside: list[float] = []  # of ganrun's ms a step those outside training_step
        self.flops = 0.0  # of a step
        self.inside, training_step = 0.0, parts.module.training_step

        def timed(*args: Any) -> None:
            began = time.perf_counter()
            training_step(*args)
            self.inside += 1000 * (time.perf_counter() - began)

        parts.module.training_step = timed

    def on_train_start(self, trainer, pl_module) -> None:
        styles = isinstance(self.parts.module.recipe.generator, StyleBased)
        kinds = (PlainStyles, PeerStyles) if styles else (Plain, Peer)
        plain, peer = (kind(self.parts, pl_module.device) for kind in kinds)
        with Flops() as counter:
            for _ in range(plain.period):
                plain.step()
        self.flops = counter.total / plain.period
        self.loops = {"plain": plain, "peer": peer, "finite": FiniteCheck(pl_module)}
        self.loops |= {own.__name__: own(self.parts, pl_module.device) for own in self.peers}
        self.times |= {name: [] for name in self.loops}
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

    def on_train_end(self, trainer, pl_module) -> None:
        for own in self.peers:
            self.loops[own.__name__].close()


def measure(name: str, precision: str, options: argparse.Namespace) -> dict[str, Any]:
    """Milliseconds a step; ratios and differences are medians of each round's."""
    overrides, default_steps = ROWS[name]
    steps, rounds = options.steps or default_steps, options.rounds
    peers = [peer for peer in options.peer if name.startswith(peer.rows)]
    print(f"{name}, {precision}: {rounds} rounds of {steps} steps", file=sys.stderr)
    words = [*overrides, *QUIET, f"precision={precision}", *options.set]
    turns = watch(words, (rounds + 1) * steps + 1, lambda parts: TakeTurns(parts, steps, peers))
    times = {loop: taken[1 : rounds + 1] for loop, taken in turns.times.items()}
    spreads = {k: {"median": median(t), "min": min(t), "max": max(t), "rounds": t} for k, t in times.items()}

    def ratio(one: str, other: str) -> float:
        return median(map(operator.truediv, times[one], times[other]))

    own = {peer.__name__: ratio(peer.__name__, "ganrun") for peer in peers}
    return {"steps": steps, "precision": precision, **spreads} | {
        "ganrun_over_plain": ratio("ganrun", "plain"),
        "peer_over_ganrun": ratio("peer", "ganrun"),
        "own_over_ganrun": own,
        "finite_over_ganrun": ratio("finite", "ganrun"),
        "outside_training_step": median(turns.outside[1 : rounds + 1]),
        "gigaflop": turns.flops / 1e9,
        "share_of_peak": turns.flops / 1e6 / spreads["ganrun"]["median"] / peak(precision, options.side),
    }


def peak(precision: str, side: int) -> float:
    """GFLOP/s of the best of several products of matrices, side x side, and of convolutions, side / 32 images each."""
    dtype = torch.bfloat16 if precision == "bf16-mixed" else torch.float32
    device = device_type("auto")
    matrix = torch.randn(side, side, device=device).to(dtype)
    images = torch.randn(side // 32, 128, 16, 16, device=device).to(dtype, memory_format=torch.channels_last)
    kernels = torch.randn(256, 128, 4, 4, device=device).to(dtype, memory_format=torch.channels_last)
    works = {
        2 * side**3: lambda: matrix @ matrix,
        2 * (side // 32) * 256 * 8 * 8 * 128 * 4 * 4: lambda: conv2d(images, kernels, stride=2, padding=1),
    }
    speeds = []
    for flops, act in works.items():
        for _ in range(6):
            began = clock()
            act()
            speeds.append(flops / (clock() - began) / 1e6)
    return max(speeds)


def report(rows: dict[str, dict[str, Any]], title: str) -> None:
    own = list(dict.fromkeys(name for row in rows.values() for name in row["own_over_ganrun"]))
    table, screen = Table(title=title), console()
    names = ("row", "ganrun", "plain", "peer", *own, "ganrun/plain", "peer/ganrun")
    for column in (*names, *(f"{name}/ganrun" for name in own), "of peak"):
        table.add_column(column, justify="left" if column == "row" else "right", no_wrap=True)
    for name, row in rows.items():
        spreads = (row.get(loop) for loop in ("ganrun", "plain", "peer", *own))
        times = ["{} ({}-{})".format(*(ms(s[key]) for key in ("median", "min", "max"))) if s else "" for s in spreads]
        ratios = [row["ganrun_over_plain"], row["peer_over_ganrun"], *(row["own_over_ganrun"].get(n) for n in own)]
        table.add_row(name, *times, *("" if r is None else f"{r:.2f}" for r in ratios), f"{row['share_of_peak']:.0%}")
    screen.print(table)
    for name, row in rows.items():
        share = row["finite_over_ganrun"]
        screen.print(f"{name}: noticing NaN {ms(row['finite']['median'])} ms a step, {share:.1%} of ganrun; "
                     f"Lightning's loop, loader and callbacks {ms(row['outside_training_step'])} ms")  # fmt: skip


def ms(value: float) -> str:
    return f"{value:.0f}" if value >= 1000 else f"{value:.1f}" if value >= 100 else f"{value:.2f}"


def plot(rows: dict[str, dict[str, Any]], path: Path) -> None:
    """Bars: how many times faster than the peer-style loop, row by row."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 0.5 + 0.55 * sum(len(row["own_over_ganrun"]) + 3 for row in rows.values()) / 2), dpi=90)
    axis, labels, place = figure.subplots(), [], 0.0
    colours = {"ganrun": "C0", "plain": "C2", "peer": "0.7"}
    for name, row in reversed(rows.items()):
        for loop in reversed(("ganrun", "plain", "peer", *row["own_over_ganrun"])):
            speed = median(map(operator.truediv, row["peer"]["rounds"], row[loop]["rounds"]))
            axis.barh(place, speed, 0.8, color=colours.get(loop, "C1"))
            axis.text(speed, place, f" {speed:.2f}", va="center")
            labels.append((place, f"{name}  {loop}" if loop == "ganrun" else loop))
            place += 1
        place += 0.6
    axis.set_yticks(*zip(*labels, strict=True))
    axis.axvline(1, color="0.4", linewidth=0.8)
    axis.set(xlabel="speed, peer-style loop = 1", title="Steps a second beside a peer-style loop")
    figure.tight_layout()
    figure.savefig(path)


def named(text: str) -> list[str]:
    """Rows by the beginning of their names."""
    for name in text.split(","):
        if not any(row.startswith(name) for row in ROWS):
            raise argparse.ArgumentTypeError(f"there is no row {name}; valid: {', '.join(ROWS)}")
    return [row for row in ROWS if row.startswith(tuple(text.split(",")))]


def costs(text: str) -> list[str]:
    for name in text.split(","):
        if name not in COSTS:
            raise argparse.ArgumentTypeError(f"there is no cost {name}; valid: {', '.join(COSTS)}")
    return text.split(",")


def positive(text: str) -> int:
    if int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text}; expected at least 1")
    return int(text)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    precisions = ["32-true", "bf16-mixed"] if multiplies_bf16(device_type("auto")) else ["32-true"]
    parser.add_argument("--rounds", type=positive, default=5, help="after the one of warm-up (default 5)")
    parser.add_argument("--steps", type=positive, help="a round (default: by row, a few seconds a round on two cores)")
    parser.add_argument("--rows", type=named, default=list(ROWS), help=f"of {','.join(ROWS)}; dcgan-32 means both")
    parser.add_argument(
        "--precision", action="append", choices=("32-true", "bf16-mixed"), help="default: what is native"
    )
    parser.add_argument("--peer", type=open_peer, action="append", default=[], metavar="CHECKOUT", help="see above")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="for ganrun, as compile=true")
    parser.add_argument("--costs", type=costs, help=f"instead of rows: of {','.join(COSTS)}")
    parser.add_argument("--side", type=positive, default=2048, help="of the matrices that tell the peak (default 2048)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all that was measured")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="draw the rows")
    options = parser.parse_args()
    options.precision = options.precision or precisions
    return options


def main() -> None:
    options = arguments()
    warnings.filterwarnings("ignore", module="pytorch_lightning|typing_extensions")
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else f"CPU, threads: {torch.get_num_threads()}"
    load = os.getloadavg()[0]
    found: dict[str, Any] = {"device": device, "torch": torch.__version__, "load": load}
    if options.costs:
        found["costs"] = {name: COSTS[name]() for name in options.costs}
    else:
        short = {"32-true": "fp32", "bf16-mixed": "bf16"}
        pairs = [(name, precision) for name in options.rows for precision in options.precision]
        found["rows"] = {f"{name} {short[precision]}": measure(name, precision, options) for name, precision in pairs}
        report(found["rows"], f"ms a step, median (min-max) of {options.rounds} rounds, {device}, load {load:.1f}")
        if options.plot:
            plot(found["rows"], options.plot)
    if options.json:
        options.json.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
