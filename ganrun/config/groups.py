"""The config files: their place, groups, options and one-line descriptions. Imports nothing heavy."""

import os
import re
import sys
from collections.abc import Iterable
from pathlib import Path

from ganrun.errors import UserError

PACKAGE = Path(__file__).parent.parent
MAIN_GROUPS = ("dataset", "generator", "discriminator", "loss", "optimizer")  # named by every experiment
OF_A_SWEEP = {  # keys of the command line of a sweep, which no job has
    "retry_failed=true": "tries failed jobs again",
    "retry=1": "tries a job that runs out of memory again in smaller passes, so many times",
}
LAUNCHERS = {  # of Hydra's plugins: what each does, the extra that installs it
    "joblib": ("several jobs at once on this machine: hydra.launcher.n_jobs=2", "joblib"),
    "submitit_slurm": ("each job by SLURM: hydra.launcher.partition=<name>", "cluster"),
    "submitit_local": ("all jobs at once on this machine, as submitit_slurm starts them", "cluster"),
    "ray": ("each job by a Ray cluster: hydra.launcher.ray.init.address=<address>", "cluster"),
}
OF_SWEEPS = {"hydra", "sweep"}  # folders of configs that no single run is composed of


def config_dir() -> Path:
    """The folder of the configs: inside the package in a wheel, beside it in a checkout."""
    return next(path for path in (PACKAGE / "configs", PACKAGE.parent / "configs") if (path / "train.yaml").exists())


def config_dirs_of(args: list[str]) -> list[Path]:
    """The folders that --config-dir names in a command line."""
    pairs = zip(args, [*args, ""][1:], strict=True)
    flags = ("--config-dir", "-cd")
    return [Path(arg.partition("=")[2] or following) for arg, following in pairs if arg.split("=")[0] in flags]


def add_modules(config_dirs: list[Path]) -> None:
    """Makes Python modules beside a user's own configs importable, in this process and in those it starts."""
    for path in map(str, config_dirs):
        if not Path(path).is_dir():
            raise UserError(f"--config-dir {path}: there is no such folder")
        absolute = str(Path(path).absolute())
        if absolute not in sys.path:
            sys.path.insert(0, absolute)
            os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [absolute, os.environ.get("PYTHONPATH")]))


def without_config_dirs(args: list[str]) -> list[str]:
    """The command line without --config-dir and its folders."""
    flags = ("--config-dir", "-cd")
    before = ["", *args][:-1]
    return [arg for arg, last in zip(args, before, strict=True) if arg.split("=")[0] not in flags and last not in flags]


def options(group: str, extra_dirs: Iterable[Path] = ()) -> dict[str, str]:
    """The options of a group and the first comment line of each one's YAML."""
    files = [f for root in (config_dir(), *extra_dirs) for f in sorted((root / group).glob("*.yaml"))]
    return {file.stem: description(file) for file in files}


def bringers(key: str) -> list[str]:
    """Options, as group=option, whose files set this key of the top level; experiments are left out."""
    found = []
    for file in sorted(config_dir().glob("*/*.yaml")):
        text = "" if file.parent.name == "experiment" else file.read_text(encoding="utf-8")
        if "@package _global_" in text and re.search(rf"^{re.escape(key)}:", text, re.M):
            found.append(f"{file.parent.name}={file.stem}")
    return found


def comes_with(key: str, brought: Iterable[str]) -> str:
    return f"{key}: it comes with {' or '.join(brought)}; nothing reads it here"


def groups(extra_dirs: Iterable[Path] = ()) -> list[str]:
    """All groups, those that every experiment names first."""
    found = {d.name for root in (config_dir(), *extra_dirs) for d in root.iterdir() if d.is_dir()} - OF_SWEEPS
    return [*MAIN_GROUPS, *sorted((found | {"metric/features"}) - set(MAIN_GROUPS))]


def description(file: Path) -> str:
    """The first comment line that is not a package header."""
    for line in file.read_text(encoding="utf-8", errors="replace").splitlines():
        if line.startswith("#") and not line.startswith("# @package"):
            return line.lstrip("# ").strip()
    return ""


def defaults(command: str = "train") -> dict[str, str]:
    """Group -> its default option, read from the defaults list of a command's YAML."""
    lines = (config_dir() / f"{command}.yaml").read_text(encoding="utf-8").partition("defaults:")[2].splitlines()
    pairs = [line.strip()[2:].split("#")[0].split(": ") for line in lines if line.strip().startswith("- ")]
    return {pair[0]: pair[1].strip() for pair in pairs if len(pair) == 2 and not pair[0].startswith("override ")}


def keys(command: str) -> dict[str, str]:
    """Each `key=default` of a command's YAML and the comment beside it; nested keys are dotted."""
    found, above = {}, ""
    for line in (config_dir() / f"{command}.yaml").read_text(encoding="utf-8").splitlines():
        pair, _, comment = line.partition("  # ")
        key, colon, value = pair.strip().partition(":")
        key = key.strip('"')  # yes and no are not text in YAML
        above = above if line.startswith(" ") or not colon else key
        if not (colon and comment) or key.startswith(("#", "-")):
            continue
        if above not in ("defaults", "hydra") and value:
            found[f"{above}.{key}={value.strip()}" if line.startswith(" ") else f"{key}={value.strip()}"] = comment
    return found
