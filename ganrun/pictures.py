"""Pictures of samples: grids of images, and scatter plots with a density for vectors."""

import io
import logging
from collections.abc import Iterable, Sequence
from contextlib import suppress
from functools import cache
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from ganrun.depth import to_pixels

log = logging.getLogger("ganrun")
GAP = 2  # pixels between images
WIDEST = 4096  # pixels of a grid with a column for each class
OPACITY = {"real": 0.3, "generated": 0.5}  # of the points in a scatter plot


def to_uint8(images: Tensor, value_range: Sequence[float] = (-1, 1)) -> Tensor:
    """Images of any shape -> the nearest 8-bit values, as pictures have them; see depth.to_pixels."""
    return to_pixels(images, value_range)


def visible(images: Tensor, shown: Sequence[int] | None = None) -> Tensor:
    """Images (num, C, H, W) in [0, 1] of any channels -> grey or RGB, (num, 1, H, W) or (num, 3, H, W).

    shown: the channels to show, one as grey or three as RGB. None = grey and RGB as they are; of 2 or 4 channels the
    last one is opacity, and the others are laid over white; of more, the first three.
    """
    num = images.shape[1]
    if shown is not None:
        return images[:, list(shown)]
    if num in (2, 4):
        opacity = images[:, -1:].clamp(0, 1)
        return images[:, :-1] * opacity + (1 - opacity)
    return images[:, :3]


def scale_of(height: int) -> int:
    """The factor by which a grid enlarges images of this height in pixels."""
    return max(1, round(48 / height))


def most_classes(num: int, size: Sequence[int]) -> int:
    """How many classes get a column of their own in a grid of about `num` images of `size` (H, W).

    The larger of 10 and twice the side of a square of `num` images, which makes a page at most four times as wide as
    high. No more than fit into WIDEST, but at least 8 are allowed.
    """
    fitting = (WIDEST - GAP) // (size[1] * scale_of(size[0]) + GAP)
    return min(max(10, 2 * round(num**0.5)), max(8, fitting))


def grid(
    images: Tensor, *, columns: int, names: list[str] | None = None, shown: Sequence[int] | None = None
) -> Image.Image:
    """(num, C, H, W) in [0, 1], row by row -> a picture; `names` head the columns. Small images are enlarged.

    shown: channels, see `visible`.
    """
    pixels = to_uint8(visible(images, shown), (0, 1)).permute(0, 2, 3, 1).cpu().numpy()  # (num, H, W, C)
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
        draw, fonts = ImageDraw.Draw(picture), [font_of(name) for name in names[:columns]]
        for i, (name, font) in enumerate(zip(names, fonts, strict=False)):
            while len(name) > 1 and draw.textlength(name, font=font) > width:
                name = name[:-1]
            draw.text((GAP + i * (width + GAP), 1), name, fill=(0, 0, 0), font=font)
    return picture


def side_by_side(images: Sequence[Tensor], names: list[str]) -> Image.Image:
    """Several images (num, C, H, W) in [0, 1] of each example next to each other, in groups; `names` head them.

    Images of different channels may be mixed, see `visible`. The number of groups in a row makes the page about square.
    """
    num, height, width = len(images[0]), *images[0].shape[-2:]
    groups = max(1, round((num * height / (len(images) * width)) ** 0.5))
    colour = [visible(each).expand(-1, 3, -1, -1) for each in images]
    return grid(torch.stack(colour, 1).flatten(0, 1), columns=len(images) * groups, names=names * groups)


def heads(classes: Sequence[str], indices: Iterable[int]) -> list[str]:
    """The names of these classes as a grid can write them; if no font has all letters of a name, its index, as #3.

    Warns about such names once for each list of classes.
    """
    indices = list(indices)
    unwritten = [i for i in sorted(set(indices)) if font_of(classes[i]) is None]
    if unwritten:
        tell_unwritten(tuple(f"#{i} {classes[i]!a}" for i in unwritten))
    return [f"#{i}" if i in unwritten else classes[i] for i in indices]


@cache
def tell_unwritten(names: tuple[str, ...]) -> None:
    more = f" and {len(names) - 10} more" if len(names) > 10 else ""
    log.warning("no font on this machine has the letters of %s: pictures show the index", ", ".join(names[:10]) + more)


@cache
def font_of(name: str) -> Any:
    """A font with all letters of a name: Pillow's own, else matplotlib's DejaVu Sans, else any on this machine.

    None if there is none, as for a name with line breaks.
    """
    if name.isascii() and name.isprintable():
        return ImageFont.load_default()
    path = font_with(frozenset(name) - {" "}) if name.isprintable() else None
    return path and ImageFont.truetype(path, 10)


@cache
def font_with(letters: frozenset[str]) -> str | None:
    """The file of a font with these letters; None if there is none."""
    import matplotlib
    from matplotlib.font_manager import findSystemFonts
    from matplotlib.ft2font import FT2Font

    def has_all(path: str) -> bool:
        with suppress(OSError, RuntimeError):  # a format that FT2Font does not know
            return letters <= set(map(chr, FT2Font(path).get_charmap()))
        return False

    dejavu = f"{matplotlib.get_data_path()}/fonts/ttf/DejaVuSans.ttf"
    return dejavu if has_all(dejavu) else next(filter(has_all, sorted(findSystemFonts())), None)


def scatter(fake: Tensor, real: Tensor | None = None) -> Image.Image:
    """Points (num, 1) or (num, 2): generated ones drawn over real ones, if given, beside the generated density."""
    from matplotlib.figure import Figure

    sets = [
        (points.cpu().numpy(), name) for points, name in ((real, "real"), (fake, "generated")) if points is not None
    ]
    fake, real = sets[-1][0], sets[0][0]  # without reals, the generated points set the axes
    figure = Figure(figsize=(9, 4.5), dpi=90)
    figure.subplots_adjust(0.05, 0.07, 0.98, 0.92, wspace=0.12)  # an automatic layout would draw everything twice
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
    figure.clear()  # a figure is a cycle of references and would stay in memory for a while
    return Image.open(buffer).convert("RGB")
