"""Going on with a run: its own config, changed only where a change keeps the run what it was."""

import os
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import OverrideParseException
from omegaconf import DictConfig, OmegaConf

from ganrun.errors import UserError, one_of
from ganrun.experiment.check import check
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
    notes = check(cfg)
    done = content["global_step"]
    if cfg.steps < done:
        raise UserError(f"steps={cfg.steps}: the checkpoint is at step {done} already; give steps={done} or more")
    if cfg.steps == done and run.read_result().get("status") == "finished":
        print(f"nothing to do: the run has finished its {done} steps; go on with steps=<more than {done}>")
        return run.read_result(), run
    from ganrun.experiment.build import build

    parts = build(cfg)
    check_same_data(parts, content, run)
    os.environ["GANRUN_RUN_DIR"] = str(run.path.absolute())
    return train(parts, run, checkpoint=checkpoint, notes=notes), run


def apply(cfg: DictConfig, overrides: list[str], choices: dict[str, str]) -> None:
    """Sets what may change; a value equal to the run's own is no change."""
    refused = []
    for text in overrides:
        try:
            override = OverridesParser.create().parse_override(text)
        except OverrideParseException as error:
            raise UserError(f"{text}: not an override; expected key=value") from error
        key, got = override.key_or_group, override.value()
        had = choices.get(key, OmegaConf.select(cfg, key))
        if key not in choices and key not in flat_keys(cfg):
            raise UserError(f"{key}: the run's config has no such key; {one_of(flat_keys(cfg), key)}")
        if key not in choices and may_change(key):
            OmegaConf.update(cfg, key, got)
        elif got != (OmegaConf.to_container(had) if OmegaConf.is_config(had) else had):
            refused.append(f"{key}: got {got}, had {had}")
    if refused:
        allowed = ", ".join(name + "*" if name.endswith(".") else name for name in RESUMABLE)
        raise UserError(f"a resume cannot change {'; '.join(refused)}; it may change {allowed}")
