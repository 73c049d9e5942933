"""The top level of train.yaml, besides the groups: keys, types, smallest values, and invalid combinations."""

from dataclasses import dataclass
from typing import Literal, get_type_hints

from omegaconf import DictConfig

from ganrun.config.typed import check_minimum, check_types
from ganrun.errors import UserError, one_of


@dataclass
class CheckpointSettings:
    every: int
    keep: int | None


@dataclass
class ExportSettings:
    discriminator: bool


@dataclass
class EvaluateSettings:
    every: int
    num_samples: int
    num_real: int | None
    best_by: str | None
    patience: int | None


@dataclass
class CollapseSettings:
    every: int
    num_samples: int
    patience: int
    rollbacks: int
    lr_factor: float


@dataclass
class Settings:
    """The top level of train.yaml, besides the groups."""

    seed: int
    steps: int
    batch_size: int
    micro_batch: int | None
    data_dir: str
    cache_dir: str
    run_dir: str
    resume: str | None
    init_from: str | None
    freeze_discriminator: int
    deterministic: bool
    debug: bool
    log_every: int
    sample_every: int
    num_samples: int
    precision: str | int | None
    tf32: bool
    compile: bool | str | int | None
    channels_last: bool
    checkpoint: CheckpointSettings
    export: ExportSettings
    evaluate: EvaluateSettings
    on_collapse: Literal["warn", "stop", "rollback"] | None
    collapse: CollapseSettings


MINIMUM = {"seed": 0, "steps": 1, "batch_size": 1, "micro_batch": 1,
           "freeze_discriminator": 0, "log_every": 1, "sample_every": 0,
           "num_samples": 1, "checkpoint.every": 0, "checkpoint.keep": 0, "evaluate.every": 0,
           "evaluate.num_samples": 2, "evaluate.num_real": 2, "evaluate.patience": 1, "collapse.every": 1,
           "collapse.num_samples": 16, "collapse.patience": 1, "collapse.rollbacks": 0}  # fmt: skip


def check_values(cfg: DictConfig) -> None:
    """Raises UserError for the first impossible value."""
    check_types(cfg, get_type_hints(Settings))
    check_minimum(cfg, MINIMUM)
    metrics = [str(name) for name in cfg.metric if name != "features"]
    check_scores(cfg, metrics)
    check_collapse(cfg, metrics)
    if cfg.freeze_discriminator and not cfg.init_from:
        text = "untrained layers would stay untrained; it needs init_from=<run, .ckpt or discriminator.safetensors>"
        raise UserError(f"freeze_discriminator={cfg.freeze_discriminator}: {text}")


def check_scores(cfg: DictConfig, metrics: list[str]) -> None:
    if cfg.evaluate.best_by and not metrics:
        raise UserError(f"evaluate.best_by={cfg.evaluate.best_by}: metric=[] gives no scores")
    if cfg.evaluate.best_by not in (None, *metrics):
        raise UserError(f"evaluate.best_by={cfg.evaluate.best_by}; {one_of(metrics, cfg.evaluate.best_by)}")
    if cfg.evaluate.patience and not (metrics and cfg.evaluate.every):
        raise UserError(f"evaluate.patience={cfg.evaluate.patience}: {without_scores(cfg, metrics)} gives no scores")


def check_collapse(cfg: DictConfig, metrics: list[str]) -> None:
    if not 0 < cfg.collapse.lr_factor <= 1:
        raise UserError(f"collapse.lr_factor={cfg.collapse.lr_factor}; expected more than 0, up to 1 (1 = off)")
    if cfg.on_collapse == "rollback" and not (metrics and cfg.evaluate.every):
        got = without_scores(cfg, metrics)
        raise UserError(f"on_collapse=rollback goes back to the best score, and {got} gives none; or on_collapse=stop")


def without_scores(cfg: DictConfig, metrics: list[str]) -> str:
    return f"evaluate.every={cfg.evaluate.every}" if metrics else "metric=[]"
