"""Pictures of samples: grids of images, scatter plots with density for vectors."""

import io
from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

GAP = 2  # pixels between images
OPACITY = {"real": 0.3, "generated": 0.5}  # of the points in a scatter plot


def to_uint8(images: Tensor, value_range: Sequence[float] = (-1, 1)) -> Tensor:
    """Images of any shape -> the nearest 8-bit values: `value_range` becomes 0 to 255, what lies outside is clamped.

    Rounding, not cutting off decimals: that would darken generated images by half a level.
    """
    low, high = value_range
    return ((images.float() - low) * (255 / (high - low))).round().clamp(0, 255).to(torch.uint8)


def grid(images: Tensor, *, columns: int, names: list[str] | None = None) -> Image.Image:
    """(num, C, H, W) in [0, 1], row by row -> a picture; `names` head the columns. Small images are enlarged."""
    pixels = to_uint8(images, (0, 1)).permute(0, 2, 3, 1).cpu().numpy()  # (num, H, W, C)
    scale = max(1, round(48 / pixels.shape[1]))
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
        draw, font = ImageDraw.Draw(picture), ImageFont.load_default()
        for i, name in enumerate(names[:columns]):
            while len(name) > 1 and draw.textlength(name, font=font) > width:
                name = name[:-1]
            draw.text((GAP + i * (width + GAP), 1), name, fill=(0, 0, 0), font=font)
    return picture


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
