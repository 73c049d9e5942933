"""From a checked config to the objects of a run. What cannot be built is reported to the user in one line."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from itertools import combinations
from pathlib import Path

import pytorch_lightning as pl
import torch
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from pytorch_lightning.loggers.logger import Logger

from ganrun.activations import kept_by_autograd
from ganrun.attributes import KEY as ATTRIBUTES
from ganrun.config.typed import players_of
from ganrun.data.base import Data
from ganrun.data.datamodule import GANDataModule
from ganrun.errors import UserError, one_of
from ganrun.freezing import freeze
from ganrun.game import Batch, Recipe
from ganrun.loggers import InRun
from ganrun.metrics.features import Features
from ganrun.metrics.metric import Metric
from ganrun.metrics.scorer import Scorer
from ganrun.module import GANModule
from ganrun.noise import Noise
from ganrun.schedule import Schedule
from ganrun.seeding import derive, seed_default_generators
from ganrun.training.hardware import compile_settings
from ganrun.training.nodes import build_all, build_as, build_node, open_data, with_hidden_labels
from ganrun.training.refusing import refusing

HEADS = ("concatenate", "projection")  # what a discriminator can do with attributes
KINDS = ("generator", "discriminator")  # of players; other names belong to a recipe


@dataclass(frozen=True)
class Parts:
    """A run's data and module, ready to fit. activation_bytes: bytes that a move keeps for each of its images, in fp32.

    callbacks, loggers: in addition to those that every run has.
    """

    cfg: DictConfig
    datamodule: GANDataModule
    module: GANModule
    scorer: Scorer
    activation_bytes: int
    callbacks: list[pl.Callback] = field(default_factory=list)
    loggers: list[Logger | InRun] = field(default_factory=list)

    @property
    def data(self) -> Data:
        return self.datamodule.data


def build(cfg: DictConfig, before: Parts | None = None) -> Parts:
    """Opens the data set, then builds the networks for its shape.

    before: the parts of an earlier fit of the same config. Its data, which may be on a GPU by now, and its scorer are
    used again, and the dry run is skipped.
    """
    data = before.data if before else with_hidden_labels(cfg, open_data(cfg))
    check_condition(cfg, data)
    schedule = build_schedule(cfg)
    check_sizes(cfg, data, schedule)
    module = build_module(cfg, data, schedule)
    datamodule = GANDataModule(
        data,
        batch_size=cfg.batch_size,
        num_batches=schedule.num_batches,
        seed=cfg.seed,
        channels_last=cfg.channels_last,
        unpaired=module.recipe.unpaired,
        further=module.further,
    )
    module.given = partial(datamodule.given, bool(module.recipe.needs), cfg.conditional.key)
    activation_bytes = before.activation_bytes if before else dry_run(module, datamodule)
    compiled = compile_settings(cfg)
    if compiled:
        module.compile_networks(**compiled)
    scorer = before.scorer if before else build_scorer(cfg, data, module.recipe)
    check_classes(scorer, module, datamodule)
    watching = (build_all(pl.Callback, cfg, "callbacks"), build_all((Logger, InRun), cfg, "logger"))
    return Parts(cfg, datamodule, module, scorer, activation_bytes, *watching)


def check_condition(cfg: DictConfig, data: Data) -> None:
    """Raises UserError if labels are needed that the data do not have, and for a head that needs classes."""
    key, head = cfg.conditional.key, cfg.conditional.get("head", HEADS[0])
    batch = data.read(torch.zeros(1, dtype=torch.int64))
    if key not in (None, *batch):
        raise UserError(lacks(key, data, batch))
    if key == ATTRIBUTES and head not in HEADS:
        raise UserError(f"conditional.head={head}: it needs classes; for attributes {one_of(HEADS, head)}")


def lacks(key: str, data: Data, batch: Batch) -> str:
    """Says that samples have no such label, why, and which they have."""
    why = [note for note in data.notes if note.startswith("classes: " if key == ATTRIBUTES else "no classes: ")]
    found = [f"conditional={name} takes what they have" for name in ("label", ATTRIBUTES) if name in batch]
    if key == ATTRIBUTES:
        found.append("attributes are numbers in dataset.labels=<.csv or .json>")
        found += ["dataset.ranges={<column>: null} takes whole numbers as numbers"] if data.classes else []
    return "; ".join([f"conditional={key}: the samples of dataset {data.name} have no such label", *why, *found])


def build_module(cfg: DictConfig, data: Data, schedule: Schedule) -> GANModule:
    """The recipe with its networks, noise, optimizers and average. Weights depend on the seed alone."""
    seed_default_generators(derive(cfg.seed, "weights"))
    recipe = build_as(Recipe, cfg, "recipe")
    if cfg.channels_last:
        recipe.to(memory_format=torch.channels_last)
    check_sides(recipe, data)
    check_directions(cfg, recipe, data)
    frozen = freeze(recipe, cfg.freeze_discriminator)
    players = optimizers_of(cfg, recipe)
    check_lazy(cfg, players, schedule)
    ema = build_node(cfg, "ema")
    return refusing("recipe", GANModule)(
        recipe,
        build_as(Noise, cfg, "noise") if "_target_" in cfg.noise else None,
        schedule,
        {name: refusing(f"optimizer.{name}", build_node(cfg.optimizer, name, "optimizer.")) for name in players},
        batch_size=cfg.batch_size,
        micro_batch=cfg.micro_batch,
        seed=cfg.seed,
        ema=ema and refusing("ema", ema),
        frozen=frozen,
    )


def optimizers_of(cfg: DictConfig, recipe: Recipe) -> list[str]:
    """Gives each player an optimizer, its own or that of its kind; returns the players' names."""
    players = recipe.players()
    own = set(players_of(cfg))
    for name in sorted(own - {*players, *KINDS}):
        raise UserError(f"optimizer.{name}: there is no such player; {one_of(players, name)}")
    for name in players.keys() - own:
        kind = KINDS[not players[name].generates]
        cfg.optimizer[name] = cfg.optimizer[kind]
    for name in own - players.keys():
        del cfg.optimizer[name]
    return list(players)


def check_lazy(cfg: DictConfig, players: list[str], schedule: Schedule) -> None:
    """Raises UserError for a correction of lazy moves where there are none."""
    for name in players:
        lazy = cfg.optimizer[name].get("lazy")
        if lazy is not None and not schedule.lazy_moves:
            text = "it corrects for lazy moves; add schedule.lazy_moves=true, or give null"
            raise UserError(f"optimizer.{name}.lazy={lazy}: {text}")


def build_schedule(cfg: DictConfig) -> Schedule:
    moves = OmegaConf.to_container(cfg.schedule, resolve=True)
    settings = ("share", "reuse_stale", "generator_batch", "lazy_moves")
    return Schedule(moves, **{name: moves.pop(name) for name in settings if name in moves})


def build_scorer(cfg: DictConfig, data: Data, recipe: Recipe) -> Scorer:
    """The scorer for scores in training; it scores the recipe's first output."""
    num = cfg.evaluate.num_samples
    return Scorer(
        build_metrics(cfg),
        data.sides[next(iter(recipe.compared.values()))],
        num_fake=min(num, len(data)) if recipe.needs else num,
        num_real=cfg.evaluate.num_real,
        even=True,
        conditional=cfg.conditional.key is not None,
        key=cfg.conditional.key or "label",
        paired=data.paired,
        source=source_side(data, recipe),
        discriminates=True,
        cache=Path(cfg.cache_dir).expanduser(),
    )


def check_classes(scorer: Scorer, module: GANModule, datamodule: GANDataModule) -> None:
    """Raises UserError for a metric of the discriminator's classes if there are none."""
    asking = [name for name, metric in scorer.metrics.items() if metric.of_discriminator]
    if asking and module.classify(datamodule.reals(2)["real"]) is None:
        heads = "semi-supervised, auxiliary, twin, adc, d2d-ce, 2c or multi-hinge"
        raise UserError(f"metric={asking[0]}: this discriminator tells no classes; expected conditional={heads}")


def source_side(data: Data, recipe: Recipe) -> Data | None:
    """The data that the recipe's first output is made from; None if it is made from noise."""
    output = next(iter(recipe.compared.values()))
    takes = [takes for takes, gives in recipe.translates.values() if gives == output]
    return data.sides[takes[0]] if takes else None


def build_metrics(cfg: DictConfig) -> dict[str, Metric]:
    """The metrics of cfg.metric by name; metrics with equally configured features share them."""
    shared: dict[str, Features] = {}
    metrics = {}
    for name in [name for name in cfg.metric if name != "features"]:
        node = OmegaConf.create(OmegaConf.to_container(cfg.metric[name], resolve=True))
        own = {}
        if node.get("features") is not None:
            if not isinstance(node.features, DictConfig):
                raise UserError(
                    f"metric.{name}.features={node.features}: chosen by metric/features=<option>, for all metrics"
                )
            wanted = OmegaConf.to_yaml(node.features)
            if wanted not in shared:
                shared[wanted] = build_as(Features, node, "features", f"metric.{name}.")
            own = {"features": shared[wanted]}
            del node["features"]
        metrics[name] = refusing(f"metric.{name}", instantiate)(node, **own, _convert_="all")
        if not isinstance(metrics[name], Metric):
            raise UserError(f"metric.{name}: {node._target_} makes no ganrun.metrics.metric.Metric")
    return metrics


def check_sizes(cfg: DictConfig, data: Data, schedule: Schedule) -> None:
    """Refuses numbers of samples that do not fit into memory, by allocating it and giving it back untouched."""
    sizes = {"num_samples": cfg.num_samples, "evaluate.num_samples": cfg.evaluate.num_samples}
    sizes["batch_size"] = cfg.batch_size * schedule.num_batches
    if schedule.generator_batch:
        sizes["schedule.generator_batch"] = schedule.generator_batch * schedule.num_batches
    for key, num in sizes.items():
        try:
            torch.empty(num, *data.shape)
        except (RuntimeError, MemoryError, OverflowError, TypeError) as error:
            shape = "x".join(map(str, data.shape))
            raise UserError(
                f"{key}={OmegaConf.select(cfg, key)}: {num:,} samples of {shape} need more memory than there is"
            ) from error


def dry_run(module: GANModule, datamodule: GANDataModule) -> int:
    """Computes every player's losses once, so that what does not fit the data is refused before a run begins.

    Changes no buffer. Returns the most bytes an image that autograd keeps in a move, in fp32.
    """
    examples = datamodule.reals(2)
    num = len(examples["real"])
    batch = examples | (module.noise(num, torch.Generator()) if module.noise else {})
    check_outputs(refusing("generator", module.show)(batch, averaged=False), batch, module.recipe.compared)
    before = [(buffer, buffer.clone()) for buffer in module.recipe.buffers()]
    module.eval()
    known = [*module.recipe.parameters(), *module.recipe.buffers()]
    with kept_by_autograd(known) as generation:
        generated = module.recipe.generate(batch)
    largest = 0
    for name, player in module.players.items():
        seen = generated if player.generates else {key: value.detach() for key, value in generated.items()}
        with kept_by_autograd(known) as kept:
            losses = refusing(name, player.losses)(batch, seen)
        held = kept | generation if player.generates or not module.micro_batch else kept
        largest = max(largest, sum(held.values()))
        del losses
    module.train()
    for buffer, value in before:
        buffer.copy_(value)
    return largest // num


def check_outputs(shown: Batch, batch: Batch, compared: Mapping[str, str]) -> None:
    """Raises UserError for an output whose shape differs from that of the data it is compared with."""
    for output, like in compared.items():
        if shown[output].shape != batch[like].shape:
            got, wanted = (list(x.shape[1:]) for x in (shown[output], batch[like]))
            raise UserError(f"generator makes samples of shape {got}, but the dataset has {wanted}")


def check_directions(cfg: DictConfig, recipe: Recipe, data: Data) -> None:
    """Raises UserError if networks of one config would need other channels in each direction, and for noise."""
    if recipe.translates and "_target_" in cfg.noise:
        raise UserError(f"noise: {type(recipe).__name__} starts from images and takes none; expected noise=none")
    turns = {name: [data.parts[key][0] for key in keys] for name, keys in recipe.translates.items()}
    for name, other in combinations(turns, 2):
        if turns[name] != turns[other] and cfg.recipe.get(name) == cfg.recipe.get(other):
            had = ", ".join(f"{key} {shape[0]}" for key, shape in data.parts.items())
            raise UserError(
                f"recipe: {name} and {other} are networks of one config and need the same number of channels on both "
                f"sides, but dataset {data.name} has {had}"
            )


def check_sides(recipe: Recipe, data: Data) -> None:
    """Raises UserError for a recipe that needs keys which the data set does not have."""
    missing = sorted({*recipe.needs, *recipe.compared.values()} - {*data.parts, "label"})
    if missing:
        advice = "dataset=pairs, dataset=unpaired, or pairs=<option> beside an image set"
        raise UserError(
            f"recipe: {type(recipe).__name__} takes {', '.join(missing)}, which dataset {data.name} has not; {advice}"
        )
    if len(data.sides) > 1 and not data.paired and not recipe.unpaired:
        raise UserError(
            f"dataset {data.name} has no pairs, which {type(recipe).__name__} learns from; try model=cyclegan"
        )
    if len(data.sides) > 1 and not recipe.needs:
        raise UserError(f"dataset {data.name} is for translation, but {type(recipe).__name__} makes samples from noise")
