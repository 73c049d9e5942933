"""From the bytes of an image file, or an array, to uint8 pixels (channels, H, W) of a given size."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import interpolate, pad

from ganrun.data.formats import (
    ENLARGED,
    HEADER_TELLS,
    MEMORY,
    Frames,
    chosen,
    is_deep_colour,
    is_inverted,
    is_twelve_bit,
    memory_needed,
    opened,
    orientation,
)
from ganrun.data.levels import COLOUR, EIGHT, TWELVE, Depth, depth_of, to_eight_bits
from ganrun.errors import UserError

DECODER = 2  # increase it whenever the same file may give other pixels; prepared sets are then made again
Fit = Literal["resize", "crop", "pad", "exact"]
Half = Literal["left", "right"]
GAP = 3  # Pillow: with a reducing_gap of 3 resizing in two steps is practically indistinguishable from one
TURNS = {  # EXIF orientation -> the operation that makes it upright
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
SIDEWAYS = (5, 6, 7, 8)  # orientations that swap width and height
DEEP_COLOUR = "16-bit colour is read in 8 bits"


def fit_images(images: Tensor, size: tuple[int, int], fit: Fit) -> Tensor:
    """uint8 (num, C, h, w) -> uint8 (num, C, *size).

    resize: both sides become `size`, whatever the shape
    crop:   the image fills the size, and its middle is kept
    pad:    the image is shrunk into the size if it is larger, never enlarged, with black around it
    exact:  other sizes are refused

    Raises ValueError.
    """
    height, width = images.shape[-2:]
    if fit == "exact" and (height, width) != size:
        raise ValueError(f"{width}x{height} pixels; expected {size[1]}x{size[0]}")
    images = _resize(images, fitted(height, width, size, fit))
    height, width = images.shape[-2:]
    top, left = (size[0] - height) // 2, (size[1] - width) // 2
    return pad(images, (left, size[1] - width - left, top, size[0] - height - top))  # negative padding crops


def fitted(height: int, width: int, size: tuple[int, int], fit: Fit) -> tuple[int, int]:
    """Height and width that an image is resized to, before it is cut or padded to `size`."""
    scales = size[0] / height, size[1] / width
    if fit == "crop":
        scales = (max(scales),) * 2
    elif fit == "pad":
        scales = (min(1.0, *scales),) * 2
    return max(1, round(height * scales[0])), max(1, round(width * scales[1]))


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


class Loaded(NamedTuple):
    """A loaded image. full: its width and height. box: its part of the pixels, which a JPEG has at a reduced scale.

    depth: of the pixels, if Pillow's mode does not tell.
    """

    image: Image.Image
    full: tuple[int, int]
    box: tuple[float, float, float, float]
    depth: Depth | None


@dataclass(frozen=True)
class Decoding:
    """How an image becomes uint8 pixels (channels, *size).

    span:       the values that become 0 and 255; None = the full range of the pixels' depth
    fit:        see fit_images
    frames:     see formats.chosen
    max_pixels: of one image; None = formats.MAX_PIXELS
    half:       the half to read of two images side by side; None = the whole image

    Pillow resizes an image at least 6 times as large as needed in two steps, a JPEG partly during decoding. Halves are
    never resized that way, since pixels of the other half would leak in.
    """

    size: tuple[int, int]
    channels: int
    fit: Fit = "resize"
    span: tuple[float, float] | None = None
    frames: Frames = "refuse"
    max_pixels: int | None = None
    half: Half | None = None

    def decode(self, content: bytes | np.ndarray) -> tuple[Tensor, int]:
        """An image file -> its pixels, and how many values were clipped to `span`.

        The image is turned upright by its EXIF orientation; transparent pixels are laid over white. `content` may also
        be an array (H, W) or (H, W, C) of 1, 3 or 4 channels, the fourth being opacity. Raises whatever Pillow does on
        a damaged file, and ValueError for refused images.
        """
        if isinstance(content, np.ndarray):
            levels, clipped = to_eight_bits(content, depth_of(content), self.span)
            image = Image.fromarray(levels[..., 0] if levels.shape[2:] == (1,) else levels)
            return self._fitted(image, image.size, (0, 0, *image.size), 1), clipped
        with self._loaded(content) as (image, full, box, depth):
            eight, clipped = self._eight_bit(image, depth)
            return self._fitted(eight, full, box, orientation(image)), clipped

    def look(self, content: bytes | np.ndarray) -> tuple[Depth, float, float]:
        """The depth of an image's pixels, their lowest and their highest value. Raises as `decode` does."""
        if isinstance(content, np.ndarray):
            return depth_of(content), content.min().item(), content.max().item()
        with self._loaded(content) as (image, _, _, depth):
            depth, values = stored(image, depth, self._mode)
            return depth, values.min().item(), values.max().item()

    def check(self, content: bytes | np.ndarray, *, whole: bool) -> list[str] | None:
        """Remarks about how a file is read, from its header; None if the header does not suffice.

        whole: is this the content of the whole file? Raises as `decode` does for faults that a header shows.
        """
        if isinstance(content, np.ndarray):
            return []
        with opened(content, self.max_pixels) as image:
            if not whole and image.format not in HEADER_TELLS:
                return None
            said = [chosen(image, self.frames), DEEP_COLOUR if is_deep_colour(image) else None]
            width, height = image.size
            if self.half:
                width, height = size_of_half(image)
            if self.fit == "crop":
                check_crop(width, height, self.size)
        return [text for text in said if text]

    @property
    def _mode(self) -> str:
        return "L" if self.channels == 1 else "RGB"

    @contextmanager
    def _loaded(self, content: bytes) -> Iterator[Loaded]:
        with opened(content, self.max_pixels) as image:
            chosen(image, self.frames)
            full, depth, reduced = image.size, told_depth(image), None
            if image.format in ("JPEG", "MPO"):
                factor = max(1, int(self._excess(full, orientation(image)) / GAP))
                reduced = image.draft(image.mode, (max(1, full[0] // factor), max(1, full[1] // factor)))
            with MEMORY.taken(memory_needed(image, full[0] * full[1])):
                image.load()
                full = full if reduced else image.size  # loading may rotate a TIFF
                yield Loaded(image, full, reduced[1] if reduced else (0, 0, *full), depth)

    def _excess(self, full: tuple[int, int], turned: int) -> float:
        """How many times larger than needed an image is, in the direction where this is smaller."""
        if self.fit == "exact" or self.half:
            return 1
        height, width = full if turned in SIDEWAYS else full[::-1]
        to_height, to_width = fitted(height, width, self.size, self.fit)
        return min(height / to_height, width / to_width)

    def _eight_bit(self, image: Image.Image, depth: Depth | None) -> tuple[Image.Image, int]:
        """The image in grey or RGB, and the number of clipped values."""
        if self.span is None and not is_deep(image):
            return converted(image, self._mode), 0
        depth, values = stored(image, depth, self._mode)
        levels, clipped = to_eight_bits(values, depth, self.span)
        return Image.fromarray(levels), clipped

    def _fitted(self, image: Image.Image, full: tuple[int, int], box: tuple, turned: int) -> Tensor:
        """Grey or RGB -> pixels. turned: its EXIF orientation."""
        image = converted(image, self._mode)
        if self._excess(full, turned) >= 2 * GAP:
            height, width = full if turned in SIDEWAYS else full[::-1]
            to = fitted(height, width, self.size, self.fit)
            to = to if turned in SIDEWAYS else to[::-1]
            image = image.resize(to, Image.Resampling.BILINEAR, box=box, reducing_gap=GAP)
        pixels = torch.from_numpy(np.array(image.transpose(TURNS[turned]) if turned in TURNS else image))
        pixels = pixels[None] if pixels.dim() == 2 else pixels.permute(2, 0, 1)
        if self.half:
            pixels = pixels.split(half_of(pixels.shape[-1]), dim=-1)[0 if self.half == "left" else 1]
        return fit_images(pixels[None], self.size, self.fit)[0]


def is_deep(image: Image.Image) -> bool:
    return image.mode[0] in "IF"


def told_depth(image: Image.Image) -> Depth | None:
    """The depth, from the header, if Pillow's mode does not tell it."""
    return COLOUR if is_deep_colour(image) else TWELVE if is_twelve_bit(image) else None


def stored(image: Image.Image, depth: Depth | None, mode: str) -> tuple[Depth, np.ndarray]:
    """The depth, and the pixels: as stored, (H, W), or of 8 bits in `mode`, (H, W) or (H, W, 3)."""
    if not is_deep(image):
        return depth or EIGHT, np.asarray(converted(image, mode))
    values = np.asarray(image)
    depth = depth or depth_of(values)
    return depth, depth.full[1] - values if depth.full and is_inverted(image) else values


def size_of_half(image: Image.Image) -> tuple[int, int]:
    """Width and height of each of two images side by side. Raises as `half_of` does."""
    width, height = image.size[::-1] if orientation(image) in SIDEWAYS else image.size
    return half_of(width), height


def half_of(width: int) -> int:
    """Half of a width. Raises ValueError for a width that two images side by side cannot share."""
    if width % 2:
        raise ValueError(f"{width} pixels wide; expected an even number for two images side by side")
    return width // 2


def check_crop(width: int, height: int, size: tuple[int, int]) -> None:
    """Raises ValueError for an image so narrow that filling `size` (H, W) would enlarge it beyond ENLARGED."""
    short, long = sorted((width, height))
    if max(size) > short and long / short * max(size) ** 2 > ENLARGED:
        raise ValueError(f"{width}x{height} pixels are too narrow for dataset.fit=crop")


def converted(image: Image.Image, mode: str) -> Image.Image:
    """The image in grey (L) or RGB, opaque."""
    image = image.convert("RGB") if image.mode == "LAB" else opaque(image)  # Pillow converts LAB to nothing else
    return image if image.mode == mode else image.convert(mode)


def opaque(image: Image.Image) -> Image.Image:
    """Transparent pixels laid over white."""
    if image.mode not in ("LA", "La", "PA", "RGBA", "RGBa") and "transparency" not in image.info:
        return image
    over = image.convert("LA" if image.mode == "La" else "RGBA").convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", over.size, "white"), over).convert("RGB")
