"""What other commands read from a run: its config, and the data set that it was trained on."""

from omegaconf import DictConfig

from ganrun.config.trust import package_names
from ganrun.data.base import Data
from ganrun.errors import UserError
from ganrun.files.run_dir import RunDir
from ganrun.training.nodes import open_data
from ganrun.training.run_config import load_config


def config_of(
    run: RunDir, *, trust: str | list[str], data_dir: str | None = None, cache_dir: str | None = None
) -> DictConfig:
    """A run's config. data_dir, cache_dir: where data and caches are now, None = where they were.

    Raises UserError, also for a config that names untrusted classes, and for data that are not in a folder.
    """
    cfg, _ = load_config(run, list(package_names(trust)))
    for name in ("dataset", "metric"):
        if not isinstance(cfg.get(name), DictConfig):
            raise UserError(f"{run.config}: {name} is {cfg.get(name)}; expected its keys")
    if data_dir is not None:
        if cfg.dataset.get("source"):
            raise UserError(f"data_dir={data_dir}: the run's data set, {cfg.dataset.get('name')}, lies in two places")
        place = next((key for key in ("data_dir", "path") if key in cfg.dataset), None)
        if place is None:
            raise UserError(f"data_dir={data_dir}: the run's data set, {cfg.dataset.get('name')}, lies in no folder")
        cfg.dataset[place] = data_dir
    for node in (cfg.dataset, cfg.metric.get("features")):
        if cache_dir is not None and isinstance(node, DictConfig) and node.get("cache"):
            node.cache = cache_dir
    return cfg


def data_of(run: RunDir, *, trust: str | list[str], data_dir: str | None) -> Data:
    """The data set that a run was trained on."""
    return open_data(config_of(run, trust=trust, data_dir=data_dir))
