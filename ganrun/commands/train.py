"""Train a GAN; resume=<run directory or .ckpt> goes on with a run, -m sweeps over comma-separated values."""

import os
import sys
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from ganrun.configs import without_config_dirs
from ganrun.errors import UserError
from ganrun.experiment import sweep
from ganrun.experiment.check import check
from ganrun.experiment.hydra_main import refuse_flags, run_hydra
from ganrun.run_dir import CHILD, RunDir, make_named, make_unique

if TYPE_CHECKING:
    from ganrun.experiment.build import Parts


def run(args: list[str]) -> int:
    """Returns the exit code. The last line on stdout is the run or sweep directory."""
    resumed = [arg for arg in args if arg.startswith("resume=") and arg not in ("resume=", "resume=null")]
    multirun = bool({"-m", "--multirun"} & set(args))
    if resumed and multirun:
        raise UserError("resume= goes on with one run; leave out -m")
    if resumed:
        from ganrun.experiment.resume import resume

        rest = [arg for arg in without_config_dirs(args) if not arg.startswith("resume=")]
        return _finish(*resume(resumed[-1].removeprefix("resume="), rest))
    if _is_child():
        return _child(RunDir(os.environ[CHILD]))
    if multirun:
        return sweep.run(args, _job)
    outcome: list[tuple[dict[str, Any], RunDir]] = []
    refuse_flags(args)
    run_hydra("train", args, lambda cfg: outcome.append(_single(cfg)))
    return _finish(*outcome[0]) if outcome else 0  # Hydra itself answered, as for --cfg job


def _is_child() -> bool:
    """Is this a further process of a run that several devices share?"""
    return os.environ.get("LOCAL_RANK", "0") != "0" and CHILD in os.environ


def _finish(result: dict[str, Any], run: RunDir) -> int:
    if not _is_child():
        if result.get("signal"):
            print(f"stopped; go on with: ganrun resume={run.path}", file=sys.stderr)
        print(run.path, flush=True)
    return 128 + result["signal"] if result.get("signal") else 0


def _single(cfg: DictConfig) -> tuple[dict[str, Any], RunDir]:
    """One run in a directory of its own, which is made once the config has passed and everything is built."""
    overrides = _typed()
    notes, parts = _build(cfg, overrides)
    named = any(override.startswith("run_dir=") for override in overrides)
    run = RunDir((make_named if named else make_unique)(Path(cfg.run_dir).expanduser()))
    _save_hydra(cfg, run)
    return _train(parts, run, notes), run


def _job(cfg: DictConfig) -> None:
    """One job of a sweep, in the directory that Hydra made. A failure is written down and never raised."""
    run = RunDir(HydraConfig.get().runtime.output_dir)
    result: dict[str, Any] = {}
    try:
        _save_hydra(cfg, run)
        notes, parts = _build(cfg, _typed())
        _save_hydra(cfg, run)
        result = _train(parts, run, notes)
    except Exception as error:  # the other jobs must go on, whatever this one died of
        reason = str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}"
        with run.log.open("a") as file:
            traceback.print_exc(file=file)
        print(f"failed: {reason}", file=sys.stderr)
        run.write_result({"status": "failed", "reason": reason})
    if result.get("signal"):
        raise KeyboardInterrupt  # a signal is meant for the whole sweep


def _typed() -> list[str]:
    """The overrides as the user typed them."""
    return OmegaConf.to_container(HydraConfig.get().overrides.task, resolve=False)


def _build(cfg: DictConfig, overrides: list[str]) -> tuple[list[str], "Parts"]:
    """Checks and builds everything that can be refused. Returns warnings and the parts."""
    try:
        notes = check(cfg, overrides)
        OmegaConf.to_container(cfg, resolve=True, throw_on_missing=True)
    except OmegaConfBaseException as error:  # an interpolation that leads nowhere, a value that must be given
        raise UserError(" ".join(str(error).split())) from error
    from ganrun.experiment.build import build
    from ganrun.experiment.fit import make_trainer
    from ganrun.experiment.state import init_from

    parts = build(cfg)
    make_trainer(cfg, logger=False)
    if cfg.init_from:
        init_from(parts, cfg.init_from)
    return notes, parts


def _train(parts: "Parts", run: RunDir, notes: list[str]) -> dict[str, Any]:
    from ganrun.experiment.fit import train

    return train(parts, run, notes=notes)


def _child(run: RunDir) -> int:
    """A further process of a run that several devices share."""
    from ganrun.experiment.build import build
    from ganrun.experiment.fit import train

    train(build(OmegaConf.load(run.hydra / "config.yaml")), run)
    return 0


def _save_hydra(cfg: DictConfig, run: RunDir) -> None:
    """.hydra/ as Hydra lays it out, with final values; a resume reads it and never writes it."""
    hydra = HydraConfig.get()
    cfg.run_dir = str(run.path.absolute())
    cfg.data_dir = str(Path(str(cfg.data_dir)).expanduser().absolute())
    if "dataset" in cfg and cfg.dataset.get("path"):
        cfg.dataset.path = str(Path(str(cfg.dataset.path)).expanduser().absolute())
    run.hydra.mkdir(parents=True, exist_ok=True)
    OmegaConf.save(OmegaConf.create(_typed()), run.hydra / "overrides.yaml")
    choices = {"hydra": {"runtime": {"choices": dict(hydra.runtime.choices)}}}
    OmegaConf.save(OmegaConf.create(choices), run.hydra / "hydra.yaml")
    OmegaConf.save(cfg, run.hydra / "config.yaml", resolve=True)
