"""Train a GAN; resume=<run directory or .ckpt> goes on with a run, -m sweeps over comma-separated values."""

import os
import sys
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from ganrun.configs import config_dirs_of
from ganrun.errors import UserError
from ganrun.experiment import sweep
from ganrun.experiment.check import check
from ganrun.experiment.hydra_main import run_hydra
from ganrun.run_dir import RunDir, make_named, make_unique

if TYPE_CHECKING:
    from ganrun.experiment.build import Parts

CHILD = "GANRUN_RUN_DIR"  # tells the processes that Lightning starts which run they belong to


def run(args: list[str]) -> int:
    """Returns the exit code. The last line on stdout is the run or sweep directory."""
    if os.environ.get("LOCAL_RANK", "0") != "0" and CHILD in os.environ:
        return _child(RunDir(os.environ[CHILD]))
    resumed = [arg for arg in args if arg.startswith("resume=") and arg not in ("resume=", "resume=null")]
    multirun = bool({"-m", "--multirun"} & set(args))
    if resumed and multirun:
        raise UserError("resume= goes on with one run; leave out -m")
    if resumed:
        from ganrun.experiment.resume import resume

        flags = ("resume=", "--config-dir", "-cd")
        folders = {str(path) for path in config_dirs_of(args)}
        rest = [arg for arg in args if not arg.startswith(flags) and arg not in folders]
        return _finish(*resume(resumed[-1].removeprefix("resume="), rest))
    if multirun:
        return sweep.run(args, _job)
    outcome: list[tuple[dict[str, Any], RunDir]] = []
    run_hydra("train", args, lambda cfg: outcome.append(_single(cfg)))
    return _finish(*outcome[0]) if outcome else 0  # Hydra itself answered, as for --cfg job


def _finish(result: dict[str, Any], run: RunDir) -> int:
    if result.get("signal"):
        print(f"stopped; go on with: ganrun resume={run.path}", file=sys.stderr)
    sys.stdout.flush()
    print(run.path)
    return 128 + result["signal"] if result.get("signal") else 0


def _single(cfg: DictConfig) -> tuple[dict[str, Any], RunDir]:
    """One run in a directory of its own, which is made once the config has passed and everything is built."""
    overrides = list(HydraConfig.get().overrides.task)
    notes, parts = _build(cfg, overrides)
    named = any(override.startswith("run_dir=") for override in overrides)
    run = RunDir(make_named(Path(cfg.run_dir)) if named else make_unique(Path(cfg.run_dir)))
    _save_hydra(cfg, run)
    return _train(parts, run, notes), run


def _job(cfg: DictConfig) -> None:
    """One job of a sweep, in the directory that Hydra made. A failure is written down and never raised."""
    run = RunDir(HydraConfig.get().runtime.output_dir)
    result: dict[str, Any] = {}
    _save_hydra(cfg, run)
    try:
        notes, parts = _build(cfg, list(HydraConfig.get().overrides.task))
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


def _build(cfg: DictConfig, overrides: list[str]) -> tuple[list[str], "Parts"]:
    """Checks and builds everything that can be refused. Returns warnings and the parts."""
    notes = check(cfg, overrides)
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

    os.environ[CHILD] = str(run.path.absolute())
    try:
        return train(parts, run, notes=notes)
    finally:
        del os.environ[CHILD]


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
    cfg.data_dir = str(Path(cfg.data_dir).expanduser().absolute())
    if cfg.dataset.get("path"):
        cfg.dataset.path = str(Path(cfg.dataset.path).expanduser().absolute())
    run.hydra.mkdir(parents=True, exist_ok=True)
    OmegaConf.save(cfg, run.hydra / "config.yaml")
    OmegaConf.save(OmegaConf.create(list(hydra.overrides.task)), run.hydra / "overrides.yaml")
    OmegaConf.save(
        OmegaConf.create({"hydra": {"runtime": {"choices": dict(hydra.runtime.choices)}}}), run.hydra / "hydra.yaml"
    )
