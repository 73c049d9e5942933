"""The config of a saved run: read, checked, with its older names and with what resumes have changed."""

from pathlib import Path
from typing import Any

import yaml
from omegaconf import DictConfig, OmegaConf

from ganrun.config.trust import check_trusted, shown
from ganrun.errors import UserError
from ganrun.files.run_dir import FORMAT, RunDir
from ganrun.training.changes import apply_changes, read_changes

ADDED = {"export": {"discriminator": False}, "freeze_discriminator": 0}  # what keys mean that older runs do not have
RENAMED = {"most": "max_samples", "least": "min_samples"}  # settings of metrics


def load_config(run: RunDir, trust: list[str], until: int | None = None) -> tuple[DictConfig, dict[str, str]]:
    """The run's config, which may come from anywhere, and the options of groups that it was composed from.

    Includes what resumes changed up to step `until`, None = all.
    """
    about = flatten(read_yaml(run.hydra / "hydra.yaml"))
    got = about.get("ganrun.format", 0)  # 0: before formats were written down
    if got != FORMAT:
        raise UserError(f"{run.path}: run directory of format {got}; this ganrun reads format {FORMAT}")
    config = read_yaml(run.config)
    check_trusted(config, trust)
    config = ADDED | config
    rename(config)
    prefix = "hydra.runtime.choices."
    choices = {key.removeprefix(prefix): value for key, value in about.items() if key.startswith(prefix)}
    cfg = OmegaConf.create(config)
    apply_changes(cfg, read_changes(run, until))
    return cfg, choices


def rename(config: dict[str, Any]) -> None:
    """Gives the settings of ganrun's metrics their current names, in the config of an older run."""
    metrics = config.get("metric")
    for node in metrics.values() if isinstance(metrics, dict) else ():
        if isinstance(node, dict) and str(node.get("_target_")).startswith("ganrun."):
            for old in node.keys() & RENAMED.keys():
                node[RENAMED[old]] = node.pop(old)


def read_yaml(path: Path) -> dict[str, Any]:
    """Reads plain containers; a tag that would build an object is an error."""
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
        if not isinstance(content, dict):
            raise TypeError(f"expected keys with values, got {type(content).__name__}")
    except (OSError, UnicodeDecodeError, yaml.YAMLError, TypeError, RecursionError) as error:
        raise UserError(f"{path}: cannot be read: {shown(error)}") from error
    return content


def flatten(node: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested config -> {"optimizer.lr": ...}."""
    flat: dict[str, Any] = {}
    for key, value in node.items():
        flat |= flatten(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return flat
