"""A user's own YAML files: mistakes are reported before Hydra merges them, with file and line."""

import re
from pathlib import Path
from typing import Any

import yaml
from omegaconf._utils import get_yaml_loader

from ganrun.config.groups import config_dir, config_dirs_of, defaults, keys, options
from ganrun.errors import UserError

HEADER = re.compile(r"#\s*@package\s+(\S+)\s*$")
GLOBAL = "# @package _global_"


def check_own(args: list[str]) -> None:
    """Raises UserError for the first chosen file in a --config-dir that cannot do what its author meant."""
    for folder in config_dirs_of(args):
        refuse_shadows(folder)
        for group, option in chosen(args):
            file = folder / group / f"{option}.yaml"
            if file.is_file():
                check_file(file, group)


def chosen(args: list[str]) -> list[tuple[str, str]]:
    """(group, option) for all choices in a command line, including those in lists and sweeps."""
    pairs = [arg.lstrip("+").partition("=") for arg in args if not arg.startswith("-")]
    return [(key, name) for key, _, value in pairs for name in re.findall(r"[^\[\],'\"]+", value)]


def refuse_shadows(folder: Path) -> None:
    """Refuses files with the name of ganrun's own, since Hydra would ignore the user's."""
    own = config_dir()
    for file in sorted(own.rglob("*.yaml")):
        theirs = folder / file.relative_to(own)
        if theirs.is_file() and not theirs.samefile(file):
            raise UserError(f"{theirs}: ganrun has a file of that name, which would win; give yours another name")


def check_file(file: Path, group: str) -> None:
    text, node = read(file)
    if not isinstance(node, dict):
        got = {type(None): "nothing", list: "a list", str: "a text"}.get(type(node), type(node).__name__)
        raise UserError(f"{file}: it holds {got}; expected keys with values, such as steps: 1000")
    header = header_of(text)
    if header is None and "@package" in text:
        line = next(i for i, line in enumerate(text.splitlines(), 1) if "@package" in line)
        raise UserError(f"{file}: line {line}: this header does not act; expected the first line to be `{GLOBAL}`")
    if header is None:
        refuse_without_header(file, group, node)
    elif header == "_global_" and "_target_" in node:
        raise UserError(
            f"{file}: after `{GLOBAL}` the keys are those of the whole config: put _target_ and its settings below "
            f"`{group.rpartition('/')[2]}:`, or remove the header"
        )


def refuse_without_header(file: Path, group: str, node: dict[str, Any]) -> None:
    """Refuses files that need a package header: without one, all their keys are put below the name of the group."""
    has_node = group not in ("experiment", "model")  # no node in a config has these names
    global_ = {key.partition("=")[0].partition(".")[0] for key in keys("train")} | set(defaults())
    misplaced = sorted(set(map(str, node)) & global_) if needs_header(group) else []
    overrides = [line for line in node.get("defaults") or [] if any("override" in str(word) for word in line)]
    if not has_node or misplaced or overrides:
        what = misplaced or [key for key in node if key != "defaults"] or ["its defaults"]
        raise UserError(
            f"{file}: add `{GLOBAL}` as its first line; without it {', '.join(map(str, what[:3]))} would land below "
            f"`{group}:`, where nothing reads it"
        )
    if isinstance(node.get(group), dict):
        raise UserError(
            f"{file}: its keys lie below {group} already: remove the line `{group}:` and the indent, or add `{GLOBAL}` "
            "as its first line"
        )


def needs_header(group: str) -> bool:
    """Do all of ganrun's own options of the group have a header?"""
    files = [config_dir() / group / f"{option}.yaml" for option in options(group)]
    return bool(files) and all(header_of(file.read_text(encoding="utf-8")) == "_global_" for file in files)


def header_of(text: str) -> str | None:
    """The package that a file names in its first comments."""
    for line in text.splitlines():
        found = HEADER.match(line.strip())
        if found:
            return found[1]
        if line.strip() and not line.strip().startswith("#"):
            return None
    return None


def read(file: Path) -> tuple[str, Any]:
    try:
        text = file.read_text(encoding="utf-8")
        return text, yaml.load(text, Loader=get_yaml_loader())
    except yaml.YAMLError as error:
        raise UserError(told(error, file)) from error
    except (OSError, UnicodeDecodeError) as error:
        reason = "it is not UTF-8" if isinstance(error, UnicodeDecodeError) else error.strerror
        raise UserError(f"{file}: cannot be read: {reason}") from error


def told(error: yaml.YAMLError, file: Path | None = None) -> str:
    """The file, the line and the error there."""
    mark, problem = getattr(error, "problem_mark", None), getattr(error, "problem", None)
    name = file or (mark.name if mark else "YAML")
    line = f"line {mark.line + 1}: " if mark else ""
    advice = "; indent with spaces, not tabs" if "\\t" in str(problem) else ""
    return f"{name}: {line}{problem or ' '.join(str(error).split())}{advice}"
