"""The files of a shared run."""

import shutil
from pathlib import Path
from typing import Any

import yaml

from ganrun.commands.share.card import card
from ganrun.commands.share.places import hidden, hidden_config, hidden_word
from ganrun.commands.share.request import MADE, Request
from ganrun.config.places import is_place
from ganrun.config.trust import package_names
from ganrun.files.checkpoint import load_checkpoint, save_checkpoint
from ganrun.files.record import Record
from ganrun.files.run_dir import RunDir
from ganrun.files.storage import replacing, writing
from ganrun.sampling.discriminator_file import save_discriminator
from ganrun.training.changes import read_changes, write_changes
from ganrun.training.of_checkpoint import of_discriminators, open_generator
from ganrun.training.of_discriminator import PREFIX, discriminators_in, steps_of
from ganrun.training.run_config import load_config, read_yaml
from ganrun.training.state import check_config, config_digest

SAMPLES = "samples.png"


def write(request: Request) -> None:
    """Raises UserError, CannotWrite."""
    run, record, made = (
        request.run,
        Record(request.run),
        open_generator(request.run.generator, None, trust=request.trust),
    )
    with writing(request.out):
        request.out.mkdir(exist_ok=True)
        for name in MADE:  # an earlier share may have held more
            remove(request.out / name)
    for file in (run.generator, run.best_generator):
        if file.exists():
            copy_pair(file, request.out)
    if "discriminator" in request.include:
        discriminator(request)
    grid = record.newest_grid()
    if grid:
        copy(grid, request.out / SAMPLES)
    plain(request.out / "config.yaml", hidden_config(read_yaml(run.config)))
    if "checkpoint" in request.include:
        checkpoint(run, RunDir(request.out))
    text = card(request, record, made, picture=SAMPLES if grid else None)
    content(request.out / "README.md", text.encode())  # last: with it the folder is whole


def copy_pair(file: Path, folder: Path) -> None:
    """A .safetensors and the .yaml beside it."""
    copy(file, folder / file.name)
    plain(folder / file.with_suffix(".yaml").name, hidden(read_yaml(file.with_suffix(".yaml"))))


def discriminator(request: Request) -> None:
    """The run's own file of them if it is of the newest step, else one made of the newest checkpoint."""
    run = request.run
    cfg, _ = load_config(run, list(package_names(request.trust)))
    steps = Record(run).steps
    if run.discriminator.exists() and steps_of(run.discriminator) == steps:
        return copy_pair(run.discriminator, request.out)
    state = load_checkpoint(run.last)
    check_config(run.last, state, run)
    paths = list(discriminators_in(cfg.recipe))
    described = of_discriminators(cfg, state["ganrun"]["samples"], state["global_step"], paths)
    tensors = {key.removeprefix(PREFIX): value for key, value in state["state_dict"].items()}
    tensors = {key: value for key, value in tensors.items() if key.startswith(tuple(f"{path}." for path in paths))}
    return save_discriminator(RunDir(request.out).discriminator, tensors, hidden(described))


def checkpoint(run: RunDir, shared: RunDir) -> None:
    """Makes the folder a run that can be resumed: its config, without paths, and its newest checkpoint."""
    for folder in (shared.hydra, shared.checkpoints):
        with writing(folder):
            folder.mkdir(exist_ok=True)
    plain(shared.hydra / "hydra.yaml", hydra_of(run))
    plain(shared.hydra / "overrides.yaml", [hidden_word(word) for word in Record(run).overrides])
    write_changes(shared, [one for one in hidden(read_changes(run)) if not is_place(one["key"])])
    plain(shared.config, hidden_config(read_yaml(run.config)))
    state = load_checkpoint(run.last)
    check_config(run.last, state, run)
    state["ganrun"]["config"] = config_digest(shared)  # of the config without paths
    save_checkpoint(state | {"ganrun": hidden(state["ganrun"])}, shared.last)


def hydra_of(run: RunDir) -> dict[str, Any]:
    """What a run needs of Hydra's own config: its format and the chosen options."""
    about = read_yaml(run.hydra / "hydra.yaml")
    choices = about.get("hydra", {}).get("runtime", {}).get("choices", {})
    return {"hydra": {"runtime": {"choices": hidden(choices)}}, **{key: about[key] for key in about if key != "hydra"}}


def remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def copy(source: Path, target: Path) -> None:
    with replacing(target) as file, source.open("rb") as original:
        shutil.copyfileobj(original, file)


def plain(path: Path, node: Any) -> None:
    content(path, yaml.safe_dump(node, sort_keys=False, allow_unicode=True).encode())


def content(path: Path, data: bytes) -> None:
    with replacing(path) as file:
        file.write(data)
