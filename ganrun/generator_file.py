"""generator.safetensors + generator.yaml: the averaged generator and its noise, which sample anywhere.

Neither the data set nor the training code is needed, and nothing is unpickled. The YAML names classes; only those of
ganrun's networks and noise are built, unless the caller trusts more packages.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
import yaml
from safetensors.torch import load_file, save
from torch import Tensor, nn

from ganrun.errors import UserError
from ganrun.noise import Noise
from ganrun.seeding import derive
from ganrun.storage import replacing
from ganrun.trust import GENERATOR_ROOMS, package_names, trusted_class

FORMAT = 1
CHUNK = 256  # samples a forward pass
INTEGERS = (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)


class SamplingGenerator(nn.Module):
    """A generator with its noise.

    value_range: of the generator's output, None for vectors. classes: their names, empty if unconditional.
    """

    def __init__(self, generator: nn.Module, noise: Noise, *, value_range: Sequence[float] | None, classes: list[str]):
        super().__init__()
        self.generator = generator
        self.noise = noise
        self.value_range = value_range
        self.classes = classes

    @torch.no_grad()
    def sample(self, num: int, seed: int = 0, label: int | Sequence[int] | Tensor | None = None) -> Tensor:
        """(num, C, H, W) in [-1, 1] for images, (num, D) raw for vectors.

        Sample i depends on (seed, i) alone, not on num. label: one class index for all or one for each; by default
        a conditional generator goes through its classes in turn. Raises UserError for labels that do not fit.
        """
        device = next(self.generator.parameters()).device
        labels = self._labels(num, label)
        rng = torch.Generator()
        z = [self.noise(1, rng.manual_seed(derive(seed, "sample", i)))["z"] for i in range(num)]
        chunks = [
            self.generator(
                torch.cat(z[i : i + CHUNK]).to(device), None if labels is None else labels[i : i + CHUNK].to(device)
            )
            for i in range(0, num, CHUNK)
        ]
        samples = torch.cat(chunks).cpu()
        if self.value_range is None:
            return samples
        low, high = self.value_range
        return (samples - low) * (2 / (high - low)) - 1

    def _labels(self, num: int, label: int | Sequence[int] | Tensor | None) -> Tensor | None:
        if num < 1:
            raise UserError(f"num={num}; expected at least 1")
        if not self.classes:
            if label is not None:
                raise UserError("label= was given, but this generator is unconditional")
            return None
        try:
            labels = torch.arange(num) % len(self.classes) if label is None else torch.as_tensor(label)
            labels = labels.expand(num) if labels.dim() == 0 else labels
            fit = labels.shape == (num,) and labels.dtype in INTEGERS and 0 <= labels.min() <= labels.max()
        except (TypeError, ValueError, RuntimeError):  # what torch raises for text, ragged lists, ...
            fit = False
        if not fit or labels.max() >= len(self.classes):
            raise UserError(f"label={label}; expected {num} indices from 0 to {len(self.classes) - 1}, or one for all")
        return labels.long()


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
    try:
        header = yaml.safe_load(header_path.read_text(encoding="utf-8"))
        if header.get("format") != FORMAT:
            raise UserError(f"{header_path}: format {header.get('format')}; this ganrun reads format {FORMAT}")
        allowed = (*GENERATOR_ROOMS, *package_names(trust))
        parts = [_build(header[part], allowed, f"{header_path}: {part}") for part in ("generator", "noise")]
        sampling = SamplingGenerator(*parts, value_range=header["value_range"], classes=header["classes"])
        sampling.load_state_dict(load_file(path))
        sampling.eval().requires_grad_(False)
        sampling.sample(1)  # parts that do not fit each other are found here, not at their first use
    except UserError:
        raise
    except Exception as error:  # hand-edited or damaged files raise whatever their parts raise
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(f"{path}: cannot be read as a generator: {reason}") from error
    return sampling


def _build(config: dict[str, Any], allowed: Iterable[str], key: str) -> Any:
    found = trusted_class(config["_target_"], allowed, key=f"{key}._target_")
    return found(**{name: value for name, value in config.items() if name != "_target_"})
