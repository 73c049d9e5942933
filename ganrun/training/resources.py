"""Time and memory of this process: what something took, what it had at most, and what it may have."""

import os
import time
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import torch

from ganrun.data.memory import available_memory, free_memory
from ganrun.errors import OutOfMemory
from ganrun.training.build import Parts
from ganrun.training.hardware import precision_of
from ganrun.training.outcome import peak_memory
from ganrun.training.trainer import rows_a_pass

USABLE = 0.9  # of the memory that is free
STATUS, CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")  # of Linux


class Cost(NamedTuple):
    """Wall-clock seconds, seconds of all this process's threads, and the bytes by which the curves' files grew."""

    seconds: float
    cpu: float
    bytes: int = 0


class Mark(NamedTuple):
    wall: float
    cpu: float

    @classmethod
    def now(cls) -> "Mark":
        """Once the device has done all that it was given."""
        if torch.cuda.is_available() and torch.cuda.is_initialized():
            torch.cuda.synchronize()
        return cls(time.perf_counter(), time.process_time())

    def until(self, later: "Mark", grown: int = 0) -> Cost:
        return Cost(later.wall - self.wall, later.cpu - self.cpu, grown)


class Peak:
    """The most memory of this process, in all and within phases. Phases are known on GPUs and on Linux."""

    def __init__(self, device: torch.device):
        self.device, self.most = device, 0

    def phase(self) -> int | None:
        """Bytes at the peak since the last call, None = unknown; begins a new phase."""
        self.most = max(self.most, peak_memory(self.device))
        if self.device.type == "cuda":
            found = torch.cuda.max_memory_allocated(self.device)
            torch.cuda.reset_peak_memory_stats(self.device)
            return found
        with suppress(OSError, StopIteration):
            lines = STATUS.read_text().splitlines()
            found = 1024 * int(next(line for line in lines if line.startswith("VmHWM:")).split()[1])
            CLEAR.write_text("5")
            return found
        return None


def resident() -> int:
    """Bytes of main memory that this process has; 0 where the system does not say."""
    with suppress(OSError, ValueError):
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    return 0


def room(device: torch.device) -> int:
    """Bytes that this process may have on its device, those that it has among them."""
    if device.type == "cuda":
        return free_memory(device) + torch.cuda.memory_allocated(device)
    return available_memory() + resident()


def refuse_too_large(parts: Parts, device: torch.device) -> None:
    """Raises OutOfMemory before a pass that main memory cannot hold; a GPU says so itself, at no cost to others."""
    rows, share = rows_a_pass(parts.cfg, 1), 0.5 if precision_of(parts.cfg) == "bf16-mixed" else 1.0
    own = (
        4 * 4 * sum(p.numel() for p in parts.module.recipe.parameters())
    )  # gradients, Adam's two, the average; in fp32
    each, free = share * parts.activation_bytes, USABLE * room(device) - resident() - own
    if device.type != "cuda" and each * rows > free:
        fit = max(0, int(free // each))
        raise OutOfMemory(
            f"a pass of {rows} images needs about {each * rows / 2**20:,.0f} MiB for activations, and "
            f"{max(0, free) / 2**20:,.0f} MiB of memory are left for them: about {fit} images; give micro_batch=<fewer>"
        )
