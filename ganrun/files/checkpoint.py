"""A checkpoint as a file: whole or absent, with a checksum at its end, and read without unpickling anything."""

import hashlib
import io
from pathlib import Path
from typing import Any

from ganrun.errors import UserError, first_line
from ganrun.files.storage import replacing

FORMAT = 3  # 1 had no checksum; 2 identified data, and so scores, by their files
MARK = b"ganrun:blake2b:"  # starts the trailer after torch's own bytes, which torch.load ignores
TRAILER = len(MARK) + 64
CHUNK = 2**20  # bytes


def save_checkpoint(content: dict[str, Any], path: Path) -> None:
    """Writes tensors and plain containers beside `path`, syncs, then renames. Raises CannotWrite."""
    import torch

    buffer = io.BytesIO()  # torch turns a full disk into errors of its own; writing to memory first avoids them
    torch.save(content, buffer)
    data = buffer.getbuffer()
    with replacing(path) as file:
        file.write(data)
        file.write(MARK + hashlib.blake2b(data, digest_size=32).hexdigest().encode())


def load_checkpoint(path: Path) -> dict[str, Any]:
    """A checkpoint's content on the CPU; nothing in it can run code.

    Raises UserError for a damaged file or another format.
    """
    import torch

    fault = damage(path)
    if fault:
        raise UserError(f"{path}: {fault}")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
        about = dict(content["ganrun"])
    except Exception as error:  # torch and pickle raise many kinds for a foreign file
        reason = first_line(error)
        raise UserError(f"{path}: not a checkpoint of ganrun: {reason[:200]}") from error
    if about.get("format") != FORMAT:
        raise UserError(f"{path}: checkpoint format {about.get('format')}; this ganrun reads format {FORMAT}")
    return content | {"ganrun": about}


def damage(path: Path) -> str | None:
    """What is wrong with the file's bytes; None if nothing is."""
    try:
        size = path.stat().st_size - TRAILER
        with path.open("rb") as file:
            digest = hashlib.blake2b(digest_size=32)
            while block := file.read(max(0, min(CHUNK, size - file.tell()))):
                digest.update(block)
            trailer = file.read()
    except OSError as error:
        return f"cannot be read: {error.strerror}"
    if not trailer.startswith(MARK):
        return f"no checksum at its end: truncated, or not written by ganrun with checkpoint format {FORMAT}"
    return None if trailer == MARK + digest.hexdigest().encode() else "damaged: its checksum does not match"
