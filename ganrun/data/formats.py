"""Image files as Pillow opens them: which image of a file is read, and how large it may be."""

import io
import re
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from ctypes import c_longlong
from typing import Any, Literal, get_args

from PIL import Image, UnidentifiedImageError

from ganrun.data.memory import physical_memory

Frames = Literal["refuse", "first"]
FRAMES = get_args(Frames)
COMMON = ("JPEG", "PNG", "GIF", "BMP", "PPM")  # tried first
NOT_OPENED = {"EPS", *COMMON}  # EPS files are programs that Pillow hands to Ghostscript
HEADER_TELLS = {"JPEG", "MPO", "PNG", "BMP", "PPM"}  # how many images they hold; for others it takes the whole file
MAX_PIXELS = 2**28  # of one image, unless dataset.max_pixels says otherwise; phones take up to 200 million
DECODED = 24  # most bytes that a decoded pixel takes: 4 in Pillow, 4 in a copy, 16 while it is scaled or made opaque
PROGRESSIVE = 6  # most bytes that a JPEG's pixel takes during decoding at a reduced scale: its coefficients
ENLARGED = 2**26  # pixels that a narrow image may have once it fills the size
SHARE = 0.5  # of the memory, for all images that are decoded at the same time
TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
IFD_KIND, IFD_INVERTED, IFD_SAMPLES = 254, 262, 277  # tags: NewSubfileType, PhotometricInterpretation, SamplesPerPixel
ORIENTATION = 0x0112  # tag of EXIF
REDUCED = 1  # bit of NewSubfileType: a smaller version of another page


def opened(content: bytes, max_pixels: int | None = None) -> Image.Image:
    """The image, with only its header read.

    Raises ValueError for a file that is no image, more than `max_pixels` (None = MAX_PIXELS), and channels that Pillow
    would drop.
    """
    if not content:
        raise ValueError("the file is empty")
    Image.init()
    try:
        image = Image.open(io.BytesIO(content), formats=[*COMMON, *(id for id in Image.ID if id not in NOT_OPENED)])
    except UnidentifiedImageError as error:
        tiff = "a TIFF of a depth or number of channels that Pillow cannot read; save it as a PNG, or as an .npy"
        raise ValueError(tiff if content.startswith(TIFF) else "not an image that Pillow can read") from error
    except Image.DecompressionBombError as error:  # twice the limit that `quiet` sets
        (pixels,) = re.findall(r"\((\d+) pixels\)", str(error)) or [0]
        raise ValueError(too_many(int(pixels), max_pixels)) from error
    if image.width * image.height > most_pixels(max_pixels):
        raise ValueError(too_many(image.width * image.height, max_pixels))
    samples = image.tag_v2.get(IFD_SAMPLES, 1) if image.format == "TIFF" else 1
    if samples > len(image.getbands()):
        read = f"{samples} channels, of which Pillow reads {len(image.getbands())}"
        raise ValueError(f"{read}; save it as grey or RGB, or as an .npy")
    return image


def most_pixels(max_pixels: int | None) -> int:
    return max_pixels or MAX_PIXELS


def too_many(pixels: int, max_pixels: int | None) -> str:
    return f"{pixels:,} pixels; at most {most_pixels(max_pixels):,} are read: dataset.max_pixels={pixels} allows it"


def chosen(image: Image.Image, frames: Frames) -> str | None:
    """Seeks to the image of a file that is read; returns in words what else the file holds, None if nothing.

    Always accepted: the main view of a phone's or stereo camera's file (MPO), the largest image of an icon, the merged
    picture of a layered file (PSD), the first page of a TIFF that is not a smaller version of another page. Of
    animations and files with several pages, frames=first reads the first one.

    Raises ValueError for several frames or pages with frames=refuse.
    """
    if image.format in ("ICO", "ICNS"):
        sizes = image.ico.sizes() if image.format == "ICO" else image.info["sizes"]
        return "icon of several sizes: the largest is read" if len(sizes) > 1 else None
    num = getattr(image, "n_frames", 1)
    if num == 1 or image.format == "PSD":
        return None
    if image.format == "MPO":
        return "a second view or preview beside the main image, which is read"
    pages = whole_pages(image) if image.format == "TIFF" else list(range(num))
    image.seek(pages[0])
    if len(pages) == 1:
        return "smaller versions of the page that is read"
    if frames == "refuse":
        raise ValueError(f"{len(pages)} frames or pages; dataset.frames=first reads the first of each file")
    return "several frames or pages: the first is read (dataset.frames=first)"


def whole_pages(image: Image.Image) -> list[int]:
    """Indices of a TIFF's pages that are not smaller versions of others; all pages if none is marked as whole."""
    pages = []
    for index in range(image.n_frames):
        image.seek(index)
        if not image.tag_v2.get(IFD_KIND, 0) & REDUCED:
            pages.append(index)
    return pages or list(range(image.n_frames))


def is_deep_colour(image: Image.Image) -> bool:
    """Has it 16 bits a channel, of which Pillow reads only the upper 8?"""
    if len(image.getbands()) == 1 or not image.tile:
        return False
    arguments = image.tile[0][3]  # of Pillow's decoder: a raw mode such as RGB;16B, in a tuple or not
    return ";16" in str(arguments) or (image.format == "PPM" and max(arguments[1:], default=0) > 255)


def is_twelve_bit(image: Image.Image) -> bool:
    """Is it grey of 12 bits, which Pillow puts into 16 without scaling?"""
    return bool(image.tile) and "I;12" in str(image.tile[0][3])


def is_inverted(image: Image.Image) -> bool:
    """Is it a TIFF in which 0 is white and which Pillow does not invert, as it has more than 8 bits?"""
    return image.format == "TIFF" and image.tag_v2.get(IFD_INVERTED) == 0


def orientation(image: Image.Image) -> int:
    """EXIF's number, 1 = upright, also for images without one."""
    try:
        return image.getexif().get(ORIENTATION, 1)
    except Exception:  # damaged EXIF raises exceptions of every kind
        return 1


def memory_needed(image: Image.Image, full: int) -> int:
    """Bytes for decoding an image of `full` pixels, after `Image.draft` has chosen the scale at which it is decoded."""
    size = image.width * image.height
    return DECODED * size + (PROGRESSIVE * full if size < full else 0)


class Memory:
    """Memory that several threads share: each waits until there is room for it.

    changed, used: a condition and a number in shared memory, for several processes; None = for threads.
    """

    def __init__(self, changed: Any = None, used: Any = None):
        self._changed = changed or threading.Condition()
        self._used = c_longlong(0) if used is None else used

    def join(self, other: "Memory") -> None:
        """From now on it is shared with the other one."""
        self._changed, self._used = other._changed, other._used

    @contextmanager
    def taken(self, size: int) -> Iterator[None]:
        """Takes `size` bytes. Raises ValueError for more bytes than there are in all."""
        total = int(physical_memory() * SHARE)
        if size > total:
            room = f"half of the memory is {total / 2**30:,.1f} GiB"
            raise ValueError(f"decoding it takes {size / 2**30:,.1f} GiB; {room}; save it smaller")
        with self._changed:
            self._changed.wait_for(lambda: self._used.value + size <= total)
            self._used.value += size
        try:
            yield
        finally:
            with self._changed:
                self._used.value -= size
                self._changed.notify_all()


MEMORY = Memory()


@contextmanager
def quiet(max_pixels: int | None = None) -> Iterator[None]:
    """Silences Pillow's warnings: a file decodes or is reported. Only one thread may enter it at a time."""
    before = Image.MAX_IMAGE_PIXELS
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        Image.MAX_IMAGE_PIXELS = most_pixels(max_pixels)
        try:
            yield
        finally:
            Image.MAX_IMAGE_PIXELS = before
