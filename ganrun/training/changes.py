"""What resumes have changed in a run's config, and from which step: .hydra/changes.yaml, beside the config.

The config itself is never rewritten. A plain resume keeps all changes. A resume from a named checkpoint keeps those
that were made up to its step, and drops the others.
"""

import re
from typing import Any

import yaml
from omegaconf import DictConfig, OmegaConf

from ganrun.config.groups import config_dir, options
from ganrun.config.typed import players_of
from ganrun.errors import UserError, one_of
from ganrun.files.run_dir import RunDir
from ganrun.files.storage import replacing

PLACES = ("data_dir", "cache_dir", "dataset.path", "dataset.source", "dataset.labels",
          "dataset.data_dir", "dataset.cache")  # where, not what  # fmt: skip
WHEN_ASKED = re.compile(
    r"optimizer\.(\w+\.)?(lr|clip_gradients|clip_weights)|(penalty|term|conditional\.terms)\.[\w-]+\.weight"
    r"|metric|micro_batch"
)
SHOWN = (
    "metric, micro_batch, optimizer.lr, optimizer.<player>.{lr,clip_gradients,clip_weights}, "
    "{penalty,term,conditional.terms}.<name>.weight"
)
Change = dict[str, Any]  # step: from which it applies; key, had, got


def read_changes(run: RunDir, until: int | None = None) -> list[Change]:
    """The changes that apply in step `until`, None = all. Raises UserError for a file that ganrun did not write."""
    if not run.changes.exists():
        return []
    try:
        found = yaml.safe_load(run.changes.read_text(encoding="utf-8"))
        changes = [{name: one[name] for name in ("step", "key", "had", "got")} for one in found]
        valid = all(one["key"] in PLACES or WHEN_ASKED.fullmatch(one["key"]) for one in changes)
        if not valid or any(isinstance(one["got"], dict | list) != (one["key"] == "metric") for one in changes):
            raise ValueError("a key or a value that no resume has changed")
        return [one for one in changes if until is None or one["step"] <= until]
    except (OSError, UnicodeDecodeError, yaml.YAMLError, KeyError, TypeError, ValueError) as error:
        raise UserError(f"{run.changes}: cannot be read: {' '.join(str(error).split())}") from error


def write_changes(run: RunDir, changes: list[Change]) -> None:
    if changes or run.changes.exists():
        with replacing(run.changes) as file:
            file.write(yaml.safe_dump(changes, sort_keys=False, allow_unicode=True).encode())


def apply_changes(cfg: DictConfig, changes: list[Change]) -> None:
    for one in changes:
        if one["key"] == "metric":
            choose_metrics(cfg, one["got"])
        elif "." not in one["key"] or OmegaConf.select(cfg, one["key"].rpartition(".")[0]) is not None:
            OmegaConf.update(cfg, one["key"], one["got"])


def choose_metrics(cfg: DictConfig, names: list[str]) -> None:
    """Scores with these metrics from now on: the run's own keep their settings, others take their options' settings."""
    known = options("metric")
    if not isinstance(names, list):
        raise UserError(f"metric={names}: expected names in brackets, as in metric=[{names}]")
    for name in names:
        if name not in known and name not in cfg.metric:
            raise UserError(f"metric={name}: there is no such option; {one_of(known, str(name))}")
    nodes = {"features": cfg.metric.features} if "features" in cfg.metric else {}
    for name in names:
        own = cfg.metric.get(name)
        nodes[name] = OmegaConf.load(config_dir() / "metric" / f"{name}.yaml")[name] if own is None else own
    cfg.metric = nodes
    OmegaConf.resolve(cfg.metric)


def metrics_of(cfg: DictConfig) -> list[str]:
    return [str(name) for name in cfg.metric if name != "features"]


def with_followers(cfg: DictConfig, key: str) -> list[str]:
    """The keys that a typed one stands for: optimizer.lr includes the players that have no rate of their own.

    The saved config holds final values, so no player's rate follows by itself.
    """
    if key != "optimizer.lr":
        return [key]
    players = players_of(cfg)
    followers = [f"optimizer.{name}.lr" for name in players if cfg.optimizer[name].get("lr") == cfg.optimizer.lr]
    if not followers:
        own = ", ".join(f"optimizer.{name}.lr" for name in players)
        raise UserError(f"{key}: every player has a rate of its own; change {own}")
    return [key, *followers]


def said(change: Change) -> str:
    return f"{change['key']}={change['got']} from step {change['step']} on (was {change['had']})"
