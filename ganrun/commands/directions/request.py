"""The request of `ganrun directions`, checked before anything heavy is imported."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from ganrun.commands.sample.request import check_free, checked, find_generator, place_of
from ganrun.config.typed import check_maximum, check_minimum, check_parent
from ganrun.errors import UserError
from ganrun.files.run_dir import RunDir

KEYS = {"from": str, "out": str, "overwrite": bool, "num": int, "layers": list[int] | None, "reach": float,
        "columns": int, "latents": str | None, "seed": int, "label": Any, "device": str | int,
        "trust": str | list[str]}  # fmt: skip
MINIMUM = {"num": 1, "columns": 2, "seed": 0}
MAXIMUM = {"num": 1000, "columns": 100}


@dataclass(frozen=True)
class Request:
    """file: a generator file or checkpoint. run: the run that it belongs to, if any. Others: see directions.yaml."""

    file: Path
    run: RunDir | None
    out: Path
    overwrite: bool
    num: int
    layers: list[int] | None
    reach: float
    columns: int
    latents: Path | None
    seed: int
    label: Any
    device: str
    trust: str | list[str]


def check(cfg: DictConfig) -> Request:
    """Raises UserError for the first error; changes no file."""
    keys = checked(cfg, KEYS)
    check_minimum(cfg, MINIMUM)
    check_maximum(cfg, MAXIMUM)
    if not keys["reach"] > 0:
        raise UserError(f"reach={keys['reach']}; expected more than 0")
    if keys["layers"] is not None and len(keys["layers"]) != 2:
        raise UserError(f"layers={keys['layers']}; expected the first and the last, as in layers=[0,3]")
    if keys["latents"] and keys["label"] is not None:
        raise UserError(f"label={keys['label']}: the latents have their own; leave it out")
    file, run = find_generator(keys.pop("from"))
    out = place_of("out", keys.pop("out"))
    check_out(out, keys["overwrite"])
    latents = keys.pop("latents")
    return Request(file, run, out=out, latents=place_of("latents", latents) if latents else None, **keys)


def check_out(out: Path, overwrite: bool) -> None:
    if out.suffix.lower() != ".png":
        raise UserError(f"out={out}: this makes a .png, and an .npz beside it")
    check_parent(out)
    for path in (out, out.with_suffix(".npz")):
        check_free(str(path), path, overwrite)
