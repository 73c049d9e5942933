"""Where a run continues: its newest good checkpoint, the data that must match, another run's weights."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from ganrun.adaptive import Adaptive
from ganrun.config.places import quote
from ganrun.data.identity import changes
from ganrun.errors import UserError
from ganrun.files.checkpoint import damage, load_checkpoint
from ganrun.files.run_dir import LOADER, RunDir, find_run, may_change
from ganrun.module import GANModule
from ganrun.training.build import Parts
from ganrun.training.run_config import flatten
from ganrun.training.transfer import Weights, copy_what_fits, weights_in

PLACES = ("run_dir", "init_from", "dataset.data_dir", "trainer.devices", "trainer.num_nodes")  # the draws are the same


@dataclass(frozen=True)
class Start:
    """A checkpoint to start from. note: a warning about how it was chosen."""

    path: Path
    content: dict[str, Any]
    note: str | None = None

    @property
    def step(self) -> int:
        return self.content["global_step"]


def find_start(run: RunDir, named: Path | None = None) -> Start | None:
    """The named checkpoint, else the run's newest good one; None if nothing has been saved yet.

    Raises UserError when the named one is damaged, or all are.
    """
    if named:
        return Start(named, load_checkpoint(named))
    saved = run.saved_checkpoints()
    faults = {path: fault for path in saved if (fault := damage(path))}
    good = [path for path in saved if path not in faults]
    if not saved:
        if run.generator.exists():  # a checkpoint was written before the generator file
            anew = f"start another run from its generator by init_from={quote(str(run.generator))}"
            raise UserError(f"{run.path}: its checkpoints are gone; bring them back, or {anew}")
        return None
    if not good:
        raise UserError(f"{run.path}: no checkpoint can be read: {told(faults)}")
    if saved[0] in good:
        return Start(saved[0], load_checkpoint(saved[0]))
    newest = max((Start(path, load_checkpoint(path)) for path in good), key=lambda start: start.step)
    return Start(newest.path, newest.content, f"{told(faults)}; going on from {newest.path}, step {newest.step}")


def told(faults: dict[Path, str]) -> str:
    return "; ".join(f"{path}: {fault}" for path, fault in faults.items())


def init_from(parts: Parts, source: str) -> list[str]:
    """Starts from other weights, averages included; optimizers, step and adaptive probabilities start anew.

    source: a run, one of its checkpoints, or the .safetensors file of a generator or of discriminators.
    Returns warnings: what did not fit, and how the checkpoint was chosen.
    """
    module, classes = parts.module, parts.data.classes if parts.cfg.conditional.key == "label" else []
    if Path(source).suffix == ".safetensors":
        notes = from_file(module, Path(source).expanduser(), f"init_from={source}", classes)
        own = False
    else:
        start = start_of(source)
        samples = start.content["ganrun"].get("samples") or {}
        state = start.content["state_dict"]
        own = any(key.startswith("ema.") for key in state)
        if not module.ema:
            state = {key: value for key, value in state.items() if not key.startswith("ema.")}
        left = copy_what_fits(module, Weights(state, samples.get("classes", ())), f"init_from={source}", classes)
        notes = [note for note in (start.note and f"init_from={source}: {start.note}", left) if note]
    if module.ema and not own:  # no average there: this one starts from the weights
        module.ema.restart()
    for part in module.modules():
        if isinstance(part, Adaptive):
            part.restart()
    return notes


def start_of(source: str) -> Start:
    """The checkpoint of another run to take weights from."""
    run, named = find_run(source, "init_from")
    start = find_start(run, named)
    if start is None:
        raise UserError(f"init_from={source}: the run has no checkpoint yet")
    return start


def from_file(module: GANModule, path: Path, key: str, classes: list[str]) -> list[str]:
    """Takes the weights of some networks from a .safetensors file; returns warnings, also of what starts anew."""
    if not path.is_file():
        raise UserError(f"{key}: there is no such file")
    given = weights_in(path)
    networks = (*module.recipe.exports(), *module.recipe.discriminators())
    held = [name for name in networks if any(x.startswith(f"recipe.{name}.") for x in given.state)]
    if not held:
        raise UserError(f"{key}: it holds none of the networks here: {', '.join(networks)}")
    left = copy_what_fits(module, given, key, classes, only=tuple(f"recipe.{name}." for name in held))
    new = [name for name in networks if name not in held]
    return [note for note in (left, new and f"{key}: it does not hold {', '.join(new)}, which start anew") if note]


def config_digest(run: RunDir) -> str:
    """Changes with everything in the run's config that a resume may not change."""
    if not run.config.exists():  # in processes that write nothing
        return ""
    config = flatten(yaml.load(run.config.read_text(encoding="utf-8"), LOADER))
    kept = {key: value for key, value in config.items() if not (may_change(key) or key in PLACES)}
    return hashlib.blake2b(json.dumps(kept, sort_keys=True, default=str).encode(), digest_size=8).hexdigest()


def check_config(path: Path, content: dict[str, Any], run: RunDir) -> None:
    """Raises UserError for a checkpoint made with another config."""
    if content["ganrun"].get("config") != config_digest(run):
        raise UserError(
            f"{path} was not made by this run's config: it comes from another run, or .hydra/config.yaml was edited; "
            "init_from= starts a new run from its weights"
        )


def check_same_run(parts: Parts, start: Start, run: RunDir) -> None:
    """Raises UserError for a checkpoint made with another config or other data."""
    check_config(start.path, start.content, run)
    changed = changes(parts.data.fingerprint, start.content["ganrun"]["data"])
    if changed:
        raise UserError(
            f"resume={run.path}: the data set has changed: {'; '.join(changed)}; "
            f"init_from={run.path} starts a new run from its weights"
        )
