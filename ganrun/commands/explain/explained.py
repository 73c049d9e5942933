"""What `ganrun explain` prints and draws of each run."""

import json
import textwrap
from collections.abc import Sequence
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from ganrun.config.typed import check_known, check_types
from ganrun.errors import UserError
from ganrun.explaining.finding import Finding
from ganrun.explaining.findings import proposal
from ganrun.explaining.picture import draw
from ganrun.files.record import Record
from ganrun.files.run_dir import find_runs

KEYS = {"of": str | list[str], "out": str | None, "json": bool}
WIDTH = 110  # columns of the words; commands are never broken
PICTURE = "explained.png"


def checked(cfg: DictConfig) -> tuple[list[Record], list[Path]]:
    """The records of the runs, and where the picture of each goes. Raises UserError."""
    OmegaConf.set_struct(cfg, False)
    check_types(cfg, KEYS)
    check_known(cfg, KEYS)
    runs = find_runs(cfg.of)
    if cfg.out is None:
        return [Record(run) for run in runs], [run.path / PICTURE for run in runs]
    out = Path(cfg.out).expanduser()
    if len(runs) > 1:
        raise UserError(f"out={out}: one picture, and {len(runs)} runs; leave it out to have {PICTURE} in each run")
    if out.suffix.lower() != ".png":
        raise UserError(f"out={out}: expected a name that ends in .png")
    if not out.parent.is_dir():
        raise UserError(f"out={out}: there is no folder {out.parent}")
    return [Record(runs[0])], [out]


def draw_all(records: Sequence[Record], found: Sequence[list[Finding]], places: Sequence[Path]) -> list[Path | None]:
    """Draws each run; None for one that has logged nothing to draw."""
    drawn = (draw(record, some, place) for record, some, place in zip(records, found, places, strict=True))
    return [place if done else None for place, done in zip(places, drawn, strict=True)]


def lines(record: Record, found: list[Finding], picture: Path | None) -> list[str]:
    """The findings of a run in words, alarms marked by `!`, and last the command to try next."""
    told = [str(record.path)]
    for finding in found:
        mark = "! " if finding.alarm else "- "
        told += textwrap.wrap(finding.text, WIDTH, initial_indent=f"  {mark}", subsequent_indent="    ")
        told += [f"      {finding.command}"] if finding.command else []
    chosen = proposal(found)
    told += [f"  next ({chosen.kind}): {chosen.command}"] if chosen else []
    told += [f"  picture: {picture}"] if picture else []
    return told


def printable(records: Sequence[Record], found: Sequence[list[Finding]]) -> str:
    """JSON: of each run its path, its findings, and the kind of the finding whose command is the next to try."""
    content = [
        {
            "run": str(record.path),
            "findings": [finding._asdict() | {"alarm": finding.alarm} for finding in some],
            "next": chosen.kind if (chosen := proposal(some)) else None,
        }
        for record, some in zip(records, found, strict=True)
    ]
    return json.dumps(content, indent=2, ensure_ascii=False)
