"""Damaged, odd and malicious image files: each is read as it should be, or named in one line; skip leaves it out."""

import io
import os
import pickle
import re
import struct
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from hydra import compose, initialize_config_dir
from PIL import Image
from torch.utils.data import DataLoader

from ganrun.config.groups import config_dir
from ganrun.data import decoded, files
from ganrun.data.datamodule import Rounds
from ganrun.data.decoded import Unreadable
from ganrun.data.images import ImageFolder
from ganrun.errors import UserError

KINDS = ["folder", "zip"]
NOISE = Image.fromarray(np.random.default_rng(0).integers(256, size=(64, 64, 3), dtype=np.uint8))
TOO_MANY = "576,000,000 pixels; at most 268,435,456 are read: dataset.max_pixels=576000000 allows it"
NO_RANGE = "have no range of their own; give dataset.range"
NO_IMAGE = "not an image that Pillow can read"


def encoded(image: Image.Image, ending: str = "png", **settings) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, ending, **settings)
    return buffer.getvalue()


def grey(value: int) -> bytes:
    return encoded(Image.new("RGB", (4, 4), (value,) * 3))


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def bomb(side: int) -> bytes:
    """A real PNG of side x side black pixels of one bit, small on the disk."""
    row = zlib.compressobj(9)
    pixels = b"".join(row.compress(bytes(1 + (side + 7) // 8)) for _ in range(side)) + row.flush()
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


def many_channels(num: int, bits: int = 8) -> bytes:
    """A little-endian TIFF of 4x4 zeros in so many channels; what the fourth and further ones are is not said."""
    photometric = 2 if num > 2 else 1
    extra = num - (3 if num > 2 else 1)
    size = 16 * num * bits // 8
    tail = 8 + 2 + 10 * 12 + 4  # where what does not fit into a tag lies: depths, the kinds of extra channels, pixels
    tags = [
        (256, 3, 1, 4), (257, 3, 1, 4), (258, 3, num, tail if num > 2 else bits | bits << 16), (259, 3, 1, 1),
        (262, 3, 1, photometric), (273, 4, 1, tail + 4 * num), (277, 3, 1, num), (278, 3, 1, 4), (279, 4, 1, size),
        (338, 3, extra, 0 if extra < 3 else tail + 2 * num),
    ]  # fmt: skip
    tags = tags[: 10 if extra else 9]
    directory = struct.pack("<H", len(tags)) + b"".join(struct.pack("<HHII", *tag) for tag in tags) + bytes(4)
    depths = struct.pack(f"<{num}H", *[bits] * num)
    return (b"II*\0" + struct.pack("<I", 8) + directory).ljust(tail, b"\0") + depths + bytes(2 * num + size)


def written(where: Path, kind: str, contents: dict[str, bytes]) -> Path:
    path = where / ("pictures" if kind == "folder" else "pictures.zip")
    if kind == "zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, content in contents.items():
                archive.writestr(name, content)
        return path
    path.mkdir()
    for name, content in contents.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        if name.endswith("/"):
            (path / name).mkdir(exist_ok=True)
        else:
            (path / name).write_bytes(content)
    return path


def folder(path: Path, **settings) -> ImageFolder:
    return ImageFolder(path=str(path), **({"name": "mine", "resolution": 4, "channels": 3} | settings))


def first_pixels(data: ImageFolder) -> list[list[int]]:
    return data.read(torch.arange(len(data)))["real"][:, :, 0, 0].tolist()


def greys(data: ImageFolder) -> list[int]:
    return [pixel[0] for pixel in first_pixels(data)]


def labels(data: ImageFolder) -> list[int]:
    return data.read(torch.arange(len(data)))["label"].tolist()


def refused(path: Path, **settings) -> str:
    with pytest.raises(UserError) as raised:
        folder(path, **settings)
    told = str(raised.value)
    assert told.isprintable() and told.encode()  # one line, which any terminal can show
    return told


DAMAGED = {
    "a text": (b"Dear diary,", NO_IMAGE),
    "empty": (b"", "the file is empty"),
    "cut off jpeg": (encoded(NOISE, "jpeg")[:-1000], "image file is truncated"),
    "cut off png": (encoded(NOISE)[:-2000], "image file is truncated"),
    "cut off in the header": (encoded(NOISE, "jpeg")[:30], "Truncated File Read"),
    "bomb": (bomb(24_000), TOO_MANY),
    "half a bomb": (bomb(17_000), "289,000,000 pixels; at most 268,435,456 are read"),  # of which Pillow only warns
    "floats": (encoded(Image.new("F", (4, 4), 0.5), "tiff"), f"float pixels, here 0.5..0.5, {NO_RANGE}=[0,1] or auto"),
    "32 bits": (
        encoded(Image.fromarray(np.full((4, 4), 70_000, np.int32)), "tiff"),
        f"integer pixels, here 70000..70000, {NO_RANGE}",
    ),
    "negative": (
        encoded(Image.fromarray(np.full((4, 4), -1, np.int32)), "tiff"),
        f"integer pixels, here -1..-1, {NO_RANGE}",
    ),
    "animated": (
        encoded(Image.new("L", (4, 4), 9), "gif", save_all=True, append_images=[Image.new("L", (4, 4), 200)]),
        "2 frames or pages; dataset.frames=first reads the first of each file",
    ),
    "of five channels": (
        many_channels(5),
        "5 channels, of which Pillow reads 3; save it as grey or RGB",
    ),
    "of two grey channels": (many_channels(2), "2 channels, of which Pillow reads 1; save it as grey or RGB"),
    "a depth that Pillow cannot read": (many_channels(3, bits=32), "a TIFF of a depth or number of channels that"),
    "postscript": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 4 4\n%%EndComments\n", NO_IMAGE),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("damage", DAMAGED)
def test_a_bad_file_is_refused_or_skipped(tmp_path, kind, damage):
    content, why = DAMAGED[damage]
    files = {"cat/a.png": grey(1), "cat/bad.png": content, "dog/b.png": grey(2), "dog/c.png": grey(3)}
    path = written(tmp_path, kind, files)
    told = refused(path)
    assert told.startswith(f"dataset mine: cannot read image cat/bad.png: {why}")
    assert told.endswith("; dataset.on_error=skip leaves out what is bad")
    data = folder(path, on_error="skip")
    assert greys(data) == [1, 2, 3] and labels(data) == [0, 1, 1] and data.classes == ["cat", "dog"]
    ((name, reason),) = data.skipped
    assert name == "cat/bad.png" and reason.startswith(why)


def test_a_bomb_is_not_unpacked(tmp_path, monkeypatch):
    path = written(tmp_path, "folder", {"a.png": bomb(24_000)})
    monkeypatch.setattr(Image.core, "new", lambda *_: pytest.fail("allocates pixels"))
    monkeypatch.setattr(Image.core, "fill", lambda *_: pytest.fail("allocates pixels"))
    assert TOO_MANY in refused(path)


@pytest.mark.parametrize("damage", ["cut off jpeg", "cut off png"])
def test_with_workers_a_cut_off_image_is_named_when_it_is_read(tmp_path, damage):
    content, why = DAMAGED[damage]
    path = written(tmp_path, "zip", {"a.png": grey(1), "b.png": content})
    data = folder(path, num_workers=2)
    assert data.read(torch.tensor([0]))["real"].unique().tolist() == [1]
    with pytest.raises(
        Unreadable, match=rf"^dataset mine: cannot read image b.png: {why}.*on_error=skip leaves out what is bad$"
    ):
        data.read(torch.tensor([0, 1]))


@pytest.mark.parametrize("num_workers", [0, 2])
def test_skip_checks_large_sets_once_and_says_so(tmp_path, capsys, monkeypatch, num_workers):
    contents = {f"{i}.png": grey(i) for i in range(9)} | {"3.png": DAMAGED["cut off png"][0], "4.png": b""}
    path = written(tmp_path, "folder", contents)
    if num_workers == 0:
        monkeypatch.setattr(decoded, "IN_MEMORY", 4 * 3 * 4 * 4)
    data = folder(path, on_error="skip", num_workers=num_workers, limit=4)
    assert capsys.readouterr().out == "dataset mine: checking 8 images\n"  # the header of the empty one told
    assert greys(data) == [0, 2, 6, 8]  # the limit is on the good ones: 0, 2, 4 and 6 of 7
    assert [name for name, _ in data.skipped] == ["3.png", "4.png"]
    assert bool(data.held) == (num_workers == 0)


def test_small_sets_are_checked_in_silence(tmp_path, capsys):
    folder(written(tmp_path, "folder", {"a.png": grey(1), "b.png": b""}), on_error="skip")
    assert capsys.readouterr() == ("", "")


def test_the_first_of_several_bad_files_is_named(tmp_path):
    bad = {f"{name}.png": b"" for name in "cba"}
    told = refused(written(tmp_path, "folder", bad | {"z.png": grey(1)}))
    assert told == f"dataset mine: cannot read image a.png: the file is empty, and 2 more; {decoded.ADVICE}"


def test_skip_refuses_when_nothing_is_left(tmp_path):
    path = written(tmp_path, "zip", {"a.png": b"", "b.png": b"no image"})
    assert refused(path, on_error="skip") == "dataset mine: no image is left; a.png: the file is empty"


def test_what_on_error_may_be(tmp_path):
    told = refused(written(tmp_path, "folder", {"a.png": grey(1)}), on_error="ignore")
    assert told == "dataset.on_error=ignore; valid: refuse, skip"


@pytest.mark.parametrize("kind", KINDS)
def test_skipping_is_the_same_every_time(tmp_path, kind):
    contents = {f"{i % 3}/{i:03}.png": grey(i) if i % 7 else b"bad" for i in range(100)}
    path = written(tmp_path, kind, dict(sorted(contents.items(), key=lambda item: hash(item[0]))))
    good = sorted(name for name in contents if contents[name] != b"bad")
    for _ in range(3):
        data = folder(path, on_error="skip")
        assert data._names == good and greys(data) == [int(name[2:5]) for name in good]
        assert labels(data) == [int(name[0]) for name in good]
        assert data.skipped == sorted((name, NO_IMAGE) for name in contents if name not in good)


def test_only_bad_files_in_a_class_make_it_no_class(tmp_path):
    contents = {"ape/a.png": grey(1), "bee/bad.png": b"", "cat/c.png": grey(3)}
    data = folder(written(tmp_path, "folder", contents), on_error="skip")
    assert data.classes == ["ape", "cat"] and labels(data) == [0, 1]
    assert data.skipped == [("bee", "class folder without readable images"), ("bee/bad.png", "the file is empty")]


def test_a_bad_file_beside_class_folders_hides_no_labels(tmp_path):
    contents = {"top/cat/a.png": grey(1), "top/dog/b.png": grey(2), "bad.png": b""}
    data = folder(written(tmp_path, "zip", contents), on_error="skip")
    assert data.classes == ["cat", "dog"] and data.skipped == [("bad.png", "the file is empty")]


@pytest.mark.parametrize("kind", KINDS)
def test_an_empty_class_folder(tmp_path, kind):
    path = written(tmp_path, kind, {"cat/a.png": grey(1), "dog/b.png": grey(2), "emu/": b"", "fox/text.txt": b"x"})
    assert refused(path) == (
        "dataset mine: class folder without readable images: emu, fox; dataset.on_error=skip leaves out what is bad"
    )
    data = folder(path, on_error="skip")
    assert data.classes == ["cat", "dog"] and labels(data) == [0, 1]
    assert data.skipped == [(name, "class folder without readable images") for name in ("emu", "fox")]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("other", ["a.png", "cat/deep/er/a.png"])
def test_without_classes_empty_folders_do_not_matter(tmp_path, kind, other):
    contents = {"cat/b.png": grey(2), other: grey(1), "emu/": b"", ".hidden/": b"", "cat/empty/": b""}
    assert folder(written(tmp_path, kind, contents)).skipped == []


def test_a_zip_with_a_top_folder_and_an_empty_class(tmp_path):
    contents = {"top/cat/a.png": grey(1), "top/dog/b.png": grey(2), "top/emu/": b"", "other/": b"", "top/": b""}
    assert "without readable images: emu;" in refused(written(tmp_path, "zip", contents))


CMYK = Image.new("CMYK", (4, 4), (0, 255, 255, 0))
PALETTE = Image.new("P", (4, 4), 1)
PALETTE.putpalette([0, 0, 0, 10, 20, 30])
TURNED = Image.new("RGB", (2, 4), (0, 0, 255))
TURNED.putpixel((0, 3), (255, 0, 0))  # the lower left corner, turned clockwise the upper left one


def with_orientation(orientation: int) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return encoded(TURNED, exif=exif)


def wide(dtype: str) -> bytes:
    """A TIFF of 16 bits, 0x1234 everywhere, in the byte order of dtype."""
    order = ">" if dtype[0] == ">" else "<"
    tags = [(256, 3, 4), (257, 3, 4), (258, 3, 16), (259, 3, 1), (262, 3, 1), (273, 4, 8), (277, 3, 1), (279, 4, 32)]
    entries = b"".join(
        struct.pack(f"{order}HHI", tag, kind, 1) + struct.pack(f"{order}{'H2x' if kind == 3 else 'I'}", value)
        for tag, kind, value in tags
    )
    directory = struct.pack(f"{order}H", len(tags)) + entries + bytes(4)
    head = (b"MM" if order == ">" else b"II") + struct.pack(f"{order}HI", 42, 40)
    return head + np.full(16, 0x1234, dtype).tobytes() + directory


ODD = {
    "cmyk jpeg": (encoded(CMYK, "jpeg", quality=100), [255, 0, 0]),
    "cmyk tiff": (encoded(CMYK, "tiff"), [255, 0, 0]),
    "palette": (encoded(PALETTE), [10, 20, 30]),
    "palette, one transparent": (encoded(PALETTE, transparency=1), [255, 255, 255]),
    "palette with alphas": (encoded(PALETTE, transparency=b"\x00\x80"), [132, 137, 142]),  # 0x80 / 255 of it
    "palette as gif": (encoded(PALETTE, "gif", transparency=1), [255, 255, 255]),
    "transparent": (encoded(Image.new("RGBA", (4, 4), (0, 0, 0, 0))), [255, 255, 255]),
    "half transparent": (encoded(Image.new("RGBA", (4, 4), (0, 0, 0, 0x80))), [127, 127, 127]),
    "opaque": (encoded(Image.new("RGBA", (4, 4), (1, 2, 3, 255))), [1, 2, 3]),
    "transparent webp": (encoded(Image.new("RGBA", (4, 4), (0, 0, 0, 0)), "webp", lossless=True), [255, 255, 255]),
    "grey with alpha": (encoded(Image.new("LA", (4, 4), (9, 0))), [255, 255, 255]),
    "grey with a colour key": (encoded(Image.new("L", (4, 4), 9), transparency=9), [255, 255, 255]),
    "colour with a colour key": (encoded(Image.new("RGB", (4, 4), (1, 2, 3)), transparency=(1, 2, 3)), [255] * 3),
    "grey": (encoded(Image.new("L", (4, 4), 77)), [77, 77, 77]),
    "1 bit": (encoded(Image.new("1", (4, 4), 1)), [255, 255, 255]),
    "16 bits, png": (encoded(Image.fromarray(np.full((4, 4), 0x1234, np.uint16))), [0x12] * 3),
    "16 bits, little endian": (wide("<u2"), [0x12] * 3),
    "16 bits, big endian": (wide(">u2"), [0x12] * 3),
    "16 bits, pgm": (b"P5\n4 4\n65535\n" + np.full(16, 0x1234, ">u2").tobytes(), [0x12] * 3),
    "turned": (with_orientation(6), [255, 0, 0]),
    "not turned": (with_orientation(1), [0, 0, 255]),
    "damaged exif": (encoded(Image.new("RGB", (4, 4), (5, 6, 7)), exif=b"Exif\0\0nonsense"), [5, 6, 7]),
    "animated": (
        encoded(
            Image.new("RGB", (4, 4), (255, 0, 0)),
            "webp",
            save_all=True,
            lossless=True,
            append_images=[Image.new("RGB", (4, 4), (0, 255, 0))],
        ),
        [255, 0, 0],
    ),
    "animated gif": (
        encoded(Image.new("L", (4, 4), 9), "gif", save_all=True, append_images=[Image.new("L", (4, 4), 200)]),
        [9, 9, 9],
    ),
    "lab": (encoded(Image.new("LAB", (4, 4), (0, 128, 128)), "tiff"), [0, 0, 0]),
    "one pixel": (encoded(Image.new("RGB", (1, 1), (4, 5, 6))), [4, 5, 6]),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("oddity", ODD)
def test_every_kind_of_pixel(tmp_path, kind, oddity):
    content, expected = ODD[oddity]
    path = written(tmp_path, kind, {"a.png": content})
    settings = {"frames": "first"} | ({"range": [0, 65535]} if "16 bits" in oddity else {})
    got = first_pixels(folder(path, fit="resize", **settings))[0]
    assert got == (pytest.approx(expected, abs=1) if oddity in ("cmyk jpeg", "lab") else expected)
    (level,) = first_pixels(folder(path, channels=1, **settings))[0]
    assert level == pytest.approx(expected[0] * 0.299 + expected[1] * 0.587 + expected[2] * 0.114, abs=1)


def test_an_upright_image_has_its_sides_exchanged(tmp_path):
    path = written(tmp_path, "folder", {"a.png": with_orientation(6)})
    real = folder(path, resolution=[2, 4]).read(torch.tensor([0]))["real"][0]
    assert real[0].tolist() == [[255, 0, 0, 0], [0, 0, 0, 0]]


@pytest.mark.parametrize(("fit", "expected"), [("resize", 16), ("crop", 16), ("pad", 1)])
@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA", "I;16"])
def test_one_pixel_fits(tmp_path, fit, expected, mode):
    path = written(tmp_path, "zip", {"a.png": encoded(Image.new(mode, (1, 1), "white" if mode != "I;16" else 0xFFFF))})
    settings = {"range": [0, 65535]} if mode == "I;16" else {}
    real = folder(path, fit=fit, **settings).read(torch.tensor([0]))["real"][0]
    assert [(channel == 255).sum().item() for channel in real] == [expected] * 3


def test_a_very_narrow_image_is_not_blown_up(tmp_path):
    path = written(tmp_path, "folder", {"a.png": encoded(Image.new("1", (1, 60_000)))})
    told = refused(path, fit="crop", resolution=64)
    assert "cannot read image a.png: 1x60000 pixels are too narrow for dataset.fit=crop" in told
    for fit in ("resize", "pad"):
        assert folder(path, fit=fit).shape == (3, 4, 4)


STRANGE = ["кот.png", "🐈" * 62 + ".png", "a" * 251 + ".png", "two\nlines.png", "tab\t.png", "red\x1b[31m.png",
           "Unreadable: x.png", "a\u2028b.png", "%s{0}.png"]  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", STRANGE)
def test_strange_names(tmp_path, kind, name):
    good, bad = (written(tmp_path / which, kind, {name: content}) if (tmp_path / which).mkdir() is None else None
                 for which, content in (("good", grey(5)), ("bad", b"")))  # fmt: skip
    assert greys(folder(good)) == [5]
    shown = files.printable(name)
    assert refused(bad).startswith(f"dataset mine: cannot read image {shown}: the file is empty")


def test_a_name_that_is_no_utf8(tmp_path):
    path = written(tmp_path, "folder", {"a.png": grey(1)})
    for name, content in ((b"b\xff.png", grey(2)), (b"c\xfe.png", b"")):
        Path(os.fsdecode(os.path.join(os.fsencode(path), name))).write_bytes(content)
    assert "cannot read image c\\udcfe.png: the file is empty" in refused(path)
    data = folder(path, on_error="skip")
    assert greys(data) == [1, 2] and data.skipped == [("c\\udcfe.png", "the file is empty")]


def test_links_to_folders_are_followed_and_loops_cut(tmp_path):
    path = written(tmp_path, "folder", {"cat/a.png": grey(1), "cat/deep/b.png": grey(2), "dog/c.png": grey(3)})
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "d.png").write_bytes(grey(4))
    (path / "emu").symlink_to(tmp_path / "elsewhere")
    (path / "cat" / "deep" / "up").symlink_to(path)
    (path / "dog" / "self").symlink_to(path / "dog")
    (path / "loop").symlink_to(path)
    (tmp_path / "elsewhere" / "back").symlink_to(path)
    (path / "itself").symlink_to(path / "itself")
    data = folder(path)
    assert data._names == ["cat/a.png", "cat/deep/b.png", "dog/c.png", "emu/d.png"]
    assert greys(data) == [1, 2, 3, 4] and labels(data) == [0, 0, 1, 2] and data.classes == ["cat", "dog", "emu"]


def test_links_to_files(tmp_path):
    path = written(tmp_path, "folder", {"a.png": grey(1)})
    (path / "b.png").symlink_to(path / "a.png")
    assert greys(folder(path)) == [1, 1]
    (path / "c.png").symlink_to(tmp_path / "nowhere.png")
    (path / "d.png").symlink_to(path / "d.png")
    (path / "notes.txt").symlink_to(tmp_path / "nowhere.txt")
    assert "cannot read image c.png: a broken symbolic link, and 1 more;" in refused(path)
    data = folder(path, on_error="skip")
    assert data.skipped == [("c.png", "a broken symbolic link"), ("d.png", "a broken symbolic link")]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes on this system")
def test_what_is_no_file(tmp_path):
    path = written(tmp_path, "folder", {"a.png": grey(1), "dir.png/b.png": grey(2)})
    os.mkfifo(path / "pipe.png")
    (path / "zero.png").symlink_to("/dev/zero")
    data = folder(path, on_error="skip")
    assert greys(data) == [1, 2]
    assert data.skipped == [("pipe.png", "not a regular file"), ("zero.png", "not a regular file")]
    with pytest.raises(UserError, match=r"is neither a folder nor a \.zip"):
        folder(path / "pipe.png")


@pytest.mark.skipif(getattr(os, "geteuid", lambda: 0)() == 0, reason="root may read everything")
def test_what_may_not_be_read(tmp_path):
    path = written(tmp_path, "folder", {"a.png": grey(1), "b.png": grey(2), "closed/c.png": grey(3)})
    (path / "b.png").chmod(0)
    (path / "closed").chmod(0)
    data = folder(path, on_error="skip")
    (path / "closed").chmod(0o700)
    assert data.skipped == [("b.png", "Permission denied"), ("closed", "Permission denied")]


def test_very_deep_folders(tmp_path):
    path = written(tmp_path, "zip", {"/".join(["d"] * 5000) + "/a.png": grey(1), "b.png": grey(2)})
    assert greys(folder(path)) == [2, 1]
    deep = str(tmp_path / "deep")
    for _ in range(400):
        os.mkdir(deep)
        deep += "/d"
    Path(f"{deep[:-2]}/a.png").write_bytes(grey(1))
    assert greys(folder(tmp_path / "deep")) == [1]


@pytest.mark.parametrize("kind", KINDS)
def test_huge_files_are_not_read(tmp_path, kind, monkeypatch):
    path = written(tmp_path, kind, {"a.png": grey(1), "b.png": bytes(5000)})
    monkeypatch.setattr(files, "LARGEST", 4999)
    assert "cannot read image b.png: 5,000 bytes; at most 4,999 of a file are read" in refused(path)
    assert greys(folder(path, on_error="skip")) == [1]


OUTSIDE = ["../evil.png", "cat/../../evil.png", "/etc/evil.png", "..\\evil.png", "\\evil.png", "C:\\evil.png",
           "c:evil.png", "\\\\host\\share\\evil.png", "../.evil.png", "cat/.."+"/evil.png"]  # fmt: skip


@pytest.mark.parametrize("name", OUTSIDE)
def test_members_that_lead_out_of_a_zip(tmp_path, name):
    (tmp_path / "evil.png").write_bytes(grey(9))
    path = written(tmp_path, "zip", {name: grey(8), "cat/a.png": grey(1), "dog/b.png": grey(2), "../notes.txt": b""})
    shown = name.replace("\\", "/")
    assert f"cannot read image {shown}: its name leads out of the .zip;" in refused(path)
    data = folder(path, on_error="skip")
    assert greys(data) == [1, 2] and data.classes == ["cat", "dog"]
    assert data.skipped == [(shown, "its name leads out of the .zip")]


def test_backslashes_in_a_zip_separate_folders(tmp_path):
    contents = {"cat\\a.png": grey(1), "dog\\deep\\b.png": grey(2), "emu\\": b"", "./ape//c.png": grey(3)}
    data = folder(written(tmp_path, "zip", contents), on_error="skip")
    assert data._names == ["ape/c.png", "cat/a.png", "dog/deep/b.png"] and greys(data) == [3, 1, 2]
    assert data.classes == ["ape", "cat", "dog"] and [name for name, _ in data.skipped] == ["emu"]


def patched(path: Path, *, size: int | None = None, flags: int | None = None, method: int | None = None) -> None:
    """Claims something else about the first member of a zip, in both of its headers."""
    content = bytearray(path.read_bytes())
    for signature, start in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        place = content.index(signature) + start  # flags and method; 16 bytes on the uncompressed size
        if flags is not None:
            struct.pack_into("<H", content, place, flags)
        if method is not None:
            struct.pack_into("<H", content, place + 2, method)
        if size is not None:
            struct.pack_into("<I", content, place + 16, size)
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("lie", "why"),
    [
        ({"flags": 1}, "it is encrypted"),
        ({"method": 97}, "That compression method is not supported"),
        ({"size": 2**31}, "2,147,483,648 bytes; at most 268,435,456 of a file are read"),
        ({"size": 40}, ""),
    ],
)
def test_members_that_cannot_be_unpacked(tmp_path, lie, why):
    path = written(tmp_path, "zip", {"cat/bad.png": encoded(NOISE), "cat/b.png": grey(2)})
    patched(path, **lie)
    assert f"cannot read image bad.png: {why}" in refused(path)
    data = folder(path, on_error="skip")
    assert greys(data) == [2] and [name for name, _ in data.skipped] == ["bad.png"]


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_every_compression_is_read(tmp_path, method):
    with zipfile.ZipFile(tmp_path / "a.zip", "w", method) as archive:
        for i in range(5):
            archive.writestr(f"{i}.bmp", encoded(Image.new("L", (300, 300), i), "bmp"))
    assert greys(folder(tmp_path / "a.zip")) == [0, 1, 2, 3, 4]


def test_of_members_with_the_same_name_the_last_counts(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive, pytest.warns(UserWarning, match="Duplicate name"):
        archive.writestr("a.png", grey(1))
        archive.writestr("a.png", grey(2))
    assert greys(folder(tmp_path / "a.zip")) == [2]


def test_a_link_in_a_zip_is_not_followed(tmp_path):
    link = zipfile.ZipInfo("link.png")
    link.external_attr = 0o120777 << 16
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr(link, "a.png")
        archive.writestr("a.png", grey(1))
    assert f"cannot read image link.png: {NO_IMAGE}" in refused(tmp_path / "a.zip")


@pytest.mark.parametrize("keep", [200, -10])
def test_a_cut_off_zip(tmp_path, keep):
    path = written(tmp_path, "zip", {"a.png": encoded(NOISE), "b.png": grey(2)})
    path.write_bytes(path.read_bytes()[:keep])
    assert refused(path) == f"dataset.path={path} is a damaged or cut off .zip file"


def test_a_zip_with_a_damaged_directory(tmp_path):
    path = written(tmp_path, "zip", {"a.png": grey(1), "é.png": grey(2)})
    content = path.read_bytes()
    for wrong in (content.replace("é".encode(), b"\xff\xff"), re.sub(b"PK\x01\x02", b"PK\x09\x09", content)):
        path.write_bytes(wrong)
        assert refused(path).startswith(f"dataset.path={path} cannot be read as a .zip file: ")


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
@pytest.mark.parametrize("kind", KINDS)
def test_workers_read_what_is_left(tmp_path, kind):
    contents = {f"{'ab'[i % 2]}/{i:02}.png": grey(i) for i in range(20)} | {"a/04.png": b"", "a/99.png": b"x"}
    path = written(tmp_path, kind, contents)
    here, there = (folder(path, on_error="skip", num_workers=num) for num in (0, 2))
    assert here.skipped == there.skipped == [("a/04.png", "the file is empty"), ("a/99.png", NO_IMAGE)]
    streams = []
    for data in (here, there, pickle.loads(pickle.dumps(there))):
        rounds = Rounds(data, batch_size=5, num_batches=1, seed=0)
        loader = DataLoader(rounds, batch_size=None, sampler=range(8), num_workers=data.num_workers)
        streams.append(
            [torch.cat([batch["real"][:, 0, 0, 0], batch["label"]]).tolist() for batch in map(data.complete, loader)]
        )
    assert streams[0] == streams[1] == streams[2]


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_worker_names_a_bad_file_in_one_line(tmp_path):
    data = folder(written(tmp_path, "folder", {"Caught \n.png": DAMAGED["cut off png"][0]}), num_workers=1)
    loader = DataLoader(Rounds(data, batch_size=2, num_batches=1, seed=0), batch_size=None, sampler=[0], num_workers=1)
    with pytest.raises(Unreadable) as raised:
        next(iter(loader))
    why = "image file is truncated"
    assert str(raised.value) == f"dataset mine: cannot read image Caught \\n.png: {why}; {decoded.ADVICE}"


def test_pillows_warnings_stay_off_the_terminal(tmp_path, recwarn):
    path = written(tmp_path, "folder", {"a.png": ODD["damaged exif"][0], "b.png": bomb(17_000)})
    folder(path, on_error="skip")
    assert len(recwarn) == 0


@pytest.mark.parametrize("name", ["image-folder", "celeba"])
def test_the_configs_refuse(name):
    with initialize_config_dir(str(config_dir()), version_base="1.3"):
        assert compose("train", [f"dataset={name}"]).dataset.on_error == "refuse"
