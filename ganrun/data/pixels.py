"""From the bytes of an image file to uint8 pixels (channels, H, W) of a given size."""

import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from math import inf
from typing import Literal

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor
from torch.nn.functional import interpolate, pad

from ganrun.errors import UserError

Fit = Literal["resize", "crop", "pad", "exact"]
COMMON = ("JPEG", "PNG", "GIF", "BMP", "PPM")  # tried first
NOT_OPENED = {"EPS", *COMMON}  # EPS files are programs that Pillow hands to Ghostscript


def fit_images(images: Tensor, size: tuple[int, int], fit: Fit) -> Tensor:
    """uint8 (num, C, h, w) -> uint8 (num, C, *size).

    resize: both sides to size, whatever the shape. crop: the image fills the size, the middle is kept. pad: the image
    is shrunk into the size if it is larger, never enlarged; black around it. exact: no other size is taken.

    Raises ValueError.
    """
    height, width = images.shape[-2:]
    if fit == "exact" and (height, width) != size:
        raise ValueError(f"{width}x{height} pixels; expected {size[1]}x{size[0]}")
    scales = size[0] / height, size[1] / width
    if fit == "crop":
        scales = (max(scales),) * 2
    elif fit == "pad":
        scales = (min(1.0, *scales),) * 2
    images = _resize(images, (max(1, round(height * scales[0])), max(1, round(width * scales[1]))))
    height, width = images.shape[-2:]
    top, left = (size[0] - height) // 2, (size[1] - width) // 2
    return pad(images, (left, size[1] - width - left, top, size[0] - height - top))  # negative padding crops


def _resize(images: Tensor, size: tuple[int, int]) -> Tensor:
    if images.shape[-2:] == size:
        return images
    chunks = [interpolate(c.float(), size, mode="bilinear", antialias=True) for c in images.split(1024)]
    return torch.cat([c.round().clamp(0, 255).to(torch.uint8) for c in chunks])


def to_channels(images: Tensor, channels: int) -> Tensor:
    """uint8 (num, c, H, W) -> (num, channels, H, W), 1 or 3 channels: grey by ITU-R 601 luma, colour by repetition."""
    if images.shape[1] == channels:
        return images
    if images.shape[1] == 3 and channels == 1:
        luma = torch.tensor([0.299, 0.587, 0.114]).reshape(1, 3, 1, 1)
        return torch.cat([(c * luma).sum(1, keepdim=True).round().to(torch.uint8) for c in images.split(1024)])
    if images.shape[1] == 1:
        return images.expand(-1, channels, -1, -1).contiguous()
    raise UserError(f"dataset.channels={channels}: images have {images.shape[1]}; valid: 1, 3")


def decode(content: bytes, channels: int) -> Tensor:
    """An image file -> uint8 (channels, H, W), upright by its EXIF orientation; of an animation the first frame.

    Grey of 16 bits is scaled to 8; transparent pixels are laid over white. Raises whatever Pillow does on a damaged
    file, ValueError for what `opened` refuses.
    """
    with opened(content) as image:
        image.load()
        pixels = np.array(opaque(eight_bit(upright(image))).convert("L" if channels == 1 else "RGB"))
    pixels = torch.from_numpy(pixels)
    return pixels[None] if pixels.dim() == 2 else pixels.permute(2, 0, 1)


def opened(content: bytes) -> Image.Image:
    """The image with its header read and none of its pixels.

    Raises ValueError for no image, too many pixels and pixels without a known range.
    """
    if not content:
        raise ValueError("the file is empty")
    Image.init()
    too_many = f"more than {most_pixels():,} pixels: a decompression bomb"
    try:
        image = Image.open(io.BytesIO(content), formats=[*COMMON, *(id for id in Image.ID if id not in NOT_OPENED)])
    except UnidentifiedImageError as error:
        raise ValueError("not an image that Pillow can read") from error
    except Image.DecompressionBombError as error:  # twice as many; Pillow only warns of fewer
        raise ValueError(too_many) from error
    if image.width * image.height > most_pixels():
        raise ValueError(too_many)
    if image.mode == "F":
        raise ValueError("its pixels are floats, whose range is not known; save it with 8 or 16 bits")
    return image


def most_pixels() -> float:
    """Of an image before Pillow warns of a decompression bomb."""
    return Image.MAX_IMAGE_PIXELS or inf


def check_crop(image: Image.Image, size: tuple[int, int]) -> None:
    """Raises ValueError for an image so narrow that filling `size` (H, W) would enlarge it beyond `most_pixels`."""
    short, long = sorted(image.size)
    if max(size) > short and long / short * max(size) ** 2 > most_pixels():
        raise ValueError(f"{image.width}x{image.height} pixels are too narrow for dataset.fit=crop")


def upright(image: Image.Image) -> Image.Image:
    """Turned and mirrored as its EXIF orientation says, if that can be read."""
    try:
        return ImageOps.exif_transpose(image)
    except Exception:  # damaged EXIF raises exceptions of every kind; the pixels were loaded before
        return image


def eight_bit(image: Image.Image) -> Image.Image:
    """Grey of 16 bits scaled to 8; Pillow's own conversion clips at 255."""
    if not image.mode.startswith("I"):
        return image
    pixels = np.asarray(image)  # mode I holds 32 bits, of which files of 16 bits use the lower ones
    if pixels.min() < 0 or pixels.max() > 0xFFFF:
        raise ValueError("its pixels need more than 16 bits")
    return Image.fromarray((pixels >> 8).astype(np.uint8))


def opaque(image: Image.Image) -> Image.Image:
    """Transparent pixels laid over white."""
    if image.mode not in ("LA", "PA", "RGBA", "RGBa") and "transparency" not in image.info:
        return image
    over = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", over.size, "white"), over).convert("RGB")


@contextmanager
def quiet() -> Iterator[None]:
    """Keeps Pillow's warnings to itself: a file decodes or is named. Not to be entered by several threads at once."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
