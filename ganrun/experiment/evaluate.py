"""From the config of an evaluation to scores with their protocol."""

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean, pstdev
from typing import Any, Literal

import torch
from omegaconf import DictConfig, OmegaConf

from ganrun.configs import config_dir
from ganrun.data.base import Data
from ganrun.errors import UserError
from ganrun.experiment.build import build_as, build_metrics
from ganrun.experiment.check import check_targets, drop_leftovers
from ganrun.experiment.outcome import versions
from ganrun.experiment.resume import load_config, parse
from ganrun.experiment.sample_check import find_generator
from ganrun.experiment.sources import Generator, Held, Source, images_at
from ganrun.experiment.typed import check_known, check_minimum, check_types
from ganrun.generator_file import load_generator
from ganrun.metrics.metric import Metric
from ganrun.metrics.protocol import difference
from ganrun.metrics.scorer import Scorer
from ganrun.run_dir import RunDir
from ganrun.storage import owning

SPLITS = {"train": "training data", "test": "test data"}
KEYS = {
    "from": str, "path": str | None, "num_samples": int, "num_real": int | None, "split": Literal["train", "test"],
    "seed": int, "seeds": int, "floor": bool, "batch_size": int, "device": Literal["auto", "cpu", "cuda"],
    "data_dir": str, "cache_dir": str, "trust": list[str], "out": str | None,
}  # fmt: skip
MINIMUM = {"num_samples": 2, "num_real": 2, "seed": 0, "seeds": 1, "batch_size": 1}


@dataclass(frozen=True)
class Scored:
    """One metric's values, one for each seed."""

    metric: str
    mean: float
    std: float  # over seeds
    values: list[float]
    within: float | None  # the metric's own deviation over subsets or splits, mean over seeds
    better: Literal["lower", "higher"]
    floor: float | None  # the score of real samples of the other split; None if there are none
    of: dict[str, Any]  # what was scored
    protocol: dict[str, Any]


@dataclass(frozen=True)
class Given:
    """What `from` names: a run, if it is one's generator, and the file."""

    run: RunDir | None
    file: Path | None


def evaluate(cfg: DictConfig, overrides: list[str], of_dataset: list[str]) -> tuple[list[Scored], RunDir | None]:
    """Scores what the config names; writes nothing. overrides: as typed; of_dataset: those of the run's data set."""
    typed = {key.lstrip("+~"): value for key, _, value in (override.partition("=") for override in overrides)}
    OmegaConf.set_struct(cfg, False)
    drop_leftovers(cfg, typed, ("metric",))
    check_known(cfg, [*KEYS, "metric", "dataset"])
    check_types(cfg, KEYS)
    check_minimum(cfg, MINIMUM)
    given = find(cfg)
    complete(cfg, given, "data_dir" in typed, of_dataset)
    for name in ("dataset", "metric"):
        check_targets(cfg[name], name)
    data, other = splits(cfg)
    source = open_source(cfg, given, data, other)
    if not cfg.metric.keys() - {"features"}:
        raise UserError("metric=[]: nothing to score; name some, as in metric=[fid,kid]")
    metrics = build_metrics(cfg)
    for metric in metrics.values():  # a classifier is trained on training data, whichever split it sees
        metric.features.prepare(other if cfg.split == "test" else data, device_of(cfg))
    floor = other if cfg.floor and cfg["from"] != "test" else None
    return scored(cfg, given, metrics, data, source, floor), given.run


def find(cfg: DictConfig) -> Given:
    """Raises UserError for what cannot be scored."""
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
        return Given(None, None)
    if cfg.path:
        raise UserError(f"path={cfg.path}: it is for from=images")
    file, run = find_generator(name)
    return Given(run, file)


def complete(cfg: DictConfig, given: Given, moved: bool, of_dataset: list[str]) -> None:
    """Takes data set and features from the run where none are named. moved: was data_dir given?"""
    own = cfg.get("dataset") is None
    if own and given.run is None:
        raise UserError(f"from={cfg['from']}: no run beside it that names a data set; give dataset=<name>")
    if own:
        saved, _ = load_config(given.run, list(cfg.trust))
        cfg.dataset = saved.dataset
        if moved and "data_dir" in cfg.dataset:
            cfg.dataset.data_dir = cfg.data_dir
        if "features" not in cfg.metric and saved.metric.get("features"):
            cfg.metric.features = saved.metric.features
            if "cache" in cfg.metric.features:
                cfg.metric.features.cache = cfg.cache_dir
    for text in of_dataset:
        key, value = parse(text)
        check_known({key: value}, [f"dataset.{name}" for name in cfg.dataset])
        OmegaConf.update(cfg, key, value)
    if "features" not in cfg.metric:
        cfg.metric.features = OmegaConf.load(config_dir() / "metric" / "features" / "inception.yaml")


def splits(cfg: DictConfig) -> tuple[Data, Data | None]:
    """The reals to compare with, and the data set's other split, if it has one and if it is wanted."""
    train = build_as(Data, cfg, "dataset")
    test = train.held_out() if cfg.floor or cfg.split == "test" or cfg["from"] == "test" else None
    if test is None and (cfg.split == "test" or cfg["from"] == "test"):
        raise UserError(f"dataset {train.name} has no test split; expected split=train, and from= something else")
    if cfg.split == "test":
        test.name = train.name
        return test, train
    return train, test


def open_source(cfg: DictConfig, given: Given, data: Data, other: Data | None) -> Source:
    if cfg["from"] == "test":
        if cfg.split == "test":
            raise UserError("from=test split=test: the same samples on both sides; leave out split=test")
        return Held(other, data, cfg.num_samples)
    if cfg["from"] == "images":
        return Held(images_at(cfg.path, data), data, cfg.num_samples)
    sampling = load_generator(given.file, trust=cfg.trust).to(device_of(cfg))
    return Generator(sampling, data, cfg.num_samples, cfg.batch_size)


def device_of(cfg: DictConfig) -> torch.device:
    if cfg.device == "cuda" and not torch.cuda.is_available():
        raise UserError("device=cuda: there is none; valid: auto, cpu")
    return torch.device("cuda" if cfg.device != "cpu" and torch.cuda.is_available() else "cpu")


def scored(
    cfg: DictConfig, given: Given, metrics: dict[str, Metric], data: Data, source: Source, other: Data | None
) -> list[Scored]:
    """Each metric over all seeds, and of the other split."""
    scorer = Scorer(
        metrics, data, num_fake=source.num, num_real=cfg.num_real, conditional=source.conditional,
        split=SPLITS[cfg.split], cache=Path(cfg.cache_dir).expanduser(),
    )  # fmt: skip
    scorer.prepare(device_of(cfg))
    seeds = list(range(cfg.seed, cfg.seed + cfg.seeds))
    rounds = [scorer.score(source.fakes(seed, scorer.labels())) for seed in seeds]
    if other and len(other) < source.num:
        print(f"no floor: {other.name} has {len(other):,} samples, fewer than the {source.num:,} that are scored")
        other = None
    floor = scorer.score(Held(other, data, source.num).fakes(0, None)) if other else {}
    of = {"from": cfg["from"], "path": cfg.path} | ({"steps": steps_of(source)} if given.file else {})
    about = {**source.about, "seed": seeds, "versions": versions()}
    return [
        Scored(
            name,
            fmean(one[name].value for one in rounds),
            pstdev(one[name].value for one in rounds),
            [one[name].value for one in rounds],
            None if rounds[0][name].std is None else fmean(one[name].std for one in rounds),
            "lower" if metric.lower_is_better else "higher",
            floor[name].value if floor else None,
            of,
            scorer.protocols[name] | about,
        )
        for name, metric in scorer.metrics.items()
    ]


def steps_of(source: Source) -> int | None:
    return source.sampling.trained.get("steps")


def write_into(run: RunDir, scores: Iterable[Scored]) -> None:
    """Adds scores to the run's result.json; one replaces what is like it. Raises UserError while the run is trained."""
    with owning(run.path):
        result = run.read_result()
        kept = [old for old in result.get("evaluations", []) if {"metric", "of", "protocol"} <= set(old)]
        for score in map(asdict, scores):
            kept = [old for old in kept if not is_like(old, score)] + [score]
        run.write_result(result | {"evaluations": kept})


def is_like(one: dict[str, Any], other: dict[str, Any]) -> bool:
    same = all(one[key] == other[key] for key in ("metric", "of"))
    return same and not difference(one["protocol"], other["protocol"])
