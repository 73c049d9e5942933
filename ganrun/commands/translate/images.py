"""Makes what `ganrun translate` was asked for."""

from collections import Counter
from collections.abc import Callable
from pathlib import Path, PurePosixPath

from torch import Tensor

from ganrun.commands.sample.request import Translation
from ganrun.data.files import source
from ganrun.data.formats import opened, orientation, quiet
from ganrun.data.pixels import SIDEWAYS, Decoding
from ganrun.errors import UserError, reason_of
from ganrun.files.storage import replacing, writing
from ganrun.progress import tracked
from ganrun.sampling.files import channels_last, png
from ganrun.sampling.translator import Translator
from ganrun.training.hardware import device_named
from ganrun.training.of_checkpoint import open_generator

Read = Callable[[str], bytes]


def translate(request: Translation) -> dict[str, str]:
    """Writes a PNG for each image; returns the reasons for those without one. Raises UserError, CannotWrite."""
    translator = load(request)
    read, names, faults = find(request)
    direction = translator.direction(request.direction)
    places = {name: request.out for name in names} if request.out.suffix else outputs(request.out, names)
    taken = [path for path in places.values() if path.exists()]
    if taken and not request.overwrite:
        raise UserError(f"out={request.out}: {taken[0]} exists; overwrite=true replaces it, or name another place")
    with quiet(request.max_pixels):
        for name, place in tracked(places.items(), len(places), "translating"):
            try:
                image = decoded(read(name), translator.channels[direction].source, request.max_pixels)
                made = translator.translate(image[None] / 127.5 - 1, direction)
            except Exception as error:  # decoders raise exceptions of every kind, and so do networks on odd sizes
                faults[name] = " ".join(reason_of(error).split()).removeprefix("ValueError: ")
                continue
            write(made, place)
    if len(faults) == len(names) and names:
        name, reason = next(iter(faults.items()))
        raise UserError(f"input={request.input}: no image could be translated; {name}: {reason}")
    return faults


def load(request: Translation) -> Translator:
    """The translator on its device."""
    made = open_generator(request.file, request.run, trust=request.trust)
    if not isinstance(made, Translator):
        raise UserError(f"from={request.file}: this generator makes samples from noise; use ganrun sample")
    return made.to(device_named(request.device))


def find(request: Translation) -> tuple[Read, list[str], dict[str, str]]:
    """How to read an image by its name, the names, and the faults of those that cannot be read."""
    path = request.input
    if path.is_file() and path.suffix.lower() != ".zip":
        return lambda name: path.read_bytes(), [path.name], {}
    try:
        place, listing = source(str(path))
    except UserError as error:
        raise UserError(str(error).replace("dataset.path=", "input=")) from error
    if unused := listing.unused():
        print(f"input={path}: {unused}")
    if not listing.files:
        raise UserError(f"input={path}: there is no image in it")
    if request.out.suffix and len(listing.files) > 1:
        raise UserError(f"out={request.out}: {len(listing.files)} images need a folder; leave out the ending")
    return place.read, listing.files, dict(listing.faults)


def outputs(folder: Path, names: list[str]) -> dict[str, Path]:
    """Where each output goes: its input's name with the ending .png; two that would meet keep their own endings."""
    plain = {name: str(PurePosixPath(name).with_suffix(".png")) for name in names}
    num = Counter(place.casefold() for place in plain.values())
    return {name: folder / (place if num[place.casefold()] == 1 else f"{name}.png") for name, place in plain.items()}


def decoded(content: bytes, channels: int, max_pixels: int | None) -> Tensor:
    """(channels, H, W) of 0 to 255, upright, at the image's own size."""
    with opened(content, max_pixels) as image:
        size = image.size if orientation(image) in SIDEWAYS else image.size[::-1]
    return Decoding(size, channels, fit="exact", max_pixels=max_pixels).decode(content)[0].float()


def write(made: Tensor, place: Path) -> None:
    """Raises CannotWrite."""
    with writing(place):
        place.parent.mkdir(parents=True, exist_ok=True)
    with replacing(place, sync=False) as file:
        file.write(png(channels_last(made)[0]))
