"""The request of `ganrun project`, checked before anything heavy is imported."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from omegaconf import DictConfig, OmegaConf

from ganrun.commands.sample.request import FOLDER, check_apart, check_free, checked, find_generator, place_of
from ganrun.config.typed import check_minimum
from ganrun.errors import UserError
from ganrun.files.run_dir import RunDir

KEYS = {"from": str, "input": str, "out": str, "overwrite": bool, "space": Literal["z", "w", "w+"] | None,
        "steps": int, "lr": float, "features": str | None, "weights": str | None, "features_weight": float,
        "label": Any, "fit": Literal["exact", "crop", "pad", "resize"], "seed": int, "batch_size": int,
        "device": str | int,
        "max_pixels": int | None, "trust": str | list[str]}  # fmt: skip
MINIMUM = {"steps": 1, "seed": 0, "batch_size": 1, "max_pixels": 1}
AUTO, NONE = "auto", "none"  # values of features


@dataclass(frozen=True)
class Request:
    """file: a generator file or checkpoint. run: the run that it belongs to, if any. Others: see project.yaml."""

    file: Path
    run: RunDir | None
    input: Path
    out: Path
    overwrite: bool
    space: str | None
    steps: int
    lr: float
    features: str
    weights: str | None
    features_weight: float
    label: Any
    fit: Literal["exact", "crop", "pad", "resize"]
    seed: int
    batch_size: int
    device: str
    max_pixels: int | None
    trust: str | list[str]


def check(cfg: DictConfig) -> Request:
    """Raises UserError for the first error; changes no file."""
    if OmegaConf.is_missing(cfg, "input"):
        raise UserError("input= must be given: a folder or .zip of images, or one image")
    keys = checked(cfg, KEYS)
    check_minimum(cfg, MINIMUM)
    for key in ("lr", "features_weight"):
        if not keys[key] > 0:
            advice = "; features=none compares pixels alone" if key == "features_weight" else ""
            raise UserError(f"{key}={keys[key]}; expected more than 0{advice}")
    keys["features"] = keys["features"] or NONE
    if keys["weights"] and keys["features"] in (AUTO, NONE):
        raise UserError(f"weights={keys['weights']}: they are those of features=<network of torchvision>; give both")
    file, run = find_generator(keys.pop("from"))
    paths = {name: place_of(name, keys.pop(name)) for name in ("input", "out")}
    if paths["out"].suffix != FOLDER:
        raise UserError(f"out={paths['out']}: this makes a folder; leave out the ending")
    check_apart(**paths)
    check_free(str(paths["out"]), paths["out"], keys["overwrite"])
    return Request(file, run, **paths, **keys)
