"""Moving pictures: an endless GIF, or an MP4 that any browser plays."""

import io
from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path

import numpy as np
from PIL import Image

from ganrun.errors import UserError
from ganrun.files.storage import replacing

QUALITY = "16"  # x264's constant rate factor: 0 is lossless, 18 looks lossless, 51 is the worst


def write_gif(out: Path, pictures: Iterable[Image.Image], *, fps: int) -> None:
    """Writes an endless loop. GIFs count hundredths of a second: 24 frames a second become 25. Raises CannotWrite."""
    first, *others = (picture.quantize(256, dither=Image.Dither.NONE) for picture in pictures)
    duration = max(1, round(100 / fps)) * 10  # milliseconds
    with replacing(out) as file:
        first.save(file, "GIF", save_all=True, append_images=others, duration=duration, loop=0, disposal=1)


def write_mp4(out: Path, pictures: Iterable[Image.Image], *, fps: int) -> None:
    """Writes H.264 in yuv420p. Raises CannotWrite, and UserError without PyAV."""
    try:
        import av
    except ImportError as error:
        raise UserError(f"out={out}: an .mp4 needs PyAV: pip install av; a .gif does without") from error
    encoded = io.BytesIO()  # PyAV would hide why a write failed
    with av.open(encoded, "w", format="mp4") as film:
        stream = film.add_stream("libx264", rate=Fraction(fps), options={"crf": QUALITY})
        stream.pix_fmt = "yuv420p"
        for number, picture in enumerate(pictures):
            pixels = even(np.asarray(picture.convert("RGB")))
            if number == 0:
                stream.height, stream.width = pixels.shape[:2]
            film.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        film.mux(stream.encode())
    with replacing(out) as file:
        file.write(encoded.getbuffer())


def even(pixels: np.ndarray) -> np.ndarray:
    """(H, W, C) with a white row or column added where H or W is odd: yuv420p has one colour for 2 x 2 pixels."""
    height, width, _ = pixels.shape
    return np.pad(pixels, ((0, height % 2), (0, width % 2), (0, 0)), constant_values=255)
