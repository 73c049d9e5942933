"""Continuing a run with its own config, of which only some keys may change."""

from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any, NamedTuple

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf

from ganrun.config.check import MULTI_SELECT, recheck
from ganrun.config.explain import flat_keys
from ganrun.config.places import command, key_of, quote
from ganrun.config.trust import package_names
from ganrun.errors import UserError, one_of
from ganrun.files.checkpoint import load_checkpoint
from ganrun.files.record import Record
from ganrun.files.run_dir import RESUMABLE, RunDir, find_run, may_change
from ganrun.files.storage import owning
from ganrun.training.changes import (
    PLACES,
    SHOWN,
    WHEN_ASKED,
    Change,
    choose_metrics,
    metrics_of,
    read_changes,
    said,
    with_followers,
    write_changes,
)
from ganrun.training.run_config import load_config
from ganrun.training.state import Start, check_same_run, find_start, init_from


def resume(path: str, overrides: list[str], callbacks: Sequence[Any] = ()) -> tuple[dict[str, Any], RunDir]:
    """Trains on from `path` in the run's own directory; returns its result.

    Goes on from the newest good checkpoint, or anew if nothing has been saved yet. `trust=[package]` among the
    overrides names packages, besides ganrun and torch.optim, whose classes the run's config may name; `change=true`
    allows what changes the training, see changes.py. callbacks: beside those of the config. Raises UserError for what
    it does not trust, for a damaged file, and for anything that a resume may not change, with got and had.
    """
    run, named = find_run(path)
    trust = [text for text in overrides if text.startswith("trust=")]
    asked = [text for text in overrides if text.startswith("change=")]
    overrides = [text for text in overrides if text not in (*trust, *asked)]
    until = load_checkpoint(named)["global_step"] if named else None
    cfg, choices = load_config(run, [name for text in trust for name in package_names(parse(text)[1])], until)
    recheck(cfg)
    before = OmegaConf.create(OmegaConf.to_container(cfg))
    change = any(parse(text)[1] is True for text in asked)
    if change:
        refuse_ramps(cfg, overrides)
    changed = apply(cfg, Asked(path, overrides, change, Record(run).overrides), choices)
    recheck(cfg)
    from ganrun.training.trainer import make_trainer

    with owning(run.path) if make_trainer(cfg, logger=False).is_global_zero else nullcontext():
        steps = cfg.steps if "steps" in changed else None
        start = find_start(run, named)
        step = start.step if start else 0
        pairs = {key: (value_of(before, key), value_of(cfg, key)) for key in sorted(changed) if lasts(key)}
        made = [{"step": step, "key": key, "had": h, "got": got} for key, (h, got) in pairs.items() if h != got]
        cfg.steps = steps or max(run.read_result().get("goal", cfg.steps), step)
        return go_on(run, cfg, start, Changes(read_changes(run, until), made), callbacks), run


def out_of_patience(cfg: DictConfig, start: Start | None) -> bool:
    """Has the run used up its patience, so that it would end again at once?"""
    state = start.content["callbacks"].get("Evaluate", {}) if start else {}
    same = cfg.evaluate.best_by in (None, state.get("made", {}).get("best_by"))
    return same and cfg.evaluate.patience is not None and state.get("waited", 0) >= cfg.evaluate.patience


def lasts(key: str) -> bool:
    """Does a later resume keep a change of this key?"""
    return key in PLACES or WHEN_ASKED.fullmatch(key) is not None


class Changes(NamedTuple):
    """Those of resumes before, and of this one; written down once nothing can be refused any more."""

    earlier: list[Change]
    made: list[Change]


def go_on(
    run: RunDir, cfg: DictConfig, start: Start | None, changed: Changes, callbacks: Sequence[Any]
) -> dict[str, Any]:
    """Trains on from `start` to step `cfg.steps`."""
    result, done = run.read_result(), start.step if start else 0
    if cfg.steps < done:
        raise UserError(f"steps={cfg.steps}: the checkpoint is at step {done} already; give steps={done} or more")
    if nothing := nothing_to_do(cfg, result, start, done):
        print(f"nothing to do: {nothing}")
        return result | {"signal": None}
    if start and result.get("status") == "collapsed":  # the user has been told of it
        start.content["callbacks"]["Collapse"]["ends"] = None
    from ganrun.training.build import build
    from ganrun.training.hardware import precision_of
    from ganrun.training.run import train
    from ganrun.training.trainer import make_trainer

    cfg.precision = precision_of(cfg)
    parts, notes = build(cfg), []
    parts.callbacks.extend(callbacks)
    if start:
        check_same_run(parts, start, run)
    elif cfg.init_from:
        notes = init_from(parts, cfg.init_from)
    trainer = make_trainer(cfg, logger=False)
    parts.scorer.prepare(trainer.strategy.root_device)
    if trainer.is_global_zero:
        write_changes(run, changed.earlier + changed.made)
    return train(parts, run, start, notes + [said(change) for change in changed.made])


def nothing_to_do(cfg: DictConfig, result: dict[str, Any], start: Start | None, done: int) -> str | None:
    """Why a finished run has nothing left to do, and how to make it continue; None if it has something to do."""
    if result.get("status") != "finished":
        return None
    if cfg.steps == done:
        return f"the run has finished its {done} steps; go on with steps=<more than {done}>"
    if result.get("ended") and out_of_patience(cfg, start):
        return f"{result['ended']}; go on with evaluate.patience=<more, or null>"
    return None


class Asked(NamedTuple):
    """A request for a resume: its run, overrides, and whether changes of the training are allowed."""

    path: str
    overrides: list[str]
    change: bool
    started: Sequence[str] = ()  # the overrides that the run was started with

    @property
    def own(self) -> list[str]:
        """Those of the run that a new one would take over, since this request says nothing else of their keys."""
        said = {key_of(text) for text in self.overrides} | {"run_dir", "resume", "init_from"}
        return [text for text in self.started if key_of(text) not in said]

    def refusal(self, refused: list[str], needs_change: bool) -> UserError:
        """The error to raise. refused: keys with got and had. needs_change: would change=true help?"""
        anew = command(*self.own, f"init_from={quote(self.path)}", *self.overrides)
        text = f"a resume cannot change {'; '.join(refused)}"
        if needs_change:
            asked = command(f"resume={quote(self.path)}", *self.overrides, "change=true")
            return UserError(f"{text} unless it is asked to: {asked}; or start a new run from its weights: {anew}")
        allowed = ", ".join(name + "*" if name.endswith(".") else name for name in RESUMABLE)
        return UserError(
            f"{text}; it may change {allowed}; with change=true {SHOWN}; or start a new run from its weights: {anew}"
        )


def apply(cfg: DictConfig, asked: Asked, choices: dict[str, str]) -> set[str]:
    """Sets what may change, and returns those keys; a value equal to the run's own is no change."""
    refused, askable, changed = [], [], set()
    for text in asked.overrides:
        key, got = parse(text)
        known = flat_keys(cfg)
        if key not in choices and key not in known:
            raise UserError(f"{key}: the run's config has no such key; {one_of(known, key)}")
        if may_change(key) or (asked.change and WHEN_ASKED.fullmatch(key)):
            changed |= set_value(cfg, key, got)
        elif got != had(cfg, choices, key):
            refused.append(f"{key}: got {got}, had {had(cfg, choices, key)}")
            askable += [key] if WHEN_ASKED.fullmatch(key) else []
    if "data_dir" in cfg.dataset:
        cfg.dataset.data_dir = cfg.data_dir  # the saved config holds final values, so it does not follow by itself
        changed |= {"dataset.data_dir"} & {f"dataset.{key}" for key in changed}
    if refused:
        raise asked.refusal(refused, needs_change=len(askable) == len(refused))
    return changed


def set_value(cfg: DictConfig, key: str, value: Any) -> set[str]:
    """Sets a value; returns the keys that it has set."""
    if key == "metric":
        choose_metrics(cfg, value)
        return {key}
    keys = with_followers(cfg, key)
    for each in keys:
        OmegaConf.update(cfg, each, value)
    return set(keys)


def refuse_ramps(cfg: DictConfig, overrides: list[str]) -> None:
    """Refuses ramps, since changes.yaml holds plain numbers."""
    for text in overrides:
        key, got = parse(text)
        if WHEN_ASKED.fullmatch(key) and isinstance(got, dict) and got != plain(OmegaConf.select(cfg, key)):
            raise UserError(f"{text}: a resume may change it to a number; a ramp needs a new run, with init_from=")


def parse(text: str) -> tuple[str, Any]:
    """key=value -> its key and value, by Hydra's grammar."""
    try:
        override = OverridesParser.create().parse_override(text)
    except HydraException as error:
        raise UserError(f"{text}: not an override; expected key=value") from error
    if override.is_sweep_override():
        raise UserError(f"{text}: a resume goes on with one run; give one value")
    return override.key_or_group, override.value()


def had(cfg: DictConfig, choices: dict[str, str], key: str) -> Any:
    """The run's own value or choice; for a group that takes several, the names."""
    value = choices.get(key, OmegaConf.select(cfg, key))
    if key in MULTI_SELECT:
        return [name for name in value if name != "features"]  # features have their own group, metric/features
    return plain(value)


def value_of(cfg: DictConfig, key: str) -> Any:
    """A value in the form that changes.yaml has."""
    return metrics_of(cfg) if key == "metric" else plain(OmegaConf.select(cfg, key))


def plain(value: Any) -> Any:
    return OmegaConf.to_container(value) if OmegaConf.is_config(value) else value
