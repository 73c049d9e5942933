"""From a checked config to the objects of a run. What cannot be built is the user's to mend, said in one line."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from ganrun.data.base import Data
from ganrun.data.datamodule import GANDataModule
from ganrun.errors import UserError, one_of
from ganrun.module import GANModule
from ganrun.schedule import Schedule
from ganrun.seeding import derive, seed_default_generators


@dataclass(frozen=True)
class Parts:
    """A run's data and module, ready to fit."""

    cfg: DictConfig
    datamodule: GANDataModule
    module: GANModule

    @property
    def data(self) -> Data:
        return self.datamodule.data


def build_node(cfg: DictConfig, key: str) -> Any:
    """Instantiates cfg[key]; a node without `_target_` is an option that composes nothing: None.

    Raises UserError with the reason when the class refuses its arguments.
    """
    node = cfg[key]
    return refusing(key, instantiate)(node, _convert_="all") if "_target_" in node else None


def refusing(key: str, make: Callable[..., Any]) -> Callable[..., Any]:
    """`make`, with whatever it raises turned into a UserError that names the key."""

    def made(*args: Any, **kwargs: Any) -> Any:
        try:
            return make(*args, **kwargs)
        except Exception as error:  # a class may refuse its arguments with any exception
            reason = innermost(error)
            where = re.search(r"full_key: \S*?(\w[\w-]*)$", str(error), re.M)  # the part of a part that refused
            name = where[1] if where else key
            raise UserError(reason if reason.startswith(name) else f"{name}: {reason}") from error

    return made


def innermost(error: BaseException) -> str:
    """The first line of what a chain of exceptions began with, or of the first one that was written for the user."""
    while error.__cause__ is not None and not isinstance(error, UserError):
        error = error.__cause__
    return (str(error).splitlines() or [type(error).__name__])[0]


def build(cfg: DictConfig) -> Parts:
    """Opens the data set, then builds the networks for its shape. Weights depend on the seed alone."""
    data = build_node(cfg, "dataset")
    cfg.dataset.num_classes = data.num_classes
    if cfg.conditional.key not in (None, *data.read(torch.zeros(1, dtype=torch.int64))):
        raise UserError(f"conditional={cfg.conditional.key}: the samples of dataset {data.name} have no such label")
    moves = OmegaConf.to_container(cfg.schedule, resolve=True)
    schedule = Schedule(moves, reuse_stale=moves.pop("reuse_stale", False))
    seed_default_generators(derive(cfg.seed, "weights"))
    recipe = build_node(cfg, "recipe")
    if cfg.channels_last:
        recipe.to(memory_format=torch.channels_last)
    for name, node in cfg.optimizer.items():
        if isinstance(node, DictConfig) and name not in recipe.players():
            raise UserError(f"optimizer.{name}: there is no such player; {one_of(recipe.players(), str(name))}")
    ema = build_node(cfg, "ema")
    module = GANModule(
        recipe,
        build_node(cfg, "noise"),
        schedule,
        {name: refusing(f"optimizer.{name}", build_node(cfg.optimizer, name)) for name in recipe.players()},
        batch_size=cfg.batch_size,
        seed=cfg.seed,
        ema=ema and refusing("ema", ema),
    )
    datamodule = GANDataModule(
        data,
        batch_size=cfg.batch_size,
        num_batches=schedule.num_batches,
        seed=cfg.seed,
        channels_last=cfg.channels_last,
    )
    check_shapes(module, datamodule)
    return Parts(cfg, datamodule, module)


def check_shapes(module: GANModule, datamodule: GANDataModule) -> None:
    """Plays every player's losses once, so that what does not fit the data is refused before a run begins."""
    batch = datamodule.reals(2)
    noise = module.noise(len(batch["real"]), torch.Generator())
    fake = refusing("generator", module.show)(batch | noise)["fake"]
    if fake.shape != batch["real"].shape:
        got, wanted = (list(x.shape[1:]) for x in (fake, batch["real"]))
        raise UserError(f"generator makes samples of shape {got}, but the dataset has {wanted}")
    module.recipe.eval()
    for name, player in module.players.items():
        refusing(name, player.losses)(batch | noise, {"fake": fake})
    module.recipe.train()
