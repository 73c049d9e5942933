"""From a checked config to the objects of a run. What cannot be built is the user's to mend, said in one line."""

from dataclasses import dataclass
from typing import Any

import torch
from hydra.errors import InstantiationException
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from ganrun.data.base import Data
from ganrun.data.datamodule import GANDataModule
from ganrun.errors import UserError
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
    try:
        node = cfg[key]
        return instantiate(node, _convert_="all") if "_target_" in node else None
    except InstantiationException as error:
        raise UserError(f"{key}: {innermost(error)}") from error
    except OmegaConfBaseException as error:
        raise UserError(f"{key}: {str(error).splitlines()[0]}") from error


def innermost(error: BaseException) -> str:
    """The first line of what a chain of exceptions began with."""
    while error.__cause__ is not None:
        error = error.__cause__
    return (str(error).splitlines() or [type(error).__name__])[0]


def build(cfg: DictConfig) -> Parts:
    """Opens the data set, then builds the networks for its shape. Weights depend on the seed alone."""
    data = build_node(cfg, "dataset")
    cfg.dataset.num_classes = data.num_classes
    if cfg.conditional.key is not None and not data.classes:
        raise UserError(f"conditional={cfg.conditional.key} needs labels, but dataset {data.name} has none")
    schedule = Schedule(OmegaConf.to_container(cfg.schedule, resolve=True))
    seed_default_generators(derive(cfg.seed, "weights"))
    recipe = build_node(cfg, "recipe")
    if cfg.channels_last:
        recipe.to(memory_format=torch.channels_last)
    optimizers = {str(name): build_node(cfg.optimizer, name) for name in schedule.moves if name in cfg.optimizer}
    for name in schedule.moves:
        if name not in optimizers:
            raise UserError(f"schedule.{name}: there is no optimizer.{name}")
    try:
        module = GANModule(
            recipe,
            build_node(cfg, "noise"),
            schedule,
            optimizers,
            batch_size=cfg.batch_size,
            seed=cfg.seed,
            ema=build_node(cfg, "ema"),
        )
    except (ValueError, TypeError) as error:
        raise UserError(str(error).splitlines()[0]) from error
    datamodule = GANDataModule(data, batch_size=cfg.batch_size, num_batches=schedule.num_batches, seed=cfg.seed)
    check_shapes(module, datamodule)
    return Parts(cfg, datamodule, module)


def check_shapes(module: GANModule, datamodule: GANDataModule) -> None:
    """Runs the generator once, so that networks which do not fit the data are refused before a run begins."""
    batch = datamodule.reals(2)
    noise = module.noise(len(batch["real"]), torch.Generator())
    try:
        fake = module.show(batch | noise)["fake"]
    except RuntimeError as error:
        raise UserError(f"generator: does not fit the data: {str(error).splitlines()[0]}") from error
    if fake.shape != batch["real"].shape:
        got, wanted = (list(x.shape[1:]) for x in (fake, batch["real"]))
        raise UserError(f"generator makes samples of shape {got}, but the dataset has {wanted}")
