"""From the body of POST /translate to a job, and from its result to a PNG, by the rules of `ganrun translate`."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from fastapi import Request
from torch import Tensor

from ganrun.commands.serve.answers import check_finite
from ganrun.commands.serve.batching import Full, Job
from ganrun.commands.serve.guard import Refused, in_time
from ganrun.commands.serve.served import Served
from ganrun.commands.serve.settings import Settings
from ganrun.commands.translate.images import decoded, why
from ganrun.depth import to_numbers
from ganrun.errors import UserError, one_of
from ganrun.sampling.files import CHANNELS, channels_last, png
from ganrun.sampling.translator import Translator, taken

AT_ONCE = 32  # images that are in memory
WHOLE = 2**20  # pixels of an image that has a forward pass to itself
PADS = {"true": True, "false": False}
FIELD = "image"  # of a form


class Translating:
    """settings: of the command."""

    def __init__(self, settings: Settings):
        self.settings = settings
        self._busy = 0

    @contextmanager
    def room(self) -> Iterator[None]:
        """Room in memory for one image. Raises Full. For the thread of the event loop alone."""
        if self._busy >= AT_ONCE:
            raise Full(1)
        self._busy += 1
        try:
            yield
        finally:
            self._busy -= 1

    async def image_of(self, request: Request) -> bytes:
        """The image file in a request: its body, or the field `image` of a form. Raises UserError, Refused."""
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind == "multipart/form-data":
            form = await in_time(request.form(max_files=1, max_fields=1))
            for name in form:
                if name != FIELD:
                    raise UserError(f"{name[:80]}: there is no such field; {one_of([FIELD], name[:80])}")
            if FIELD not in form or isinstance(form[FIELD], str):
                raise UserError(f"{FIELD}: expected a file in this field of the form")
            content = await form[FIELD].read()
            await form.close()
        elif kind.startswith("image/") or kind in ("", "application/octet-stream"):
            content = await in_time(request.body())
        else:
            told = "expected image/..., application/octet-stream or multipart/form-data"
            raise Refused(415, f"Content-Type={kind[:80]!a}; {told}")
        if not content:
            raise UserError("the body is empty; expected an image file")
        return content

    def job(self, content: bytes, served: Served, query: dict[str, str]) -> Job:
        """The forward pass for one image. Raises UserError."""
        made: Translator = served.made
        name, pad = made.direction(query.get("direction")), query.get("pad", "true")
        if pad not in PADS:
            raise UserError(f"pad={pad[:80]}; expected true or false")
        takes, gives = made.channels[name]
        if max(takes, gives) > max(CHANNELS):
            raise UserError(f"it translates images of {takes} to {gives} channels, image files have at most 4")
        try:
            image = to_numbers(decoded(content, takes, self.settings.max_pixels, made.depth)[None])
        except Exception as error:  # decoders raise many kinds
            raise UserError(f"not translated: {why(error)}") from error
        size = taken(image.shape[-2:], getattr(made, name))
        pixels, most = math.prod(size), max(WHOLE, self.settings.max_pixels)
        if pixels > most:  # a long thin one
            raise UserError(f"not translated: the network takes it as {pixels:,} pixels; expected at most {most:,}")
        share = min(self.settings.batch_size, max(1, pixels * self.settings.batch_size // WHOLE))

        def forward(images: Tensor) -> Tensor:
            try:
                return made.translate(images, name, pad=PADS[pad], batch_size=max(1, WHOLE // pixels))
            except (RuntimeError, ValueError) as error:  # networks given odd sizes
                raise UserError(f"not translated: {why(error)}") from error

        return Job((id(served), name, pad, tuple(image.shape)), forward, (image,), share)

    def png(self, made: Tensor, served: Served) -> bytes:
        """(1, C, H, W) in [-1, 1] -> the content of a file. Raises NotFinite."""
        check_finite(made)
        return png(channels_last(made, served.made.depth)[0])


ABOUT_QUERY: list[dict[str, Any]] = [
    {
        "name": "direction",
        "in": "query",
        "schema": {"type": "string"},
        "description": "a2b or b2a, where there are two.",
    },
    {
        "name": "pad",
        "in": "query",
        "schema": {"type": "boolean", "default": True},
        "description": "Continue unfit sizes by reflection and cut the output back; false = refuse them.",
    },
]
