"""Options and keys as people type them: names for none, files named like numbers, spaces, keys of other tools."""

import re
from collections.abc import Iterable
from pathlib import Path

from ganrun.config.groups import config_dirs_of, defaults, groups, keys, options
from ganrun.errors import UserError

NOTHING = ("null", "none", "false", "off", "~", "[]", "[none]", "[null]", "")
NUMBER = re.compile(
    r"[-+]?[\d._]+(e[-+]?\d+)?|true|false|null|nan|inf", re.I
)  # words that Hydra's grammar does not read as text
ELEMENT = re.compile(r"\[[^\]]*\]|[^,\[\]]+|^$")
FROM_OTHERS = {  # names of the same things in other tools
    **dict.fromkeys(("epochs", "max_steps", "iterations", "num_steps", "niter"), "steps"),
    **dict.fromkeys(("lr", "learning_rate"), "optimizer.lr"),
    **dict.fromkeys(("gpus", "num_gpus", "devices"), "trainer.devices"),
    **dict.fromkeys(("device", "gpu", "accelerator"), "trainer.accelerator"),
    **dict.fromkeys(("num_workers", "workers"), "dataset.num_workers"),
    **dict.fromkeys(("image_size", "img_size", "resolution"), "dataset.resolution"),
    **dict.fromkeys(("nz", "z_dim", "latent_dim"), "generator.z_dim"),
    **dict.fromkeys(("outdir", "output_dir", "out_dir", "output"), "run_dir"),
    **{"n_critic": "schedule.discriminator", "beta1": "optimizer.betas", "dataroot": "dataset.path", "data": "dataset"},
    **{"ckpt": "resume", "checkpoint": "resume", "batch": "batch_size", "bs": "batch_size", "name": "run_dir"},
}


def chosen(args: list[str], command: str = "train") -> list[str]:
    """A command line with each group's own name for "nothing"; options named like numbers are quoted.

    `none`, `null`, `false` and `off` all mean the option `none` if the group has one, an empty list if it takes
    several, and no experiment.
    """
    extra = config_dirs_of(args)
    default = defaults(command)
    return [_chosen_word(arg, default, extra) for arg in args]


def _chosen_word(word: str, default: dict[str, str], extra: list[Path]) -> str:
    group, equals, value = word.partition("=")
    if not equals or group not in (*groups(extra), *default):
        return word
    valid = options(group, extra)
    several = default.get(group, "").startswith("[")
    if default.get(group) == "null" and value.lower() in NOTHING and value.lower() not in valid:
        return f"~{group}"
    found = ELEMENT.findall(value)
    if ",".join(found) != value:
        return word
    return f"{group}={','.join(_option(one, valid, several) for one in found)}"


def _option(text: str, valid: Iterable[str], several: bool) -> str:
    if text in valid:
        return f"'{text}'" if NUMBER.fullmatch(text) else text
    if text.lower() in NOTHING and text:
        return "[]" if several else "none" if "none" in valid else text
    return text


def refuse_spaces(argv: list[str]) -> None:
    """Refuses `key = value`, `key : value` and `key value`, which a shell splits into words."""
    for word, following, last in zip(argv, [*argv[1:], ""], [*argv[2:], "", ""], strict=False):
        if following.startswith(("=", ":")) and is_key(word):
            value = following.lstrip("=:") or last
            raise UserError(f"{word} {following}: key, = and value go together, without spaces: {word}={value}")
        key, colon, value = word.partition(":")
        if colon and "=" not in word and is_key(key.strip()):
            raise UserError(f"{word}: expected key=value: {key.strip()}={value.strip() or following}")
        bare = word.strip("= ")
        if (word.endswith("=") or bare == word) and is_key(bare) and is_value(following):
            raise UserError(f"{word} {following}: expected key=value, without spaces: {bare}={following}")
        key, equals, value = word.partition("=")
        if equals and key != key.strip() and is_key(key.strip()):
            raise UserError(f"{word}: a key has no spaces: {key.strip()}={value.strip()}")


def is_value(word: str) -> bool:
    return bool(word) and "=" not in word and not word.startswith(("-", "+", "~"))


def is_key(name: str) -> bool:
    """Is it a key or group of any command?"""
    own = {
        key.partition("=")[0]
        for command in ("train", "sample", "translate", "serve", "evaluate", "rank", "ls", "project", "directions")
        for key in keys(command)
    }
    return name in own or name in groups() or (name.split(".")[0] in groups() and "." in name)


def as_key(flag: str) -> str | None:
    """The key meant by a flag such as `--batch-size 16`, `--batch_size=16` or `--epochs`; None if there is none."""
    name = flag.lstrip("-").partition("=")[0].replace("-", "_")
    return name if is_key(name) else FROM_OTHERS.get(name)
