"""How much memory there is."""

import os
from contextlib import suppress
from functools import cache
from pathlib import Path

import torch

LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")  # of a container: cgroup 2 and 1

USED = ("/sys/fs/cgroup/memory.current", "/sys/fs/cgroup/memory/memory.usage_in_bytes")


@cache  # asked for each image
def physical_memory() -> int:
    """Bytes of main memory; in a container with a limit, that limit."""
    found = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for place in LIMITS:
        with suppress(OSError, ValueError):  # missing, or "max"
            found = min(found, int(Path(place).read_text()))
    return found


def available_memory() -> int:
    """Bytes of main memory that a process may still take without others being swapped out or killed.

    Half of what there is where the system does not say.
    """
    found = physical_memory() // 2
    with suppress(OSError, StopIteration, ValueError):
        lines = Path("/proc/meminfo").read_text().splitlines()
        found = 1024 * int(next(line for line in lines if line.startswith("MemAvailable:")).split()[1])
    for limit, used in zip(LIMITS, USED, strict=True):
        with suppress(OSError, ValueError):
            found = min(found, int(Path(limit).read_text()) - int(Path(used).read_text()))
    return max(0, found)


def free_memory(device: torch.device) -> int:
    """Free bytes on a GPU, including those that torch has reserved but does not use."""
    unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return torch.cuda.mem_get_info(device)[0] + unused
