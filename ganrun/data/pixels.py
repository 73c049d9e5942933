"""From the bytes of an image file, or an array, to pixels (channels, H, W) of a given size, of 8 or 16 bits."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import interpolate, pad

from ganrun.data.channels import OF_FILES, WITH_OPACITY, as_planes, laid_over, premultiplied, to_channels, unmultiplied
from ganrun.data.deep import SIDEWAYS, deep_colour, eight_bits, is_whole, upright, with_clear
from ganrun.data.formats import (
    ENLARGED,
    HEADER_TELLS,
    MEMORY,
    Frames,
    chosen,
    is_deep_colour,
    memory_needed,
    opened,
    orientation,
)
from ganrun.data.levels import COLOUR, EIGHT, SIXTEEN, Depth, depth_of, to_levels
from ganrun.data.modes import converted, converted_from_lab, has_opacity, is_deep, stored, told_depth
from ganrun.depth import bits, largest

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
DEEP_COLOUR = "16-bit colour is read in 8 bits"


def fit_images(images: Tensor, size: tuple[int, int], fit: Fit, *, opacity: bool = False) -> Tensor:
    """Pixels (num, C, h, w) -> (num, C, *size).

    resize: both sides become `size`, whatever the shape
    crop:   the image fills the size, and its middle is kept
    pad:    the image is shrunk into the size if it is larger, never enlarged, with black around it
    exact:  other sizes are refused

    opacity: is the last channel opacity, by which colours are weighted? Raises ValueError.
    """
    height, width = images.shape[-2:]
    if fit == "exact" and (height, width) != size:
        raise ValueError(f"{width}x{height} pixels; expected {size[1]}x{size[0]}")
    images = _resize(images, fitted(height, width, size, fit), opacity)
    height, width = images.shape[-2:]
    top, left = (size[0] - height) // 2, (size[1] - width) // 2
    sides = (left, size[1] - width - left, top, size[0] - height - top)
    return pad(bits(images), sides).view(images.dtype)  # negative padding crops


def fitted(height: int, width: int, size: tuple[int, int], fit: Fit) -> tuple[int, int]:
    """Height and width that an image is resized to, before it is cut or padded to `size`."""
    scales = size[0] / height, size[1] / width
    if fit == "crop":
        scales = (max(scales),) * 2
    elif fit == "pad":
        scales = (min(1.0, *scales),) * 2
    return max(1, round(height * scales[0])), max(1, round(width * scales[1]))


def _resize(images: Tensor, size: tuple[int, int], opacity: bool) -> Tensor:
    if images.shape[-2:] == size:
        return images
    top, chunks = largest(images), []
    for some in images.split(1024):
        values = premultiplied(some.float(), top) if opacity else some.float()
        values = interpolate(values, size, mode="bilinear", antialias=True)
        values = unmultiplied(values, top) if opacity else values
        chunks.append(values.round().clamp(0, top).to(images.dtype))
    return torch.cat(chunks)


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
    """How an image becomes pixels (channels, *size), uint8 or uint16.

    channels:   of the pixels; of image files 2 and 4 include opacity, arrays may have any number
    depth:      bits of a pixel, 8 or 16
    span:       the values that become black and white; None = the full range of the pixels' depth
    fit:        see fit_images
    frames:     see formats.chosen
    max_pixels: of one image; None = formats.MAX_PIXELS
    half:       the half to read of two images side by side; None = the whole image

    Pillow resizes an image at least 6 times as large as needed in two steps, a JPEG partly during decoding. Halves are
    never resized that way, since pixels of the other half would leak in, nor are 16 bits, which Pillow would not keep.
    """

    size: tuple[int, int]
    channels: int
    fit: Fit = "resize"
    span: tuple[float, float] | None = None
    frames: Frames = "refuse"
    max_pixels: int | None = None
    half: Half | None = None
    depth: int = 8

    def decode(self, content: bytes | np.ndarray) -> tuple[Tensor, int]:
        """An image file -> its pixels, and how many values were clipped to `span`.

        The image is turned upright by its EXIF orientation; unless `channels` include opacity, transparent pixels are
        laid over white. `content` may also be an array (H, W) or (H, W, C), of whose 2 or 4 channels the last is
        opacity, if another number is asked for. Raises whatever Pillow does on a damaged file, and ValueError for
        refused images.
        """
        if isinstance(content, np.ndarray):
            return self._of_array(content)
        if self.depth > 8:
            return self._of_sixteen(self._stored(content))
        with self._loaded(content) as (image, full, box, depth):
            eight, clipped = self._eight_bit(image, depth)
            return self._fitted(eight, full, box, orientation(image)), clipped

    def look(self, content: bytes | np.ndarray) -> tuple[Depth, float, float]:
        """The depth of an image's pixels, their lowest and their highest value, without opacity; raises as `decode`."""
        if isinstance(content, np.ndarray):
            return depth_of(content), content.min().item(), content.max().item()
        if self.depth > 8:
            depth, values = self._stored(content)[:2]
            return depth, values.min().item(), values.max().item()
        with self._loaded(content) as (image, _, _, depth):
            depth, values = stored(image, depth, self._mode)
            values = self._split(values)[0]
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
            said = [chosen(image, self.frames), self._lost(image), self._laid_over(image)]
            width, height = image.size
            if self.half:
                width, height = size_of_half(image)
            if self.fit == "crop":
                check_crop(width, height, self.size)
        return [text for text in said if text]

    def _lost(self, image: Image.Image) -> str | None:
        """What is not kept of an image that is not loaded yet, in words."""
        if not is_deep_colour(image) or (self.depth > 8 and is_whole(image)):
            return None
        return f"{DEEP_COLOUR}; dataset.depth=16 keeps 16" if is_whole(image) else DEEP_COLOUR

    def _laid_over(self, image: Image.Image) -> str | None:
        if self.channels in WITH_OPACITY or not has_opacity(image):
            return None
        return laid_over(self.channels)

    @property
    def _mode(self) -> str:
        return OF_FILES[self.channels]

    @contextmanager
    def _loaded(self, content: bytes) -> Iterator[Loaded]:
        with opened(content, self.max_pixels) as image:
            chosen(image, self.frames)
            full, depth, reduced = image.size, told_depth(image), None
            if image.format in ("JPEG", "MPO"):
                factor = max(1, int(self._excess(full, orientation(image)) / GAP))
                reduced = image.draft(image.mode, (max(1, full[0] // factor), max(1, full[1] // factor)))
            with MEMORY.taken(memory_needed(image, full[0] * full[1]) * (self.depth // 8)):
                image.load()
                full = full if reduced else image.size  # loading may rotate a TIFF
                yield Loaded(image, full, reduced[1] if reduced else (0, 0, *full), depth)

    def _excess(self, full: tuple[int, int], turned: int) -> float:
        """How many times larger than needed an image is, in the direction where this is smaller."""
        if self.fit == "exact" or self.half or self.depth > 8:
            return 1
        height, width = full if turned in SIDEWAYS else full[::-1]
        to_height, to_width = fitted(height, width, self.size, self.fit)
        return min(height / to_height, width / to_width)

    def _eight_bit(self, image: Image.Image, depth: Depth | None) -> tuple[Image.Image, int]:
        """The image in grey or RGB, perhaps with opacity, and the number of clipped values."""
        if self.span is None and not is_deep(image):
            return converted(image, self._mode), 0
        depth, values = stored(image, depth, self._mode)
        colour, opacity = self._split(values)
        levels, clipped = to_levels(colour, depth, self.span)
        levels = levels if opacity is None else np.concatenate([levels, opacity], -1)
        return Image.fromarray(levels), clipped

    def _split(self, values: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
        """Colour or grey, and opacity (H, W, 1) if there is any: it has a range of its own."""
        if values.ndim == 3 and values.shape[-1] in WITH_OPACITY:
            return values[..., :-1], values[..., -1:]
        return values, None

    def _of_array(self, content: np.ndarray) -> tuple[Tensor, int]:
        levels, clipped = to_levels(content, depth_of(content), self.span, self.depth)
        if self.depth == 8 and self.channels in (1, 3) and as_planes(levels).shape[-1] in (1, 3, 4):
            image = Image.fromarray(levels[..., 0] if levels.shape[2:] == (1,) else levels)
            return self._fitted(image, image.size, (0, 0, *image.size), 1), clipped
        return self._placed(as_planes(levels), opacity=False), clipped

    def _stored(self, content: bytes) -> tuple[Depth, np.ndarray, np.ndarray | None]:
        """The depth, the colours as stored, upright, (H, W, C), and opacity (H, W, 1) in 16 bits if there is any."""
        with self._loaded(content) as (image, _, _, depth):
            if depth is COLOUR and self._is_whole(content):
                depth, values = SIXTEEN, deep_colour(content, self.frames, self.max_pixels)
            elif is_deep(image):
                depth, values = stored(image, depth, "L")
                values = with_clear(values, image.info.get("transparency")) if depth is SIXTEEN else as_planes(values)
            else:
                depth, values = depth or EIGHT, eight_bits(converted_from_lab(image), has_opacity(image))
            colour, opacity = self._split(upright(values, orientation(image)))
        if opacity is not None and depth is not SIXTEEN:
            opacity = opacity.astype(np.uint16) * 257
        return depth, colour, opacity

    def _is_whole(self, content: bytes) -> bool:
        with opened(content, self.max_pixels) as image:
            chosen(image, self.frames)
            return is_whole(image)

    def _of_sixteen(self, found: tuple[Depth, np.ndarray, np.ndarray | None]) -> tuple[Tensor, int]:
        depth, colour, opacity = found
        levels, clipped = to_levels(colour, depth, self.span, self.depth)
        levels = levels if opacity is None else np.concatenate([levels, opacity], -1)
        return self._placed(levels, opacity=self.channels in WITH_OPACITY), clipped

    def _placed(self, levels: np.ndarray, *, opacity: bool) -> Tensor:
        """Upright pixels (H, W, C) -> (channels, *size). opacity: is the last of the channels opacity?"""
        pixels = to_channels(
            torch.from_numpy(np.require(levels, requirements="W")).permute(2, 0, 1)[None], self.channels
        )
        return fit_images(self._halved(pixels), self.size, self.fit, opacity=opacity)[0]

    def _halved(self, pixels: Tensor) -> Tensor:
        if not self.half:
            return pixels
        return pixels.split(half_of(pixels.shape[-1]), dim=-1)[0 if self.half == "left" else 1]

    def _fitted(self, image: Image.Image, full: tuple[int, int], box: tuple, turned: int) -> Tensor:
        """An image of 8 bits a channel -> pixels. turned: its EXIF orientation."""
        image = converted(image, self._mode)
        if self._excess(full, turned) >= 2 * GAP:
            height, width = full if turned in SIDEWAYS else full[::-1]
            to = fitted(height, width, self.size, self.fit)
            to = to if turned in SIDEWAYS else to[::-1]
            image = image.resize(to, Image.Resampling.BILINEAR, box=box, reducing_gap=GAP)
        pixels = torch.from_numpy(np.array(image.transpose(TURNS[turned]) if turned in TURNS else image))
        pixels = pixels[None] if pixels.dim() == 2 else pixels.permute(2, 0, 1)
        pixels = self._halved(pixels)[None]
        return fit_images(pixels, self.size, self.fit, opacity=self.channels in WITH_OPACITY)[0]


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
