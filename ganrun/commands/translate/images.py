"""Makes the output of `ganrun translate`."""

import os
import re
from collections import Counter
from pathlib import Path, PurePosixPath

from torch import Tensor

from ganrun.commands.sample.request import Translation
from ganrun.data.files import Folder, Listing, Zip, file_fault, printable, source
from ganrun.data.formats import is_deep_colour, opened, orientation, quiet
from ganrun.data.levels import Seen, check
from ganrun.data.modes import is_deep
from ganrun.data.pixels import SIDEWAYS, Decoding, Fit
from ganrun.depth import to_numbers
from ganrun.errors import UserError, is_out_of_memory, reason_of
from ganrun.files.storage import replacing, writing
from ganrun.progress import tracked
from ganrun.sampling.files import CHANNELS, channels_last, png
from ganrun.sampling.translator import Translator
from ganrun.training.hardware import device_named
from ganrun.training.of_checkpoint import open_generator


def translate(request: Translation) -> dict[str, str]:
    """Writes a PNG for each image; returns the reason for each one that failed. Raises UserError, CannotWrite."""
    translator = load(request)
    check_channels(translator, request)
    found, listing = find(request.input)
    if request.out.suffix and len(listing.files) > 1:
        raise UserError(f"out={request.out}: {len(listing.files)} images need a folder; leave out the ending")
    places = {name: request.out for name in listing.files} if request.out.suffix else {}
    places = places or outputs(request.out, listing.files)
    check_free(request, found, places)
    faults, written = dict(listing.faults), 0
    with quiet(request.max_pixels):
        for name, place in tracked(sorted(places.items()), len(places), "translating"):
            try:
                made = translated(translator, found.read(name), request)
            except Exception as error:  # decoders raise many kinds, and so do networks given odd sizes
                faults[name] = why(error)
                continue
            write(made, place, translator.depth)
            written += 1
    faults = {printable(name): reason for name, reason in faults.items()}
    if not written:
        name, reason = next(iter(faults.items()))
        more = f" (and {len(faults) - 1:,} more)" if len(faults) > 1 else ""
        raise UserError(f"input={request.input}: no image could be translated; {name}: {reason}{more}")
    return faults


def load(request: Translation) -> Translator:
    """The translator on its device."""
    made = open_generator(request.file, request.run, trust=request.trust)
    if not isinstance(made, Translator):
        raise UserError(f"from={request.file}: this generator makes samples from noise; use ganrun sample")
    return made.to(device_named(request.device))


def find(path: Path) -> tuple[Folder | Zip, Listing]:
    """The folder or archive with the images, and their list, with at least one image, readable or not."""
    if path.is_file() and path.suffix.lower() != ".zip":
        listing = Listing()
        listing.add(path.name, file_fault(path))
        return Folder(path.parent), listing
    try:
        place, listing = source(str(path))
    except UserError as error:
        told = str(error).replace("dataset.path=", "input=")
        raise UserError(told.replace("no such folder or .zip", "no such folder, .zip or image")) from error
    if unused := listing.unused():
        print(f"input={path}: {unused}")
    if not listing.files and not listing.faults:
        raise UserError(f"input={path}: there is no image in it")
    return place, listing


def check_free(request: Translation, found: Folder | Zip, places: dict[str, Path]) -> None:
    """Raises UserError for outputs that would replace an input, or anything without overwrite=true."""
    there = [path for path in places.values() if path.exists()]
    inputs = {os.path.realpath(found.root / name) for name in places} if isinstance(found, Folder) else set()
    for path in there:
        if os.path.realpath(path) in inputs:
            raise UserError(f"out={request.out}: {path} is an image to be translated; name another place")
    if there and not request.overwrite:
        raise UserError(f"out={request.out}: {there[0]} exists; overwrite=true replaces it, or name another place")


def outputs(folder: Path, names: list[str]) -> dict[str, Path]:
    """Where each output goes: its input's name with the ending .png; inputs with equal names keep their own endings."""
    plain = {name: str(PurePosixPath(name).with_suffix(".png")) for name in names}
    num = Counter(place.casefold() for place in plain.values())
    places = {name: place if num[place.casefold()] == 1 else f"{name}.png" for name, place in plain.items()}
    if len(set(places.values())) < len(places):  # a.png, a.jpg and a.jpg.png
        places = {name: f"{name}.png" for name in names}
    return {name: folder / place for name, place in places.items()}


def translated(translator: Translator, content: bytes, request: Translation) -> Tensor:
    """An image file's content -> (1, C, H, W) in [-1, 1]. Raises whatever decoders and networks do."""
    channels = translator.channels[translator.direction(request.direction)].source
    image = decoded(content, channels, request.max_pixels, translator.depth)
    made = translator.translate(to_numbers(image[None]), request.direction, pad=request.pad)
    if not made.isfinite().all():  # 8 bits would hide it
        raise UserError("the network makes NaN or infinity of it")
    return made


def check_channels(translator: Translator, request: Translation) -> None:
    """Raises UserError for images that are no image files."""
    takes, gives = translator.channels[translator.direction(request.direction)]
    if max(takes, gives) > max(CHANNELS):
        raise UserError(
            f"from={request.file}: it translates images of {takes} to {gives} channels, image files have at most 4; "
            "ganrun.load_generator(...).translate takes arrays"
        )


def why(error: Exception) -> str:
    """Why an image was not translated, in one line without keys of data sets."""
    if is_out_of_memory(error):
        return "it is so large that the network needs more memory than there is"
    reason = " ".join(reason_of(error).split()).removeprefix("ValueError: ")
    for key in ("max_pixels", "fit"):
        reason = reason.replace(f"dataset.{key}=", f"{key}=")
    reason = re.sub(r"; dataset\.frames=.*", "; save the one that is meant as a file of its own", reason)
    return re.sub(r"; give dataset\.range=.*", "; save it in 8 bits", reason)


def decoded(
    content: bytes, channels: int, max_pixels: int | None, bits: int = 8, *,
    to: tuple[int, int] | None = None, fit: Fit = "exact",
) -> Tensor:  # fmt: skip
    """Pixels (channels, H, W) of so many bits, upright, in the image's own size, or fitted `to` another (H, W).

    Raises whatever Pillow does on a damaged file, ValueError for an image that would come out black.
    """
    with opened(content, max_pixels) as image:
        size = image.size if orientation(image) in SIDEWAYS else image.size[::-1]
        deep = is_deep(image) or is_deep_colour(image)
    decoding = Decoding(to or size, channels, fit=fit, max_pixels=max_pixels, depth=bits)
    if deep:
        depth, low, high = decoding.look(content)
        if depth.full:  # for other depths, decoding reports that they have no range
            check({depth: Seen(low, high, num=1)}, 1)
    return decoding.decode(content)[0]


def write(made: Tensor, place: Path, depth: int) -> None:
    """Writes a PNG. Raises CannotWrite."""
    with writing(place):
        place.parent.mkdir(parents=True, exist_ok=True)
    with replacing(place, sync=False) as file:
        file.write(png(channels_last(made, depth)[0]))
