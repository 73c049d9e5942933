"""generator.safetensors + generator.yaml: a recipe's averaged generators, which sample or translate anywhere.

Neither the data set nor the training code is needed, and nothing is unpickled. The YAML names classes; only those of
ganrun's networks and noise are built, unless the caller trusts more packages.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import yaml
from safetensors.torch import load_file, save
from torch import Tensor

from ganrun.attributes import of_plain
from ganrun.config.trust import GENERATOR_ROOMS, package_names, shown, trusted_class
from ganrun.depth import DTYPES
from ganrun.errors import UserError, first_line
from ganrun.files.hub import fetched, is_address
from ganrun.files.storage import replacing
from ganrun.sampling.generator import SamplingGenerator
from ganrun.sampling.translator import Translator

FORMAT = 2  # 1 had one generator, under the key `generator`, and always noise


def save_generator(path: Path, tensors: dict[str, Tensor], header: dict[str, Any]) -> None:
    """Writes `path` (.safetensors) and the .yaml beside it.

    tensors: by `<network>.<name>`, and by `noise.<name>` if the noise has any. header: has these keys:

    networks:    their configs, by name
    noise:       its config, None for networks that take images
    channels:    of what each network that takes images takes and gives
    between:     the keys of the data that each of them takes and gives
    value_range: of the output, None for vectors
    classes:     their names, empty if unconditional
    attributes:  labels that are numbers, with what networks see of them; may be missing
    depth:       bits of a pixel, if not 8
    shown:       channels for pictures, if not chosen by their number
    trained:     on which data, for how many steps, averaged or not
    """
    tensors = {key: value.detach().cpu().contiguous() for key, value in tensors.items()}
    header = {"format": FORMAT, **header}
    with replacing(path) as file:
        file.write(save(tensors))
    with replacing(path.with_suffix(".yaml")) as file:
        file.write(yaml.safe_dump(header, sort_keys=False, allow_unicode=True).encode())


def load_generator(path: str | Path, *, trust: Iterable[str] = ()) -> SamplingGenerator | Translator:
    """The generator of a run, in eval mode on the CPU, from its generator.safetensors and generator.yaml.

    If it takes images, the result is a Translator. path: also hf://<owner>/<name>[@<revision>][/<file>.safetensors], on
    the Hugging Face Hub; see files/hub.py. trust: further packages whose classes the YAML may name.
    Raises UserError for missing or unusable files.

    Example:
        generator = ganrun.load_generator("<run>/generator.safetensors")
        images = generator.sample(16, seed=0)  # (16, C, H, W) in [-1, 1]; vectors are (16, D)
    """
    path = fetched(path) if is_address(path) else Path(path)
    header_path = path.parent / f"{path.stem}.yaml"
    for file in (path, header_path):
        if not file.is_file():
            raise UserError(f"{file}: no such file; a generator is generator.safetensors and generator.yaml together")
    with reading(path):
        header = yaml.safe_load(header_path.read_text(encoding="utf-8"))
        if header.get("format") not in (1, FORMAT):
            raise UserError(f"{header_path}: format {header.get('format')}; this ganrun reads formats 1 and {FORMAT}")
        if header["format"] == 1:
            header["networks"] = {"generator": header["generator"]}
        return assemble(header, load_file(path), trust, str(header_path))


def assemble(
    header: dict[str, Any], tensors: dict[str, Tensor], trust: Iterable[str], where: str
) -> SamplingGenerator | Translator:
    """The generators that a header describes, with these tensors. where: source of the header, for messages."""
    allowed = (*GENERATOR_ROOMS, *package_names(trust))
    networks = {name: build_trusted(node, allowed, f"{where}: {name}") for name, node in header["networks"].items()}
    noise = header["noise"] and build_trusted(header["noise"], allowed, f"{where}: noise")
    check_header(header)
    if noise:
        made = SamplingGenerator(
            networks["generator"],
            noise,
            value_range=header["value_range"],
            classes=header["classes"],
            attributes=of_plain(header.get("attributes", [])),
            depth=header.get("depth", 8),
            shown=header.get("shown"),
        )
    else:
        about = {key: header[key] for key in ("value_range", "channels", "between")}
        made = Translator(networks, **about, depth=header.get("depth", 8))
    made.trained = dict(header.get("trained", {}))
    made.load_state_dict(tensors)
    made.eval().requires_grad_(False)
    if noise:
        channels = made.sample(1).shape[1]  # finds mismatched parts here, not at their first use
        if made.shown and max(made.shown) >= channels:
            raise UserError(f"{where}: shown={made.shown}; the generator makes {channels} channels, counted from 0")
    return made


@contextmanager
def reading(path: Path, what: str = "generator") -> Iterator[None]:
    """Turns whatever hand-edited or damaged files raise into one line that names the file."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        reason = first_line(error)
        raise UserError(f"{path}: cannot be read as a {what}: {reason}") from error


def check_header(header: dict[str, Any]) -> None:
    """Raises UserError for classes, a value range, a depth or channels that cannot be used."""
    classes, value_range = header["classes"], header["value_range"]
    if not (isinstance(classes, list) and all(isinstance(name, str) for name in classes)):
        raise UserError(f"classes={shown(classes)} in a generator's .yaml; expected a list of names as text")
    numbers = isinstance(value_range, list) and all(isinstance(bound, int | float) for bound in value_range)
    if value_range is not None and not (numbers and len(value_range) == 2 and value_range[0] < value_range[1]):
        raise UserError(f"value_range={shown(value_range)} in a generator's .yaml; expected two numbers, or null")
    depth, channels = header.get("depth", 8), header.get("shown")
    if depth not in DTYPES:
        raise UserError(f"depth={shown(depth)} in a generator's .yaml; expected 8 or 16")
    chosen = isinstance(channels, list) and len(channels) in (1, 3) and all(isinstance(c, int) for c in channels)
    if channels is not None and not (chosen and min(channels) >= 0):
        raise UserError(f"shown={shown(channels)} in a generator's .yaml; expected one or three channels, or null")


def build_trusted(config: dict[str, Any], allowed: Iterable[str], key: str) -> Any:
    """The object that a config describes, with those it holds; with _partial_ a callable that still needs arguments.

    Raises UserError for a class that is not allowed.
    """
    found = trusted_class(config["_target_"], allowed, key=f"{key}._target_")
    settings = {name: value for name, value in config.items() if name not in ("_target_", "_partial_")}
    for name, value in settings.items():
        if isinstance(value, dict) and "_target_" in value:
            settings[name] = build_trusted(value, allowed, f"{key}.{name}")
    return partial(found, **settings) if config.get("_partial_") else found(**settings)
