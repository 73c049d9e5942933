"""Randomness by position: what step k or position p draws depends only on the seed and on k or p.

So a resumed run repeats an uninterrupted one without any saved generator state.
"""

import hashlib

import numpy as np
import torch


def derive(*parts: int | str) -> int:
    """A 63-bit seed hashed from the parts."""
    digest = hashlib.blake2b("/".join(map(str, parts)).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def of_attempt(seed: int, attempt: int) -> int:
    """The seed after `attempt` rollbacks, so that the same path is not replayed; with none it is `seed` itself."""
    return derive(seed, "attempt", attempt) if attempt else seed


def rng_for(*parts: int | str) -> torch.Generator:
    """A CPU generator seeded by the parts."""
    return torch.Generator().manual_seed(derive(*parts))


def seed_default_generators(seed: int) -> None:
    """Reseeds what networks and penalties draw from, on the CPU and on this process's GPUs."""
    torch.default_generator.manual_seed(seed)  # torch.manual_seed costs a hundred times as much
    if torch.cuda.is_initialized():
        torch.cuda.manual_seed(seed)


def uniform_at(positions: np.ndarray, seed: int) -> np.ndarray:
    """A number in [0, 1) for each int64 position, the same on every call and in every process.

    SplitMix64's finaliser over position and seed: Steele et al. 2014, "Fast splittable pseudorandom number generators".
    """
    with np.errstate(over="ignore"):
        x = positions.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15) + np.uint64(seed)
        x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        x ^= x >> np.uint64(31)
    return (x >> np.uint64(11)).astype(np.float64) / 2**53
