"""The discriminator that goes with a generator file or checkpoint, for samplers that ask it."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import yaml

from ganrun.config.trust import package_names
from ganrun.errors import UserError
from ganrun.files.checkpoint import load_checkpoint
from ganrun.files.run_dir import RunDir, find_run
from ganrun.sampling.discriminator_file import TrainedDiscriminator, assemble, load_discriminator
from ganrun.sampling.generator_file import reading
from ganrun.training.of_checkpoint import of_discriminators

PREFIX = "recipe."


def open_discriminator(
    file: Path, run: RunDir | None, steps: int | None, *, named: str | None = None, trust: str | Iterable[str] = ()
) -> TrainedDiscriminator:
    """The one that was trained with this generator: of the same checkpoint, or after as many steps.

    file: of the generator, or a checkpoint of `run`. steps: of training. named: the user's choice instead. Raises
    UserError that says what is missing.
    """
    if named:
        path = Path(named).expanduser()
        if path.suffix == ".ckpt":
            return in_checkpoint(path, find_run(named, "discriminator_file")[0], trust)
        return load_discriminator(path, trust=trust)
    if file.suffix == ".ckpt":
        return in_checkpoint(file, run, trust)
    exported = RunDir(file.parent).discriminator
    if exported.exists() and steps_of(exported) == steps:
        return load_discriminator(exported, trust=trust)
    for path in checkpoints_of(run, steps):
        return in_checkpoint(path, run, trust)
    there = f"{exported.name} is of step {steps_of(exported)}" if exported.exists() else f"there is no {exported.name}"
    raise UserError(
        f"{file}: it needs the discriminator of the same step, {steps}: {there}, and no checkpoint is of that step; "
        "discriminator_file=<discriminator.safetensors or .ckpt> names another"
    )


def steps_of(exported: Path) -> Any:
    """The steps of training that the .yaml beside discriminator.safetensors says."""
    with reading(exported, "discriminator"):
        return yaml.safe_load(exported.with_suffix(".yaml").read_text(encoding="utf-8"))["trained"]["steps"]


def checkpoints_of(run: RunDir | None, steps: int | None) -> Iterator[Path]:
    """The run's checkpoints after so many steps."""
    if run is None or steps is None:
        return
    if run.step_checkpoint(steps).exists():
        yield run.step_checkpoint(steps)
    for path in (run.last, run.best):
        if path.exists() and load_checkpoint(path)["global_step"] == steps:
            yield path


def in_checkpoint(path: Path, run: RunDir, trust: str | Iterable[str]) -> TrainedDiscriminator:
    from ganrun.training.run_config import load_config
    from ganrun.training.state import check_config

    cfg, _ = load_config(run, list(package_names(trust)))
    content = load_checkpoint(path)
    check_config(path, content, run)
    paths = list(discriminators_in(cfg.recipe))
    if not paths or "samples" not in content["ganrun"]:
        raise UserError(f"{path}: the run's config names no discriminator; export.discriminator=true writes its file")
    with reading(path, "discriminator"):
        described = of_discriminators(cfg, content["ganrun"]["samples"], content["global_step"], paths)
        state = {key.removeprefix(PREFIX): x for key, x in content["state_dict"].items() if key.startswith(PREFIX)}
        return assemble(described, state, package_names(trust), str(run.config))


def discriminators_in(node: Any, path: str = "") -> Iterator[str]:
    """The dotted paths of a recipe's discriminators, by their name in its config."""
    for key, child in node.items() if hasattr(node, "items") else ():
        if key == "discriminator" and "_target_" in child:
            yield f"{path}{key}"
        else:
            yield from discriminators_in(child, f"{path}{key}.")
