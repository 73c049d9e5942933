"""Samples as files: a folder or .zip of PNGs, or arrays in an .npz or .npy, all of which `image-folder` reads back."""

import csv
import io
import re
import unicodedata
import zipfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO

import numpy as np
import torch
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from torch import Tensor

from ganrun.attributes import Attribute, in_units
from ganrun.depth import to_pixels
from ganrun.errors import UserError
from ganrun.files.storage import replacing, writing
from ganrun.sampling.deep_png import deep_png

Batches = Iterable[tuple[Tensor, Tensor | None]]  # samples (batch, ...) in order, and their labels (batch, ...)
TABLE = "labels.csv"  # of attributes, beside PNGs
MARK = ("Software", "ganrun")  # in each PNG, to recognise ganrun's own files later
UNSAFE = re.compile(r'[\x00-\x1f\x7f<>:"/\\|?*\ud800-\udfff]+')  # in a file's name, on one system or another
RESERVED = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\.|$)", re.I)  # device names on Windows
LONGEST = 100  # bytes of a folder's name
CHANNELS = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}  # that a PNG can have, and Pillow's names


def check_channels(out: Path, channels: int) -> None:
    """Raises UserError for images that no PNG can hold."""
    if channels not in CHANNELS:
        raise UserError(
            f"out={out}: the images have {channels} channels, a PNG at most 4; valid: .npz, .npy, .png (grid)"
        )


def write_folder(
    out: Path, batches: Batches, *, num: int, classes: list[str], attributes: Sequence[Attribute] = (), depth: int = 8
) -> None:
    """PNGs 00000.png, ... in `out`, in a folder for each class; or with labels.csv, if labels are attributes.

    depth: bits of a pixel.

    Removes PNGs of an earlier call that are not written again, and its labels.csv, and no other file. Raises
    CannotWrite, and UserError for a labels.csv of another origin.
    """
    if attributes and (out / TABLE).exists() and not is_own_table(out / TABLE):
        raise UserError(f"out={out}: there is a {TABLE} that ganrun did not write; name another place")
    written = set()
    for name, content in pngs(batches, num=num, classes=classes, attributes=attributes, depth=depth):
        path = out / name
        with writing(path):
            out.mkdir(exist_ok=True)
            path.parent.mkdir(exist_ok=True)
        with replacing(path, sync=False) as file:
            file.write(content)
        written.add(path)
    with writing(out):
        remove_stale(out, written)


def remove_stale(out: Path, written: set[Path]) -> None:
    """Removes this module's own files that are not among `written`, and class folders left empty."""
    if (out / TABLE) not in written and (out / TABLE).is_file() and is_own_table(out / TABLE):
        (out / TABLE).unlink()
    for path in [*out.glob("*.png"), *out.glob("*/*.png")]:
        if path not in written and path.stem.isdecimal() and is_own(path):
            path.unlink()
            with suppress(OSError):  # the folder holds other files
                path.parent.rmdir()


def is_own(path: Path) -> bool:
    """Does the PNG carry ganrun's mark?"""
    with path.open("rb") as file:
        return b"tEXt" + "\0".join(MARK).encode() in file.read(200)


def is_own_table(path: Path) -> bool:
    """Does it look like one of write_folder's?"""
    with path.open("rb") as file:
        return re.match(rb"file,[^\n]*\n\d{5,}\.png,", file.read(2**16)) is not None


def write_zip(
    out: Path, batches: Batches, *, num: int, classes: list[str], attributes: Sequence[Attribute] = (), depth: int = 8
) -> None:
    """The same files in a .zip, stored without further compression, since PNGs are compressed. Raises CannotWrite."""
    with replacing(out) as file, zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        for name, content in pngs(batches, num=num, classes=classes, attributes=attributes, depth=depth):
            archive.writestr(zipfile.ZipInfo(name), content)  # dated 1980, so that the same samples make the same bytes


def write_npz(
    out: Path, batches: Batches, *, num: int, classes: list[str], attributes: Sequence[Attribute] = (), depth: int = 8
) -> None:
    """arr_0: uint8 or uint16 (num, H, W, C), or float32 (num, D) for vectors; labels and class names; or attributes
    (num, F) in their own units, and attribute_names.

    Written batch by batch. Raises CannotWrite.
    """
    with replacing(out) as file:
        put_npz(file, batches, num=num, classes=classes, attributes=attributes, depth=depth)


def put_npz(
    file: IO[bytes], batches: Batches, *, num: int, classes: list[str], attributes: Sequence[Attribute], depth: int
) -> None:
    """The same into an open file."""
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        with archive.open("arr_0.npy", "w", force_zip64=True) as member:
            labels = write_rows(member, batches, num, depth)
        extra = {"labels": np.concatenate(labels), "classes": np.array(classes)} if labels else {}
        if attributes:
            values = in_units(torch.from_numpy(extra["labels"]), attributes).numpy()
            extra = {"attributes": values, "attribute_names": np.array([one.name for one in attributes])}
        for name, values in extra.items():
            with archive.open(f"{name}.npy", "w") as member:
                np.lib.format.write_array(member, values, allow_pickle=False)


def write_npy(
    out: Path, batches: Batches, *, num: int, classes: list[str], attributes: Sequence[Attribute] = (), depth: int = 8
) -> None:
    """The array arr_0 of `write_npz` alone. Raises CannotWrite."""
    with replacing(out) as file:
        write_rows(file, batches, num, depth)


def write_rows(file: IO[bytes], batches: Batches, num: int, depth: int) -> list[np.ndarray]:
    """Writes an .npy of all samples, batch by batch; returns their labels, in parts."""
    labels = []
    for i, (samples, label) in enumerate(batches):
        rows = channels_last(samples, depth) if samples.dim() == 4 else samples.float().numpy()
        if i == 0:
            head = {"descr": rows.dtype.str, "fortran_order": False, "shape": (num, *rows.shape[1:])}
            np.lib.format.write_array_header_2_0(file, head)
        file.write(np.ascontiguousarray(rows).tobytes())
        labels += [] if label is None else [label.numpy()]
    return labels


def pngs(
    batches: Batches, *, num: int, classes: list[str], attributes: Sequence[Attribute] = (), depth: int = 8
) -> Iterator[tuple[str, bytes]]:
    """File names, numbered like the samples, and file contents; at last the table of attributes, if there are any."""
    folders, digits, i = folder_names(classes), max(5, len(str(num - 1))), 0
    table = io.StringIO(newline="")
    lines = csv.writer(table, lineterminator="\n")
    lines.writerow(["file", *(one.name for one in attributes)])
    for samples, labels in batches:
        values = in_units(labels, attributes).tolist() if attributes else []
        for row, pixels in enumerate(channels_last(samples, depth)):
            folder = f"{folders[labels[row]]}/" if classes and labels is not None else ""
            name = f"{folder}{i:0{digits}}.png"
            yield name, png(pixels)
            if attributes:
                lines.writerow([name, *(f"{value:.7g}" for value in values[row])])
            i += 1
    if attributes:
        yield TABLE, table.getvalue().encode()


def channels_last(images: Tensor, depth: int = 8) -> np.ndarray:
    """(num, C, H, W) in [-1, 1] -> uint8 or uint16 (num, H, W, C)"""
    return to_pixels(images, depth=depth).permute(0, 2, 3, 1).numpy()


def png(pixels: np.ndarray) -> bytes:
    """uint8 or uint16 (H, W, C), grey or RGB, both with or without opacity."""
    if pixels.dtype == np.uint16:
        return deep_png(pixels, MARK)
    info, buffer = PngInfo(), io.BytesIO()
    info.add_text(*MARK)
    Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels).save(buffer, "PNG", pnginfo=info)
    return buffer.getvalue()


def folder_names(classes: list[str]) -> list[str]:
    """Class names as folder names: forbidden characters are replaced, none is hidden, and no two are alike.

    Names that differ only in case or in the encoding of accents count as alike, as on some file systems.
    """
    taken: set[str] = set()
    names = []
    for given in classes:
        name = UNSAFE.sub("-", given).strip(" .")
        name = name.encode("utf-8", "replace")[:LONGEST].decode("utf-8", "ignore").strip(" .") or "class"
        name = "macosx" if name == "__MACOSX" else name  # readers of archives leave out __MACOSX
        name = f"{name}-class" if RESERVED.match(name) else name
        candidates = (name, *(f"{name}-{i}" for i in range(2, len(classes) + 2)))
        names.append(next(candidate for candidate in candidates if folded(candidate) not in taken))
        taken.add(folded(names[-1]))
    return names


def folded(name: str) -> str:
    """The same text for names that some file systems treat as one."""
    return unicodedata.normalize("NFC", name).casefold()
