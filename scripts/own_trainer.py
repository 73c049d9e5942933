"""A peer's own trainer as a loop that takes turns: in a thread that runs only while `step` waits for it."""

import contextlib
import copy
import io
import multiprocessing
import os
import sys
import tempfile
import threading
import types
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

import torch
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import Compose, Normalize, ToTensor
from torchvision.transforms.functional import to_pil_image, to_tensor

from ganrun.losses import Hinge
from ganrun.training.build import Parts

EPOCH = 50_000  # as long as CIFAR-10's: to start workers anew after every few rounds would be no fair comparison
ROUNDS = 100_000  # more than any benchmark asks for


class Pictures(Dataset):
    """PNGs in memory, decoded at each access to (-1, 1); an epoch repeats them up to EPOCH samples."""

    def __init__(self, images: Tensor, labels: list[int], turn: Any):
        self.files = [png(image) for image in images]
        self.labels = labels
        self.turn = turn
        self.transform = Compose([ToTensor(), Normalize((0.5,), (0.5,))])

    def __len__(self) -> int:
        return max(EPOCH, len(self.files))

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        self.wait()
        index %= len(self.files)
        return self.transform(Image.open(io.BytesIO(self.files[index]))), self.labels[index]

    def wait(self) -> None:
        """Until it is the trainer's turn: workers would decode ahead in the others' time."""
        while not self.turn.acquire(timeout=5):
            parent = multiprocessing.parent_process()
            if parent is not None and not parent.is_alive():
                sys.exit(1)  # killed, so that nobody will end this worker
        self.turn.release()


def png(image: Tensor) -> bytes:
    to_pil_image(image).save(file := io.BytesIO(), format="PNG")
    return file.getvalue()


def decode(files: list[bytes]) -> Tensor:
    """(batch, C, H, W) in [-1, 1]."""
    return torch.stack([to_tensor(Image.open(io.BytesIO(file))) * 2 - 1 for file in files])


class Ended(BaseException):
    """Unwinds a trainer that `close` ends; no Exception, which it might catch."""


class TakingTurns:
    """A loop in a thread of its own that runs only while `step` waits; it calls `hand_over` at the end of a round."""

    def __init__(self):
        self.turn = multiprocessing.Lock()  # held while it is the others' turn
        self.turn.acquire()
        self.nowhere = open(os.devnull, "w")  # noqa: SIM115 - a logger keeps it from round to round
        self.error: BaseException | None = None
        self.closing = False
        self.go, self.done = threading.Semaphore(0), threading.Semaphore(0)
        self.thread = threading.Thread(target=self.run, daemon=True)
        self.thread.start()

    def train(self) -> None:
        """The loop, in the thread."""
        raise NotImplementedError

    def step(self) -> None:
        """Exactly one round; raises what the loop raises."""
        if self.error is None:
            with self.running():
                self.go.release()
                self.done.acquire()
        if self.error is not None:
            raise self.error

    def close(self) -> None:
        if self.closing:
            return
        self.closing = True
        with self.running():
            self.go.release()
            self.thread.join()
        self.nowhere.close()

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        self.turn.release()
        try:
            with quiet(self.nowhere):
                yield
        finally:
            self.turn.acquire()

    def hand_over(self) -> None:
        """Returns when the next round is asked for."""
        self.done.release()
        self.go.acquire()
        if self.closing:
            raise Ended

    def run(self) -> None:
        self.go.acquire()
        try:
            if not self.closing:
                self.train()
                raise RuntimeError("the trainer ended by itself")
        except Ended:
            pass
        except BaseException as error:
            self.error = error
        self.done.release()


@contextlib.contextmanager
def quiet(nowhere: TextIO) -> Iterator[None]:
    with contextlib.redirect_stdout(nowhere), contextlib.redirect_stderr(nowhere), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


class OwnTrainer(TakingTurns):
    """A peer's trainer on copies of ganrun's networks."""

    root: Path  # of the checkout
    module: Any  # what was imported from it
    requires: tuple[str, ...] = ()  # files that tell a checkout
    imports: tuple[str, ...] = ("", "")  # a folder below root, modules in it, of which the first is `module`
    stand_ins: dict[str, dict[str, Any]] = {}  # noqa: RUF012 - packages that training does not need; what to give them
    shared: tuple[str, ...] = ()  # packages of the checkout whose names another peer has too
    modules: dict[str, types.ModuleType]  # all of these packages
    rows: tuple[str, ...] = ("dcgan", "resnet", "biggan")  # beginnings of the names of rows whose mathematics it knows

    def __init__(self, parts: Parts, device: torch.device):
        self.cfg, self.device = parts.cfg, torch.device(device)
        stored = parts.data.read(torch.arange(len(parts.data)))
        real = stored["real"].cpu()
        if real.dim() != 4:
            raise ValueError(f"{type(self).__name__} trains on images; got samples of shape {tuple(real.shape[1:])}")
        self.channels, self.size = real.shape[1], real.shape[2]
        self.generator = self.copied(parts.module.recipe.generator)
        self.discriminator = self.copied(parts.module.recipe.adversary.discriminator)
        self.penalty_weight = self.cfg.penalty.gradient.weight if "gradient" in self.cfg.penalty else 0.0
        self.hinge = isinstance(parts.module.recipe.adversary.loss, Hinge)
        self.folder = tempfile.TemporaryDirectory(prefix="ganrun-peer-")
        super().__init__()
        self.conditional = self.cfg.conditional.key is not None
        labels = stored[self.cfg.conditional.key].tolist() if self.conditional else [0] * len(real)
        self.pictures = Pictures(real, labels, self.turn)

    def copied(self, network: nn.Module) -> nn.Module:
        return copy.deepcopy(network).to(self.device, memory_format=torch.contiguous_format)

    def reals(self, workers: int) -> Iterator[Tensor]:
        """Batches without end, on the device."""
        loader = DataLoader(self.pictures, self.cfg.batch_size, shuffle=True, num_workers=workers, drop_last=True)
        return (real.to(self.device) for _ in range(ROUNDS) for real, _ in loader)

    @torch.no_grad()
    def average(self, kept: nn.Module, live: nn.Module) -> None:
        """One parameter after the other, as these peers do; then the buffers."""
        for old, new in zip(kept.parameters(), live.parameters(), strict=True):
            old.copy_(new.lerp(old, self.cfg.ema.decay))
        for old, new in zip(kept.buffers(), live.buffers(), strict=True):
            old.copy_(new)

    def train(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.set_device(self.device)  # a thread begins with the first
        self.start()

    def start(self) -> None:
        """Runs the peer's trainer."""
        raise NotImplementedError

    def close(self) -> None:
        """Ends the trainer, its workers and its files."""
        super().close()
        self.folder.cleanup()
