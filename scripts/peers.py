"""Peers' own trainers, from a checkout that the user names, one round at a time, for the benchmark.

mimicry    github.com/kwotsin/mimicry
StudioGAN  github.com/POSTECH-CVLab/PyTorch-StudioGAN
R3GAN      github.com/brownvc/R3GAN, see r3gan_peer.py
StyleGAN2  github.com/NVlabs/stylegan2-ada-pytorch, see stylegan2_peer.py

The first two train copies of ganrun's networks, so that sizes are equal, on the same images as PNGs, with their own
loop, losses, gradient penalty and logging at their defaults. A trainer's thread runs only while `step` waits for it,
and its DataLoader's workers decode only then. A round ends with the generator's move; what a trainer logs afterwards
is part of its next round. mimicry keeps no averaged generator; StudioGAN keeps one. The others train their own
networks, which start from the weights of ganrun's; their loops ask for a GPU, so that what surrounds their losses is
written out here.
"""

import argparse
import contextlib
import importlib
import json
import os
import sys
import types
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from own_trainer import ROUNDS, OwnTrainer, TakingTurns, quiet
from packaging.version import parse
from r3gan_peer import R3GAN
from stylegan2_peer import StyleGAN2ADA
from torch import Tensor, nn
from torch.nn.functional import pad
from torch.utils.data import DataLoader

__all__ = ["PEERS", "OwnTrainer", "TakingTurns", "open_peer"]


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


PEERS = (Mimicry, StudioGAN, R3GAN, StyleGAN2ADA)


def open_peer(path: str) -> type[OwnTrainer]:
    """The trainer of the checkout at `path`, to be made with (parts, device)."""
    root = Path(path).resolve()
    for peer in PEERS:
        if all((root / file).is_file() for file in peer.requires):
            module = load(root, peer)
            modules = {name: each for name, each in sys.modules.items() if name.partition(".")[0] in peer.shared}
            return type(peer.__name__, (peer,), {"root": root, "module": module, "modules": modules})
    *most, last = (f"of {peer.__name__} (with {peer.requires[0]})" for peer in PEERS)
    raise argparse.ArgumentTypeError(f"{path}; expected a checkout {', '.join(most)} or {last}")


def load(root: Path, peer: type[OwnTrainer]) -> Any:
    """Imports the peer's module, with stand-ins for packages that are not installed and not needed."""
    folder, *names = peer.imports
    sys.path.insert(0, place := str(root / folder))
    for other in [name for name in sys.modules if name.partition(".")[0] in peer.shared]:
        del sys.modules[other]  # two peers have packages of one name; each keeps the one that it was imported with
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
