"""The request of `ganrun share`, checked before anything is written."""

import re
from dataclasses import dataclass
from pathlib import Path

from omegaconf import DictConfig

from ganrun.commands.sample.request import checked, place_of
from ganrun.errors import UserError, one_of, require_extra
from ganrun.files.run_dir import RunDir, find_run

KEYS = {"from": str, "out": str, "overwrite": bool, "license": str | None, "title": str | None,
        "include": str | list[str], "push": str | None, "private": bool, "branch": str | None,
        "trust": str | list[str]}  # fmt: skip
MORE = ("discriminator", "checkpoint")
REPO = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*", re.A)
WEIGHTS = ("generator", "best", "discriminator")
MADE = {"README.md", "config.yaml", "samples.png", ".hydra", "checkpoints",
        *(f"{name}{end}" for name in WEIGHTS for end in (".safetensors", ".yaml"))}  # fmt: skip
OF_GIT = {".git", ".gitattributes", ".gitignore"}  # of a clone, which is kept
LICENSE = re.compile(r"[a-z0-9][a-z0-9.+-]*")


@dataclass(frozen=True)
class Request:
    """See share.yaml."""

    run: RunDir
    out: Path
    overwrite: bool
    license: str | None
    title: str | None
    include: list[str]
    push: str | None
    private: bool
    branch: str | None
    trust: str | list[str]


def check_share(cfg: DictConfig) -> Request:
    """Raises UserError for the first error; changes no file."""
    keys = checked(cfg, KEYS)
    run, named = find_run(keys.pop("from"), "from")
    if named:
        raise UserError(f"from={named}: a checkpoint; expected its run, {run.path}")
    if not run.generator.exists():
        raise UserError(f"from={run.path}: the run has no generator.safetensors yet")
    keys["include"] = [keys["include"]] if isinstance(keys["include"], str) else keys["include"]
    for name in keys["include"]:
        if name not in MORE:
            raise UserError(f"include={name}; {one_of(MORE, name)}")
    if keys["include"] and not run.last.exists():
        raise UserError(f"include={keys['include'][0]}: the run has no {run.last}")
    if keys["license"] is not None and not LICENSE.fullmatch(keys["license"]):
        raise UserError(
            f"license={keys['license']}; expected a name as the hub spells it: mit, apache-2.0, cc-by-4.0, other"
        )
    check_push(keys)
    out = place_of("out", keys.pop("out"))
    check_out(out, run, keys["overwrite"])
    return Request(run, out, **keys)


def check_push(keys: dict) -> None:
    """Raises UserError for a repository that cannot be, and for settings that need one."""
    if keys["push"] is None:
        for key in ("private", "branch"):
            if keys[key]:
                raise UserError(f"{key}={keys[key]}: it acts with push= only; add push=<owner>/<name>, or leave it out")
    elif not REPO.fullmatch(keys["push"]):
        raise UserError(f"push={keys['push']}; expected <owner>/<name>")
    else:
        require_extra("push=", "hub", "huggingface_hub")


def check_out(out: Path, run: RunDir, overwrite: bool) -> None:
    """Raises UserError for a place that is no new or empty folder or earlier share, and for one in the run."""
    if not out.parent.is_dir():
        raise UserError(f"out={out}: there is no folder {out.parent} to put it in")
    if out.exists() and not out.is_dir():
        raise UserError(f"out={out} is a file; expected a folder")
    if run.path.resolve() in (out.resolve(), *out.resolve().parents):
        raise UserError(f"out={out} is in the run; name a folder outside")
    there = {child.name for child in out.iterdir()} if out.is_dir() else set()
    if there and not overwrite:
        raise UserError(f"out={out} exists and is not empty; overwrite=true makes it anew, or name another place")
    if strangers := sorted(there - MADE - OF_GIT):
        raise UserError(f"out={out} holds {strangers[0]}, which is of no shared run; name another place")
