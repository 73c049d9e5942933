"""What can be deleted without a loss that time does not make good: files that ganrun made, known by their names."""

import os
import re
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import NamedTuple

from omegaconf import DictConfig, OmegaConf

from ganrun.config.typed import check_known, check_types
from ganrun.errors import UserError, one_of
from ganrun.files.checkpoint import damage
from ganrun.files.run_dir import RunDir, find_runs
from ganrun.files.storage import PARTIAL, hold, is_owned

KEYS = {"of": str | list[str], "cache_dir": str, "what": str | list[str], "days": int | float, "yes": bool}
DEFAULT = "outputs"  # as in configs/clean.yaml; it need not be there
CACHED = {  # what a file of cache_dir is, by its whole name
    "prepared": re.compile(r"[0-9a-f]{32}(\.pixels|\.json|\.files|\.index|-\d+\.partial)"),
    "features": re.compile(r"real-[0-9a-f]{32}\.ckpt|classifier-[0-9a-f]{16}\.ckpt|weights-inception-[\w-]+\.pth"),
}
KINDS = ("checkpoints", *CACHED)
DAY = 86400


class Unused(NamedTuple):
    """seconds: since it was last read or written."""

    path: Path
    what: str
    seconds: float
    bytes: int


def unused(cfg: DictConfig) -> list[Unused]:
    """The files that can go, the longest unused first. Raises UserError for a bad key or a folder that is not there."""
    OmegaConf.set_struct(cfg, False)
    check_known(cfg, KEYS)
    check_types(cfg, KEYS)
    what = [cfg.what] if isinstance(cfg.what, str) else list(cfg.what)
    for kind in what:
        if kind not in KINDS:
            raise UserError(f"what={kind}; {one_of(KINDS, kind)}")
    if cfg.days < 0:
        raise UserError(f"days={cfg.days}; expected at least 0")
    places = [cfg.of] if isinstance(cfg.of, str) else list(cfg.of)
    found = list(in_cache(Path(cfg.cache_dir).expanduser(), what))
    if "checkpoints" in what:
        found += [each for run in runs_in(places) for each in in_run(run)]
    return sorted((each for each in found if each.seconds >= cfg.days * DAY), key=lambda each: -each.seconds)


def runs_in(places: Iterable[str]) -> list[RunDir]:
    there = [place for place in places if place != DEFAULT or Path(place).is_dir()]
    return find_runs(there) if there else []


def in_run(run: RunDir) -> Iterator[Unused]:
    """Half-written files, and the step checkpoints of a run that nobody trains and that goes on without them."""
    if is_owned(run.path):
        return
    for path in run.path.rglob(f".*{PARTIAL}"):
        yield from about(path, "checkpoints")
    if damage(run.last):
        return  # a resume needs an earlier one
    kept = {path.stat().st_ino for path in (run.last, run.best) if path.exists()}
    for path in run.step_checkpoints():
        if path.stat().st_ino not in kept:  # another name of these frees nothing
            yield from about(path, "checkpoints")


def in_cache(folder: Path, what: Iterable[str]) -> Iterator[Unused]:
    """What `cache_dir` holds. The files of one decoded set are used together, whichever of them was read last."""
    files = sorted(folder.iterdir()) if folder.is_dir() else []
    found = [
        each for kind in what if kind in CACHED for path in files if CACHED[kind].fullmatch(path.name)
        for each in about(path, kind)
    ]  # fmt: skip
    last: dict[str, float] = {}
    for each in found:
        last[each.path.stem] = min(each.seconds, last.get(each.path.stem, each.seconds))
    for each in found:
        yield each._replace(seconds=last[each.path.stem])


def about(path: Path, what: str) -> Iterator[Unused]:
    with suppress(OSError):  # gone meanwhile
        found = path.lstat()
        yield Unused(path, what, time.time() - max(found.st_mtime, found.st_atime), found.st_blocks * 512)


def delete(files: Iterable[Unused]) -> list[Unused]:
    """Deletes them, but for those that another process makes at this moment; returns what could not be deleted."""
    kept = []
    for each in files:
        lock = None
        if each.what == "prepared":
            lock = hold(each.path.with_name(each.path.name[:32] + ".lock"))
        with lock or nullcontext():
            try:
                if each.what == "prepared" and lock is None:
                    raise OSError("another process prepares it")
                os.unlink(each.path)
            except OSError as error:
                print(f"{each.path}: not deleted: {error.strerror or error}", file=sys.stderr)
                kept.append(each)
    return kept
