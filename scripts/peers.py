"""Peers' own trainers, from a checkout that the user names, one round at a time, for the benchmark.

mimicry    github.com/kwotsin/mimicry
StudioGAN  github.com/POSTECH-CVLab/PyTorch-StudioGAN
R3GAN      github.com/brownvc/R3GAN

The first two train copies of ganrun's networks, so that sizes are equal, on the same images as PNGs, with their own
loop, losses, gradient penalty and logging at their defaults. A trainer's thread runs only while `step` waits for it,
and its DataLoader's workers decode only then. A round ends with the generator's move; what a trainer logs afterwards
is part of its next round. mimicry keeps no averaged generator; StudioGAN keeps one. R3GAN trains its own networks,
which start from the weights of ganrun's; its loop asks for a GPU, so that what surrounds its `AdversarialTraining` is
written out here.
"""

import argparse
import contextlib
import copy
import importlib
import io
import json
import multiprocessing
import os
import sys
import tempfile
import threading
import types
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, TextIO
from unittest import mock

import torch
from packaging.version import parse
from PIL import Image
from torch import Tensor, nn
from torch.nn.functional import pad
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


class Mimicry(OwnTrainer):
    """`torch_mimicry.training.Trainer`; a round ends with the generator's train_step."""

    requires = ("torch_mimicry/training/trainer.py", "torch_mimicry/nets/wgan_gp/wgan_gp_base.py")
    imports = ("", "torch_mimicry")
    stand_ins = {"tensorflow": {}, "skimage": {}}  # noqa: RUF012 - its metrics', and for reading image files
    WORKERS = 4  # as its README has it

    def start(self) -> None:
        nets = self.module.nets
        base, prefix = (nets.wgan_gp.wgan_gp_base, "WGANGPBase") if self.penalty_weight else (nets.gan.gan, "Base")
        if self.conditional:
            base, prefix = nets.cgan_pd.cgan_pd_base, "CGANPDBase"
        generator = mimicry_generator(getattr(base, f"{prefix}Generator"), self)
        discriminator = mimicry_discriminator(getattr(base, f"{prefix}Discriminator"), self)
        optimizer = self.cfg.optimizer
        adam = partial(torch.optim.Adam, lr=optimizer.lr, betas=tuple(optimizer.betas))
        loader = DataLoader(self.pictures, self.cfg.batch_size, shuffle=True, num_workers=self.WORKERS, drop_last=True)
        self.module.training.Trainer(
            netD=discriminator,
            netG=generator,
            optD=adam(discriminator.parameters()),
            optG=adam(generator.parameters()),
            dataloader=loader,
            num_steps=ROUNDS,
            log_dir=self.folder.name,
            n_dis=self.cfg.schedule.discriminator,
            device=self.device,
        ).train()

    @property
    def loss_type(self) -> str:
        return "wasserstein" if self.penalty_weight else "hinge" if self.hinge else "ns"

    @property
    def classes(self) -> dict[str, int]:
        return {"num_classes": self.cfg.dataset.num_classes} if self.conditional else {}


def mimicry_generator(base: type, trainer: Mimicry) -> nn.Module:
    """ganrun's generator with the train_step of mimicry's base class, after which the turn goes over."""

    class Generator(base):
        def __init__(self):
            sizes = dict(nz=trainer.cfg.noise.z_dim, ngf=0, bottom_width=0)
            super().__init__(loss_type=trainer.loss_type, **sizes, **trainer.classes)
            self.network = trainer.generator

        def forward(self, z: Tensor, label: Tensor | None = None) -> Tensor:
            return self.network(z, label)

        def train_step(self, *args: Any, **kwargs: Any) -> Any:
            log = super().train_step(*args, **kwargs)
            trainer.hand_over()
            return log

    return Generator()


def mimicry_discriminator(base: type, trainer: Mimicry) -> nn.Module:
    """ganrun's discriminator with the train_step of mimicry's base class."""
    channels = trainer.channels
    penalty = {"gp_scale": trainer.penalty_weight} if trainer.penalty_weight else {}

    class Discriminator(base):
        def __init__(self):
            super().__init__(ndf=0, loss_type=trainer.loss_type, **penalty, **trainer.classes)
            self.network = trainer.discriminator

        def forward(self, x: Tensor, label: Tensor | None = None) -> Tensor:
            return self.network(x[:, :channels], label).logits.unsqueeze(1)

        def compute_gradient_penalty_loss(self, real_images: Tensor, fake_images: Tensor, **kwargs: Any) -> Tensor:
            # Its code is for three channels. Those that are added here have no gradient: the norm stays what it was.
            real, fake = (pad(x, (0, 0, 0, 0, 0, max(0, 3 - channels))) for x in (real_images, fake_images))
            return super().compute_gradient_penalty_loss(real, fake, **kwargs)

    return Discriminator()


class StudioGAN(OwnTrainer):
    """`loader.load_worker` on one device; a round ends with the worker's train_generator."""

    requires = ("src/main.py", "src/loader.py", "src/worker.py")
    imports = ("src", "main")
    # Of these only wandb is called while training, with numbers to send away; an older setuptools has parse_version.
    stand_ins = {  # noqa: RUF012
        **{package: {} for package in ("wandb", "h5py", "seaborn", "timm", "kornia")},
        "pkg_resources": {"parse_version": parse},
    }

    def start(self) -> None:
        loader, place = self.module.loader, Place(self.device)
        networks = types.ModuleType("models.ganrun")
        networks.Generator = lambda **_: StudioGenerator(self.generator, self.conditional)
        networks.Discriminator = lambda **_: StudioDiscriminator(self.discriminator, self.conditional)
        sys.modules[networks.__name__] = networks  # it imports networks by the name of a config's backbone
        worker = handing_over(loader.WORKER, self.hand_over)
        with mock.patch.multiple(loader, WORKER=worker, Dataset_=lambda **_: self.pictures):
            cfgs, gpus, run_name, hdf5_path, _ = self.configured()
            loader.load_worker(place, cfgs, gpus, run_name, hdf5_path)

    def configured(self) -> tuple[Any, ...]:
        """What its command line makes of a config file and of `-t`: all that is not named here has its default."""
        folder = self.folder.name
        config = Path(folder) / "ganrun.yaml"
        config.write_text(json.dumps(self.settings()))
        words = ["main.py", "-t", "-cfg", str(config), "-data", folder, "-save", folder, "-metrics", "none"]
        with (
            mock.patch.object(sys, "argv", words),
            mock.patch("torch.cuda.device_count", return_value=1),  # it asks without looking whether there is any
            mock.patch("torch.cuda.current_device", return_value=0),
        ):
            return self.module.load_configs_initialize_training()

    def settings(self) -> dict[str, dict[str, Any]]:
        cfg, optimizer = self.cfg, self.cfg.optimizer
        (beta1, beta2), size = optimizer.betas, dict(g_conv_dim="N/A", d_conv_dim="N/A")
        average = dict(apply_g_ema=True, g_ema_decay=cfg.ema.decay, g_ema_start=0)
        wgan_gp = dict(adv_loss="wasserstein", apply_gp=True, gp_lambda=self.penalty_weight)
        classes = cfg.dataset.num_classes if self.conditional else 1
        condition = dict(g_cond_mtd="cBN", d_cond_mtd="PD") if self.conditional else {}
        rates = dict(g_lr=optimizer.lr, d_lr=optimizer.lr, beta1=beta1, beta2=beta2)
        counts = dict(batch_size=cfg.batch_size, d_updates_per_step=cfg.schedule.discriminator, total_steps=ROUNDS)
        return {
            "DATA": dict(name="ganrun", img_size=self.size, num_classes=classes, img_channels=self.channels),
            "MODEL": dict(backbone="ganrun", z_dim=cfg.noise.z_dim) | size | average | condition,
            "LOSS": wgan_gp if self.penalty_weight else dict(adv_loss="hinge" if self.hinge else "logistic"),
            "OPTIMIZATION": rates | counts,
            "PRE": dict(apply_rflip=False),
        }

    def step(self) -> None:
        # Its trainer sets these for the whole process; the others keep theirs.
        cudnn = torch.backends.cudnn
        kept = cudnn.benchmark, cudnn.deterministic
        cudnn.benchmark, cudnn.deterministic = True, False
        try:
            super().step()
        finally:
            cudnn.benchmark, cudnn.deterministic = kept


class R3GAN(OwnTrainer):
    """`AdversarialTraining` on R3GAN's own networks and operators; the discriminator moves first."""

    requires = ("R3GAN/Trainer.py", "R3GAN/Networks.py")
    imports = ("", "R3GAN.Trainer", "R3GAN.Networks")
    stand_ins = {"pkg_resources": {"parse_version": parse}}  # noqa: RUF012 - an older setuptools has it
    WORKERS = 3  # as its train.py has it

    def start(self) -> None:
        networks = [each.to(self.device) for each in r3gan_networks(self.generator, self.discriminator)]
        average, optimizer = copy.deepcopy(networks[0]), self.cfg.optimizer
        play = self.module.AdversarialTraining(*networks)
        adam = partial(torch.optim.Adam, lr=optimizer.lr, betas=tuple(optimizer.betas))
        adams = [adam(network.parameters()) for network in networks]
        loader = DataLoader(self.pictures, self.cfg.batch_size, shuffle=True, num_workers=self.WORKERS, drop_last=True)
        reals = (real.to(self.device) for _ in range(ROUNDS) for real, _ in loader)
        gamma = self.cfg.penalty.r1.weight
        moves = [partial(play.AccumulateDiscriminatorGradients, Gamma=gamma), play.AccumulateGeneratorGradients]
        while True:
            for network in networks:
                network.requires_grad_(False)
            for network, own_adam, move in zip(reversed(networks), reversed(adams), moves, strict=True):
                noise = torch.randn(self.cfg.batch_size, self.cfg.noise.z_dim, device=self.device)
                own_adam.zero_grad(set_to_none=True)
                network.requires_grad_(True)
                move(noise, next(reals), None)
                network.requires_grad_(False)
                own_adam.step()
            for kept, live in zip(average.parameters(), networks[0].parameters(), strict=True):
                kept.data.copy_(live.data.lerp(kept.data, self.cfg.ema.decay))
            self.hand_over()


def r3gan_networks(generator: nn.Module, discriminator: nn.Module) -> list[nn.Module]:
    """R3GAN's generator and discriminator, of the sizes and with the weights of ganrun's."""
    theirs, embed = sys.modules["R3GAN.Networks"], generator.embed
    first = next(m for m in generator.modules() if type(m).__name__ == "Block").convs[1]
    stages = [generator.stem, *generator.stages]
    widths = [stage[-1].convs[2].out_channels for stage in stages]
    group = first.out_channels // first.groups
    blocks = [sum(type(m).__name__ == "Block" for m in stage) for stage in stages]
    expansion = first.out_channels // widths[0]
    classes = {} if embed is None else dict(ConditionDimension=embed.in_features)
    sizes = (widths, [expansion * width // group for width in widths], blocks)
    inputs = generator.basis.scale.in_features - (0 if embed is None else embed.out_features)
    condition = {} if embed is None else dict(ConditionEmbeddingDimension=embed.out_features)
    made = [theirs.Generator(inputs, *sizes, expansion, **classes, **condition)]
    condition = {} if embed is None else dict(ConditionEmbeddingDimension=widths[0])
    made += [theirs.Discriminator(*(each[::-1] for each in sizes), expansion, **classes, **condition)]
    for network, own in zip(made, (generator, discriminator), strict=True):
        copy_by_order(network, own)
    return made


@torch.no_grad()
def copy_by_order(theirs: nn.Module, own: nn.Module) -> None:
    """Copies all parameters: of equal shapes, the first to the first."""
    by_shape: dict[tuple[int, ...], list[Tensor]] = {}
    for parameter in own.parameters():
        by_shape.setdefault(tuple(parameter.shape), []).append(parameter)
    for parameter in theirs.parameters():
        parameter.copy_(by_shape[tuple(parameter.shape)].pop(0))
    assert not any(by_shape.values())


class Place(str):
    """The device by name and, where a rank is asked for, rank 0: StudioGAN takes one for the other."""

    def __eq__(self, other: object) -> bool:
        return other == 0 if isinstance(other, int) else str.__eq__(self, other)

    def __ne__(self, other: object) -> bool:
        return not self == other

    __hash__ = str.__hash__

    def __radd__(self, other: int) -> int:
        return other


class StudioGenerator(nn.Module):
    def __init__(self, network: nn.Module, conditional: bool):
        super().__init__()
        self.network, self.conditional = network, conditional

    def forward(self, z: Tensor, label: Tensor, eval: bool = False) -> Tensor:
        return self.network(z, label if self.conditional else None)


class StudioDiscriminator(nn.Module):
    def __init__(self, network: nn.Module, conditional: bool):
        super().__init__()
        self.network, self.conditional = network, conditional

    def forward(self, x: Tensor, label: Tensor, eval: bool = False, adc_fake: bool = False) -> dict[str, Tensor]:
        verdict = self.network(x, label if self.conditional else None)
        return {"h": verdict.features, "adv_output": verdict.logits, "label": label}


def handing_over(base: type, hand_over: Callable[[], None]) -> type:
    """StudioGAN's worker, which ends a round with the generator's move."""

    class Worker(base):
        def train_generator(self, current_step: int) -> Any:
            loss = super().train_generator(current_step)
            hand_over()
            return loss

    return Worker


class StandIn(types.ModuleType):
    """For a package that is imported but not needed: has every name, and a call does nothing."""

    __path__ = ()

    def __getattr__(self, name: str) -> "StandIn":
        if name.startswith("__"):
            raise AttributeError(name)
        return StandIn(name)

    def __call__(self, *args: Any, **kwargs: Any) -> None:
        pass


def open_peer(path: str) -> type[OwnTrainer]:
    """The trainer of the checkout at `path`, to be made with (parts, device)."""
    root = Path(path).resolve()
    for peer in (Mimicry, StudioGAN, R3GAN):
        if all((root / file).is_file() for file in peer.requires):
            return type(peer.__name__, (peer,), {"root": root, "module": load(root, peer)})
    raise argparse.ArgumentTypeError(
        f"{path}; expected a checkout of mimicry (with {Mimicry.requires[0]}), "
        f"of PyTorch-StudioGAN (with {StudioGAN.requires[-1]}) or of R3GAN (with {R3GAN.requires[0]})"
    )


def load(root: Path, peer: type[OwnTrainer]) -> Any:
    """Imports the peer's module, with stand-ins for packages that are not installed and not needed."""
    folder, *names = peer.imports
    sys.path.insert(0, place := str(root / folder))
    try:
        with open(os.devnull, "w") as nowhere, quiet(nowhere), standing_in(peer.stand_ins) as stand_in:
            while missing := next(filter(None, map(first_missing, names)), ""):
                if not stand_in(missing):
                    raise argparse.ArgumentTypeError(f"{root} needs the package {missing}, which is not installed")
        return sys.modules[names[0]]
    except (ImportError, AttributeError, TypeError, SyntaxError) as error:
        raise argparse.ArgumentTypeError(f"{root} does not work with what is installed: {error}") from error
    finally:
        sys.path.remove(place)


@contextlib.contextmanager
def standing_in(contents: dict[str, dict[str, Any]]) -> Iterator[Callable[[str], bool]]:
    """Gives a function that puts a stand-in where a package is missing, if it may; they are gone afterwards."""
    made: set[str] = set()

    def stand_in(missing: str) -> bool:
        if missing in made or missing.partition(".")[0] not in contents:
            return False
        made.add(missing)
        sys.modules[missing] = StandIn(missing)
        vars(sys.modules[missing]).update(contents.get(missing, {}))
        return True

    try:
        yield stand_in
    finally:
        for missing in made:  # others look there for what is installed
            del sys.modules[missing]


def first_missing(name: str) -> str:
    """Imports a module; the name of what it lacks, if it lacks a package."""
    try:
        importlib.import_module(name)
    except ModuleNotFoundError as error:
        return error.name or str(error)
    return ""
