"""PNGs of 16 bits a channel, of which Pillow writes only grey ones.

"Portable Network Graphics (PNG) Specification", third edition, W3C 2025, sections 5, 9 and 11.
"""

import struct
import zlib

import numpy as np

SIGNATURE = b"\x89PNG\r\n\x1a\n"
KINDS = {1: 0, 2: 4, 3: 2, 4: 6}  # channels -> colour type
UP = 2  # the filter that stores each byte's difference from the one above


def deep_png(pixels: np.ndarray, text: tuple[str, str]) -> bytes:
    """uint16 (H, W, C) of 1 to 4 channels: grey or RGB, both with or without opacity. text: a keyword and its text."""
    height, width, channels = pixels.shape
    lines = np.ascontiguousarray(pixels.astype(">u2")).view(np.uint8).reshape(height, -1)
    lines = np.diff(lines, axis=0, prepend=np.zeros_like(lines[:1]))  # modulo 256
    content = np.concatenate([np.full((height, 1), UP, np.uint8), lines], 1).tobytes()
    head = struct.pack(">IIBBBBB", width, height, 16, KINDS[channels], 0, 0, 0)
    said = "\0".join(text).encode("latin-1")
    parts = ((b"IHDR", head), (b"tEXt", said), (b"IDAT", zlib.compress(content)), (b"IEND", b""))
    return SIGNATURE + b"".join(chunk(kind, part) for kind, part in parts)


def chunk(kind: bytes, content: bytes) -> bytes:
    """Length, type, content and checksum."""
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
