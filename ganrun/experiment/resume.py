"""Going on with a run: its own config, changed only where a change keeps the run what it was."""

from pathlib import Path
from typing import Any

import yaml
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import OverrideParseException
from omegaconf import DictConfig, OmegaConf

from ganrun.errors import UserError, one_of
from ganrun.experiment.check import MULTI_SELECT, recheck
from ganrun.experiment.hydra_main import flat_keys
from ganrun.experiment.state import check_same_data, find_start, init_from
from ganrun.run_dir import FORMAT, RESUMABLE, RunDir, find_run, may_change
from ganrun.trust import check_trusted, package_names, shown


def resume(path: str, overrides: list[str]) -> tuple[dict[str, Any], RunDir]:
    """Trains on from `path` in the run's own directory; returns its result.

    Goes on from the newest good checkpoint, or anew if nothing has been saved yet. `trust=[package]` among the
    overrides names packages, besides ganrun and torch.optim, whose classes the run's config may name. Raises UserError
    for what it does not trust, for a damaged file, and for anything that a resume may not change, with got and had.
    """
    run, named = find_run(path)
    trust = [text for text in overrides if text.startswith("trust=")]
    overrides = [text for text in overrides if text not in trust]
    cfg, choices = load_config(run, [name for text in trust for name in package_names(parse(text)[1])])
    start = find_start(run, named)
    recheck(cfg)
    if start:
        cfg.steps = max(cfg.steps, start.content["ganrun"]["steps"])  # an extended run goes on to its new end
    apply(cfg, overrides, choices)
    recheck(cfg)
    done = start.step if start else 0
    if cfg.steps < done:
        raise UserError(f"steps={cfg.steps}: the checkpoint is at step {done} already; give steps={done} or more")
    if cfg.steps == done and run.read_result().get("status") == "finished":
        print(f"nothing to do: the run has finished its {done} steps; go on with steps=<more than {done}>")
        return run.read_result(), run
    from ganrun.experiment.build import build
    from ganrun.experiment.fit import train

    parts = build(cfg)
    if start:
        check_same_data(parts, start, run)
    elif cfg.init_from:
        init_from(parts, cfg.init_from)
    return train(parts, run, start), run


def load_config(run: RunDir, trust: list[str]) -> tuple[DictConfig, dict[str, str]]:
    """The run's config, which may come from anywhere, and the groups' options that it was composed of."""
    about = read_yaml(run.hydra / "hydra.yaml")
    got = about.get("ganrun", {}).get("format", 0)  # 0: before formats were written down
    if got != FORMAT:
        raise UserError(f"{run.path}: run directory of format {got}; this ganrun reads format {FORMAT}")
    config = read_yaml(run.config)
    check_trusted(config, trust)
    return OmegaConf.create(config), about["hydra"]["runtime"]["choices"]


def read_yaml(path: Path) -> dict[str, Any]:
    """Plain containers; a tag that would build an object is an error."""
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
        if not isinstance(content, dict):
            raise TypeError(f"expected keys with values, got {type(content).__name__}")
    except (OSError, UnicodeDecodeError, yaml.YAMLError, TypeError, RecursionError) as error:
        raise UserError(f"{path}: cannot be read: {shown(error)}") from error
    return content


def apply(cfg: DictConfig, overrides: list[str], choices: dict[str, str]) -> None:
    """Sets what may change; a value equal to the run's own is no change."""
    refused = []
    for text in overrides:
        key, got = parse(text)
        known = flat_keys(cfg)
        if key not in choices and key not in known:
            raise UserError(f"{key}: the run's config has no such key; {one_of(known, key)}")
        if may_change(key):
            OmegaConf.update(cfg, key, got)
        elif got != had(cfg, choices, key):
            refused.append(f"{key}: got {got}, had {had(cfg, choices, key)}")
    if "data_dir" in cfg.dataset:
        cfg.dataset.data_dir = cfg.data_dir  # the saved config holds final values, so the one does not follow the other
    if refused:
        allowed = ", ".join(name + "*" if name.endswith(".") else name for name in RESUMABLE)
        raise UserError(f"a resume cannot change {'; '.join(refused)}; it may change {allowed}")


def parse(text: str) -> tuple[str, Any]:
    """key=value -> its key and value, by Hydra's grammar."""
    try:
        override = OverridesParser.create().parse_override(text)
    except OverrideParseException as error:
        raise UserError(f"{text}: not an override; expected key=value") from error
    if override.is_sweep_override():
        raise UserError(f"{text}: a resume goes on with one run; give one value")
    return override.key_or_group, override.value()


def had(cfg: DictConfig, choices: dict[str, str], key: str) -> Any:
    """The run's own value or choice; of a group that takes several, the names."""
    value = choices.get(key, OmegaConf.select(cfg, key))
    if key in MULTI_SELECT:
        return list(value)
    return OmegaConf.to_container(value) if OmegaConf.is_config(value) else value
