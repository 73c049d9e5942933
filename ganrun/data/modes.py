"""Pillow's images by their mode: as grey or RGB of 8 bits, opaque or with opacity, or as their deeper values."""

import numpy as np
from PIL import Image

from ganrun.data.formats import is_deep_colour, is_inverted, is_twelve_bit
from ganrun.data.levels import COLOUR, EIGHT, TWELVE, Depth, depth_of


def is_deep(image: Image.Image) -> bool:
    return image.mode[0] in "IF"


def told_depth(image: Image.Image) -> Depth | None:
    """The depth, from the header, if Pillow's mode does not tell it."""
    return COLOUR if is_deep_colour(image) else TWELVE if is_twelve_bit(image) else None


def stored(image: Image.Image, depth: Depth | None, mode: str) -> tuple[Depth, np.ndarray]:
    """The depth, and the pixels: as stored, (H, W), or of 8 bits in `mode`, (H, W) or (H, W, C)."""
    if not is_deep(image):
        return depth or EIGHT, np.asarray(converted(image, mode))
    values = np.asarray(image)
    depth = depth or depth_of(values)
    return depth, depth.full[1] - values if depth.full and is_inverted(image) else values


def converted(image: Image.Image, mode: str) -> Image.Image:
    """The image in grey (L) or RGB, opaque, or with opacity (LA, RGBA)."""
    image = converted_from_lab(image)
    image = with_opacity(image) if mode in ("LA", "RGBA") else opaque(image)
    return image if image.mode == mode else image.convert(mode)


def converted_from_lab(image: Image.Image) -> Image.Image:
    return image.convert("RGB") if image.mode == "LAB" else image  # Pillow converts LAB to nothing else


def has_opacity(image: Image.Image) -> bool:
    return image.mode in ("LA", "La", "PA", "RGBA", "RGBa") or "transparency" in image.info


def with_opacity(image: Image.Image) -> Image.Image:
    """RGB with opacity, where the image has any; else grey or RGB."""
    if has_opacity(image):
        return image.convert("LA" if image.mode == "La" else "RGBA").convert("RGBA")
    return image if image.mode in ("L", "RGB") else image.convert("L" if image.mode == "1" else "RGB")


def opaque(image: Image.Image) -> Image.Image:
    """Transparent pixels laid over white."""
    if not has_opacity(image):
        return image
    over = image.convert("LA" if image.mode == "La" else "RGBA").convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", over.size, "white"), over).convert("RGB")
