"""How much memory there is."""

import os
from contextlib import suppress
from pathlib import Path

import torch

LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")  # of a container: cgroup 2 and 1


def physical_memory() -> int:
    """Bytes; of a container with a limit those."""
    found = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for place in LIMITS:
        with suppress(OSError, ValueError):  # not there, or "max"
            found = min(found, int(Path(place).read_text()))
    return found


def free_memory(device: torch.device) -> int:
    """Bytes on a GPU, those included that torch has got already and does not use."""
    unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return torch.cuda.mem_get_info(device)[0] + unused
