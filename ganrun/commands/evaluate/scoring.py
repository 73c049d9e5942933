"""From the config of an evaluation to scores with their protocol."""

import math
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, stdev
from typing import Literal

import torch
from omegaconf import DictConfig, OmegaConf

from ganrun.commands.evaluate.evaluations import Scored, weights_of
from ganrun.commands.evaluate.sources import DatasetSource, GeneratorSource, Source, TranslatorSource, images_at
from ganrun.commands.sample.request import check_device, find_generator
from ganrun.commands.sample.sampler import KEYS as SAMPLER_KEYS
from ganrun.commands.sample.sampler import check_sampler, give_sampler
from ganrun.config.check import check_targets, drop_leftovers
from ganrun.config.groups import config_dir
from ganrun.config.typed import check_known, check_minimum, check_parent, check_place, check_types, spelt
from ganrun.data.base import Data
from ganrun.errors import UserError
from ganrun.files.run_dir import RunDir
from ganrun.metrics.metric import Metric, Score
from ganrun.metrics.scorer import Scorer
from ganrun.sampling.translator import Translator
from ganrun.training.build import build_metrics
from ganrun.training.hardware import device_named
from ganrun.training.nodes import open_data
from ganrun.training.of_checkpoint import open_generator
from ganrun.training.outcome import versions
from ganrun.training.resume import parse
from ganrun.training.saved_run import config_of

SPLITS = {"train": "training data", "test": "test data"}
KEYS = {
    "from": str, "path": str | None, "truncation": float | list[float | None] | None,
    "truncation_cutoff": int | None, "standing": int | None,
    "num_samples": int, "num_real": int | None, "split": Literal["train", "test"],
    "seed": int, "seeds": int, "floor": bool, "batch_size": int, "device": str | int,
    "data_dir": str, "cache_dir": str, "trust": str | list[str], "out": str | None,
    "overwrite": bool, "direction": str | None, "max_pixels": int | None, **SAMPLER_KEYS,
}  # fmt: skip
MINIMUM = {
    "num_samples": 2,
    "num_real": 2,
    "seed": 0,
    "seeds": 1,
    "batch_size": 1,
    "standing": 1,
    "truncation_cutoff": 1,
    "max_pixels": 1,
}


@dataclass(frozen=True)
class Given:
    """What `from` names: the file, and the run that it belongs to, if any."""

    run: RunDir | None
    file: Path | None


def evaluate(cfg: DictConfig, overrides: list[str], of_dataset: list[str]) -> tuple[list[Scored], RunDir | None]:
    """Scores what the config names; writes nothing. overrides: as typed. of_dataset: those of the run's data set."""
    typed = {key.lstrip("+~"): value for key, _, value in (override.partition("=") for override in overrides)}
    OmegaConf.set_struct(cfg, False)
    drop_leftovers(cfg, typed, ("metric",))
    check_known(cfg, [*KEYS, "metric", "dataset", "pairs"])
    check_types(cfg, KEYS)
    check_device(cfg.device)
    check_minimum(cfg, MINIMUM)
    check_json(cfg)
    check_truncation(cfg)
    check_sampler(cfg)
    given = find(cfg)
    complete(cfg, given, set(typed), of_dataset)
    for name in ("dataset", "pairs", "metric"):
        check_targets(cfg[name], name)
    data, other = splits(cfg)
    source = open_source(cfg, given, data, other)
    if not cfg.metric.keys() - {"features"}:
        raise UserError("metric=[]: nothing to score; name some, as in metric=[fid,kid]")
    metrics = build_metrics(cfg)
    side, other = data.sides[source.like], other and other.sides[source.like]
    return scored(cfg, given, metrics, side, source, other), given.run


def truncations(cfg: DictConfig) -> list[float | None]:
    """The truncations to score, one after the other."""
    return list(cfg.truncation) if OmegaConf.is_list(cfg.truncation) else [cfg.truncation]


def check_truncation(cfg: DictConfig) -> None:
    """Raises UserError for truncations that cannot be."""
    each = truncations(cfg)
    wrong = [value for value in each if value is not None and not 0 < value < math.inf]
    if wrong:
        raise UserError(f"truncation={wrong[0]}; expected more than 0, or null for none")
    if not each or len(set(each)) < len(each):
        raise UserError(f"truncation={spelt(each)}; expected values that differ, as in truncation=[1,0.7,0.5]")


def check_json(cfg: DictConfig) -> None:
    """Raises UserError if `out` could not be written once everything is computed."""
    if cfg.out is None:
        return
    check_place("out", cfg.out)
    path = Path(cfg.out).expanduser()
    if path.suffix != ".json" or path.is_dir():
        raise UserError(f"out={cfg.out}; expected the name of a .json file")
    check_parent(path)
    if path.exists() and not cfg.overwrite:
        raise UserError(f"out={cfg.out} exists; overwrite=true writes over it, or name another place")


def find(cfg: DictConfig) -> Given:
    """Finds what `from` names. Raises UserError for anything that cannot be scored."""
    name = cfg["from"]
    if name in ("images", "test"):
        if cfg.get("dataset") is None:
            raise UserError(f"from={name}: to compare with which data set? give dataset=<name>")
        if (name == "images") != bool(cfg.path):
            raise UserError(
                f"from={name}: path={cfg.path}; from=images needs path=<folder, .zip or .npz>, and only that"
            )
        if cfg.seeds != 1:
            raise UserError(f"seeds={cfg.seeds}: nothing is drawn from={name}; it is for generators")
        refuse_drawing(cfg, "it is for generators")
        return Given(None, None)
    for key in ("path", "max_pixels"):
        if cfg[key]:
            raise UserError(f"{key}={cfg[key]}: it is for from=images")
    file, run = find_generator(name)
    return Given(run, file)


def refuse_drawing(cfg: DictConfig, why: str) -> None:
    """Raises UserError for keys that act on generators that start from noise alone."""
    for key in ("truncation", "truncation_cutoff", "standing", "sampler"):
        if cfg[key] is not None:
            raise UserError(f"{key}={cfg[key]}: {why}; leave {key}= out")


def complete(cfg: DictConfig, given: Given, typed: set[str], of_dataset: list[str]) -> None:
    """Takes data set, pairs and features from the run if they are not named."""
    own = cfg.get("dataset") is None
    if own and given.run is None:
        raise UserError(f"from={cfg['from']}: no run beside it that names a data set; give dataset=<name>")
    if own:
        moved = {key: cfg[key] for key in ("data_dir", "cache_dir") if key in typed}
        saved = config_of(given.run, trust=cfg.trust, **moved)
        cfg.dataset = saved.dataset
        cfg.pairs = saved.get("pairs") if cfg.get("pairs") is None else cfg.pairs
        if "features" not in cfg.metric and saved.metric.get("features"):
            cfg.metric.features = saved.metric.features
    cfg.pairs = {} if cfg.get("pairs") is None else cfg.pairs
    for text in of_dataset:
        key, value = parse(text)
        check_known({key: value}, [f"dataset.{name}" for name in cfg.dataset])
        OmegaConf.update(cfg, key, value)
    if "features" not in cfg.metric:
        cfg.metric.features = OmegaConf.load(config_dir() / "metric" / "features" / "inception.yaml")


def name_of(given: Given) -> str | None:
    """generator.safetensors, best.safetensors or checkpoints/<name>.ckpt; `ganrun rank` uses the first two names."""
    if given.file and given.file.suffix == ".ckpt":
        return f"{given.file.parent.name}/{given.file.name}"
    return given.file and given.file.name


def splits(cfg: DictConfig) -> tuple[Data, Data | None]:
    """The reals to compare with, and the data set's other split, if there is one and it is wanted."""
    train = open_data(cfg)
    needed = cfg.split == "test" or cfg["from"] == "test"
    try:
        test = train.held_out() if cfg.floor or needed else None
    except UserError as error:  # it is missing and cannot be downloaded
        if needed:
            raise
        print(f"no floor: {error}")
        test = None
    if test is None and needed:
        raise UserError(f"dataset {train.name} has no test split; expected split=train, and from= something else")
    if cfg.split == "test":
        test.name, test.sides["real"].name = train.name, train.sides["real"].name
        return test, train
    return train, test


def open_source(cfg: DictConfig, given: Given, data: Data, other: Data | None) -> Source:
    if cfg["from"] == "test":
        if cfg.split == "test":
            raise UserError("from=test split=test: the same samples on both sides; leave out split=test")
        return DatasetSource(other, data, cfg.num_samples)
    if cfg["from"] == "images":
        return DatasetSource(images_at(cfg.path, data, cfg.max_pixels), data, cfg.num_samples)
    made = open_generator(given.file, given.run, trust=cfg.trust).to(device_of(cfg))
    if isinstance(made, Translator):
        if cfg.seeds != 1:
            raise UserError(
                f"seeds={cfg.seeds}: a translator draws nothing; it is for generators that start from noise"
            )
        refuse_drawing(cfg, "it is for generators that start from noise")
        return TranslatorSource(made, data, cfg.num_samples, cfg.batch_size, cfg.direction)
    if cfg.direction is not None:
        raise UserError(f"direction={cfg.direction}: it is for translators; this generator starts from noise")
    truncation = next((value for value in truncations(cfg) if value), None)
    made.draw([0], cfg.seed, truncation)  # refuses noise without tails
    made.check_cutoff(truncation, cfg.truncation_cutoff)
    source = GeneratorSource(made, data, cfg.num_samples, cfg.batch_size, cfg.standing, cfg.truncation_cutoff)
    give_sampler(made, {key: cfg[key] for key in SAMPLER_KEYS}, given.file, given.run, cfg.trust)
    return source


def device_of(cfg: DictConfig) -> torch.device:
    """The device. Sums are in fp64, which mps does not have."""
    if cfg.device == "mps":
        raise UserError("device=mps: it has no fp64, in which scores are summed; valid: auto, cpu, cuda, cuda:<number>")
    found = device_named(cfg.device)
    return torch.device("cpu") if found.type == "mps" else found


def prepared_scorer(
    cfg: DictConfig, given: Given, metrics: dict[str, Metric], data: Data, source: Source, other: Data | None
) -> Scorer:
    scorer = Scorer(
        metrics, data, num_fake=source.num, num_real=cfg.num_real, conditional=source.conditional, key=source.key,
        paired=source.paired, asks=given.file is not None, split=SPLITS[cfg.split],
        cache=Path(cfg.cache_dir).expanduser(), shows=True,
        source=source.data.sides[source.takes] if isinstance(source, TranslatorSource) else None,
    )  # fmt: skip
    device = device_of(cfg)
    scorer.check(device)
    for metric in metrics.values():  # a classifier is trained on training data, whichever split it sees
        metric.features.prepare(other if cfg.split == "test" else data, device)
    scorer.prepare(device)
    return scorer


def floors(cfg: DictConfig, scorer: Scorer, source: Source, other: Data | None) -> dict[str, Score]:
    """Scores of the data set's other split; for pairs, scores of the untranslated sources."""
    found = {}
    alone = [name for name, metric in scorer.metrics.items() if not metric.needs_pairs]
    if other and cfg.floor and cfg["from"] != "test" and alone:
        if len(other) < source.num:
            print(f"no floor: {other.name} has {len(other):,} samples, fewer than the {source.num:,} that are scored")
        else:
            found |= scorer.score(DatasetSource(other, scorer.data, source.num).fakes(0, None), alone)
    if source.paired and source.copyable and len(alone) < len(scorer.metrics):
        found |= scorer.score(source.copies(), scorer.metrics.keys() - set(alone))
    return found


def scored(
    cfg: DictConfig, given: Given, metrics: dict[str, Metric], data: Data, source: Source, other: Data | None
) -> list[Scored]:
    """The scores of each metric over all seeds, and of the other split; one truncation after the other."""
    scorer = prepared_scorer(cfg, given, metrics, data, source, other)
    seeds = list(range(cfg.seed, cfg.seed + cfg.seeds))
    rounds = []  # what was scored, and each seed's scores
    for truncation in truncations(cfg):
        if isinstance(source, GeneratorSource):
            source.truncation = truncation
        rounds.append((source.about, [scorer.score(source.fakes(seed, scorer.labels())) for seed in seeds]))
    floor = floors(cfg, scorer, source, other)
    of = {"from": name_of(given) or cfg["from"], "path": cfg.path}
    if given.file:
        of |= {"weights": weights_of(given.file), "steps": source.sampling.trained.get("steps")}
    noted = {"seed": seeds, "versions": versions()}
    return [
        Scored(
            name,
            *over_seeds([one[name] for one in each]),
            "lower" if metric.lower_is_better else "higher",
            floor[name].value if name in floor else None,
            of,
            scorer.protocols[name] | about | noted,
        )
        for about, each in rounds
        for name, metric in scorer.metrics.items()
    ]


def over_seeds(scores: list[Score]) -> tuple[float, float | None, list[float], float | None]:
    """Mean, standard deviation, values, and the mean of the metric's own deviation."""
    values = [score.value for score in scores]
    within = None if scores[0].std is None else fmean(score.std for score in scores)
    return fmean(values), stdev(values) if len(values) > 1 else None, values, within
