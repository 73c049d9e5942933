"""The generator that is being served, and how a newer one takes its place."""

import sys
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ganrun.commands.sample.request import find_generator
from ganrun.errors import Failure, UserError, first_line
from ganrun.files.record import Record
from ganrun.files.run_dir import RunDir
from ganrun.noise import Normal
from ganrun.sampling.generator import SamplingGenerator
from ganrun.sampling.translator import Translator
from ganrun.training.hardware import device_named
from ganrun.training.of_checkpoint import open_generator

CHECKED = 2  # samples that a generator must make before it is served
Stamp = tuple[tuple[int, int, int], ...]  # of its files: inode, size, time


@dataclass(frozen=True, eq=False)
class Served:
    """made: the generator on its device. shape: of one sample, None for a translator. figures: of its run."""

    made: SamplingGenerator | Translator
    file: Path
    shape: tuple[int, ...] | None
    figures: dict[str, float]

    def about(self) -> dict[str, Any]:
        """What a client needs to know before it asks, in plain containers."""
        told = {"file": self.file.name, "trained": self.made.trained, "depth": self.made.depth}
        if isinstance(self.made, Translator):
            directions = {name: channels._asdict() for name, channels in self.made.channels.items()}
            return {"kind": "translator", "directions": directions, **told}
        made = self.made
        codes = made.codes and {"categorical": made.codes.categorical, "continuous": made.codes.continuous}
        truncates = "w" if made.in_w else "z" if isinstance(made.noise, Normal) else None
        return {
            "kind": "vectors" if made.value_range is None else "images",
            "shape": self.shape,
            "classes": made.classes,
            "attributes": [one.plain for one in made.attributes],
            "codes": codes,
            "truncation": truncates,
            "styles": made.generator.num_styles if made.in_w else None,
            **told,
        }


class Live:
    """Loads the generator that `from` names, now and whenever a newer one is wanted; one thread at a time."""

    def __init__(self, source: str, device: str, trust: str | list[str]):
        self.source, self.trust, self.device = source, trust, device_named(device)
        self._loading = threading.Lock()
        self._stamp: Stamp | None = None
        self.served = self._load()

    def reload(self) -> Served:
        """Puts the newer generator in the old one's place; requests that have come in keep the old one.

        Raises UserError for one that cannot be used, and while another thread loads; the old one then stays.
        """
        if not self._loading.acquire(blocking=False):
            raise UserError(f"from={self.source}: a generator is being loaded already; try again")
        try:
            self.served = self._load()
            told = f"reloaded {self.served.file}, step {self.served.made.trained.get('steps', 'unknown')}"
        except Failure as error:
            told = f"not reloaded, the old generator stays: {error}"
            raise
        finally:
            self._loading.release()
            print(f"ganrun: {' '.join(told.split())}", file=sys.stderr, flush=True)
        return self.served

    def is_newer(self) -> bool:
        """Are the files others than those that were read last?"""
        return stamp(*find_generator(self.source, tell=False)) != self._stamp

    def _load(self) -> Served:
        try:
            file, run = find_generator(self.source)
            self._stamp = stamp(file, run)  # before they are read: what is written meanwhile is newer
            made = open_generator(file, run, trust=self.trust).to(self.device)
            return Served(made, file, shape_of(made, file), figures_of(run, made.trained.get("steps")))
        except (OSError, RuntimeError, MemoryError) as error:  # gone, or there is no memory for two
            raise UserError(f"from={self.source}: cannot be loaded: {first_line(error)}") from error


def stamp(file: Path, run: RunDir | None) -> Stamp:
    """Tells files from others of the same name."""
    beside = run.config if file.suffix == ".ckpt" and run else file.with_suffix(".yaml")
    found = [path.stat() for path in (file, beside) if path.exists()]
    return tuple((about.st_ino, about.st_size, about.st_mtime_ns) for about in found)


def shape_of(made: SamplingGenerator | Translator, file: Path) -> tuple[int, ...] | None:
    """The shape of one sample, None for a translator. Raises UserError for weights or samples that are not finite."""
    samples = [] if isinstance(made, Translator) else [made.sample(CHECKED)]
    tensors = [tensor for tensor in made.state_dict().values() if tensor.is_floating_point()]
    if not all(bool(torch.isfinite(tensor).all()) for tensor in (*samples, *tensors)):
        raise UserError(f"{file}: this generator's weights or samples are NaN or infinity")
    return tuple(samples[0].shape[1:]) if samples else None


def figures_of(run: RunDir | None, steps: Any) -> dict[str, float]:
    """The last figures of `on_collapse` up to the generator's step; {} without a run."""
    rows = Record(run).metrics if run else []
    rows = [row for row in rows if "collapse/pixel_spread" in row and row["step"] <= (steps or 0)]
    names = ("pixel_spread", "twins", "real_twins")
    return {name: rows[-1][f"collapse/{name}"] for name in names if f"collapse/{name}" in rows[-1]} if rows else {}
