"""From samples to the bytes of an answer, the same as those that `ganrun sample` and `translate` write."""

import io
import threading

from PIL import Image
from torch import Tensor

from ganrun.commands.serve.wanted import Wanted
from ganrun.errors import NotFinite
from ganrun.pictures import scatter
from ganrun.sampling.files import channels_last, png, put_npz

TYPES = {"png": "image/png", "grid": "image/png", "npz": "application/x-npz"}
PLOTS = threading.Lock()  # matplotlib is for one thread at a time


def encoded(wanted: Wanted, made: Tensor) -> bytes:
    """Samples (num, ...) of a request, in its format. Raises NotFinite for NaN and infinity."""
    check_finite(made)
    sampling = wanted.served.made
    if wanted.format == "npz":
        buffer, batch = io.BytesIO(), [(made, wanted.labels)]
        kinds = {"classes": sampling.classes, "attributes": sampling.attributes}
        put_npz(buffer, batch, num=len(made), **kinds, depth=sampling.depth)
        return buffer.getvalue()
    if wanted.layout:
        return as_png(wanted.layout.drawn(made, sampling))
    if sampling.value_range is None:
        with PLOTS:
            return as_png(scatter(made))
    return png(channels_last(made, sampling.depth)[0])


def check_finite(made: Tensor) -> None:
    """Raises NotFinite for NaN and infinity, which 8 bits would hide."""
    if not made.isfinite().all():
        raise NotFinite("the generator makes NaN or infinity of this request")


def as_png(picture: Image.Image) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return buffer.getvalue()
