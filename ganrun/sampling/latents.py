"""Points of a generator's latent spaces, in memory and in a file, from which the same images are made again."""

import json
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ganrun.errors import UserError, first_line
from ganrun.files.storage import replacing
from ganrun.sampling.generator import SamplingGenerator
from ganrun.styles import style_based

SPACES = ("z", "w", "w+")  # the noise; one style for all layers; one for each layer


@dataclass(frozen=True)
class Latents:
    """Points of a latent space, on the CPU.

    values: z (num, z_dim), w (num, w_dim) or w+ (num, num_styles, w_dim)
    labels: (num, ...) as networks see them, for z of a conditional generator; None without
    names:  of the images that they stand for
    about:  how they were found, in plain containers
    """

    values: Tensor
    space: str = "z"
    labels: Tensor | None = None
    names: Sequence[str] = ()
    about: dict[str, Any] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.values)

    def __getitem__(self, rows: Any) -> "Latents":
        """Some of them; without names."""
        return Latents(self.values[rows], self.space, None if self.labels is None else self.labels[rows])

    def check(self, sampling: SamplingGenerator, where: str) -> None:
        """Raises UserError unless they are this generator's. where: where they come from, for messages."""
        if (got := tuple(self.values.shape[1:])) != (expected := shape_of(sampling, self.space, where)):
            told = ["x".join(map(str, each)) for each in (got, expected)]
            raise UserError(f"{where}: {self.space} has {told[0]} numbers, but this generator's {told[1]}")
        conditional = bool(sampling.classes or sampling.attributes)
        if self.space == "z" and (self.labels is not None) != conditional:
            kinds = ("an unconditional", "a conditional")
            raise UserError(f"{where}: of {kinds[not conditional]} generator, and this is {kinds[conditional]} one")
        most = len(sampling.classes)
        if self.labels is not None and most and not 0 <= self.labels.min() <= self.labels.max() < most:
            raise UserError(f"{where}: expected labels from 0 to {most - 1}, this generator's classes")

    def images(
        self, sampling: SamplingGenerator, truncation: float | None = None, truncation_cutoff: int | None = None
    ) -> Tensor:
        """One forward pass -> (num, C, H, W) in [-1, 1], on the CPU. truncation: in w; None = off."""
        truncated = {"truncation": truncation, "truncation_cutoff": truncation_cutoff}
        if self.space == "z":
            if truncation is not None and not sampling.in_w:
                raise UserError(f"truncation={truncation}: these latents are given, not drawn; leave it out")
            return sampling.decode(self.values, self.labels, **truncated)
        return sampling.synthesise(self.styles(sampling, **truncated))

    def styles(
        self, sampling: SamplingGenerator, truncation: float | None = None, truncation_cutoff: int | None = None
    ) -> Tensor:
        """(num, num_styles, w_dim) on the generator's device."""
        if self.space == "z":
            return sampling.styles(self.values, self.labels, truncation, truncation_cutoff)
        network = sampling.generator
        found = as_styles(self.values.to(network.w_mean.device), network.num_styles)
        return found if truncation is None else network.truncated(found, truncation, truncation_cutoff)


def shape_of(sampling: SamplingGenerator, space: str, where: str) -> tuple[int, ...]:
    """Of one latent. Raises UserError where a generator has no such space."""
    if space == "z":
        return (sampling.noise.z_dim,)
    network = style_based(sampling.generator, f"{where}, of {space}", "give latents of z")
    return (network.num_styles, *network.w_mean.shape) if space == "w+" else tuple(network.w_mean.shape)


def as_styles(values: Tensor, num_styles: int) -> Tensor:
    """w (num, w_dim) or w+ (num, num_styles, w_dim) -> w+."""
    return values if values.dim() == 3 else values[:, None].expand(-1, num_styles, -1)


def decode(sampling: SamplingGenerator, values: Tensor, space: str, labels: Tensor | None = None) -> Tensor:
    """Values as in Latents -> (num, C, H, W) in [-1, 1], all on the generator's device, with their graph."""
    network, (low, high) = sampling.generator, sampling.value_range
    made = network(values, labels) if space == "z" else network.synthesis(as_styles(values, network.num_styles))
    return (made - low) * (2 / (high - low)) - 1


def save(path: Path, found: Latents, **columns: Sequence[float]) -> None:
    """Writes an .npz that needs no pickle: latents, space, labels, names, about (JSON), and further columns.

    Raises CannotWrite.
    """
    arrays = {"latents": found.values.numpy(), "space": np.array(found.space), "names": np.array(found.names, str)}
    arrays |= {} if found.labels is None else {"labels": found.labels.numpy()}
    arrays |= {name: np.array(column, np.float32) for name, column in columns.items()}
    write_npz(path, arrays | {"about": np.array(json.dumps(found.about))})


def write_npz(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """The same arrays make the same bytes. Raises CannotWrite."""
    with replacing(path) as file, zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        for name, values in arrays.items():
            with archive.open(zipfile.ZipInfo(f"{name}.npy"), "w") as member:  # dated 1980
                np.lib.format.write_array(member, values, allow_pickle=False)


def load(path: Path, where: str) -> Latents:
    """What `save` wrote. where: how the user named it. Raises UserError."""
    try:
        with np.load(path, allow_pickle=False) as file:
            read = {name: file[name] for name in ("latents", "space", "names", "labels", "about") if name in file.files}
        labels = torch.from_numpy(read["labels"]) if "labels" in read else None
        values, space = torch.from_numpy(read["latents"]).float(), str(read["space"])
        about, names = json.loads(str(read["about"])), list(map(str, read["names"]))
    except Exception as error:  # foreign files raise many kinds
        told = "expected a latents.npz of ganrun project or directions"
        raise UserError(f"{where} cannot be read: {first_line(error)}; {told}") from error
    if space not in SPACES or values.dim() not in (2, 3) or not len(values) or not values.isfinite().all():
        raise UserError(f"{where}: expected finite latents of a space out of {', '.join(SPACES)}")
    if labels is not None and len(labels) != len(values):
        raise UserError(f"{where}: {len(values)} latents, but {len(labels)} labels")
    return Latents(values, space, labels, names, about)
