"""Sample pictures as they go into a page: as large and as fine as its size allows, all by one measure."""

import base64
import io
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from PIL import Image

SMALLEST = 20_000  # bytes that pictures may take however little is left
LARGEST = 2**26  # pixels of a file that is opened
PROBED = 12  # pictures that are tried for each measure


class Measure(NamedTuple):
    """The longer side in pixels at most, the quality, and the format: AVIF is smaller, WebP faster to make."""

    side: int
    quality: int
    format: str = "WEBP"


MEASURES = (Measure(1200, 90), Measure(800, 85), Measure(600, 80), Measure(440, 70), Measure(300, 60),
            Measure(300, 50, "AVIF"), Measure(268, 45, "AVIF"), Measure(200, 45, "AVIF"), Measure(160, 40, "AVIF"),
            Measure(134, 40, "AVIF"), Measure(100, 35, "AVIF"))  # fmt: skip
_made: dict[tuple, str] = {}  # of files that did not change: a page that is written again needs them again
Shown = dict[int, str]  # of one run: the data URI of each step's picture


def fitted(files: list[dict[int, Path]], room: float, most: int) -> tuple[list[Shown], int]:
    """Each run's pictures by their steps, at most `most`, such that all fit into `room` characters of the page.

    The first measure is taken by which they fit; if none does, there are fewer pictures. Files that cannot be read are
    left out. Also returns the number of pictures of a run that are kept at most.
    """
    room = max(room, SMALLEST)
    while most > 0:
        chosen = [spaced(each, most) for each in files]
        every = [path for each in chosen for path in each.values()]
        for measure in MEASURES:
            if expected(every, measure) > room:
                continue
            shown = [dict(encoded(each, measure)) for each in chosen]
            if sum(len(uri) for each in shown for uri in each.values()) <= room:
                return shown, most
        most //= 2
    return [{} for _ in files], 0


def spaced(files: dict[int, Path], most: int) -> dict[int, Path]:
    """At most so many of a run's pictures, evenly spaced over their order, the last one among them."""
    steps = list(files)
    if len(steps) > most:
        steps = [steps[round((i + 1) * len(steps) / most) - 1] for i in range(most)]
    return {step: files[step] for step in steps}


def expected(files: list[Path], measure: Measure) -> float:
    """About the characters that all of them take, from a few evenly spaced ones."""
    probes = files[:: max(1, len(files) // PROBED)]
    sizes = [len(uri) for path in probes if (uri := data_uri(path, measure))]
    return len(files) * sum(sizes) / len(sizes) if sizes else 0


def encoded(files: dict[int, Path], measure: Measure) -> Iterator[tuple[int, str]]:
    for step, path in files.items():
        uri = data_uri(path, measure)
        if uri:
            yield step, uri


def data_uri(path: Path, measure: Measure) -> str:
    """A picture for `src`; empty if the file cannot be read, as while it is being copied."""
    try:
        about = path.stat()
        key = (about.st_dev, about.st_ino, about.st_mtime_ns, about.st_size, measure)
        if key not in _made:
            _made[key] = read(path, measure)
        return _made[key]
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):  # what Pillow raises for spoilt files
        return ""


def read(path: Path, measure: Measure) -> str:
    with Image.open(path) as picture:
        if picture.width * picture.height > LARGEST:
            raise ValueError("too large to be a sample picture")
        return inline(picture.convert("RGB"), measure)


def inline(picture: Image.Image, measure: Measure = MEASURES[0]) -> str:
    """A picture as a data URI."""
    picture = picture.copy()
    picture.thumbnail((measure.side, measure.side))
    buffer = io.BytesIO()
    Image.init()
    form = measure.format if measure.format in Image.SAVE else "WEBP"  # Pillow before 11.3 has no AVIF
    settings = {"speed": 9, "max_threads": 1} if form == "AVIF" else {"method": 3}
    picture.save(buffer, format=form, quality=measure.quality, **settings)
    return f"data:image/{form.lower()};base64,{base64.b64encode(buffer.getvalue()).decode()}"


def pictures_of(grids: dict[int, Path], final: Path) -> dict[int, Path]:
    """A run's grids; if it has none, what it has drawn at its end."""
    return grids or ({0: final} if final.exists() else {})
