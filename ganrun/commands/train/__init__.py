"""Train a GAN; resume=<run directory or .ckpt> continues a run, -m sweeps over comma-separated values."""

import json
import sys
import traceback
from collections.abc import Callable
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from ganrun import __version__
from ganrun.commands.train import sweep
from ganrun.config.check import check
from ganrun.config.explain import explain
from ganrun.config.groups import without_config_dirs
from ganrun.config.hydra_main import refuse_flags, run_hydra
from ganrun.config.places import command, unquoted
from ganrun.config.trust import packages_of
from ganrun.errors import COLLAPSED, CannotWrite, OutOfMemory, UserError, reason_of
from ganrun.files.run_dir import FORMAT, RunDir, make_named, make_unique
from ganrun.files.storage import Owned, owning, replacing, writing

if TYPE_CHECKING:
    from ganrun.training.build import Parts


def run(args: list[str]) -> int:
    """Returns the exit code. The last line on stdout is the run or sweep directory."""
    if is_of_sweep(args):
        return start_sweep(args)[1]
    outcome = start(args)
    return _finish(*outcome) if outcome else 0


def is_of_sweep(args: list[str]) -> bool:
    """Does the command line start a sweep, or go on with one?"""
    resumed, multirun = _resumed(args), bool({"-m", "--multirun"} & set(args))
    if resumed is not None and multirun:
        raise UserError("resume= goes on with one run, or with all jobs of a sweep's directory; leave out -m")
    return multirun or (resumed is not None and sweep.is_sweep(Path(resumed).expanduser()))


def start_sweep(args: list[str]) -> tuple[Path, int]:
    """Runs a sweep, or what is left of one; returns its directory and the exit code."""
    resumed = _resumed(args)
    if resumed is None:
        return sweep.run(args, _job, _typed)
    return sweep.resume(Path(resumed).expanduser(), _beside_resume(args), _job, _typed)


def start(args: list[str]) -> tuple[dict[str, Any], RunDir] | None:
    """Trains a new run, or goes on with one; returns its result. None = Hydra itself answered, as for --cfg job."""
    resumed = _resumed(args)
    if resumed is not None:
        from ganrun.training.resume import resume

        return resume(resumed, _beside_resume(args))
    outcome: list[tuple[dict[str, Any], RunDir]] = []
    _of_one_run(args, lambda cfg: outcome.append(_single(cfg)))
    return outcome[0] if outcome else None


def composed(args: list[str]) -> DictConfig:
    """The checked config of a run, final but for what the machine decides. Builds and writes nothing."""
    found: list[DictConfig] = []

    def checked(cfg: DictConfig) -> None:
        _check(cfg, _typed())
        found.append(OmegaConf.create(OmegaConf.to_container(cfg, resolve=True)))

    _of_one_run(args, checked)
    return found[0]


def _of_one_run(args: list[str], task: Callable[[DictConfig], None]) -> None:
    """Composes the config of a new run and calls `task` with it."""
    for word in args:
        if word.startswith(("sweep=", "sweep.")):
            raise UserError(f"{word}: it acts in sweeps; add -m, or leave it out")
    refuse_flags(args)
    run_hydra("train", args, task)


def _resumed(args: list[str]) -> str | None:
    """The run or sweep that resume= names; None for a new one."""
    given = [arg.removeprefix("resume=") for arg in args if arg.startswith("resume=")][-1:]
    return unquoted(given[0]) if given and given[0] not in ("", "null") else None


def _beside_resume(args: list[str]) -> list[str]:
    return [arg for arg in without_config_dirs(args) if not arg.startswith("resume=")]


def _finish(result: dict[str, Any], run: RunDir) -> int:
    if "status" in result:  # otherwise another process of the run writes and reports
        if result["status"] != "finished":
            why = result["reason"] if result["status"] == "collapsed" else result["status"]
            print(f"{why}; go on with: {command(f'resume={run.path}')}", file=sys.stderr)
        print(run.path, flush=True)
    if result.get("signal"):
        return 128 + result["signal"]
    return COLLAPSED if result.get("collapsed", result.get("status") == "collapsed") else 0


def _single(cfg: DictConfig) -> tuple[dict[str, Any], RunDir]:
    """One run in its own directory, which is made once the config is checked and everything is built."""
    overrides = _typed()
    notes, parts, first = _build(cfg, overrides)
    named = any(override.lstrip("+").startswith("run_dir=") for override in overrides)
    wanted = Path(cfg.run_dir).expanduser()
    run = RunDir((make_named if named else make_unique)(wanted) if first else wanted)
    with owning(run.path) if first else nullcontext():
        if first:
            _save_hydra(cfg, run)
        return _train(parts, run, notes), run


def _job(cfg: DictConfig, run: RunDir, settings: sweep.Settings, callbacks: list[Any]) -> dict[str, Any]:
    """One job of a sweep: goes on with it, if something of it is saved. A failure is written down and never raised."""
    run = RunDir(run.path, job=HydraConfig.get().job.num)
    try:
        return _with_retries(cfg, run, settings, callbacks)
    except Owned as error:  # its result is the other's to write
        print(error, file=sys.stderr)
        return {"signal": None}
    except Exception as error:  # the other jobs must go on, whatever this one died of
        print(f"failed: {reason_of(error)}", file=sys.stderr)
        failed = run.read_result() | {"status": "failed", "reason": reason_of(error)}
        with suppress(OSError, CannotWrite):  # the disk itself may have failed
            with run.log.open("a") as file:
                traceback.print_exc(file=file)
            run.write_result(failed)
        return failed


def _with_retries(cfg: DictConfig, run: RunDir, settings: sweep.Settings, callbacks: list[Any]) -> dict[str, Any]:
    """Trains a job from its last checkpoint; after each of `settings.retry` steps without memory in smaller passes."""
    from ganrun.training.resume import resume
    from ganrun.training.run_config import load_config
    from ganrun.training.trainer import make_trainer, smaller_micro_batch

    trusted = packages_of(OmegaConf.to_container(cfg))  # this command line names them itself
    words, notes = [f"trust={json.dumps(trusted)}"], []
    for left in range(settings.retry, -1, -1):
        try:
            if run.config.exists() and run.saved_checkpoints():
                return resume(str(run.path), words, callbacks)[0]
            return _start(cfg, run, callbacks, notes)
        except OutOfMemory as error:
            had, _ = load_config(run, trusted)
            smaller = smaller_micro_batch(had, make_trainer(had, logger=False).world_size)
            if not left or smaller is None:
                raise
            notes.append(f"tried again with micro_batch={smaller}: {error}")
            cfg.micro_batch = smaller
            words = [*words[:1], f"micro_batch={smaller}", "change=true"]
    raise AssertionError("the last try returns or raises")


def _start(cfg: DictConfig, run: RunDir, callbacks: list[Any], notes: list[str]) -> dict[str, Any]:
    """Trains a job from its first step."""
    _save_hydra(cfg, run)
    with owning(run.path):
        built, parts, _ = _build(cfg, _typed())
        parts.callbacks.extend(callbacks)
        _save_hydra(cfg, run)
        return _train(parts, run, notes + built)


def _typed() -> list[str]:
    """The overrides as the user typed them."""
    return OmegaConf.to_container(HydraConfig.get().overrides.task, resolve=False)


def _check(cfg: DictConfig, overrides: list[str]) -> list[str]:
    """Checks all that can be refused before anything is built; returns warnings."""
    try:
        notes = check(cfg, overrides)
        OmegaConf.to_container(cfg, resolve=True, throw_on_missing=True)
    except OmegaConfBaseException as error:  # a dangling interpolation, a missing value
        raise UserError(explain(error, "train", overrides)) from error
    return notes


def _build(cfg: DictConfig, overrides: list[str]) -> tuple[list[str], "Parts", bool]:
    """Checks and builds everything that can be refused. Returns warnings, parts, and if this is the first process."""
    notes = _check(cfg, overrides)
    from ganrun.training.build import build
    from ganrun.training.hardware import precision_of
    from ganrun.training.state import init_from
    from ganrun.training.trainer import make_trainer

    cfg.precision = precision_of(cfg)  # final values are saved: a resume elsewhere goes on in the same precision
    parts = build(cfg)
    if len(parts.data) < cfg.batch_size:
        notes.append(f"{len(parts.data)} samples, fewer than batch_size={cfg.batch_size}: each batch repeats some")
    trainer = make_trainer(cfg, logger=False)
    if cfg.init_from:
        notes += init_from(parts, cfg.init_from)
    parts.scorer.prepare(trainer.strategy.root_device)  # last, since it may train a classifier
    return notes, parts, trainer.is_global_zero


def _train(parts: "Parts", run: RunDir, notes: list[str]) -> dict[str, Any]:
    from ganrun.training.run import train

    return train(parts, run, notes=notes)


def _save_hydra(cfg: DictConfig, run: RunDir) -> None:
    """.hydra/ as Hydra lays it out, with final values; a resume reads it and never writes it."""
    cfg.run_dir = str(run.path.absolute())
    cfg.data_dir, cfg.cache_dir = absolute(cfg.data_dir), absolute(cfg.cache_dir)
    for key in ("path", "source", "labels", "cache"):
        if "dataset" in cfg and cfg.dataset.get(key):
            cfg.dataset[key] = absolute(cfg.dataset[key])
    if cfg.init_from:
        cfg.init_from = absolute(cfg.init_from)
    about = {
        "hydra": {"runtime": {"choices": dict(HydraConfig.get().runtime.choices)}},
        "ganrun": {"format": FORMAT, "version": __version__},
    }
    with writing(run.path):
        run.hydra.mkdir(parents=True, exist_ok=True)
    for path, content in (
        (run.hydra / "overrides.yaml", OmegaConf.create(_typed())),
        (run.hydra / "hydra.yaml", OmegaConf.create(about)),
        (run.config, cfg),  # last: with it a run exists
    ):
        with replacing(path) as file:
            file.write(OmegaConf.to_yaml(content, resolve=content is cfg).encode())


def absolute(path: str) -> str:
    return str(Path(str(path)).expanduser().absolute())
