"""generator.safetensors + generator.yaml: the averaged generator and its noise, which sample anywhere.

Neither the data set nor the training code is needed, and nothing is unpickled. The YAML names classes; only those of
ganrun's networks and noise are built, unless the caller trusts more packages.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml
from safetensors.torch import load_file, save
from torch import Tensor

from ganrun.errors import UserError
from ganrun.sampling.generator import SamplingGenerator
from ganrun.storage import replacing
from ganrun.trust import GENERATOR_ROOMS, package_names, shown, trusted_class

FORMAT = 1


def save_generator(path: Path, sampling: SamplingGenerator, description: dict[str, Any]) -> None:
    """Writes `path` (.safetensors) and the .yaml beside it. `description` holds the `generator` and `noise` configs."""
    tensors = {key: value.detach().cpu().contiguous() for key, value in sampling.state_dict().items()}
    header = {
        "format": FORMAT,
        **description,
        "value_range": None if sampling.value_range is None else list(sampling.value_range),
        "classes": sampling.classes,
    }
    with replacing(path) as file:
        file.write(save(tensors))
    with replacing(path.with_suffix(".yaml")) as file:
        file.write(yaml.safe_dump(header, sort_keys=False, allow_unicode=True).encode())


def load_generator(path: str | Path, *, trust: Iterable[str] = ()) -> SamplingGenerator:
    """The generator of a run, in eval mode on the CPU, from its generator.safetensors and generator.yaml.

    trust: further packages whose classes the YAML may name. Raises UserError for what is missing or unfit.
    """
    path = Path(path)
    header_path = path.parent / f"{path.stem}.yaml"
    for file in (path, header_path):
        if not file.is_file():
            raise UserError(f"{file}: no such file; a generator is generator.safetensors and generator.yaml together")
    with reading(path):
        header = yaml.safe_load(header_path.read_text(encoding="utf-8"))
        if header.get("format") != FORMAT:
            raise UserError(f"{header_path}: format {header.get('format')}; this ganrun reads format {FORMAT}")
        return assemble(header, load_file(path), trust, str(header_path))


def assemble(header: dict[str, Any], tensors: dict[str, Tensor], trust: Iterable[str], where: str) -> SamplingGenerator:
    """The generator that a header describes, with these tensors. where: the header was found, for messages."""
    allowed = (*GENERATOR_ROOMS, *package_names(trust))
    parts = [_build(header[part], allowed, f"{where}: {part}") for part in ("generator", "noise")]
    check_header(header)
    sampling = SamplingGenerator(*parts, value_range=header["value_range"], classes=header["classes"])
    sampling.trained = dict(header.get("trained", {}))
    sampling.load_state_dict(tensors)
    sampling.eval().requires_grad_(False)
    sampling.sample(1)  # parts that do not fit each other are found here, not at their first use
    return sampling


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Whatever hand-edited or damaged files raise becomes one line that names the file."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(f"{path}: cannot be read as a generator: {reason}") from error


def check_header(header: dict[str, Any]) -> None:
    """Raises UserError for classes or a range that nothing could be drawn with."""
    classes, value_range = header["classes"], header["value_range"]
    if not (isinstance(classes, list) and all(isinstance(name, str) for name in classes)):
        raise UserError(f"classes={shown(classes)} in a generator's .yaml; expected a list of names as text")
    numbers = isinstance(value_range, list) and all(isinstance(bound, int | float) for bound in value_range)
    if value_range is not None and not (numbers and len(value_range) == 2 and value_range[0] < value_range[1]):
        raise UserError(f"value_range={shown(value_range)} in a generator's .yaml; expected two numbers, or null")


def _build(config: dict[str, Any], allowed: Iterable[str], key: str) -> Any:
    found = trusted_class(config["_target_"], allowed, key=f"{key}._target_")
    return found(**{name: value for name, value in config.items() if name != "_target_"})
