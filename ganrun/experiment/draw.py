"""Makes what `ganrun sample` was asked for."""

import sys
from collections.abc import Iterator

import torch
from PIL import Image
from torch import Tensor

from ganrun.classes import by_number, spaced
from ganrun.errors import NotFinite, UserError
from ganrun.experiment.hardware import device_named, is_out_of_memory
from ganrun.experiment.of_checkpoint import open_generator
from ganrun.experiment.sample_check import FOLDER, Request, check_vectors
from ganrun.pictures import grid, heads, most_classes, scatter
from ganrun.progress import tracked
from ganrun.sampling.files import write_folder, write_npz, write_zip
from ganrun.sampling.films import write_gif, write_mp4
from ganrun.sampling.generator import SamplingGenerator
from ganrun.sampling.interpolation import walk
from ganrun.storage import replacing

IMAGES, POINTS, WALKS, ROWS = 64, 2000, 16, 8  # what num=null means
IN_PICTURE = 10_000  # images in a grid
IN_FILM = 20_000  # frames
MOST_COLUMNS = 100  # of classes in a grid; of more, and so of a longer label=[...], a square without headings
FPS = 24


def draw(request: Request) -> None:
    """Writes what was asked for. Raises UserError, CannotWrite, NotFinite."""
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
    for note in sampling.ambiguities(request.label):
        print(f"note: {note}", file=sys.stderr)
    return sampling.to(device)


def files(request: Request, sampling: SamplingGenerator) -> None:
    """A folder, .zip or .npz, batch by batch."""
    write = {FOLDER: write_folder, ".zip": write_zip, ".npz": write_npz}[request.kind]
    num = request.num or (POINTS if sampling.value_range is None else IMAGES)
    made = batches(request, sampling, num, sampling.turn(request.label))
    write(request.out, made, num=num, classes=sampling.classes)


def picture(request: Request, sampling: SamplingGenerator) -> None:
    """A grid with a column for each class that is drawn in turn; a scatter plot of vectors."""
    if sampling.value_range is None:
        save(scatter(samples(request, sampling, request.num or POINTS, sampling.turn(request.label))), request)
        return
    num, size = request.num or IMAGES, sampling.sample(1).shape[-2:]
    turn, names, columns = classes_in_turn(request, sampling, most_classes(num, size)), None, max(1, round(num**0.5))
    if turn is not None and len(turn) > 1:
        num = request.num or max(1, num // len(turn)) * len(turn)  # whole rows, and each class that was asked for
        columns, names = min(num, len(turn)), heads(sampling.classes, turn.tolist())
    if columns > MOST_COLUMNS:
        columns, names = max(1, round(num**0.5)), None
    check_room(num)
    made = samples(request, sampling, num, turn)
    save(grid(made / 2 + 0.5, columns=columns, names=names), request)


def classes_in_turn(request: Request, sampling: SamplingGenerator, most: int) -> Tensor | None:
    """The classes that were asked for; else all, in the order to show them, or `most` that are evenly spaced."""
    if request.label is not None or not sampling.classes:
        return sampling.turn(request.label)
    found = spaced(by_number(sampling.classes), most)
    if len(found) < len(sampling.classes) and most > 1:
        told = f"{len(found)} of {len(sampling.classes)} classes, evenly spaced; label=[...] chooses others"
        print(f"note: the picture shows {told}", file=sys.stderr)
    return torch.tensor(found)


def interpolation(request: Request, sampling: SamplingGenerator) -> None:
    """A film of several walks beside each other; in a .png a row for each way from one key to the next."""
    still = request.kind == ".png"
    frames, walks = request.frames or (8 if still else FPS), request.num or (1 if still else WALKS)
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
        turn=classes_in_turn(request, sampling, walks),
        truncation=request.truncation,
        batch_size=request.batch_size,
    )
    finite = (checked(images, request) for images in steps)
    if still:
        every = torch.stack(list(finite), 1)  # (walks, frames of all ways, C, H, W)
        rows = every.unfold(1, frames + 1, frames).movedim(-1, 2)  # a key ends one row and begins the next
        save(grid(rows.flatten(0, 2) / 2 + 0.5, columns=frames + 1), request)
        return
    pictures = (grid(images / 2 + 0.5, columns=columns) for images in finite)
    write = {".gif": write_gif, ".mp4": write_mp4}[request.kind]
    frame = tracked(pictures, request.interpolate * frames, "drawing", "frames")
    write(request.out, frame, fps=request.fps or FPS)


def neighbours(request: Request, sampling: SamplingGenerator) -> None:
    """A row for each sample: itself, then its nearest training images."""
    from ganrun.experiment.neighbours import beside_neighbours
    from ganrun.experiment.of_run import data_of  # all that opens a data set

    num = request.num or ROWS
    check_room(num * (1 + request.neighbours))
    made = samples(request, sampling, num, classes_in_turn(request, sampling, num))
    data = data_of(request.run, trust=request.trust, data_dir=request.data_dir)
    rows, _ = beside_neighbours(made, data, request.neighbours)
    names = ["sample", "nearest", *(f"{i}." for i in range(2, request.neighbours + 1))]
    save(grid(rows.flatten(0, 1) / 255, columns=1 + request.neighbours, names=names), request)


def check_room(images: int) -> None:
    if images > IN_PICTURE:
        raise UserError(f"num=: one picture holds at most {IN_PICTURE:,} images, these would be {images:,}; give less")


def batches(
    request: Request, sampling: SamplingGenerator, num: int, turn: Tensor | None
) -> Iterator[tuple[Tensor, Tensor | None]]:
    """The samples that were asked for. turn: the classes that they go through."""
    made = sampling.batches(num, request.seed, turn, truncation=request.truncation, batch_size=request.batch_size)
    made = tracked(made, num, "sampling", "samples", size=lambda part: len(part[0]))
    return ((checked(samples, request), labels) for samples, labels in made)


def samples(request: Request, sampling: SamplingGenerator, num: int, turn: Tensor | None) -> Tensor:
    """All at once."""
    return torch.cat([part for part, _ in batches(request, sampling, num, turn)])


def checked(images: Tensor, request: Request) -> Tensor:
    """The same images; 8 bits would hide NaN and infinity."""
    if not images.isfinite().all():
        raise NotFinite(f"{request.file}: this generator makes NaN or infinity")
    return images


def save(drawn: Image.Image, request: Request) -> None:
    with replacing(request.out) as file:
        drawn.save(file, format="PNG")
