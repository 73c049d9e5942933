"""Makes the output of `ganrun project`."""

import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from rich.table import Table
from torch import Tensor

from ganrun.commands.project.request import AUTO, NONE, Request
from ganrun.commands.translate.images import decoded, find, outputs, why, write
from ganrun.data.files import Folder, Zip, printable
from ganrun.data.formats import quiet
from ganrun.depth import to_numbers
from ganrun.errors import NotFinite, UserError, is_out_of_memory
from ganrun.files.storage import replacing, writing
from ganrun.networks.frozen import LITE0, FrozenFeatures, path_of_lite0
from ganrun.pictures import side_by_side
from ganrun.progress import console, tracked
from ganrun.sampling.files import check_channels
from ganrun.sampling.generator import SamplingGenerator
from ganrun.sampling.latents import save
from ganrun.sampling.projection import Projected, project
from ganrun.styles import style_based
from ganrun.training.hardware import device_named
from ganrun.training.of_checkpoint import open_generator

FOUND, BESIDE, LATENTS = "found", "beside", "latents.npz"  # in the output folder


def projecting(request: Request) -> dict[str, str]:
    """Writes the folder; returns the reason for each image that was left out. Raises UserError, CannotWrite."""
    sampling = load(request)
    space = space_of(request, sampling)
    shape = tuple(sampling.sample(1).shape[1:])
    check_channels(request.out, shape[0])
    features = features_of(request, shape[0])
    settings = {"steps": request.steps, "lr": request.lr, "seed": request.seed, "weight": request.features_weight}
    given = {"space": space, "label": label_of(request, sampling), "features": features} | settings
    place, listing = find(request.input)
    places, faults = outputs(Path(), listing.files), dict(listing.faults)
    parts, names = [], tracked(sorted(places), len(places), "projecting")
    for images, some in batches(request, place, names, shape, sampling.depth, faults):
        try:
            found = project(sampling, images, some, **given)
        except (RuntimeError, MemoryError) as error:
            if is_out_of_memory(error):
                text = f"batch_size={request.batch_size}: so many images need more memory than there is; give less"
                raise UserError(text) from error
            raise
        if not found.images.isfinite().all():
            raise NotFinite(f"{request.file}: this generator makes NaN or infinity of what was found")
        write_pictures(request, found, images, [places[name] for name in some], sampling)
        parts.append(found)
    faults = {printable(name): reason for name, reason in faults.items()}
    if not parts:
        name, reason = next(iter(faults.items()))
        more = f" (and {len(faults) - 1:,} more)" if len(faults) > 1 else ""
        raise UserError(f"input={request.input}: no image could be projected; {name}: {reason}{more}")
    about = settings | {"from": str(request.file), "features": said(features, request), "label": request.label}
    whole = joined(parts, about)
    save(request.out / LATENTS, whole.latents, before=whole.before, after=whole.after)
    show(whole, sampling, about["features"])
    return faults


def load(request: Request) -> SamplingGenerator:
    """The generator on its device."""
    device = device_named(request.device)
    sampling = open_generator(request.file, request.run, trust=request.trust)
    if not isinstance(sampling, SamplingGenerator):
        raise UserError(f"from={request.file}: this generator turns images into images; it has no latents")
    if sampling.value_range is None:
        raise UserError(f"from={request.file}: this generator makes vectors; expected one of images")
    return sampling.to(device)


def space_of(request: Request, sampling: SamplingGenerator) -> str:
    if request.space in ("w", "w+"):
        style_based(sampling.generator, f"space={request.space}", "give space=z")
    return request.space or ("w" if sampling.in_w else "z")


def label_of(request: Request, sampling: SamplingGenerator) -> Tensor | None:
    """(1, ...) as the network sees it. Raises UserError."""
    if request.label is None:
        return None
    if sampling.codes:
        raise UserError(f"label={request.label}: codes are a part of z, which is sought; leave it out")
    turn = sampling.turn(request.label)
    if len(turn) != 1:
        raise UserError(f"label={request.label}: it is one for all images; expected a single one")
    for note in sampling.ambiguities(request.label):
        print(f"note: {note}", file=sys.stderr)
    return turn


def features_of(request: Request, channels: int) -> FrozenFeatures | None:
    """The network whose features are compared; None = pixels alone, which is said unless it was asked for."""
    if request.features == NONE:
        return None
    name = LITE0 if request.features == AUTO else request.features
    try:
        if request.features == AUTO:
            path_of_lite0()
        if channels not in (1, 3):
            raise UserError(f"features={name}: images of {channels} channels; expected 1 or 3; give features=none")
        return FrozenFeatures(name, request.weights).to(device_named(request.device))
    except UserError as error:
        if request.features != AUTO:
            raise
        print(f"note: pixels alone are compared; {error}", file=sys.stderr)
        return None


def said(features: FrozenFeatures | None, request: Request) -> str:
    if features is None:
        return NONE
    return LITE0 if request.features == AUTO else request.features


def batches(
    request: Request, place: Folder | Zip, names: Iterator[str], shape: Sequence[int], depth: int, faults: dict
) -> Iterator[tuple[Tensor, list[str]]]:
    """Images (num, C, H, W) in [-1, 1] and their names; the reasons for those that cannot be read go into faults."""
    images: list[Tensor] = []
    some: list[str] = []
    for name in names:
        try:
            with quiet(request.max_pixels):
                content = place.read(name)
                image = decoded(content, shape[0], request.max_pixels, depth, to=tuple(shape[1:]), fit=request.fit)
        except Exception as error:  # decoders raise many kinds
            told = why(error)
            faults[name] = told + ("; fit=crop, pad or resize fits it" if "; expected " in told else "")
            continue
        images.append(to_numbers(image))
        some.append(name)
        if len(some) == request.batch_size:
            yield torch.stack(images), some
            images, some = [], []
    if some:
        yield torch.stack(images), some


def write_pictures(
    request: Request, found: Projected, images: Tensor, places: list[Path], sampling: SamplingGenerator
) -> None:
    """For each image its reconstruction, and a picture of both, under the same name. Raises CannotWrite."""
    for target, made, path in zip(images, found.images, places, strict=True):
        write(made[None], request.out / FOUND / path, sampling.depth)
        beside = request.out / BESIDE / path
        with writing(beside):
            beside.parent.mkdir(parents=True, exist_ok=True)
        pair = [(each[None] / 2 + 0.5).clamp(0, 1) for each in (target, made)]
        with replacing(beside, sync=False) as file:
            side_by_side(pair, ["target", "found"]).save(file, format="PNG")


def joined(parts: list[Projected], about: dict[str, Any]) -> Projected:
    latents = [part.latents for part in parts]
    labels = None if latents[0].labels is None else torch.cat([each.labels for each in latents])
    names = [name for each in latents for name in each.names]
    values = torch.cat([each.values for each in latents])
    whole = replace(latents[0], values=values, labels=labels, names=names, about=about)
    before, after = ([x for part in parts for x in getattr(part, name)] for name in ("before", "after"))
    return Projected(whole, torch.cat([part.images for part in parts]), before, after)


def show(found: Projected, sampling: SamplingGenerator, features: str) -> None:
    """The table of distances."""
    latents, classes = found.latents, sampling.classes if found.latents.labels is not None else []
    table = Table("image", *(["class"] if classes else []), "before", "after")
    for i, name in enumerate(latents.names):
        label = [classes[latents.labels[i]]] if classes else []
        table.add_row(printable(name), *label, f"{found.before[i]:.4g}", f"{found.after[i]:.4g}")
    console().print(table)
    what = "pixels alone" if features == NONE else f"pixels and features of {features}"
    console().print(f"distance of {what}; the latents are {latents.space}")
