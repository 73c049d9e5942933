"""From stored pixels to 8 bits: ranges, several images in a file, large files, and what must not change unnoticed."""

import io
import struct
import threading
import zlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageFile
from PIL.TiffImagePlugin import AppendingTiffWriter
from test_data_images import written

from ganrun.data import formats, pixels
from ganrun.data.formats import Memory
from ganrun.data.images import ImageFolder
from ganrun.data.pixels import DECODER, Decoding
from ganrun.errors import UserError

RAMP = np.linspace(0, 1, 64).reshape(8, 8)


def saved(values: np.ndarray | Image.Image, ending: str, **settings) -> bytes:
    image = values if isinstance(values, Image.Image) else Image.fromarray(values)
    buffer = io.BytesIO()
    image.save(buffer, ending, **settings)
    return buffer.getvalue()


def folder(where: Path, files: dict[str, bytes], **settings) -> ImageFolder:
    settings = {"name": "mine", "resolution": 8, "channels": 1, "fit": "exact"} | settings
    return ImageFolder(path=str(written(where, "folder", files)), **settings)


def pixels_of(data: ImageFolder) -> np.ndarray:
    return data.read(torch.arange(len(data)))["real"][:, 0].numpy()


def refused(where: Path, files: dict[str, bytes], **settings) -> str:
    with pytest.raises(UserError) as raised:
        folder(where, files, **settings)
    return str(raised.value)


def deep_colour(level: int) -> bytes:
    """A PNG of 8x8 pixels of 16 bits in each of three channels, black to `level`."""
    rows = np.repeat(np.rint(RAMP * level)[:, :, None], 3, 2).astype(">u2")
    lines = zlib.compress(b"".join(b"\0" + row.tobytes() for row in rows))
    chunks = {b"IHDR": struct.pack(">IIBBBBB", 8, 8, 16, 2, 0, 0, 0), b"IDAT": lines, b"IEND": b""}
    png = (struct.pack(">I", len(c)) + k + c + struct.pack(">I", zlib.crc32(k + c)) for k, c in chunks.items())
    return b"\x89PNG\r\n\x1a\n" + b"".join(png)


STORED = {  # how a ramp is stored, dataset.range, its values that become 0 and 255
    "16-bit png": (saved(np.rint(RAMP * 65535).astype(np.uint16), "png"), None, (0, 1)),
    "12 bits in a 16-bit png": (saved(np.rint(RAMP * 4095).astype(np.uint16), "png"), [0, 4095], (0, 1)),
    "a part of it": (saved(np.rint(RAMP * 4000).astype(np.uint16), "png"), [1000, 3000], (0.25, 0.75)),
    "12 bits, found": (saved(np.rint(RAMP * 4095).astype(np.uint16), "png"), "auto", (0, 1)),
    "signed": (saved(np.rint(RAMP * 4095 - 1024).astype(np.int32), "tiff"), [-1024, 3071], (0, 1)),
    "signed, found": (saved(np.rint(RAMP * 4095 - 1024).astype(np.int32), "tiff"), "auto", (0, 1)),
    "32-bit": (saved(np.rint(RAMP * 2**30).astype(np.int32), "tiff"), "auto", (0, 1)),
    "float": (saved(RAMP.astype(np.float32), "tiff"), [0, 1], (0, 1)),
    "float, signed": (saved((RAMP * 2 - 1).astype(np.float32), "tiff"), "auto", (0, 1)),
    "8-bit": (saved(np.rint(RAMP * 20).astype(np.uint8), "png"), [0, 20], (0, 1)),
    "white is zero": (saved(np.rint((1 - RAMP) * 65535).astype(np.uint16), "tiff", tiffinfo={262: 0}), None, (0, 1)),
}


@pytest.mark.parametrize("kind", STORED)
def test_range_by_hand(tmp_path, kind):
    content, given, (low, high) = STORED[kind]
    data = folder(tmp_path, {"a.png": content}, range=given)
    wanted = np.clip((RAMP - low) / (high - low), 0, 1) * 255
    tolerance = 255 / 20 / 2 + 0.51 if kind == "8-bit" else 0.57  # half a stored level beside half of one of 8 bits
    assert np.abs(pixels_of(data)[0] - wanted).max() < tolerance
    assert pixels_of(data).min() == 0 and pixels_of(data).max() == 255


RANGES_REFUSED = {
    "12 bits": (
        {"a.png": STORED["12 bits in a 16-bit png"][0]}, {},
        "16-bit pixels lie in 0..4095 of 0..65535 (1 of 1 images looked at): they would be black or flat; "
        "give dataset.range=[0,4095] or auto",
    ),
    "12 bits, in bright ones": (
        {"a.png": saved((60000 + RAMP * 4000).astype(np.uint16), "png")}, {},
        "16-bit pixels lie in 60000..64000 of 0..65535 (1 of 1 images looked at): they would be black or flat; "
        "give dataset.range=[60000,64000] or auto",
    ),
    "12 bits, in colour": (
        {"a.png": deep_colour(4095)}, {},
        "16-bit colour, read in 8 bits, pixels lie in 0..15 of 0..255 (1 of 1 images looked at): they would be black "
        "or flat; save the files in 8 bits",
    ),
    "several depths": (
        {"a.png": STORED["16-bit png"][0], "b.png": STORED["8-bit"][0]}, {"range": "auto"},
        "dataset.range=auto: the images are of several depths: 16-bit 0..65535, 8-bit 0..20; give [low,high]",
    ),
    "one value": (
        {"a.png": saved(np.full((8, 8), 7, np.uint8), "png")}, {"range": "auto"},
        "dataset.range=auto: all pixels are 7",
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", RANGES_REFUSED)
@pytest.mark.parametrize("on_error", ["refuse", "skip"])
def test_ranges_that_are_refused(tmp_path, kind, on_error):
    files, settings, why = RANGES_REFUSED[kind]
    assert refused(tmp_path, files, on_error=on_error, **settings) == f"dataset mine: {why}"


@pytest.mark.parametrize("wrong", [[1, 1], [3, 1], [1], [1, 2, 3], "wide"])
def test_what_range_may_be(tmp_path, wrong):
    told = refused(tmp_path, {"a.png": STORED["8-bit"][0]}, range=wrong)
    assert told == f"dataset.range={wrong}; expected [low,high], auto, or null for all that the depth can hold"


def test_a_range_is_said(tmp_path):
    full, dark = STORED["16-bit png"][0], STORED["8-bit"][0]
    said = {
        "deep": (
            {"a.png": full}, {},
            ["16-bit pixels lie in 0..65535 of 0..65535 (1 of 1 images looked at): read in 8 bits; dataset.depth=16 "
             "keeps 16"],
        ),
        "dark": (
            {"a.png": dark, "b.png": dark}, {},
            ["8-bit pixels lie in 0..20 of 0..255 (2 of 2 images looked at): they are dark or flat unless you give "
             "dataset.range=[0,20] or auto"],
        ),
        "auto": ({"a.png": dark}, {"range": "auto"}, ["dataset.range=[0,20] for pixels of 8-bit 0..20"]),
        "clipped": (
            {"a.png": dark, "b.png": full}, {"range": [0, 10]},
            ["dataset.range=[0,10] for pixels of 8-bit 0..20, 16-bit 0..65535: read in 8 bits; dataset.depth=16 keeps "
             "16",
             "93 values outside dataset.range=[0,10] are clipped, in 2 images"],
        ),
        "in colour": (
            {"a.png": deep_colour(65535)}, {"channels": 3},
            ["16-bit colour, read in 8 bits, pixels lie in 0..255 of 0..255 (1 of 1 images looked at)",
             "16-bit colour is read in 8 bits; dataset.depth=16 keeps 16 (1 files, such as a.png)"],
        ),
    }  # fmt: skip
    for kind, (files, settings, notes) in said.items():
        (tmp_path / kind).mkdir()
        for cache in (None, str(tmp_path / "cache"), str(tmp_path / "cache")):  # decoded, prepared, as prepared before
            (tmp_path / kind / str(cache is None)).mkdir(exist_ok=True)
            where = tmp_path / kind / str(cache is None)
            assert folder(where, files, cache=cache, **settings).notes == notes, kind


def test_colour_of_16_bits_has_no_range_to_choose(tmp_path):
    told = refused(tmp_path, {"a.png": deep_colour(65535)}, range=[0, 4095])
    assert "cannot read image a.png: 16-bit colour is read in 8 bits, so dataset.range cannot choose" in told


def test_floats_that_are_not_finite(tmp_path):
    values = RAMP.astype(np.float32)
    values[3, 3] = np.nan
    assert "cannot read image a.png: its pixels are not all finite" in refused(
        tmp_path, {"a.png": saved(values, "tiff")}, range=[0, 1]
    )


def greys(*levels: int) -> list[Image.Image]:
    return [Image.new("L", (8, 8), level) for level in levels]


def pages(*levels: int, kinds: tuple[int, ...]) -> bytes:
    """A TIFF of several pages; kind 1 = a smaller version of another page."""
    buffer = io.BytesIO()
    with AppendingTiffWriter(buffer) as out:
        for image, kind in zip(greys(*levels), kinds, strict=True):
            image.save(out, "tiff", tiffinfo={254: kind})
            out.newFrame()
    return buffer.getvalue()


first, *others = greys(90, 200, 30)
SEVERAL = {  # file -> the grey level that is read, what is said, and does it need dataset.frames=first?
    "gif": (saved(first, "gif", save_all=True, append_images=others), 90, "several frames or pages", True),
    "apng": (saved(first, "png", save_all=True, append_images=others), 90, "several frames or pages", True),
    "webp": (
        saved(first, "webp", save_all=True, append_images=others, lossless=True), 90, "several frames or pages", True,
    ),
    "avif": (saved(first, "avif", save_all=True, append_images=others), 90, "several frames or pages", True),
    "tiff": (saved(first, "tiff", save_all=True, append_images=others), 90, "several frames or pages", True),
    "tiff with a preview": (pages(90, 200, kinds=(0, 1)), 90, "smaller versions of the page that is read", False),
    "tiff with the preview first": (pages(90, 200, kinds=(1, 0)), 200, "smaller versions of the page", False),
    "tiff of previews": (pages(90, 200, kinds=(1, 1)), 90, "several frames or pages", True),
    "mpo": (saved(first, "mpo", save_all=True, append_images=others), 90, "a second view or preview", False),
    "ico": (saved(first, "ico", sizes=[(8, 8), (4, 4)]), 90, "icon of several sizes: the largest is read", False),
}  # fmt: skip


@pytest.mark.parametrize("kind", SEVERAL)
def test_files_of_several_images(tmp_path, kind):
    content, level, said, asks = SEVERAL[kind]
    files = {"a.png": content, "b.png": saved(greys(255)[0], "png")}
    if asks:
        told = refused(tmp_path, files)
        assert told.startswith("dataset mine: cannot read image a.png: ") and "; dataset.frames=first reads" in told
    (tmp_path / "first").mkdir()
    data = folder(tmp_path / "first", files, frames="first" if asks else "refuse")
    assert pixels_of(data)[0] == pytest.approx(level, abs=2)
    assert (
        len(data.notes) == 1 and data.notes[0].startswith(said) and data.notes[0].endswith("(1 files, such as a.png)")
    )


def test_what_frames_may_be(tmp_path):
    assert refused(tmp_path, {"a.png": b""}, frames="all") == "dataset.frames=all; valid: refuse, first"


def test_a_key_allows_more_pixels(tmp_path):
    content = saved(greys(90)[0], "png")
    told = refused(tmp_path, {"a.png": content}, max_pixels=63)
    assert "cannot read image a.png: 64 pixels; at most 63 are read: dataset.max_pixels=64 allows it" in told
    (tmp_path / "more").mkdir()
    assert pixels_of(folder(tmp_path / "more", {"a.png": content}, max_pixels=64)).max() == 90
    assert refused(tmp_path / "more", {"a.png": content}, max_pixels=0).startswith("dataset.max_pixels=0; expected at")


def test_what_needs_too_much_memory_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(formats, "physical_memory", lambda: 3000)
    told = refused(tmp_path, {"a.png": saved(greys(90)[0], "png")})
    assert "cannot read image a.png: decoding it takes 0.0 GiB; half of the memory is 0.0 GiB" in told


def test_images_that_need_all_memory_are_decoded_one_at_a_time(monkeypatch):
    monkeypatch.setattr(formats, "physical_memory", lambda: 200)
    memory, inside, most = Memory(), [], []

    def use(size: int) -> None:
        with memory.taken(size):
            inside.append(size)
            most.append(sum(inside))
            inside.remove(size)

    threads = [threading.Thread(target=use, args=(size,)) for size in [60, 60, 30, 100, 40] * 20]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(most) == 100 and max(most) <= 100


def noise(width: int, height: int) -> Image.Image:
    """Smooth enough that JPEG changes little, different everywhere."""
    y, x = np.mgrid[:height, :width] / [[[height]], [[width]]]
    return Image.fromarray(np.rint(np.stack([x, y, (1 - x) * y], 2) * 255).astype(np.uint8))


def oriented(image: Image.Image, orientation: int, ending: str) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return saved(image, ending, exif=exif, **({"quality": 95} if ending == "jpeg" else {}))


@pytest.mark.parametrize("fit", ["resize", "crop", "pad"])
@pytest.mark.parametrize("orientation", [1, 3, 6, 7])
@pytest.mark.parametrize("ending", ["jpeg", "png", "tiff"])
def test_a_large_image_is_resized_in_two_steps_with_the_same_result(monkeypatch, fit, orientation, ending):
    content = oriented(noise(403, 229), orientation, ending)
    how = Decoding((8, 6), 3, fit)
    shrunk, _ = how.decode(content)  # from one pixel to the next it changes by up to 64
    monkeypatch.setattr(pixels, "GAP", 1000)  # nothing is that large
    plain, _ = how.decode(content)
    assert np.abs(shrunk.numpy().astype(int) - plain.numpy()).max() <= 6


def test_a_large_jpeg_is_decoded_at_a_reduced_scale(monkeypatch):
    sizes = []
    load = ImageFile.ImageFile.load
    monkeypatch.setattr(ImageFile.ImageFile, "load", lambda self: (sizes.append(self.size), load(self))[1])
    for side, decoded in ((47, 47), (48, 24), (192, 24), (1000, 125)):
        Decoding((8, 8), 3).decode(saved(noise(side, side), "jpeg"))
        assert sizes[-1] == (decoded, decoded)


GOLDEN = {  # (channels, 4, 4) of each file below, in hexadecimal
    "png": "1c5695cf1c5695cf1c5695cf1c5695cf1a1a1a1a5555555593939393cdcdcdcd18120b054b38231083613d1cb7885526",
    "png in grey": "1b2b3d4e435262726e7b8a9896a2afbb",
    "large png": "245e9edc245e9edc245e9edc245e9edc4c4c4c4c7e7e7e7eb2b2b2b2e2e2e2e241301d0b6c4f301199704419c28e561f",
    "large jpeg": "327ecf00317ecf00317ecf00327ecf00252525005f5f5f009e9e9e00dbdbdb001e1307004c3012007f501e00b06f2900",
    "turned": "1c1c1c1c5656565695959595cfcfcfcfcd93551acd93551acd93551acd93551ab7834b1888613812553d230b261c1005",
    "see-through": "e8c9c4dae8c9c4dae8c9c4dae8c9c4dae6b27945ecc69b75f3dbc0a7f9eee2d7e5af7034eabb7d3cf0c88c45f5d5994e",
    "palette": "2b579acb1e529ad62c549de41a539acc1f1f1f1f5453596e989299dacacbc6cf1a150c0648372d437e614aa8b6894f35",
    "cmyk": "1c5695cf1c5695cf1c5695cf1c5695cf1a1a1a1a5555555593939393cdcdcdcd18120b054b38231083613d1cb7885526",
    "1 bit": "11243d5641596678757c8a9b9ea2b7c0",
    "16 bits": "1a212931545b636a959ca4abced6dee5",
    "16 bits of a range": "010305082f3c4a57a8b5c3d0f7fafcfe",
    "float": "1a212931545b636a959ca4abced6dee5",
    "white is zero": "1a212931545b636a959ca4abced6dee5",
    "16-bit colour": "1a212930545b636a959ca4abcfd6dee51a212930545b636a959ca4abcfd6dee51a212930545b636a959ca4abcfd6dee5",
    "animation": "5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a",
}


def golden_files() -> dict[str, tuple[bytes, Decoding]]:
    small, large = noise(13, 11), noise(97, 131)
    half = Image.merge("RGBA", (*small.split(), small.split()[0]))
    colour, grey = Decoding((4, 4), 3), Decoding((4, 4), 1)
    return {
        "png": (saved(small, "png"), colour),
        "png in grey": (saved(small, "png"), grey),
        "large png": (saved(large, "png"), replace(colour, fit="crop")),
        "large jpeg": (saved(large, "jpeg", quality=95), replace(colour, fit="pad")),
        "turned": (oriented(small, 6, "png"), colour),
        "see-through": (saved(half, "png"), colour),
        "palette": (saved(small.quantize(16), "png", transparency=3), colour),
        "cmyk": (saved(small.convert("CMYK"), "tiff"), colour),
        "1 bit": (saved(small.convert("1"), "png"), grey),
        "16 bits": (STORED["16-bit png"][0], grey),
        "16 bits of a range": (STORED["a part of it"][0], replace(grey, span=(1000, 3000))),
        "float": (STORED["float"][0], replace(grey, span=(0, 1))),
        "white is zero": (STORED["white is zero"][0], grey),
        "16-bit colour": (deep_colour(65535), colour),
        "animation": (SEVERAL["gif"][0], replace(grey, frames="first")),
    }


@pytest.mark.parametrize("kind", golden_files())
def test_whoever_changes_decoding_raises_its_version(kind):
    """Sets prepared before a change must not be used after it: raise DECODER, then write down the new pixels.

    One level of difference is Pillow's or torch's: their versions are part of a prepared set's name by themselves.
    """
    content, how = golden_files()[kind]
    got = how.decode(content)[0].flatten().int()
    assert DECODER == 2 and (got - torch.tensor(list(bytes.fromhex(GOLDEN[kind])))).abs().max() <= 1, got
