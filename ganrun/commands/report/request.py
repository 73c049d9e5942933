"""What `ganrun report` is asked for, checked before anything is read."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from omegaconf import DictConfig, OmegaConf

from ganrun.config.typed import check_finite, check_known, check_place, check_types
from ganrun.errors import UserError, require_extra

KEYS = {"of": str | list[str], "out": str, "overwrite": bool, "watch": bool, "every": int | float, "grids": int,
        "megabytes": int | float, "neighbours": Literal["best", "all"] | None, "data_dir": str | None,
        "trust": str | list[str]}  # fmt: skip
LEAST = {"every": 1, "grids": 0, "megabytes": 1}
MARK = '<meta name="generator" content="ganrun report">'  # by which a page is known to be one of this command


@dataclass(frozen=True)
class Request:
    """See configs/report.yaml."""

    of: list[str]
    out: Path
    overwrite: bool
    watch: bool
    every: float
    grids: int
    megabytes: float
    neighbours: Literal["best", "all"] | None
    data_dir: str | None
    trust: str | list[str]


def check_report(cfg: DictConfig) -> Request:
    """Raises UserError for the first error; changes no file."""
    OmegaConf.set_struct(cfg, False)
    check_known(cfg, KEYS)
    check_types(cfg, KEYS)
    found = OmegaConf.to_container(cfg, resolve=True)
    keys = {key: found[key] for key in KEYS}
    check_finite(keys)
    for key, least in LEAST.items():
        if keys[key] < least:
            raise UserError(f"{key}={keys[key]}; expected at least {least}")
    require_extra("ganrun report", "report", "jinja2")
    of = [keys["of"]] if isinstance(keys["of"], str) else keys["of"]
    for place in of:
        check_place("of", place)
    check_out(keys["out"], keys["overwrite"])
    return Request(**keys | {"of": of, "out": Path(keys["out"]).expanduser()})


def check_out(out: str, overwrite: bool) -> None:
    """Raises UserError for a place that cannot be written, and for a file that is no page of this command."""
    check_place("out", out)
    path = Path(out).expanduser()
    if path.suffix.lower() not in (".html", ".htm"):
        raise UserError(f"out={out}: this makes .html")
    if not path.parent.is_dir():
        raise UserError(f"out={out}: there is no folder {path.parent} to put it in")
    if path.is_dir():
        raise UserError(f"out={out} is a folder; name another place")
    if path.exists() and not overwrite and not is_report(path):
        raise UserError(f"out={out} exists and is no report; overwrite=true writes over it, or name another place")


def is_report(path: Path) -> bool:
    """Has this command written the file?"""
    try:
        with path.open("rb") as file:
            return MARK.encode() in file.read(2000)
    except OSError:
        return False
