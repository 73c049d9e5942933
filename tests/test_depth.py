"""Images of 2, 4 and more channels and of 16 bits: the same values on every path, from the file to the sample."""

import io
import struct
import zipfile
import zlib
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import TINY, ganrun, last_line
from PIL import Image, ImageOps
from test_data_images import written
from test_decoding import deep_colour, saved
from torch import nn

import ganrun as package
from ganrun.data.channels import to_channels
from ganrun.data.datamodule import GANDataModule, Rounds
from ganrun.data.derived import Colorize, Denoise, Edges, Inpaint, Invert, SuperResolution
from ganrun.data.images import ImageArray, ImageFolder
from ganrun.data.pixels import Decoding, fit_images
from ganrun.depth import to_depth, to_numbers, to_pixels
from ganrun.errors import UserError
from ganrun.metrics.features import Seen
from ganrun.metrics.inception import Inception
from ganrun.metrics.network import Network, Torchvision
from ganrun.metrics.paired import L1, PSNR, SSIM, EachPair
from ganrun.metrics.scorer import Scorer
from ganrun.metrics.sliced_wasserstein import SlicedWasserstein
from ganrun.pictures import visible
from ganrun.sampling.deep_png import deep_png
from ganrun.sampling.files import write_folder, write_npy, write_npz, write_zip
from ganrun.training.hardware import precision_of

MARK = ("Software", "ganrun")
RNG = np.random.default_rng(0)
CPU = torch.device("cpu")


def deep(channels: int, height: int = 8, width: int = 6, num: int | None = None) -> np.ndarray:
    shape = (height, width, channels) if num is None else (num, height, width, channels)
    return RNG.integers(0, 65536, shape, dtype=np.uint16)


def decoded(content: bytes | np.ndarray, channels: int, size=(8, 6), fit="exact", depth=16, **settings) -> np.ndarray:
    pixels, _ = Decoding(size, channels, fit=fit, depth=depth, **settings).decode(content)
    assert pixels.dtype == (torch.uint16 if depth == 16 else torch.uint8)
    return pixels.permute(1, 2, 0).numpy()


def tiff(values: np.ndarray, order: str, *, deflate: bool = False, extra: int | None = 2) -> bytes:
    """A TIFF of one strip of uint16 (H, W, 3 or 4). extra: what the fourth channel is; 1 = opacity, multiplied."""
    height, width, channels = values.shape
    strip = values.astype(f"{order}u2").tobytes()
    strip = zlib.compress(strip) if deflate else strip
    bits_at = 8 + len(strip)
    tags = [(256, 4, 1, width), (257, 4, 1, height), (258, 3, channels, bits_at), (259, 3, 1, 8 if deflate else 1)]
    tags += [(262, 3, 1, 2), (273, 4, 1, 8), (277, 3, 1, channels), (278, 4, 1, height), (279, 4, 1, len(strip))]
    tags += [(338, 3, 1, extra)] if channels == 4 else []
    entries = b""
    for tag, kind, num, value in tags:
        packed = struct.pack(f"{order}H2x" if (kind, num) == (3, 1) else f"{order}I", value)
        entries += struct.pack(f"{order}HHI", tag, kind, num) + packed
    at = bits_at + 2 * channels
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(f"{order}I", at)
    return (
        head
        + strip
        + struct.pack(f"{order}{channels}H", *[16] * channels)
        + struct.pack(f"{order}H", len(tags))
        + entries
        + bytes(4)
    )


# Files of 16 bits


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_a_png_is_kept_whole_and_our_writer_agrees_with_pillow(channels):
    values = deep(channels)
    content = deep_png(values, MARK)
    assert (decoded(content, channels) == values).all()
    with Image.open(io.BytesIO(content)) as image:
        assert image.info == {"Software": "ganrun"}
        if channels == 1:
            assert (np.array(image) == values[..., 0]).all()
        elif channels > 2:  # of which Pillow reads the upper 8 bits
            assert (np.array(image) == values >> 8).all()


def test_another_writers_png():
    values = decoded(deep_colour(40_000), 3, (8, 8))
    assert (values == np.rint(np.linspace(0, 1, 64).reshape(8, 8) * 40_000)[..., None]).all()


@pytest.mark.parametrize("deflate", [False, True], ids=["raw", "deflate"])
@pytest.mark.parametrize("order", ["<", ">"], ids=["little", "big"])
@pytest.mark.parametrize("channels", [3, 4])
def test_a_tiff_is_kept_whole(channels, order, deflate):
    values = deep(channels)
    assert (decoded(tiff(values, order, deflate=deflate), channels) == values).all()


@pytest.mark.parametrize("deflate", [False, True], ids=["raw", "deflate"])
def test_a_tiff_whose_colours_are_multiplied_by_opacity(deflate):
    values = np.array([[[20_000, 0, 1, 40_000], [7, 7, 7, 0], [100, 200, 300, 65_535]]], np.uint16)
    expected = [[[32_768, 0, 2, 40_000], [65_535, 65_535, 65_535, 0], [100, 200, 300, 65_535]]]
    made = decoded(tiff(values, "<", deflate=deflate, extra=1), 4, (1, 3))
    assert (made[0, [0, 2]] == np.array(expected)[0, [0, 2]]).all() and made[0, 1, 3] == 0


def test_a_grey_tiff_and_the_turned_scale():
    values = deep(1)[..., 0]
    assert (decoded(saved(values, "tiff"), 1)[..., 0] == values).all()
    assert (decoded(saved(values, "tiff", tiffinfo={262: 0}), 1)[..., 0] == 65535 - values).all()


@pytest.mark.parametrize("orientation", range(1, 9))
def test_all_eight_orientations(orientation):
    image = Image.fromarray(deep(1)[..., 0])
    exif = Image.Exif()
    exif[0x0112] = orientation
    content = saved(image, "png", exif=exif)
    upright = np.array(ImageOps.exif_transpose(Image.open(io.BytesIO(content))))
    assert (decoded(content, 1, upright.shape)[..., 0] == upright).all()


def test_a_transparent_colour_is_opacity():
    values = np.array([[[1, 2, 3], [1, 2, 4]]], np.uint16)
    content = deep_png(values, MARK)
    clear = struct.pack(">4x3H", 1, 2, 3)[4:]
    chunk = struct.pack(">I", 6) + b"tRNS" + clear + struct.pack(">I", zlib.crc32(b"tRNS" + clear))
    content = content.replace(content[content.index(b"IDAT") - 4 :], chunk + content[content.index(b"IDAT") - 4 :])
    assert decoded(content, 4, (1, 2)).tolist() == [[[1, 2, 3, 0], [1, 2, 4, 65535]]]
    assert decoded(content, 3, (1, 2)).tolist() == [[[65535] * 3, [1, 2, 4]]]


ANY = [(mode, "png") for mode in ("1", "L", "P", "RGB", "RGBA", "LA")] + [("CMYK", "jpeg"), ("L", "jpeg"), ("P", "bmp")]


@pytest.mark.parametrize(("mode", "ending"), ANY)
def test_eight_bits_become_sixteen(mode, ending):
    image = Image.fromarray((deep(3) >> 8).astype(np.uint8))
    content = saved(image.convert(mode), ending)
    assert (decoded(content, 3) == decoded(content, 3, depth=8).astype(int) * 257).all()


# Channels


def test_channels_by_hand():
    rgba = np.array([[[60_000, 100, 0, 32_768]]], np.uint16)
    luma = round((60_000 * 19595 + 100 * 38470) / 65536)
    share = 32_768 / 65_535
    white = [round(c * share + 65_535 * (1 - share)) for c in (60_000, 100, 0)]
    grey = round(sum(w * c for w, c in zip((19595, 38470, 7471), white, strict=True)) / 65536)
    wanted = {4: [60_000, 100, 0, 32_768], 3: white, 2: [luma, 32_768], 1: [grey]}
    for channels, expected in wanted.items():
        for content in (deep_png(rgba, MARK), rgba):  # as a file and as an array
            assert np.abs(decoded(content, channels, (1, 1)).astype(int) - expected).max() <= 1, channels
    grey = torch.tensor([9], dtype=torch.uint16).reshape(1, 1, 1, 1)
    assert to_channels(grey, 4).flatten().tolist() == [9, 9, 9, 65_535]
    assert to_channels(grey, 2).flatten().tolist() == [9, 65_535]
    assert to_channels(to_channels(grey, 2), 4).flatten().tolist() == [9, 9, 9, 65_535]


@pytest.mark.parametrize("mode", ["L", "LA", "RGB", "RGBA", "P", "1"])
def test_eight_bit_files_with_opacity(mode):
    image = Image.fromarray((deep(4) >> 8).astype(np.uint8))
    image = image.convert("RGB").convert(mode) if mode in ("P", "1") else image.convert(mode)
    content = saved(image, "png")
    assert (decoded(content, 4, depth=8) == np.array(image.convert("RGBA"))).all()
    assert np.abs(decoded(content, 2, depth=8).astype(int) - np.array(image.convert("RGBA").convert("LA"))).max() <= 1
    assert (decoded(content, 4) == np.array(image.convert("RGBA")).astype(int) * 257).all()


@pytest.mark.parametrize("depth", [8, 16])
@pytest.mark.parametrize("side", [1, 9])  # the latter in two steps of Pillow
def test_what_is_transparent_lends_no_colour(depth, side):
    """Red beside wholly transparent blue is half as opaque when shrunk, and still red."""
    values = np.repeat(np.repeat(np.array([[[255, 0, 0, 255], [0, 0, 255, 0]]], np.uint8), side, 0), side, 1)
    made = decoded(saved(values, "png"), 4, (1, 1), "resize", depth).astype(int) * (257 if depth == 8 else 1)
    assert np.abs(made[0, 0] - [65_535, 0, 0, 32_768]).max() <= 514
    array = decoded(values, 4, (1, 1), "resize", depth).astype(int) * (257 if depth == 8 else 1)
    assert np.abs(array[0, 0] - [32_768, 0, 32_768, 32_768]).max() <= 257  # any four channels, each by itself


@pytest.mark.parametrize("depth", [8, 16])
def test_a_range_acts_on_colours_and_not_on_opacity(depth):
    values = np.array([[[10, 20, 30, 40], [0, 60, 255, 255]]], np.uint8)
    made = decoded(saved(values, "png"), 4, (1, 2), depth=depth, span=(10, 60)).astype(int)
    top = 255 if depth == 8 else 65_535
    assert made.tolist() == [
        [[0, round(top / 5), round(top * 2 / 5), 40 * top // 255], [0, top, top, top]],
    ]
    assert Decoding((1, 2), 4, "exact", depth=depth).look(saved(values, "png"))[1:] == (0, 255)


def test_twelve_bits_in_sixteen_are_stretched_without_loss(tmp_path):
    values = np.arange(4096, dtype=np.uint16).reshape(64, 64)
    made = decoded(saved(values, "png"), 1, (64, 64), span=(0, 4095))[..., 0]
    assert (made == np.rint(values * (65535 / 4095))).all() and len(np.unique(made)) == 4096


def test_a_dark_set_is_refused_where_its_values_would_be_lost(tmp_path):
    path = written(tmp_path, "folder", {"a.png": deep_png(deep(1) // 64 + 5, MARK)})
    with pytest.raises(UserError, match=r"they would be black or flat; give dataset\.range="):
        opened(path, 1, depth=8)
    assert any("they are dark or flat unless you give dataset.range=" in note for note in opened(path, 1).notes)


def test_sixteen_bits_shrink_in_float():
    values = torch.tensor([[1000, 1001], [65_535, 65_534]]).to(torch.uint16).reshape(1, 1, 2, 2)
    assert fit_images(values, (1, 1), "resize").item() == round((1000 + 1001 + 65_535 + 65_534) / 4)
    assert fit_images(values, (2, 4), "pad").flatten().tolist() == [0, 1000, 1001, 0, 0, 65_535, 65_534, 0]


# Every path gives the same values


def deep_files(num: int = 6, channels: int = 4) -> tuple[np.ndarray, dict[str, bytes]]:
    values = deep(channels, num=num)
    return values, {f"{'ab'[i % 2]}/{i}.png": deep_png(row, MARK) for i, row in enumerate(values)}


def opened(path: Path, channels: int = 4, **settings) -> ImageFolder:
    about = {"name": "mine", "resolution": [8, 6], "channels": channels, "fit": "exact", "depth": 16}
    return ImageFolder(path=str(path), **about | settings)


def values_of(data: ImageFolder) -> np.ndarray:
    return data.read(torch.arange(len(data)))["real"].permute(0, 2, 3, 1).numpy()


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_the_same_from_a_folder_a_zip_arrays_prepared_and_streamed(tmp_path, channels):
    values, files = deep_files(channels=channels)
    order = [0, 2, 4, 1, 3, 5]  # of the class folders
    stacked, labels = values[order], np.array([0, 0, 0, 1, 1, 1])
    np.savez(tmp_path / "x.npz", images=stacked, labels=labels, classes=np.array(["a", "b"]))
    cache = str(tmp_path / "cache")
    ways = {
        "folder": opened(written(tmp_path, "folder", files), channels),
        "zip": opened(written(tmp_path, "zip", files), channels),
        "npz": opened(tmp_path / "x.npz", channels),
        "prepared": opened(tmp_path / "pictures", channels, cache=cache),
        "as it was prepared": opened(tmp_path / "pictures", channels, cache=cache),
        "streamed": opened(tmp_path / "pictures", channels, num_workers=1),
        "skipping": opened(tmp_path / "pictures", channels, on_error="skip", cache=cache),
        "skipping, in memory": opened(tmp_path / "pictures", channels, on_error="skip"),
    }
    for way, data in ways.items():
        assert (values_of(data) == stacked).all() and data.classes == ["a", "b"], way
        assert data.held or way == "streamed"
    assert len({data.identity for data in ways.values()}) == 1
    assert (tmp_path / "cache").glob("*.pixels").__next__().stat().st_size == stacked.nbytes
    limited = opened(tmp_path / "pictures", channels, on_error="skip", limit=3, cache=cache)
    assert (values_of(limited) == stacked[[0, 2, 5]]).all()
    for way in ("folder", "prepared", "streamed"):
        round_ = Rounds(ways[way], batch_size=6, num_batches=1, seed=0)[0]
        batch = GANDataModule(ways[way], batch_size=6, num_batches=1, seed=0).on_after_batch_transfer(round_, 0)
        assert batch["real"].dtype == torch.float32
        back = to_pixels(batch["real"], depth=16).permute(0, 2, 3, 1).numpy()
        assert sorted(map(bytes, back)) == sorted(map(bytes, stacked)), way


def test_a_damaged_cache_of_sixteen_bits_is_made_again(tmp_path, capsys):
    values, files = deep_files()
    path, cache = written(tmp_path, "folder", files), tmp_path / "cache"
    opened(path, cache=str(cache))
    pixels = next(cache.glob("*.pixels"))
    content = bytearray(pixels.read_bytes())
    content[-1] ^= 1
    pixels.write_bytes(content)
    assert (values_of(opened(path, cache=str(cache))) == values[[0, 2, 4, 1, 3, 5]]).all()
    assert "is damaged" in capsys.readouterr().out


def test_flips_and_crops_move_sixteen_bits_as_they_move_eight(tmp_path):
    _, files = deep_files()
    path = written(tmp_path, "folder", files)
    deep_, flat = (opened(path, flip=True, random_crop=2, depth=depth) for depth in (16, 8))
    made = [data.complete(Rounds(data, batch_size=6, num_batches=2, seed=3)[0])["real"] for data in (deep_, flat)]
    assert made[0].dtype == torch.uint16 and torch.equal((made[0].int() >> 8).to(torch.uint8), made[1])


@pytest.mark.parametrize("value_range", [(-1, 1), (0, 1)])
def test_all_values_survive_the_networks_range(tmp_path, value_range):
    every = np.arange(65_536, dtype=np.uint16).reshape(1, 256, 256)
    np.save(tmp_path / "x.npy", every)
    data = opened(tmp_path / "x.npy", 1, resolution=256, value_range=value_range)
    real = data.in_range(data.read(torch.tensor([0])))["real"]
    assert (real.min(), real.max()) == value_range
    assert (data.as_stored(real)[0].numpy() == every).all()
    assert torch.equal(to_pixels(to_numbers(data.as_stored(real)), depth=16), data.as_stored(real))


def test_eight_bits_become_sixteen_and_back():
    levels = torch.arange(256, dtype=torch.uint8)
    assert to_depth(levels, 16).int().tolist() == [257 * i for i in range(256)]
    assert torch.equal(to_depth(to_depth(levels, 16), 8), levels) and to_depth(levels, 8) is levels
    assert to_depth(torch.tensor([128, 129, 65_535]).to(torch.uint16), 8).tolist() == [0, 1, 255]


def test_arrays_of_many_channels(tmp_path):
    values = deep(7, num=5)
    for i, array in enumerate((values, values.transpose(0, 3, 1, 2), values.astype(np.float64) / 65_535)):
        np.save(tmp_path / f"{i}.npy", array)
        data = opened(tmp_path / f"{i}.npy", 7, range=[0, 1] if i == 2 else None)
        assert (values_of(data) == values).all()
    eight = opened(tmp_path / "0.npy", 7, depth=8)
    assert (values_of(eight) == np.rint(values / 257)).all()
    assert any("dataset.depth=16 keeps 16" in note for note in eight.notes)
    large = opened(tmp_path / "0.npy", 7, resolution=[4, 3], fit="resize")
    assert values_of(large).shape == (5, 4, 3, 7)


REFUSED = {
    "a file has no 5": ("pictures", {"channels": 5}, "channels=5; valid: 1 (grey), 2 (grey and opacity), 3 (RGB), 4"),
    "none": ("seven.npy", {"channels": 0}, "channels=0; valid: 1 (grey), 2"),
    "not said": ("seven.npy", {"channels": 3}, "with 1, 3 or 4 channels; dataset.channels=7 reads as many"),
    "too few": ("three.npy", {"channels": 5}, "with 3 channels; dataset.channels=5 needs as many"),
    "depth": ("pictures", {"depth": 12}, "dataset.depth=12; valid: 8, 16"),
    "shown": ("pictures", {"shown": [0, 1]}, "dataset.shown=[0, 1]; expected one or three of the channels 0 to 3"),
    "shown too far": ("pictures", {"shown": [4]}, "dataset.shown=[4]; expected one or three of the channels 0 to 3"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_is_refused(tmp_path, kind):
    name, settings, told = REFUSED[kind]
    written(tmp_path, "folder", deep_files()[1])
    np.save(tmp_path / "seven.npy", deep(7, num=2))
    np.save(tmp_path / "three.npy", deep(3, num=2))
    with pytest.raises(UserError) as raised:
        opened(tmp_path / name, **{"channels": 4} | settings)
    assert told in str(raised.value) and "\n" not in str(raised.value)


def test_what_is_not_kept_is_said(tmp_path):
    rgba, grey = deep_files()[1], {"a.png": deep_png(deep(1), MARK)}
    said = opened(written(tmp_path, "folder", rgba), 3, depth=8).notes
    assert any("16-bit colour is read in 8 bits; dataset.depth=16 keeps 16 (6 files" in note for note in said)
    assert any("opacity is laid over white; dataset.channels=4 keeps it (6 files" in note for note in said)
    assert not [note for note in opened(tmp_path / "pictures", 4).notes if "keep" in note]
    said = opened(written(tmp_path, "zip", grey), 1, depth=8).notes
    assert any("read in 8 bits; dataset.depth=16 keeps 16" in note for note in said)
    (tmp_path / "other").mkdir()
    flat = {"a.png": saved((deep(3) >> 8).astype(np.uint8), "png")}
    assert any("scaled to 16 bits" in note for note in opened(written(tmp_path / "other", "folder", flat), 3).notes)


# What is kept, compared and shown


def test_identity_caches_and_protocols_know_depth_and_channels(tmp_path):
    path = written(tmp_path, "folder", {"a.png": saved((deep(3) >> 8).astype(np.uint8), "png"), **deep_files()[1]})
    ways = [opened(path, channels, depth=depth, labels_from="none") for channels in (1, 2, 3, 4) for depth in (8, 16)]
    assert len({data.identity for data in ways}) == 8
    assert "depth" not in ways[0].fingerprint and ways[1].fingerprint["depth"] == 16
    keys = [list(data._about(["a"])) for data in ways]
    assert all(one != other for one, other in pairwise(keys))
    assert keys[0] == [key for key in keys[1] if not key.startswith("depth")]  # as before there was a depth
    values = [Scorer({"it": SlicedWasserstein()}, data, num_fake=4)._protocol(SlicedWasserstein()) for data in ways[:2]]
    assert [about["values"] for about in values] == ["8 bit", "16 bit"]


PNGS = [(channels, depth) for channels in (1, 2, 3, 4) for depth in (8, 16)]


@pytest.mark.parametrize(("channels", "depth"), PNGS)
def test_samples_are_read_back_as_they_were_written(tmp_path, channels, depth):
    images = torch.rand(5, channels, 8, 6, generator=torch.Generator().manual_seed(0)) * 2 - 1
    expected = to_pixels(images, depth=depth).permute(0, 2, 3, 1).numpy()
    labels = torch.tensor([0, 1, 0, 1, 0])
    write = {"x": write_folder, "x.zip": write_zip, "x.npz": write_npz, "x.npy": write_npy}
    for name, writing in write.items():
        writing(tmp_path / name, [(images, labels)], num=5, classes=["a", "b"], depth=depth)
        data = opened(tmp_path / name, channels, depth=depth)
        order = [0, 2, 4, 1, 3] if name in ("x", "x.zip") else range(5)
        assert (values_of(data) == expected[list(order)]).all(), name
    with Image.open(tmp_path / "x" / "a" / "00000.png") as image:
        modes = {8: ("L", "LA", "RGB", "RGBA"), 16: ("I;16", "RGBA", "RGB", "RGBA")}
        assert image.mode == modes[depth][channels - 1]
    with zipfile.ZipFile(tmp_path / "x.zip") as archive:
        assert archive.read("a/00000.png") == (tmp_path / "x" / "a" / "00000.png").read_bytes()


def test_what_a_picture_shows_by_hand():
    pixel = torch.tensor([0.2, 0.4, 0.6, 0.5, 0.9])
    images = {num: pixel[:num].reshape(1, num, 1, 1) for num in range(1, 6)}
    expected = {1: [0.2], 2: [0.2 * 0.4 + 0.6], 3: [0.2, 0.4, 0.6], 4: [0.6, 0.7, 0.8], 5: [0.2, 0.4, 0.6]}
    for num, wanted in expected.items():
        assert torch.allclose(visible(images[num]).flatten(), torch.tensor(wanted))
    assert torch.allclose(visible(images[5], [4, 3, 0]).flatten(), torch.tensor([0.9, 0.5, 0.2]))
    assert torch.allclose(visible(images[4], [3]).flatten(), torch.tensor([0.5]))


def test_a_data_sets_picture_has_the_channels_that_are_asked_for(tmp_path):
    np.save(tmp_path / "x.npy", np.full((2, 64, 64, 4), [255, 0, 0, 0], np.uint8))
    for shown, colour in ((None, (255, 255, 255)), ([0, 1, 2], (255, 0, 0)), ([0], (255, 255, 255)), ([3], (0, 0, 0))):
        data = opened(tmp_path / "x.npy", 4, resolution=64, depth=8, shown=shown)
        real = data.in_range(data.read(torch.arange(2)))["real"]
        assert data.picture(real, real, columns=2).getpixel((30, 30)) == colour


# Metrics and derivations


class Any(nn.Module):
    def forward(self, x):
        return x.mean((2, 3))


def test_features_say_what_they_need_before_anything_is_loaded(tmp_path):
    np.save(tmp_path / "x.npy", deep(4, num=3))
    data = opened(tmp_path / "x.npy")
    three = Network(Any(), name="mine", mean=[0.5] * 3, std=[0.5] * 3)
    for features in (Inception(), Torchvision(model="resnet18"), three):
        with pytest.raises(UserError, match=r"needs images of 1 or 3 channels, but dataset mine has 4; metric/feat"):
            Scorer({"it": SlicedWasserstein(features=features)}, data, num_fake=4).check(CPU)
    scorer = Scorer({"it": SlicedWasserstein()}, data, num_fake=3)
    scorer.prepare(CPU)
    fake = data.read(torch.arange(3))["real"]
    assert scorer.score([{"fake": fake}])["it"].value == 0
    changed = fake.clone()
    changed[:, 3] = 0  # opacity counts too
    assert scorer.score([{"fake": changed}])["it"].value > 0.01


def test_a_network_sees_sixteen_bits():
    network = Network(Any(), name="mine", std=[0.5])
    network._network, network._device = network.network, CPU
    seen = network.see(torch.tensor([65_535, 1]).to(torch.uint16).reshape(2, 1, 1, 1)).features
    assert torch.allclose(seen.flatten(), torch.tensor([2.0, 2 / 65_535]))


def test_paired_metrics_of_sixteen_bits_by_hand():
    target = torch.full((1, 4, 12, 12), 1000).to(torch.uint16)
    fake = torch.full((1, 4, 12, 12), 1257).to(torch.uint16)
    expected = {L1: 257 / 65_535, PSNR: 20 * np.log10(65_535 / 257)}
    for metric, value in expected.items():
        kept = EachPair(metric())
        kept.add(Seen(fake, target=target))
        assert kept.values.item() == pytest.approx(value)
    same = EachPair(SSIM())
    same.add(Seen(target, target=target))
    assert same.values.item() == pytest.approx(1)


def test_derivations_of_sixteen_bits(tmp_path):
    values = deep(3, num=4)
    np.save(tmp_path / "x.npy", values)
    base = opened(tmp_path / "x.npy", 3)

    def source(derivation) -> np.ndarray:
        made = derivation(base).read(torch.arange(4))["source"]
        assert made.dtype == torch.uint16
        return made.permute(0, 2, 3, 1).numpy().astype(int)

    assert (source(Invert(source_channels=3)) == 65_535 - values.astype(int)).all()
    luma = (values.astype(int) @ [19595, 38470, 7471] + 0x8000) >> 16
    assert (source(Colorize(source_channels=1))[..., 0] == luma).all()
    assert source(Edges(source_channels=1)).max() > 255
    noisy = source(Denoise(source_channels=3, std=0.01)) - values
    assert 400 < noisy.std() < 800 and len(np.unique(noisy)) > 300  # 655
    holes = source(Inpaint(source_channels=3))
    assert ((holes == values) | (holes == 32_768)).all() and (holes == 32_768).mean() == pytest.approx(0.25)
    blurred = source(SuperResolution(source_channels=3))
    assert np.abs(blurred.mean() - values.mean()) < 2000 and blurred.max() > 255


@pytest.mark.parametrize("derivation", [Colorize, Edges])
def test_derivations_that_need_luma_say_so(tmp_path, derivation):
    np.save(tmp_path / "x.npy", deep(4, num=2))
    name = derivation.name
    with pytest.raises(UserError, match=rf"pairs={name} needs images of 1 or 3 channels; dataset.channels=4"):
        derivation(source_channels=1)(opened(tmp_path / "x.npy"))
    Invert(source_channels=4)(opened(tmp_path / "x.npy"))


def test_images_to_score_have_the_datas_depth(tmp_path):
    values = deep(5, num=3)
    np.savez(tmp_path / "x.npz", arr_0=values)
    about = {"name": "x", "path": str(tmp_path / "x.npz"), "resolution": [8, 6], "channels": 5, "fit": "exact"}
    assert (values_of(ImageArray(**about, depth=16)) == values).all()
    with pytest.raises(UserError, match=r"arr_0 is uint16 .*; expected uint8"):
        ImageArray(**about)


def test_sixteen_bits_are_trained_in_fp32(monkeypatch):
    from omegaconf import OmegaConf

    monkeypatch.setattr("ganrun.training.hardware.multiplies_bf16", lambda _: True)
    cfg = {"precision": "auto", "trainer": {"accelerator": "cpu"}, "dataset": {"resolution": 8}}
    assert precision_of(OmegaConf.create(cfg)) == "bf16-mixed"
    cfg["dataset"]["depth"] = 16
    assert precision_of(OmegaConf.create(cfg)) == "32-true"


# Whole commands

FAST = [*TINY, "model=dcgan", "dataset=image-folder", "dataset.resolution=8", "dataset.fit=resize", "log_every=1"]
SETS = {  # what is trained on: options, outputs of sample, and how a sample reads back
    "rgba": (["dataset.path=rgba", "dataset.channels=4", "conditional=label"], ("made", "made.npz"), 8),
    "la16": (["dataset.path=la16.zip", "dataset.channels=2", "dataset.depth=16"], ("made.zip", "made.npy"), 16),
    "grey16": (["dataset.path=grey16", "dataset.channels=1", "dataset.depth=16", "dataset.flip=true"], ("made",), 16),
    "five": (["dataset.path=five.npy", "dataset.channels=5", "dataset.depth=16", "dataset.num_workers=1",
              "dataset.cache=null", "dataset.shown=[4,0,2]"], ("made.npz", "made.npy"), 16),
}  # fmt: skip


@pytest.fixture(scope="module")
def sets(tmp_path_factory) -> Path:
    where = tmp_path_factory.mktemp("sets")
    for i in range(16):
        folder = where / "rgba" / "ab"[i % 2]
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray((deep(4, 8, 8) >> 8).astype(np.uint8)).save(folder / f"{i:02}.png")
    (where / "grey16").mkdir()
    with zipfile.ZipFile(where / "la16.zip", "w") as archive:
        for i in range(16):
            archive.writestr(f"{i:02}.png", deep_png(deep(2, 8, 8), MARK))
            (where / "grey16" / f"{i:02}.png").write_bytes(deep_png(deep(1, 8, 8), MARK))
    np.save(where / "five.npy", deep(5, 8, 8, num=16))
    return where


@pytest.mark.parametrize("kind", SETS)
def test_train_resume_sample_and_read_back(sets, kind):
    options, outputs, depth = SETS[kind]
    whole, parted = f"runs/{kind}", f"runs/{kind}-resumed"
    ganrun(*FAST, *options, "steps=4", f"run_dir={whole}", cwd=sets)
    ganrun(*FAST, *options, "steps=2", f"run_dir={parted}", cwd=sets)
    ganrun(f"resume={parted}", "steps=4", cwd=sets)
    once, twice = (torch.load(sets / run / "checkpoints" / "last.ckpt", weights_only=True) for run in (whole, parted))
    assert all(torch.equal(value, twice["state_dict"][name]) for name, value in once["state_dict"].items())
    assert (sets / whole / "samples" / "final.png").read_bytes() == (
        sets / parted / "samples" / "final.png"
    ).read_bytes()
    generator = package.load_generator(sets / whole / "generator.safetensors")
    assert generator.depth == depth and generator.shown == ([4, 0, 2] if kind == "five" else None)
    expected = to_pixels(generator.sample(6, seed=1), depth=depth).permute(0, 2, 3, 1).numpy()
    for out in outputs:
        done = ganrun("sample", f"from={whole}", f"out={kind}-{out}", "num=6", "seed=1", cwd=sets)
        assert last_line(done) == f"{kind}-{out}"
        data = opened(sets / f"{kind}-{out}", expected.shape[-1], resolution=8, depth=depth)
        order = [0, 2, 4, 1, 3, 5] if (kind, out) == ("rgba", "made") else list(range(6))
        assert (values_of(data) == expected[order]).all()
    ganrun("sample", f"from={whole}/checkpoints/last.ckpt", f"out={kind}.png", "num=4", cwd=sets)
    ganrun("sample", f"from={whole}", f"out={kind}-near.png", "neighbours=2", "num=2", cwd=sets)
    if kind in ("rgba", "five"):
        fake = next(name for name in outputs if name.endswith(".npz"))
        scored = ganrun("evaluate", "from=images", f"path={kind}-{fake}", "dataset=image-folder", *options[:2],
                        *(["dataset.depth=16"] if depth == 16 else []), "dataset.resolution=8", "dataset.fit=resize",
                        "metric=[sliced-wasserstein]", "metric/features=none", cwd=sets)  # fmt: skip
        assert "sliced-wasserstein" in scored.stdout and f"{depth} bit" in scored.stdout


def test_a_resume_knows_its_depth(sets):
    ganrun(*FAST, "dataset.path=grey16", "dataset.channels=1", "steps=1", "run_dir=runs/flat", cwd=sets)
    done = ganrun("resume=runs/flat", "dataset.depth=16", cwd=sets, check=2)
    assert "dataset.depth=16" in done.stderr and len(done.stderr.strip().splitlines()) == 1


NEEDS = "needs images of 1 or 3 channels"
ERRORS = {
    "dataset.path=five.npy dataset.channels=5 metric=[fid] metric/features=inception": f"inception {NEEDS}",
    "dataset.path=rgba dataset.channels=4 pairs=colorize model=pix2pix": f"pairs=colorize {NEEDS}",
    "dataset.path=rgba dataset.channels=5": "an .npy or .npz may have any number",
}


@pytest.mark.parametrize("line", ERRORS)
def test_a_mistake_is_one_line(sets, line):
    done = ganrun(*FAST, *line.split(), "steps=1", "run_dir=runs/none", cwd=sets, check=2)
    assert ERRORS[line] in done.stderr and len(done.stderr.strip().splitlines()) == 1, done.stderr
    assert not (sets / "runs" / "none").exists()


def test_five_channels_do_not_fit_into_a_png(sets):
    five = sets / "runs" / "five"
    if not five.exists():
        pytest.skip("the run of five channels failed")
    done = ganrun("sample", "from=runs/five", "out=folder", cwd=sets, check=2)
    assert "the images have 5 channels, a PNG at most 4; valid: .npz, .npy" in done.stderr
    assert not (sets / "folder").exists()


def test_a_translator_keeps_sixteen_bits(sets):
    options = ["model=pix2pix", "dataset=image-folder", "dataset.path=grey16", "dataset.channels=1", "dataset.depth=16",
               "dataset.resolution=32", "dataset.fit=resize", "pairs=invert", "steps=2", "run_dir=runs/invert",
               "generator.width=4", "discriminator.width=4", "evaluate.num_samples=4", "num_samples=4"]  # fmt: skip
    ganrun(*options, cwd=sets)
    ganrun("translate", "from=runs/invert", "input=grey16", "out=translated", cwd=sets)
    made = np.array(Image.open(sets / "translated" / "00.png"))
    assert made.dtype == np.uint16 and (made % 257 != 0).any()
    source = torch.from_numpy(np.array(Image.open(sets / "grey16" / "00.png")).astype(np.float32))[None, None]
    translator = package.load_generator(sets / "runs" / "invert" / "generator.safetensors")
    expected = to_pixels(translator.translate(source / 32767.5 - 1), depth=16)[0, 0].numpy()
    assert (made == expected).all()
    ganrun("evaluate", "from=runs/invert", "metric=[psnr,l1]", "num_samples=4", cwd=sets)
