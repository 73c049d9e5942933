"""Going on with a run: its own config, changed only where a change keeps the run what it was."""

from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import OverrideParseException
from omegaconf import DictConfig, OmegaConf

from ganrun.errors import UserError, one_of
from ganrun.experiment.check import MULTI_SELECT, recheck
from ganrun.experiment.hydra_main import flat_keys
from ganrun.run_dir import RESUMABLE, RunDir, find_run, may_change


def resume(path: str, overrides: list[str]) -> tuple[dict[str, Any], RunDir]:
    """Trains on from `path` in the run's own directory; returns its result.

    Raises UserError for anything that a resume may not change, listing got and had.
    """
    run, checkpoint = find_run(path)
    cfg = OmegaConf.load(run.hydra / "config.yaml")
    OmegaConf.resolve(cfg)  # what was derived from `steps`, such as decay_steps, keeps its first value
    choices = OmegaConf.load(run.hydra / "hydra.yaml").hydra.runtime.choices
    from ganrun.experiment.fit import train
    from ganrun.experiment.state import check_same_data, load

    content = load(checkpoint)
    cfg.steps = max(cfg.steps, content["ganrun"]["steps"])  # an extended run that was killed goes on to its new end
    apply(cfg, overrides, dict(choices))
    recheck(cfg)
    done = content["global_step"]
    if cfg.steps < done:
        raise UserError(f"steps={cfg.steps}: the checkpoint is at step {done} already; give steps={done} or more")
    if cfg.steps == done and run.read_result().get("status") == "finished":
        print(f"nothing to do: the run has finished its {done} steps; go on with steps=<more than {done}>")
        return run.read_result(), run
    from ganrun.experiment.build import build

    parts = build(cfg)
    check_same_data(parts, content, run)
    return train(parts, run, checkpoint=checkpoint), run


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
