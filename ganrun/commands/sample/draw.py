"""Makes the output of `ganrun sample`."""

import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from PIL import Image
from torch import Tensor

from ganrun.attributes import headings, in_turn, in_units
from ganrun.classes import by_number, spaced
from ganrun.commands.sample.request import FOLDER, Request, check_vectors
from ganrun.commands.sample.sampler import give_sampler
from ganrun.depth import largest
from ganrun.errors import NotFinite, UserError, is_out_of_memory
from ganrun.files.storage import replacing
from ganrun.pictures import grid, heads, most_classes, scatter
from ganrun.progress import tracked
from ganrun.sampling.codes import headings as code_headings
from ganrun.sampling.files import check_channels, write_folder, write_npy, write_npz, write_zip
from ganrun.sampling.films import write_gif, write_mp4
from ganrun.sampling.generator import SamplingGenerator
from ganrun.sampling.interpolation import walk
from ganrun.sampling.latents import load as load_latents
from ganrun.training.hardware import device_named
from ganrun.training.of_checkpoint import open_generator

IMAGES, POINTS, WALKS, ROWS = 64, 2000, 16, 8  # what num=null means
IN_PICTURE = 10_000  # images in a grid
IN_FILM = 20_000  # frames
MOST_COLUMNS = 100  # classes in a grid; more classes, or a longer label=[...], give a square without headings
FPS = 24


def draw(request: Request) -> None:
    """Writes the requested output. Raises UserError, CannotWrite, NotFinite."""
    sampling = load(request)
    try:
        if request.interpolate is not None:
            interpolation(request, sampling)
        elif request.neighbours is not None:
            neighbours(request, sampling)
        elif request.kind == ".png":
            picture(request, sampling)
        else:
            files(request, sampling)
    except (RuntimeError, MemoryError) as error:
        if is_out_of_memory(error):
            text = f"batch_size={request.batch_size}: so many images need more memory than there is; give less"
            raise UserError(text) from error
        raise


def load(request: Request) -> SamplingGenerator:
    """The generator on its device."""
    device = device_named(request.device)
    sampling = open_generator(request.file, request.run, trust=request.trust)
    if not isinstance(sampling, SamplingGenerator):
        raise UserError(f"from={request.file}: this generator turns images into images; use ganrun translate")
    if sampling.value_range is None:
        check_vectors(request)
    for remark in sampling.ambiguities(request.label):
        note(remark)
    sampling.to(device)
    if request.latents is not None:
        where = f"latents={request.latents}"
        given = load_latents(Path(request.latents).expanduser(), where)
        given.check(sampling, where)
        sampling.latents = given
    if request.standing is not None:
        sampling.stand(request.standing, **truncated(request))
    give_sampler(sampling, request.sampler, request.file, request.run, request.trust)
    return sampling


def number(request: Request, sampling: SamplingGenerator, default: int) -> int:
    """Of samples; by default as many as there are latents, if they are given. Raises UserError."""
    if sampling.latents is None:
        return request.num or default
    there = len(sampling.latents)
    if (request.num or 0) > there:
        raise UserError(f"num={request.num}; expected at most {there}, the latents in {request.latents}")
    return request.num or there


def truncated(request: Request) -> dict[str, Any]:
    return {"truncation": request.truncation, "truncation_cutoff": request.truncation_cutoff}


def files(request: Request, sampling: SamplingGenerator) -> None:
    """A folder, .zip or .npz, batch by batch."""
    write = {FOLDER: write_folder, ".zip": write_zip, ".npz": write_npz, ".npy": write_npy}[request.kind]
    num = number(request, sampling, POINTS if sampling.value_range is None else IMAGES)
    made = batches(request, sampling, num, sampling.turn(request.label))
    if sampling.value_range is not None and request.kind in (FOLDER, ".zip"):
        check_channels(request.out, sampling.sample(1).shape[1])
    labelled = sampling.latents is None or sampling.latents.labels is not None
    classes, attributes = (sampling.classes, sampling.attributes) if labelled else ([], [])
    if request.kind == ".npy" and (classes or attributes):
        note("an .npy holds no labels; an .npz does")
    write(request.out, made, num=num, classes=classes, attributes=attributes, depth=sampling.depth)


def picture(request: Request, sampling: SamplingGenerator) -> None:
    """A grid with a column for each class or vector that is drawn in turn; a scatter plot of points."""
    if sampling.value_range is None:
        made = samples(request, sampling, number(request, sampling, POINTS), sampling.turn(request.label))
        save(scatter(made), request)
        return
    num = request.num if sampling.latents is None else number(request, sampling, IMAGES)
    plan = layout(sampling, request.label, num, sampling.sample(1).shape[-2:], note)
    check_room(plan.num)
    made = samples(request, sampling, plan.num, plan.turn)
    save(plan.drawn(made, sampling), request)


class Layout(NamedTuple):
    """Of a grid. turn: the classes or vectors that samples go through. names: of the columns."""

    num: int
    turn: Tensor | None
    columns: int
    names: list[str] | None

    def drawn(self, made: Tensor, sampling: SamplingGenerator) -> Image.Image:
        """Images (num, C, H, W) in [-1, 1] as a picture."""
        return grid(made / 2 + 0.5, columns=self.columns, names=self.names, shown=sampling.shown)


def layout(
    sampling: SamplingGenerator, label: Any, given: int | None, size: Sequence[int], tell: Callable[[str], None]
) -> Layout:
    """A column for each class or vector that is drawn in turn. given: the number of images, None = about IMAGES.

    size: of an image, (H, W). tell: is told what the user should know.
    """
    num = given or IMAGES
    turn = classes_in_turn(label, sampling, most_classes(num, size), tell)
    names, columns = None, max(1, round(num**0.5))
    if turn is not None and len(turn) > 1:
        num = given or max(1, num // len(turn)) * len(turn)  # whole rows, and every requested class
        columns, names = min(num, len(turn)), headed(sampling, turn, tell)
    if columns > MOST_COLUMNS:
        columns, names = max(1, round(num**0.5)), None
    return Layout(num, turn, columns, names)


def note(text: str) -> None:
    print(f"note: {text}", file=sys.stderr)


def headed(sampling: SamplingGenerator, turn: Tensor, tell: Callable[[str], None]) -> list[str]:
    """The headings of a grid's columns."""
    if sampling.codes:
        return code_headings(turn, sampling.codes)
    if not sampling.attributes:
        return heads(sampling.classes, turn.tolist())
    values = in_units(turn, sampling.attributes)
    varying = in_turn(sampling.attributes, values)
    tell(f"the columns are values of {varying or 'several attributes'}")
    return headings(values)


def classes_in_turn(
    label: Any, sampling: SamplingGenerator, most: int, tell: Callable[[str], None] = note
) -> Tensor | None:
    """The requested classes or vectors; by default all classes, in display order, or `most` evenly spaced ones.

    None for latents, which have their own.
    """
    if sampling.latents is not None:
        return None
    if label is None and sampling.codes and not sampling.sampler:  # which would choose the code, too
        return sampling.turn(sampling.codes.names[0])
    if label is not None or not sampling.classes:
        return sampling.turn(label)
    found = spaced(by_number(sampling.classes), most)
    if len(found) < len(sampling.classes) and most > 1:
        told = f"{len(found)} of {len(sampling.classes)} classes, evenly spaced; label=[...] chooses others"
        tell(f"the picture shows {told}")
    return torch.tensor(found)


def interpolation(request: Request, sampling: SamplingGenerator) -> None:
    """A film of several walks side by side; in a .png, a row for each step from one key to the next."""
    still = request.kind == ".png"
    frames, walks = request.frames or (8 if still else FPS), request.num or (1 if still or sampling.latents else WALKS)
    if sampling.latents is not None and walks * request.interpolate > len(sampling.latents):
        told = f"{walks * request.interpolate} keys, but {len(sampling.latents)} latents in {request.latents}"
        raise UserError(f"interpolate={request.interpolate}: {told}")
    columns = max(1, round(walks**0.5))
    check_room(walks * (request.interpolate - 1) * (frames + 1) if still else walks)
    if not still and request.interpolate * frames > IN_FILM:
        raise UserError(f"interpolate={request.interpolate} frames={frames}: a film holds at most {IN_FILM:,} frames")
    steps = walk(
        sampling,
        walks=walks,
        keys=request.interpolate,
        frames=frames,
        closed=not still,
        seed=request.seed,
        turn=classes_in_turn(request.label, sampling, walks),
        space=request.space,
        **truncated(request),
        batch_size=request.batch_size,
    )
    finite = (checked(images, request) for images in steps)
    if still:
        every = torch.stack(list(finite), 1)  # (walks, frames, C, H, W)
        rows = every.unfold(1, frames + 1, frames).movedim(-1, 2)  # a key ends one row and begins the next
        save(grid(rows.flatten(0, 2) / 2 + 0.5, columns=frames + 1, shown=sampling.shown), request)
        return
    pictures = (grid(images / 2 + 0.5, columns=columns, shown=sampling.shown) for images in finite)
    write = {".gif": write_gif, ".mp4": write_mp4}[request.kind]
    frame = tracked(pictures, request.interpolate * frames, "drawing", "frames")
    write(request.out, frame, fps=request.fps or FPS)


def neighbours(request: Request, sampling: SamplingGenerator) -> None:
    """A row for each sample: itself, then its nearest training images."""
    from ganrun.commands.sample.neighbours import beside_neighbours
    from ganrun.training.saved_run import data_of  # imports everything that opens a data set

    num = number(request, sampling, ROWS)
    check_room(num * (1 + request.neighbours))
    made = samples(request, sampling, num, classes_in_turn(request.label, sampling, num))
    data = data_of(request.run, trust=request.trust, data_dir=request.data_dir)
    rows, _ = beside_neighbours(made, data, request.neighbours)
    names = ["sample", "nearest", *(f"{i}." for i in range(2, request.neighbours + 1))]
    pixels = rows.flatten(0, 1)
    save(grid(pixels / largest(pixels), columns=1 + request.neighbours, names=names, shown=sampling.shown), request)


def check_room(images: int) -> None:
    if images > IN_PICTURE:
        raise UserError(f"num=: one picture holds at most {IN_PICTURE:,} images, these would be {images:,}; give less")


def batches(
    request: Request, sampling: SamplingGenerator, num: int, turn: Tensor | None
) -> Iterator[tuple[Tensor, Tensor | None]]:
    """The requested samples. turn: the classes that they go through."""
    made = sampling.batches(num, request.seed, turn, **truncated(request), batch_size=request.batch_size)
    made = tracked(made, num, "sampling", "samples", size=lambda part: len(part[0]))
    return ((checked(samples, request), labels) for samples, labels in made)


def samples(request: Request, sampling: SamplingGenerator, num: int, turn: Tensor | None) -> Tensor:
    """All samples at once."""
    return torch.cat([part for part, _ in batches(request, sampling, num, turn)])


def checked(images: Tensor, request: Request) -> Tensor:
    """The same images. Raises NotFinite for NaN and infinity, which 8 bits would hide."""
    if not images.isfinite().all():
        raise NotFinite(f"{request.file}: this generator makes NaN or infinity")
    return images


def save(drawn: Image.Image, request: Request) -> None:
    with replacing(request.out) as file:
        drawn.save(file, format="PNG")
