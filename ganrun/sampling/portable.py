"""A generator as one graph of plain operations, with what one must know to feed it: for files that need no ganrun."""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.export import Dim
from torch.nn.utils.parametrize import is_parametrized, remove_parametrizations

from ganrun.attributes import Attribute
from ganrun.networks.modulated import Modulated
from ganrun.noise import Codes, Noise
from ganrun.sampling.generator import SamplingGenerator
from ganrun.sampling.translator import Translator
from ganrun.seeding import rng_for

BATCHES = (1, 2, 5)  # sizes that are tried
CHUNK = 16  # labels a pass
PSI = (1.0, 0.7)  # values that are tried


class Samples(nn.Module):
    """z (batch, z_dim), label (batch, ...) or None, psi () or None -> samples as load_generator's, images in [-1, 1].

    psi: of a style-based generator, truncates the first `cutoff` styles, None = all; 1 = off
    """

    def __init__(self, sampling: SamplingGenerator, cutoff: int | None):
        super().__init__()
        self.generator, self.value_range, self.cutoff = sampling.generator, sampling.value_range, cutoff

    def forward(self, z: Tensor, label: Tensor | None = None, psi: Tensor | None = None) -> Tensor:
        if psi is None:
            return to_unit(self.generator(z, label), self.value_range)
        styles = self.generator.truncated(self.generator.styles(z, label), psi, self.cutoff)
        return to_unit(self.generator.synthesis(styles), self.value_range)


class Translated(nn.Module):
    """images (batch, C, H, W) in [-1, 1] -> translated ones, in one direction."""

    def __init__(self, translator: Translator, direction: str):
        super().__init__()
        self.network, self.value_range = getattr(translator, direction), translator.value_range

    def forward(self, images: Tensor) -> Tensor:
        low, high = self.value_range
        taken = images if (low, high) == (-1, 1) else (images + 1) * ((high - low) / 2) + low
        return to_unit(self.network(taken), self.value_range)


def to_unit(samples: Tensor, value_range: Sequence[float] | None) -> Tensor:
    """From `value_range` to [-1, 1]; vectors, which have no range, as they are."""
    if value_range is None or tuple(value_range) == (-1, 1):
        return samples
    low, high = value_range
    return (samples - low) * (2 / (high - low)) - 1


class Graph(NamedTuple):
    """network: takes the inputs by name. cases: inputs that show whether a copy agrees, the first one for tracing.

    dynamic: for each input, the dimensions that may have any size. about: see `described`
    """

    network: nn.Module
    cases: list[dict[str, Tensor]]
    dynamic: dict[str, dict[int, Any]]
    about: dict[str, Any]

    @property
    def output(self) -> str:
        return "samples" if "z" in self.dynamic else "translated"


def of_samples(sampling: SamplingGenerator, cutoff: int | None = None) -> Graph:
    """z, if conditional `label`, and if style-based `psi` -> samples."""
    network, cases = Samples(sampling, cutoff), list(drawn(sampling))
    dynamic = {name: {0: Dim("batch")} if value.dim() else {} for name, value in cases[0].items()}
    return Graph(network, cases, dynamic, described(sampling) | _truncation(sampling, cutoff))


def drawn(sampling: SamplingGenerator) -> Iterator[dict[str, Tensor]]:
    """Inputs: batches of several sizes, then all classes or the values of an attribute; each value of psi in turn."""
    rng, turn = rng_for("portable"), None if sampling.codes else sampling.turn()
    labels = [None if turn is None else sampling.any_labels(num, rng) for num in reversed(BATCHES)]
    labels += [] if turn is None else turn.split(CHUNK)
    sizes = [*reversed(BATCHES), *map(len, labels[len(BATCHES) :])]
    for i, (num, label) in enumerate(zip(sizes, labels, strict=True)):
        psi = {"psi": torch.tensor(PSI[i % len(PSI)])} if sampling.in_w else {}
        yield {"z": sampling.noise(num, rng)["z"]} | ({} if label is None else {"label": label}) | psi


def of_translation(translator: Translator, direction: str | None = None) -> Graph:
    """images -> translated, of any height and width that the network takes."""
    name = translator.direction(direction)
    network = getattr(translator, name)
    multiple, least = getattr(network, "multiple", 1), getattr(network, "least", 1)
    fewest = max(1, -(-least // multiple))
    channels, rng = translator.channels[name].source, rng_for("portable")
    sides = (
        (multiple * (fewest + 1), multiple * (fewest + 2)),
        (multiple * fewest,) * 2,
        (multiple * (fewest + 3),) * 2,
    )
    cases = [
        {"images": torch.rand(num, channels, *size, generator=rng) * 2 - 1}
        for num, size in zip(reversed(BATCHES), sides, strict=True)
    ]
    height, width = (multiple * Dim(side, min=fewest) for side in ("height", "width"))
    about = common(translator) | {
        "direction": name,
        "images": {"channels": channels, "multiple": multiple, "least": least},
    }
    return Graph(Translated(translator, name), cases, {"images": {0: Dim("batch"), 2: height, 3: width}}, about)


def described(sampling: SamplingGenerator) -> dict[str, Any]:
    """What is needed to sample, in plain containers.

    noise:       its distribution (normal, uniform; codes: normal, then one-hot categorical codes, then continuous ones
                 in [-1, 1]) and the size of z
    classes:     their names; label is an index of them
    attributes:  label holds (value - zero) / scale of each
    value_range: of the samples, null for vectors
    depth:       bits of a pixel that the images are meant to have
    trained:     on which data, for how many steps
    """
    attributes = [attribute(one) for one in sampling.attributes]
    labels = {"classes": sampling.classes, "attributes": attributes}
    return common(sampling) | {"noise": distribution(sampling.noise), **labels}


def common(made: SamplingGenerator | Translator) -> dict[str, Any]:
    from ganrun import __version__

    range_ = None if made.value_range is None else [-1, 1]
    return {"ganrun": __version__, "value_range": range_, "depth": made.depth, "trained": made.trained}


def distribution(noise: Noise) -> dict[str, Any]:
    codes = {"categorical": noise.categorical, "continuous": noise.continuous} if isinstance(noise, Codes) else {}
    return {"distribution": type(noise).__name__.lower(), "size": noise.z_dim, **codes}


def attribute(one: Attribute) -> dict[str, Any]:
    return {key: getattr(one, key) for key in ("name", "kind", "zero", "scale", "low", "high")}


def _truncation(sampling: SamplingGenerator, cutoff: int | None) -> dict[str, Any]:
    """Where truncation happens: psi in w, or in z, whose larger numbers are drawn again."""
    return {"truncation": "psi", "truncation_cutoff": cutoff} if sampling.in_w else {"truncation": "z"}


def simplify(network: nn.Module) -> None:
    """Replaces parametrised weights by what they are in eval mode, and grouped convolutions of a batch by plain ones.

    Outputs stay the same up to rounding. The network must be in eval mode, and cannot be trained any more.
    """
    for module in network.modules():
        for name in list(module.parametrizations) if is_parametrized(module) else ():
            remove_parametrizations(module, name)
        if isinstance(module, Modulated):
            module.form = "activations"
    network.requires_grad_(False)
