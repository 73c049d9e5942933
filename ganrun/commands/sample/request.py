"""The requests of `ganrun sample` and `translate`, checked before anything heavy is imported."""

import os
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from omegaconf import DictConfig, OmegaConf

from ganrun.commands.sample.sampler import KEYS as SAMPLER_KEYS
from ganrun.commands.sample.sampler import check_sampler
from ganrun.config.typed import check_finite, check_known, check_minimum, check_parent, check_place, check_types
from ganrun.errors import UserError
from ganrun.files.hub import fetched, is_address
from ganrun.files.run_dir import RunDir, find_run

KEYS = {"from": str, "out": str | None, "overwrite": bool, "num": int | None, "seed": int, "truncation": float | None,
        "truncation_cutoff": int | None, "standing": int | None, "label": Any, "batch_size": int, "device": str | int,
        "trust": str | list[str], "interpolate": int | None, "space": Literal["z", "w"], "frames": int | None,
        "fps": int | None, "neighbours": int | None, "latents": str | None,
        "data_dir": str | None, **SAMPLER_KEYS}  # fmt: skip
TRANSLATE = {"from": str, "input": str, "out": str, "overwrite": bool, "direction": str | None, "pad": bool,
             "device": str | int, "max_pixels": int | None, "trust": str | list[str]}  # fmt: skip
MINIMUM = {
    "num": 1,
    "seed": 0,
    "truncation_cutoff": 1,
    "standing": 1,
    "batch_size": 1,
    "interpolate": 2,
    "frames": 1,
    "fps": 1,
    "neighbours": 1,
}
MAXIMUM = {
    "num": 10**9,
    "standing": 10**4,
    "batch_size": 10**5,
    "interpolate": 10**4,
    "frames": 10**4,
    "fps": 240,
    "neighbours": 99,
}
FOLDER = ""  # in place of a suffix
SUFFIXES = {  # possible outputs for samples, an interpolation, neighbours
    "num": (FOLDER, ".zip", ".npz", ".npy", ".png"),
    "interpolate": (".gif", ".mp4", ".png"),
    "neighbours": (".png",),
}
DEFAULT_OUT = {"num": "samples.png", "interpolate": "walk.gif", "neighbours": "neighbours.png"}
ACTS_WITH = {"frames": "interpolate", "fps": "interpolate", "data_dir": "neighbours"}
GIF_FPS = 50  # browsers show faster ones slowly


@dataclass(frozen=True)
class Request:
    """file: a generator file or checkpoint. run: the run that it belongs to, if any. Other fields: see sample.yaml."""

    file: Path
    run: RunDir | None
    out: Path
    overwrite: bool
    num: int | None
    seed: int
    truncation: float | None
    truncation_cutoff: int | None
    standing: int | None
    label: Any
    batch_size: int
    device: str
    trust: str | list[str]
    interpolate: int | None
    space: str
    frames: int | None
    fps: int | None
    neighbours: int | None
    latents: str | None
    data_dir: str | None
    sampler: dict[str, Any]  # see sampler.py

    @property
    def kind(self) -> str:
        """The suffix of the output, FOLDER for a folder."""
        return self.out.suffix.lower()


@dataclass(frozen=True)
class Translation:
    """file: a generator file or checkpoint. run: the run that it belongs to, if any. Others: see translate.yaml."""

    file: Path
    run: RunDir | None
    input: Path
    out: Path
    overwrite: bool
    direction: str | None
    pad: bool
    device: str
    max_pixels: int | None
    trust: str | list[str]


def check_translate(cfg: DictConfig) -> Translation:
    """Raises UserError for the first error; changes no file."""
    if OmegaConf.is_missing(cfg, "input"):
        raise UserError("input= must be given: a folder or .zip of images, or one image")
    keys = checked(cfg, TRANSLATE)
    check_minimum(cfg, {"max_pixels": 1})
    file, run = find_generator(keys.pop("from"))
    paths = {name: place_of(name, keys.pop(name)) for name in ("input", "out")}
    check_apart(**paths)
    return Translation(file, run, **paths, **keys)


def place_of(key: str, path: str) -> Path:
    """The path that a key names. Raises UserError."""
    if not path:
        raise UserError(f"{key}=: expected a path")
    check_place(key, path)
    return Path(path).expanduser()


def check_apart(input: Path, out: Path) -> None:
    """Checks that the input exists and that no output could become an input of the next call."""
    if not any(place.exists() for place in (input, *input.parents[:-1])):
        raise UserError(f"input={input}: there is no such folder, .zip or image")
    if out.suffix.lower() not in (FOLDER, ".png"):
        raise UserError(f"out={out}: this makes a folder (no ending) of PNGs, or of one image a .png")
    check_parent(out)
    check_free(str(out), out, overwrite=True)
    if input.is_dir() and input.resolve() in (out.resolve(), *out.resolve().parents):
        raise UserError(
            f"out={out} is in input={input}: what is written there would be translated too the next time; "
            "name a folder outside"
        )


def checked(cfg: DictConfig, types: dict[str, Any]) -> dict[str, Any]:
    """The plain values of a command's keys. Raises UserError for unknown keys and wrong types."""
    check_known(cfg, types)
    if OmegaConf.is_missing(cfg, "from"):
        raise UserError("from= must be given: a run directory, a generator's .safetensors file, or a run's checkpoint")
    check_types(cfg, types)
    if "device" in types:
        check_device(cfg.device)
    keys = OmegaConf.to_container(cfg, resolve=True)
    keys = {key: keys[key] for key in types}
    check_finite(keys)
    return keys


def check_sample(cfg: DictConfig) -> Request:
    """Raises UserError for the first error; changes no file."""
    keys = checked(cfg, KEYS)
    check_minimum(cfg, MINIMUM)
    for key, most in MAXIMUM.items():
        if keys[key] is not None and keys[key] > most:
            raise UserError(f"{key}={keys[key]}; expected at most {most:,}")
    if keys["space"] != "z" and keys["interpolate"] is None:
        raise UserError(f"space={keys['space']}: it acts with interpolate= only; add it, or leave space= out")
    check_latents(keys)
    check_sampler(keys)
    keys["sampler"] = {key: keys.pop(key) for key in SAMPLER_KEYS}
    made_of = _made_of(keys)
    out = DEFAULT_OUT[made_of] if keys["out"] is None else keys["out"]
    file, run = find_generator(keys.pop("from"))
    if run is None and made_of == "neighbours":
        raise UserError("neighbours= needs the run's data set, which its config names; give from=<run directory>")
    check_out(out, made_of, keys)
    return Request(file, run, **keys | {"out": Path(out).expanduser()})


def check_latents(keys: dict[str, Any]) -> None:
    """Raises UserError for what cannot act on given latents."""
    if keys["latents"] is None:
        return
    for key in ("label", "sampler"):
        if keys[key] is not None:
            raise UserError(f"{key}={keys[key]}: with latents= nothing is drawn, and labels are theirs; leave it out")
    check_place("latents", keys["latents"])


def _made_of(keys: dict[str, Any]) -> str:
    """The key that decides the kind of output: interpolate, neighbours, or num for plain samples."""
    chosen = [key for key in ("interpolate", "neighbours") if keys[key] is not None]
    if len(chosen) > 1:
        raise UserError("interpolate= and neighbours= make two pictures; give one of them")
    for key, other in ACTS_WITH.items():
        if keys[key] is not None and keys[other] is None:
            raise UserError(f"{key}={keys[key]}: it acts with {other}= only; add it, or leave {key}= out")
    return chosen[0] if chosen else "num"


def check_device(name: str | int) -> None:
    name = str(name)
    if not re.fullmatch(r"auto|cpu|mps|cuda(:\d+)?", name):
        near = {"gpu": "cuda", "cuda:": "cuda"}.get(name, f"cuda:{name}" if name.isdecimal() else None)
        hint = f"did you mean {near}? " if near else ""
        raise UserError(f"device={name}; {hint}valid: auto, cpu, cuda, cuda:<number>, mps")


def find_generator(path: str, *, tell: bool = True) -> tuple[Path, RunDir | None]:
    """The generator file or checkpoint that `from` means, and the run that it belongs to, if any; hf:// is fetched.

    tell: say so if a checkpoint stands in for a generator file.
    """
    if is_address(path):
        return fetched(path), None
    check_place("from", path)
    given = Path(os.path.expanduser(path))
    if not path or not given.exists():
        raise UserError(f"from={path}: there is no such run directory, .safetensors file or checkpoint")
    if given.is_dir():
        return of_run(path, RunDir(given), tell)
    if given.suffix == ".ckpt":
        run, file = find_run(path, "from")
        return file, run
    if given.suffix != ".safetensors":
        raise UserError(
            f"from={path}: expected a run directory, a .safetensors file, a checkpoint (.ckpt) or hf://<owner>/<name>"
        )
    run = RunDir(given.parent)
    return given, run if run.config.exists() else None


def of_run(path: str, run: RunDir, tell: bool) -> tuple[Path, RunDir | None]:
    """The generator file of a run directory; if there is none yet, its newest checkpoint."""
    is_run = run.config.exists()
    if run.generator.exists():
        return run.generator, run if is_run else None
    if not is_run:
        raise UserError(f"from={path}: not a run; expected a directory with a generator.safetensors in it")
    saved = run.saved_checkpoints()
    if not saved:
        raise UserError(f"from={path}: the run has no generator yet; it is written with the first checkpoint")
    if tell:
        print(f"{path} has no generator.safetensors yet; taking {saved[0]}", file=sys.stderr)
    return saved[0], run


def check_out(out: str, made_of: str, keys: dict[str, Any]) -> None:
    """Checks that `out` suits the kind of output, and that it can be written there."""
    if not out:
        raise UserError("out=: expected a path; leave it out for the default")
    check_place("out", out)
    path = Path(out).expanduser()
    check_suffix(out, made_of, path.suffix.lower())
    check_frames(path.suffix.lower(), keys)
    check_free(out, path, keys["overwrite"])
    check_parent(path)


def check_suffix(out: str, made_of: str, suffix: str) -> None:
    if suffix in SUFFIXES[made_of]:
        return
    valid = ", ".join(suffix or "a folder (no ending)" for suffix in SUFFIXES[made_of])
    if made_of == "num":
        films = [ending for ending in SUFFIXES["interpolate"] if ending not in SUFFIXES["num"]]
        valid += f"; with interpolate=<n> {', '.join(films)}"
        raise UserError(f"out={out}: this makes {valid}")
    raise UserError(f"out={out}: with {made_of}= this makes {valid}")


def check_frames(suffix: str, keys: dict[str, Any]) -> None:
    """Checks frames and fps, where they apply."""
    if keys["fps"] is None:
        return
    if suffix == ".png":
        raise UserError(f"fps={keys['fps']}: a .png stands still; leave it out, or give out=<name>.gif or .mp4")
    if suffix == ".gif" and keys["fps"] > GIF_FPS:
        raise UserError(f"fps={keys['fps']}: a .gif shows at most {GIF_FPS}; give out=<name>.mp4")


def check_free(out: str, path: Path, overwrite: bool) -> None:
    """Raises UserError if something is there that must not be replaced."""
    if not path.exists():
        return
    is_folder = path.suffix == FOLDER
    if is_folder != path.is_dir():
        raise UserError(f"out={out} is a {'folder' if path.is_dir() else 'file'}; name another place")
    if not overwrite and (not is_folder or any(path.iterdir())):
        what = "exists and is not empty" if is_folder else "exists"
        raise UserError(f"out={out} {what}; overwrite=true writes over it, or name another place")


def check_vectors(request: Request) -> None:
    """Refuses requests that need images, for a generator of vectors."""
    for key in ("interpolate", "neighbours"):
        if getattr(request, key) is not None:
            raise UserError(f"{key}={getattr(request, key)}: it needs images, but this generator makes vectors")
    if request.kind not in (".png", ".npz", ".npy"):
        raise UserError(f"out={request.out}: this generator makes vectors; valid: .png (scatter plot), .npz, .npy")
