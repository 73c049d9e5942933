"""Features: the numbers that a metric compares, computed from samples."""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ganrun.data.base import Data
from ganrun.depth import to_numbers
from ganrun.errors import UserError, first_line


class Seen(NamedTuple):
    """Samples as a metric sees them."""

    features: Tensor  # (num, F) float32; for Stored the samples themselves
    logits: Tensor | None = None  # (num, K), of networks that classify
    label: Tensor | None = None  # (num,), the class of each sample, or the one that it was made for
    target: Tensor | None = None  # (num, ...) as stored, the target of each sample


class Features(ABC):
    """Maps samples as stored, images (num, C, H, W) of 8 or 16 bits or points (num, D), to the numbers compared."""

    costly = True  # are statistics of the data set worth a file?
    classifies = 0  # number of classes of its logits; 0 = no logits

    def check(self, data: Data) -> None:  # noqa: B027, most can see anything
        """Raises UserError for data that it cannot see, before anything is loaded or trained."""

    @abstractmethod
    def prepare(self, data: Data, device: torch.device) -> None:
        """Gets ready for the samples of a data set; a second call does nothing. Raises UserError."""

    @abstractmethod
    def see(self, samples: Tensor) -> Seen:
        """Features, and logits if there are any, on the device that `prepare` was given."""

    @property
    @abstractmethod
    def protocol(self) -> dict[str, Any]:
        """Network, hash of its weights, resizer: everything that decides the numbers."""


class Values(Features):
    """The samples' own values: pixels in [-1, 1], flattened, or a point's coordinates."""

    costly = False
    protocol = {"features": "values"}  # noqa: RUF012 - read only

    def prepare(self, data, device):
        self._device = device

    def see(self, samples):
        return Seen(to_numbers(samples.to(self._device)).flatten(1))


class Stored(Features):
    """The samples as they are stored: images (num, C, H, W), or points (num, D)."""

    costly = False
    protocol = {"features": "pixels"}  # noqa: RUF012 - read only

    def prepare(self, data, device):
        self._device = device

    def see(self, samples):
        return Seen(samples.to(self._device))


class NetworkFeatures(Features):
    """Features from a network, `chunk` samples a pass.

    `load` makes the network and describes it; `look` maps a chunk of samples to (features, logits or None).
    """

    chunk = 256
    _network: nn.Module | None = None

    def prepare(self, data, device):
        if self._network is None:
            with torch.random.fork_rng(devices=[]):  # random draws here must not affect others
                self._network, self._about = self.load(data, device)
            self._network.eval().requires_grad_(False)
        self._network.to(device)
        self._device = device

    @abstractmethod
    def load(self, data: Data, device: torch.device) -> tuple[nn.Module, dict[str, Any]]:
        """The network, and its protocol. Raises UserError."""

    @abstractmethod
    def look(self, samples: Tensor) -> tuple[Tensor, Tensor | None]: ...

    @torch.no_grad()
    def see(self, samples):
        with in_fp32(self._device):
            looked = [self.look(part.to(self._device)) for part in samples.split(self.chunk)]
        features, logits = zip(*looked, strict=True)
        return Seen(torch.cat(features), None if logits[0] is None else torch.cat(logits))

    @property
    def protocol(self):
        return self._about


def check_channels(data: Data, valid: tuple[int, ...], key: str) -> None:
    """Raises UserError for images of other channels than the `valid` ones. key: the option that needs them."""
    if len(data.shape) == 3 and data.shape[0] not in valid:
        needs = " or ".join(map(str, valid))
        raise UserError(
            f"{key} needs images of {needs} channels, but dataset {data.name} has {data.shape[0]}; "
            "metric/features=none takes any number, classifier too"
        )


@contextmanager
def in_fp32(device: torch.device) -> Iterator[None]:
    """Within it neither autocast nor TF32 acts: scores do not depend on the precision of training."""
    backends = (torch.backends.cuda.matmul, torch.backends.cudnn)
    before = [backend.allow_tf32 for backend in backends]
    for backend in backends:
        backend.allow_tf32 = False
    try:
        with torch.autocast(device.type, enabled=False):
            yield
    finally:
        for backend, allowed in zip(backends, before, strict=True):
            backend.allow_tf32 = allowed


def hash_of(tensors: Mapping[str, Tensor]) -> str:
    """A hash of weights by name."""
    found = hashlib.blake2b(digest_size=8)
    for name, tensor in sorted(tensors.items()):
        found.update(name.encode() + tensor.detach().cpu().contiguous().numpy().tobytes())
    return found.hexdigest()


def load_weights(path: str | Path, key: str) -> dict[str, Tensor]:
    """Reads a state dict, unpickling nothing but tensors. Raises UserError."""
    place = Path(path).expanduser()
    if not place.is_file():
        raise UserError(f"{key}={path}: there is no such file")
    try:
        return torch.load(place, map_location="cpu", weights_only=True)
    except Exception as error:  # torch and pickle raise many kinds for a foreign file
        reason = first_line(error)
        raise UserError(f"{key}={path}: cannot be read as weights: {reason[:200]}") from error


def fit_weights(network: nn.Module, state: Any, key: str) -> None:
    """Loads a state dict into its network. Raises UserError if it does not fit."""
    try:
        network.load_state_dict(state)
    except Exception as error:  # other names, other shapes, no state dict at all
        reason = (str(error).splitlines() or [""])[-1].strip()
        raise UserError(f"{key}: these are not the weights of that network: {reason[:200]}") from error
