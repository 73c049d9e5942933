"""Pictures of samples: grids of images, scatter plots with density for vectors."""

import io
from collections.abc import Sequence
from contextlib import suppress
from functools import cache
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

GAP = 2  # pixels between images
WIDEST = 4096  # pixels of a grid with a column for each class
OPACITY = {"real": 0.3, "generated": 0.5}  # of the points in a scatter plot


def to_uint8(images: Tensor, value_range: Sequence[float] = (-1, 1)) -> Tensor:
    """Images of any shape -> the nearest 8-bit values: `value_range` becomes 0 to 255, what lies outside is clamped.

    Rounding, not cutting off decimals: that would darken generated images by half a level.
    """
    low, high = value_range
    return ((images.float() - low) * (255 / (high - low))).round().clamp(0, 255).to(torch.uint8)


def scale_of(height: int) -> int:
    """How much an image of so many pixels is enlarged in a grid."""
    return max(1, round(48 / height))


def classes_shown(order: Sequence[int], num: int, size: Sequence[int]) -> list[int]:
    """The classes that head the columns of a grid of about `num` images of `size` (H, W), out of all in `order`.

    All of them, up to 10 or twice the side of a square of `num` images, as far as they fit into WIDEST; of more classes
    so many that are evenly spaced.
    """
    fitting = max(1, (WIDEST - GAP) // (size[1] * scale_of(size[0]) + GAP))
    most = min(max(10, 2 * round(num**0.5)), fitting)
    if len(order) <= most:
        return list(order)
    return [order[i * (len(order) - 1) // max(1, most - 1)] for i in range(most)]


def grid(images: Tensor, *, columns: int, names: list[str] | None = None) -> Image.Image:
    """(num, C, H, W) in [0, 1], row by row -> a picture; `names` head the columns. Small images are enlarged."""
    pixels = to_uint8(images, (0, 1)).permute(0, 2, 3, 1).cpu().numpy()  # (num, H, W, C)
    scale = scale_of(pixels.shape[1])
    pixels = pixels.repeat(scale, axis=1).repeat(scale, axis=2)
    if pixels.shape[-1] == 1:
        pixels = pixels.repeat(3, axis=-1)
    num, height, width, _ = pixels.shape
    rows = -(-num // columns)
    head = 14 if names else 0
    canvas = np.full((head + rows * (height + GAP) + GAP, columns * (width + GAP) + GAP, 3), 255, dtype=np.uint8)
    for i, image in enumerate(pixels):
        top, left = head + GAP + i // columns * (height + GAP), GAP + i % columns * (width + GAP)
        canvas[top : top + height, left : left + width] = image
    picture = Image.fromarray(canvas)
    if names:
        write_heads(picture, names[:columns], width)
    return picture


def write_heads(picture: Image.Image, names: list[str], width: int) -> None:
    """The names above columns of that width, cut off where they are longer."""
    draw = ImageDraw.Draw(picture)
    for i, name in enumerate(names):
        name, font = drawable(name)
        while len(name) > 1 and draw.textlength(name, font=font) > width:
            name = name[:-1]
        draw.text((GAP + i * (width + GAP), 1), name, fill=(0, 0, 0), font=font)


def drawable(name: str) -> tuple[str, Any]:
    """A name and a font that has all its letters; where no font on this machine has them, the name in escapes."""
    if name.isascii():
        return name, ImageFont.load_default()
    path = font_with(frozenset(name) - {" "})
    if path is None:
        return name.encode("ascii", "backslashreplace").decode(), ImageFont.load_default()
    return name, ImageFont.truetype(path, 10)


@cache
def font_with(letters: frozenset[str]) -> str | None:
    """The file of a font that has these letters: DejaVu Sans, which matplotlib brings, else one of the machine's."""
    import matplotlib
    from matplotlib.font_manager import findSystemFonts
    from matplotlib.ft2font import FT2Font

    for path in (f"{matplotlib.get_data_path()}/fonts/ttf/DejaVuSans.ttf", *sorted(findSystemFonts())):
        with suppress(OSError, RuntimeError):  # a format that it does not know
            if letters <= set(map(chr, FT2Font(path).get_charmap())):
                return path
    return None


def scatter(fake: Tensor, real: Tensor | None = None) -> Image.Image:
    """Points (num, 1) or (num, 2): generated over real ones if there are any, and the generated density beside them."""
    from matplotlib.figure import Figure

    sets = [
        (points.cpu().numpy(), name) for points, name in ((real, "real"), (fake, "generated")) if points is not None
    ]
    fake, real = sets[-1][0], sets[0][0]  # without reals the generated points say how far the axes go
    figure = Figure(figsize=(9, 4.5), dpi=90)
    figure.subplots_adjust(0.05, 0.07, 0.98, 0.92, wspace=0.12)  # a layout that fits itself draws everything twice
    points, density = figure.subplots(1, 2)
    low, high = real.min(0), real.max(0)
    margin = 0.25 * (high - low) + (high == low)
    low, high = low - margin, high + margin
    if fake.shape[1] == 1:
        bins = np.linspace(low[0], high[0], 80)
        for axis, cumulative in ((points, True), (density, False)):
            for values, name in sets:
                inside = values[(values >= low) & (values <= high)]  # a diverged generator may leave none
                axis.hist(inside, bins, density=len(inside) > 0, cumulative=cumulative, histtype="step", label=name)
        points.set_title("cumulative")
        points.legend(loc="upper left")
    else:
        for values, name in sets:
            points.scatter(*values[:, :2].T, s=4, alpha=OPACITY[name], linewidths=0, label=name)
        points.set(xlim=(low[0], high[0]), ylim=(low[1], high[1]), aspect="equal", title="samples")
        points.legend(loc="upper right")
        density.hist2d(*fake[:, :2].T, bins=80, range=[(low[0], high[0]), (low[1], high[1])])
        density.set(aspect="equal")
    density.set_title("generated density")
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    figure.clear()  # a figure is a cycle of references, which would stay for a while
    return Image.open(buffer).convert("RGB")
