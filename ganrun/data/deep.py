"""Image files of 16 bits a channel, whole: Pillow reads only the upper 8 bits of colour and of opacity."""

import sys

import numpy as np
from PIL import Image

from ganrun.data.channels import OF_FILES, as_planes
from ganrun.data.formats import Frames, chosen, opened

# Raw modes of Pillow's decoders whose two bytes can be read one after the other -> is the colour multiplied by opacity?
COLOUR = {"RGB": False, "RGBA": False, "RGBa": True}
OTHER_BYTE = {"B": "L", "L": "B", "N": "B" if sys.byteorder == "little" else "L"}  # by the order of the bytes
SIDEWAYS = (5, 6, 7, 8)  # orientations that swap width and height


def raw_mode(image: Image.Image) -> str:
    """The raw mode, such as RGB;16B, of an image that is not loaded yet; "" if its decoder has none."""
    arguments = image.tile[0][3] if image.tile else ""
    mode = arguments if isinstance(arguments, str) else next(iter(arguments or [""]), "")
    return str(mode)


def is_whole(image: Image.Image) -> bool:
    """Is it 16-bit colour, or 16-bit grey with opacity, of which `deep_colour` gives all bits?"""
    base, _, order = raw_mode(image).partition(";16")
    return (base in COLOUR and order in OTHER_BYTE) or raw_mode(image) == "LA;16B"


def deep_colour(content: bytes, frames: Frames, max_pixels: int | None) -> np.ndarray:
    """uint16 (H, W, C) of a file with `is_whole`: grey and opacity, RGB, or RGB and opacity."""
    with opened(content, max_pixels) as image:
        chosen(image, frames)
        raw, mode, clear = raw_mode(image), image.mode, image.info.get("transparency")
    if raw == "LA;16B":  # four bytes a pixel, which Pillow takes for four channels of 8 bits
        return _loaded(content, "RGBA", frames, max_pixels).view(">u2").astype(np.uint16)
    base, order = raw.split(";16")
    plain = "RGBA" if COLOUR[base] else base
    upper, lower = (_loaded(content, f"{plain};16{end}", frames, max_pixels) for end in (order, OTHER_BYTE[order]))
    values = (upper.astype(np.uint16) << 8 | lower)[..., : 3 if mode == "RGB" else 4]
    return unmultiplied(values) if COLOUR[base] else with_clear(values, clear)


def _loaded(content: bytes, raw: str, frames: Frames, max_pixels: int | None) -> np.ndarray:
    """The pixels as Pillow decodes them by another raw mode of as many bytes."""
    with opened(content, max_pixels) as image:
        chosen(image, frames)
        image.tile = [_with_raw(tile, raw) for tile in image.tile]
        image.load()
        return np.array(image)


def _with_raw(tile: tuple, raw: str) -> tuple:
    arguments = raw if isinstance(tile[3], str) else (raw, *tile[3][1:])
    made = (*tile[:3], arguments)
    return type(tile)._make(made) if hasattr(tile, "_make") else made


def unmultiplied(values: np.ndarray) -> np.ndarray:
    """Colours that were multiplied by their opacity, the last channel, as they were before."""
    opacity = values[..., -1:].astype(np.int64)
    colour = (values[..., :-1] * np.int64(65535) + opacity // 2) // np.maximum(opacity, 1)
    return np.concatenate([colour.clip(0, 65535), opacity], -1).astype(np.uint16)


def with_clear(values: np.ndarray, clear: object) -> np.ndarray:
    """uint16 (H, W) or (H, W, C); the colour that a PNG calls transparent gives it opacity as a further channel."""
    values = as_planes(values)
    if not isinstance(clear, (int, tuple)):
        return values
    opacity = np.where((values == np.array(clear)).all(-1, keepdims=True), 0, 65535)
    return np.concatenate([values, opacity], -1).astype(np.uint16)


def eight_bits(image: Image.Image, has_opacity: bool) -> np.ndarray:
    """uint8 (H, W, C) of an image of 8 bits a channel: grey or RGB as it is, or RGB and opacity."""
    if has_opacity:
        image = image.convert("LA") if image.mode == "La" else image
        return np.array(image.convert("RGBA"))
    return as_planes(np.array(image.convert("L" if image.mode in ("1", "L") else OF_FILES[3])))


def upright(values: np.ndarray, turned: int) -> np.ndarray:
    """(H, W, C) turned as EXIF's orientation says."""
    values = values.swapaxes(0, 1) if turned in SIDEWAYS else values
    values = values[:, ::-1] if turned in (2, 3, 6, 7) else values
    return np.ascontiguousarray(values[::-1] if turned in (3, 4, 7, 8) else values)
