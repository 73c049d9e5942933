"""How diverse the samples served of late are, beside the training data and what the generator made at the start."""

import hashlib
import math
import threading
import time
from collections import OrderedDict, deque

import torch
from torch import Tensor

from ganrun.collapse.diversity import Reals, shrunk, total_variance, twins
from ganrun.commands.serve.served import Served
from ganrun.sampling.translator import Translator

WINDOW = 256  # samples: the first ones of seed 0 as the reference, and the last ones served
PIXELS = 2**24  # of all images of the reference, which has fewer images if they are large
FEWEST = 32  # samples served, from which on numbers are told
AGE = 5.0  # seconds for which they are not computed anew


class Drift:
    """Pixel spread and twins of the last samples served, and what they are compared with.

    spread: root of the variance of pixels around their mean image, in [-1, 1] units, images shrunk to 32 pixels a side
    twins:  share of samples with another one nearer than a quarter of the reference's typical distance

    The reference is measured once, of the generator that the server started with, so that a later one which has
    collapsed differs from it. Training's numbers come from the figures of `on_collapse` in the run's metrics.jsonl: the
    real data's twins, and the reference's spread over the generator's share of the real data's spread, which was
    measured with the live weights. Without a run there are none. Samples drawn with truncation or on a way between two
    seeds are left out, and so is a sample that was served before. A narrow choice of labels lowers the spread, too.
    """

    def __init__(self, served: Served, batch_size: int = FEWEST):
        self._lock = threading.Lock()
        self._seen: OrderedDict[bytes, Tensor] = OrderedDict()  # pixels by the digest of what each was made from
        self._prints: deque[int] = deque(maxlen=16 * WINDOW)  # of pixels, as they were served
        self._known: set[int] = set()
        self._told: tuple[float, dict[tuple[str, str], float]] = (-AGE, {})
        self._fixed: dict[tuple[str, str], float] = {}
        self._reals: Reals | None = None
        if isinstance(served.made, Translator):
            return
        num = min(WINDOW, max(FEWEST, PIXELS // math.prod(served.shape[-2:])))
        made = served.made.batches(num, 0, served.made.turn(), batch_size=batch_size)
        self._reals = Reals(torch.cat([shrunk(part) for part, _ in made]))
        self._fixed = {
            ("spread", "reference"): spread(self._reals.pixels),
            ("twins", "reference"): float(self._reals.twins),
        }
        figures = served.figures
        if figures.get("pixel_spread", 0) > 0:
            self._fixed["spread", "training"] = self._fixed["spread", "reference"] / figures["pixel_spread"]
        if "real_twins" in figures:
            self._fixed["twins", "training"] = figures["real_twins"]

    def see(self, served: Served, z: Tensor, labels: Tensor | None, images: Tensor) -> int:
        """Notes samples that were served; returns how many of them are duplicates: equal pixels from another noise."""
        made_of = torch.cat([z, *([] if labels is None else [labels.reshape(len(z), -1).float()])], 1).numpy()
        pixels, duplicates = shrunk(images).flatten(1), 0
        with self._lock:
            for row, values in zip(made_of, pixels, strict=True):
                key = digest(row.tobytes() + str(id(served)).encode())
                if key in self._seen:
                    continue
                whole = hash(values.numpy().tobytes())
                duplicates += whole in self._known
                self._note(whole)
                self._seen[key] = values.clone()  # without the rest of its batch
                if len(self._seen) > WINDOW:
                    self._seen.popitem(last=False)
        return duplicates

    def _note(self, whole: int) -> None:
        if whole in self._known:
            return
        if len(self._prints) == self._prints.maxlen:
            self._known.discard(self._prints[0])
        self._prints.append(whole)
        self._known.add(whole)

    def told(self) -> dict[tuple[str, str], float]:
        """By (spread or twins, served, reference or training): what is known of them."""
        with self._lock:
            when, found = self._told
            seen = list(self._seen.values())
        if time.monotonic() - when < AGE or self._reals is None:
            return found
        found = dict(self._fixed)
        if len(seen) >= FEWEST and all(len(one) == len(seen[0]) == self._reals.pixels.shape[1] for one in seen):
            pixels = torch.stack(seen)
            found |= {("spread", "served"): spread(pixels), ("twins", "served"): float(twins(pixels, self._reals.near))}
        self._told = (time.monotonic(), found)
        return found


def spread(pixels: Tensor) -> float:
    """Of rows (num, F): root of the mean variance of a number."""
    return float((total_variance(pixels) / pixels.shape[1]).sqrt())


def digest(content: bytes) -> bytes:
    return hashlib.blake2b(content, digest_size=8).digest()
