"""The request of `ganrun export`, checked before anything heavy is imported."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from omegaconf import DictConfig

from ganrun.commands.sample.request import check_free, checked, find_generator, place_of
from ganrun.config.typed import check_minimum
from ganrun.errors import UserError, require_extra
from ganrun.files.run_dir import RunDir

FORMATS = ("onnx", "pt2")
KEYS = {"from": str, "format": Literal[FORMATS] | None, "out": str | None, "overwrite": bool, "direction": str | None,
        "truncation_cutoff": int | None, "trust": str | list[str]}  # fmt: skip


@dataclass(frozen=True)
class Request:
    """file: a generator file or checkpoint. run: the run that it belongs to, if any. Other fields: see export.yaml."""

    file: Path
    run: RunDir | None
    format: str
    out: Path
    direction: str | None
    truncation_cutoff: int | None
    trust: str | list[str]


def check_export(cfg: DictConfig) -> Request:
    """Raises UserError for the first error; changes no file."""
    keys = checked(cfg, KEYS)
    check_minimum(cfg, {"truncation_cutoff": 1})
    out, overwrite = keys.pop("out"), keys.pop("overwrite")
    place = None if out is None else place_of("out", out)
    keys["format"] = format_of(keys["format"], place)
    if keys["format"] == "onnx":
        require_extra("format=onnx", "export", "onnx", "onnxscript", "onnxruntime")
    file, run = find_generator(keys.pop("from"))
    place = place or Path(f"{file.stem}.{keys['format']}")
    if not place.parent.is_dir():
        raise UserError(f"out={place}: there is no folder {place.parent} to put it in")
    check_free(str(place), place, overwrite)
    return Request(file, run, out=place, **keys)


def format_of(asked: str | None, out: Path | None) -> str:
    """The format that format= or the ending of out= names; onnx if neither does. Raises UserError."""
    if out is None:
        return asked or FORMATS[0]
    ending = out.suffix.lower().removeprefix(".")
    if ending not in FORMATS or asked not in (None, ending):
        valid = f".{asked}" if asked else " or ".join(f".{name}" for name in FORMATS)
        raise UserError(f"out={out}; expected a file that ends in {valid}")
    return ending
