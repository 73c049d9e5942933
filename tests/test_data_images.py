"""Images: fitting, channels, value range and flips; folders and zip files, good and bad."""

import io
import multiprocessing
import os
import pickle
import shutil
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_digits

from ganrun.data import decoded
from ganrun.data.images import Digits, ImageFolder, ImagesInMemory, fit_images, to_channels
from ganrun.errors import UserError

KINDS = ["folder", "zip", "zip with a top folder"]
RAMP = [7, 14, 21, 28]  # halved by a triangle filter of weights 3, 3, 1 (of 7): 12, 23


@dataclass(kw_only=True)
class Numbered(ImagesInMemory):
    """300 images of 2x3, all different, none its own mirror image."""

    def load(self):
        number = torch.arange(300)
        pixels = [number % 100, number // 100, 200 + number % 50, number % 7, number % 11, 100 + number % 13]
        return torch.stack(pixels, 1).to(torch.uint8).reshape(300, 1, 2, 3), None, []


def picture(grey: int = 0, *, size: tuple[int, int] = (4, 4), mode: str = "RGB") -> Image.Image:
    return Image.new("L", size, grey).convert(mode)


def encoded(image: Image.Image, ending: str = "png") -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, ending)
    return buffer.getvalue()


def written(where: Path, kind: str, files: dict[str, bytes]) -> Path:
    """The files as a folder or a zip file."""
    if kind != "folder":
        path = where / "pictures.zip"
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, content in files.items():
                archive.writestr(f"top/{name}" if "top" in kind else name, content)
        return path
    for name, content in files.items():
        (where / "pictures" / name).parent.mkdir(parents=True, exist_ok=True)
        (where / "pictures" / name).write_bytes(content)
    return where / "pictures"


def folder(path: Path | str | None, **settings) -> ImageFolder:
    settings = {"name": "mine", "resolution": 4, "channels": 3} | settings
    return ImageFolder(path=None if path is None else str(path), **settings)


def greys(data: ImageFolder) -> list[int]:
    """One pixel of each image."""
    return data.read(torch.arange(len(data)))["real"][:, 0, 0, 0].tolist()


@pytest.mark.parametrize(
    ("fit", "image", "size", "expected"),
    [
        ("resize", [RAMP], (1, 2), [[12, 23]]),
        ("resize", [RAMP, RAMP], (1, 2), [[12, 23]]),
        ("resize", [[0, 103]], (2, 4), [[0, 26, 77, 103]] * 2),  # 25.75 and 77.25
        ("resize", [[7], [14], [21], [28]], (2, 3), [[12] * 3, [23] * 3]),
        ("crop", [[1, 2, 3, 4], [5, 6, 7, 8]], (2, 2), [[2, 3], [6, 7]]),
        ("crop", [[1, 2], [3, 4], [5, 6], [7, 8]], (2, 2), [[3, 4], [5, 6]]),
        ("crop", [[1, 2, 3, 4, 5]] * 3, (3, 3), [[2, 3, 4]] * 3),
        ("crop", [[0, 0, 0, 70, 70, 0, 0, 0]] * 2, (1, 2), [[35, 35]]),  # halved to 0, 35, 35, 0 first
        ("crop", [[0, 100]], (2, 2), [[25, 75]] * 2),  # doubled to 0, 25, 75, 100 first
        ("pad", [[5, 9]], (3, 4), [[0, 0, 0, 0], [0, 5, 9, 0], [0, 0, 0, 0]]),
        ("pad", [[8]], (3, 3), [[0, 0, 0], [0, 8, 0], [0, 0, 0]]),
        ("pad", [RAMP, RAMP], (2, 2), [[12, 23], [0, 0]]),
        ("pad", [[7] * 4, [14] * 4, [21] * 4, [28] * 4], (2, 4), [[0, 12, 12, 0], [0, 23, 23, 0]]),
    ],
)
def test_fit_images_by_hand(fit, image, size, expected):
    fitted = fit_images(torch.tensor([[image]], dtype=torch.uint8), size, fit)
    assert fitted.dtype == torch.uint8
    assert fitted[0, 0].tolist() == expected


@pytest.mark.parametrize("fit", ["resize", "crop", "pad"])
def test_fitting_to_the_own_size_changes_nothing(fit):
    images = torch.randint(256, (3, 3, 5, 7), dtype=torch.uint8)
    assert torch.equal(fit_images(images, (5, 7), fit), images)


def test_padding_28_to_32_loses_nothing():
    images = torch.randint(256, (4, 1, 28, 28), dtype=torch.uint8)
    padded = fit_images(images, (32, 32), "pad")
    assert torch.equal(padded[:, :, 2:30, 2:30], images)
    assert padded.sum() == images.sum()


def test_large_sets_are_resized_in_pieces_without_a_seam():
    images = torch.randint(256, (1030, 1, 4, 4), dtype=torch.uint8)  # pieces of 1024
    fitted = fit_images(images, (2, 2), "resize")
    assert torch.equal(fitted[1020:], fit_images(images[1020:], (2, 2), "resize"))


def test_to_channels():
    colour = torch.tensor([100, 200, 50], dtype=torch.uint8).reshape(1, 3, 1, 1)
    grey = to_channels(colour, 1)
    assert grey.tolist() == [[[[153]]]] and grey.dtype == torch.uint8  # 29.9 + 117.4 + 5.7
    assert to_channels(grey, 3).flatten().tolist() == [153, 153, 153]
    assert to_channels(colour, 3) is colour
    with pytest.raises(UserError, match=r"channels=3: images have 5"):
        to_channels(torch.zeros(1, 5, 4, 4, dtype=torch.uint8), 3)


def test_grey_agrees_with_pillow():
    colour = torch.randint(256, (1, 3, 16, 16), dtype=torch.uint8)
    pillow = np.array(Image.fromarray(colour[0].permute(1, 2, 0).numpy()).convert("L")).astype(int)
    assert np.abs(to_channels(colour, 1)[0, 0].numpy() - pillow).max() <= 1


@pytest.mark.parametrize(("value_range", "expected"), [([-1, 1], [-1, -0.6, 1]), ([0, 1], [0, 0.2, 1])])
def test_value_range_and_back(value_range, expected):
    data = Numbered(name="numbered", resolution=[2, 3], channels=1, value_range=value_range)
    stored = torch.tensor([0, 51, 255], dtype=torch.uint8).reshape(1, 1, 1, 3)
    values = data.to_range(stored)
    assert values.flatten().tolist() == pytest.approx(expected, abs=1e-6)
    assert values.min() == value_range[0] and values.max() == value_range[1]
    seen = np.array(data.picture(values, values, columns=1))[24, :, 0]  # enlarged 48 times
    assert seen[[26, 74, 122]].tolist() == [0, 51, 255]


@pytest.mark.parametrize("resolution", [8, 16, [8, 12]])
def test_digits(resolution):
    data = Digits(name="digits", resolution=resolution, channels=1, num_classes=10)
    batch = data.read(torch.tensor([0, 1796]))
    side = (resolution, resolution) if isinstance(resolution, int) else tuple(resolution)
    assert len(data) == 1797 and data.shape == (1, *side) and batch["real"].shape == (2, 1, *side)
    assert batch["label"].tolist() == load_digits().target[[0, 1796]].tolist()
    assert data.classes == list("0123456789")
    if resolution == 8:
        levels = batch["real"][1, 0].numpy() / 255 * 16
        assert np.abs(levels - load_digits().images[1796]).max() < 0.05


def test_limit_takes_the_first():
    whole, few = (Digits(name="digits", resolution=8, channels=3, limit=limit) for limit in (None, 5))
    assert len(few) == 5 and few.num_classes == 10 and few.read(torch.arange(5))["real"].shape == (5, 3, 8, 8)
    for key, values in few.read(torch.arange(5)).items():
        assert torch.equal(values, whole.read(torch.arange(5))[key])


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"resolution": [8]}, "expected pixels as N or"),
        ({"resolution": 0}, "dataset.resolution=0"),
        ({"channels": 2}, "valid: 1 .grey., 3"),
        ({"fit": "stretch"}, "valid: resize, crop, pad"),
        ({"value_range": [-2, 2]}, r"dataset.value_range=\[-2, 2\]"),
        ({"limit": 0}, "dataset.limit=0; expected at least 1"),
        ({"num_workers": -1}, "dataset.num_workers=-1"),
        ({"num_classes": 7}, "num_classes=7, but digits has 10"),
    ],
)
def test_wrong_settings_are_refused(wrong, says):
    with pytest.raises(UserError, match=says):
        Digits(**({"name": "digits", "resolution": 8, "channels": 1} | wrong))


def flipped(data: Numbered, indices: list[int], positions: list[int], seed: int = 0) -> torch.Tensor:
    """Which of the images came out mirrored; all others came out as they are."""
    plain = data.read(torch.tensor(indices))
    real = data.augment(plain | data.draw(np.array(positions), seed))["real"]
    mirrored = (real == plain["real"].flip(-1)).flatten(1).all(1)
    same = (real == plain["real"]).flatten(1).all(1)
    assert torch.equal(mirrored, ~same)
    return mirrored


def test_random_crop_is_a_window_of_the_reflected_image():
    data = Numbered(name="numbered", resolution=[2, 3], channels=1, random_crop=1, flip=True)
    indices = torch.arange(300)
    plain = data.read(indices)["real"]
    drawn = data.draw(np.arange(300), seed=0)
    assert sorted(set(drawn["corner"].flatten().tolist())) == [-1, 0, 1]
    cut = data.augment({"real": plain, **drawn})
    assert cut.keys() == {"real"} and cut["real"].shape == plain.shape
    padded = torch.nn.functional.pad(plain.float(), (1, 1, 1, 1), mode="reflect").byte()
    for image, (top, left), flip, got in zip(padded, drawn["corner"] + 1, drawn["flip"], cut["real"], strict=True):
        image = image.flip(-1) if flip else image
        left = left.item()
        assert torch.equal(got, image[:, top : top + 2, left : left + 3])
    again = data.draw(np.arange(300)[::-1], seed=0)["corner"].flip(0)
    assert torch.equal(again, drawn["corner"])  # by the position alone


@pytest.mark.parametrize("margin", [-1, 2])
def test_random_crop_must_be_smaller_than_the_image(margin):
    with pytest.raises(UserError, match=rf"dataset.random_crop={margin}; expected 0 \(off\) to 1 pixels"):
        Numbered(name="numbered", resolution=[2, 3], channels=1, random_crop=margin)


def test_flip_depends_on_seed_and_position_alone():
    data = Numbered(name="numbered", resolution=[2, 3], channels=1, flip=True)
    order = list(range(300))
    first = flipped(data, order, order)
    assert torch.equal(flipped(data, order[::-1], order), first)  # not on the image
    assert torch.equal(flipped(data, order, order[::-1]), first.flip(0))  # not on the row
    assert flipped(data, [7], [200]).item() == first[200]  # not on the rest of the batch
    assert not torch.equal(flipped(data, order, order, seed=1), first)
    assert not torch.equal(flipped(data, order, [p + 300 for p in order]), first)
    assert 110 < first.sum() < 190  # half of 300, 4.6 standard deviations


def test_without_flip_nothing_changes():
    data = Numbered(name="numbered", resolution=[2, 3], channels=1)
    assert not flipped(data, list(range(300)), list(range(300))).any()


@pytest.mark.parametrize("kind", KINDS)
def test_class_folders_become_labels(tmp_path, kind):
    files = {"dog/1.png": 3, "cat/b.png": 1, "cat/deep/er/c.png": 2, "cat/10.png": 0, "emu/x/1.png": 4}
    path = written(tmp_path, kind, {name: encoded(picture(grey)) for name, grey in files.items()})
    data = folder(path)
    assert data.classes == ["cat", "dog", "emu"] and data.num_classes == 3 and len(data) == 5
    assert greys(data) == [0, 1, 2, 3, 4]  # sorted by name
    assert data.read(torch.tensor([4, 0, 3]))["label"].tolist() == [2, 0, 1]


@pytest.mark.parametrize(
    ("limit", "expected", "labels"),
    [
        (4, [0, 2, 4, 7], [0, 0, 1, 1]),
        (3, [0, 3, 7], [0, 0, 1]),
        (1, [0], [0]),
        (8, list(range(8)), [0] * 4 + [1] * 4),
        (99, list(range(8)), [0] * 4 + [1] * 4),
    ],
)
def test_a_limited_folder_is_evenly_spaced(tmp_path, limit, expected, labels):
    files = {f"{folder}/{i}.png": encoded(picture(i)) for i, folder in enumerate(["cat"] * 4 + ["dog"] * 4)}
    data = folder(written(tmp_path, "folder", files), limit=limit)
    assert greys(data) == expected and data.classes == ["cat", "dog"]
    assert data.read(torch.arange(len(data)))["label"].tolist() == labels


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "names", [["b.png", "a.png"], ["b.png", "a/a.png"], ["c.png", "a/a.png", "b/b.png"], ["a/b/2.png", "a/1.png"]]
)
def test_without_class_folders_there_are_no_labels(tmp_path, kind, names):
    data = folder(written(tmp_path, kind, {name: encoded(picture()) for name in names}))
    assert data.num_classes == 0 and len(data) == len(names)
    assert set(data.read(torch.arange(2))) == {"real"}


@pytest.mark.parametrize("kind", KINDS)
def test_everything_but_images_is_ignored(tmp_path, kind):
    image = encoded(picture())
    others = ["notes.txt", "cat/paper.pdf", "cat/png", ".DS_Store", "cat/._a.png", ".thumbnails/a.png", "cat/film.mpg"]
    files = {"cat/a.PNG": image, "dog/b.JPeG": encoded(picture(), "jpeg"), "dog/c.webp": encoded(picture(), "webp")}
    data = folder(written(tmp_path, kind, files | dict.fromkeys(others, b"no image")))
    assert data.classes == ["cat", "dog"]
    assert data.read(torch.arange(len(data)))["label"].tolist() == [0, 1, 1]


def test_what_macos_and_readmes_add_to_a_zip_hides_no_labels(tmp_path):
    image = encoded(picture())
    files = {"photos/cat/a.png": image, "photos/dog/b.png": image}
    extra = {"__MACOSX/photos/cat/._a.png": b"resource fork", "readme.txt": b"by me", "photos/.DS_Store": b""}
    assert folder(written(tmp_path, "zip", files | extra)).classes == ["cat", "dog"]


def test_empty_directories_in_a_zip_are_no_images(tmp_path):
    path = written(tmp_path, "zip", {"cat/a.png": encoded(picture())})
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("cat/dog.png/", b"")
    assert len(folder(path)) == 1


def test_an_own_image_is_fitted(tmp_path):
    halves = np.zeros((4, 8, 3), dtype=np.uint8)
    halves[:, 4:] = [100, 200, 50]
    path = written(tmp_path, "folder", {"a.png": encoded(Image.fromarray(halves))})
    cropped = folder(path, fit="crop").read(torch.tensor([0]))["real"]
    assert cropped[0, :, 0].T.tolist() == [[0, 0, 0]] * 2 + [[100, 200, 50]] * 2
    padded = folder(path, fit="pad", channels=1, resolution=[8, 8]).read(torch.tensor([0]))["real"]
    assert padded[0, 0].sum(1).tolist() == [0, 0] + [4 * 153] * 4 + [0, 0]


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "RGBA", "LA"])
def test_every_mode_of_pillow_is_read(tmp_path, channels, mode):
    data = folder(written(tmp_path, "folder", {"a.png": encoded(picture(255, mode=mode))}), channels=channels)
    assert data.read(torch.tensor([0]))["real"].tolist() == [[[[255] * 4] * 4] * channels]


@pytest.mark.parametrize("ending", ["png", "tiff"])
@pytest.mark.parametrize("channels", [1, 3])
def test_grey_of_16_bits_is_scaled_not_clipped(tmp_path, channels, ending):
    wide = Image.fromarray(np.array([[0, 0x1234], [0x80FF, 0xFFFF]], dtype=np.uint16))
    path = written(tmp_path, "folder", {f"a.{ending}": encoded(wide, ending)})
    data = folder(path, channels=channels, resolution=2)
    assert data.read(torch.tensor([0]))["real"][0, -1].tolist() == [[0, 0x12], [0x80, 0xFF]]


def test_path_is_needed():
    with pytest.raises(UserError, match=r"needs dataset.path=<folder or .zip"):
        folder(None)


@pytest.mark.parametrize("kind", ["missing", "empty folder", "empty zip", "not a zip", "folder without images"])
def test_paths_without_images_are_refused(tmp_path, kind):
    path = tmp_path / ("pictures.zip" if "zip" in kind else "pictures")
    if "folder" in kind:
        path.mkdir()
    if kind == "folder without images":
        (path / "notes.txt").touch()
    if kind == "empty zip":
        zipfile.ZipFile(path, "w").close()
    if kind == "not a zip":
        path.write_bytes(b"PK, but no archive")
    says = {"missing": "there is no such folder", "not a zip": "neither a folder nor a .zip"}.get(kind, "no images")
    with pytest.raises(UserError, match=says) as raised:
        folder(path)
    assert f"dataset.path={path}" in str(raised.value)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("damage", ["no image", "empty", "cut off", "cut off jpeg"])
def test_a_corrupt_image_is_named(tmp_path, kind, damage):
    noise = Image.fromarray(np.random.default_rng(0).integers(256, size=(32, 32, 3), dtype=np.uint8))
    bad = {
        "no image": b"<html>404</html>",
        "empty": b"",
        "cut off": encoded(noise)[:-2000],
        "cut off jpeg": encoded(noise, "jpeg")[:-500],
    }[damage]
    path = written(tmp_path, kind, {"cat/a.png": encoded(picture()), "dog/bad.png": bad})
    with pytest.raises(UserError, match=r"dataset mine: cannot read image dog/bad.png: "):
        folder(path)  # at once, not when it is read


def test_a_damaged_zip_member_is_named(tmp_path):
    path = written(tmp_path, "zip", {"a.png": encoded(picture(size=(64, 64))), "b.png": encoded(picture())})
    damaged = bytearray(path.read_bytes())
    damaged[60:70] = b"0123456789"  # within the compressed bytes of a.png
    path.write_bytes(damaged)
    with pytest.raises(UserError, match=r"cannot read image a.png: "):
        folder(path).read(torch.tensor([0]))


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_with_and_without_keeping(tmp_path, kind, monkeypatch):
    files = {f"{number}.png": encoded(picture(10 * number)) for number in range(6)}
    path = written(tmp_path, kind, files)
    keeping, reading = folder(path), folder(path, num_workers=2)
    monkeypatch.setattr(decoded, "IN_MEMORY", 6 * 3 * 4 * 4 - 1)
    large = folder(path)
    for indices in ([3, 3, 1], [1, 5, 3], [0, 1, 2, 3, 4, 5]):
        for data in (keeping, reading, large):
            assert data.read(torch.tensor(indices))["real"][:, 2, 3, 3].tolist() == [10 * i for i in indices]
    moved = shutil.move(path, tmp_path / "elsewhere")
    assert greys(keeping) == [0, 10, 20, 30, 40, 50]  # needs no file any more
    assert moved.exists()
    if kind == "folder":
        for data in (reading, large):
            with pytest.raises(UserError, match="cannot read image"):
                greys(data)


@pytest.mark.parametrize("num_workers", [0, 2])
@pytest.mark.parametrize("kind", KINDS)
def test_an_opened_set_can_be_pickled(tmp_path, kind, num_workers):
    """As spawned worker processes receive it."""
    data = folder(written(tmp_path, kind, {f"{i}.png": encoded(picture(i)) for i in range(5)}), num_workers=num_workers)
    data.read(torch.tensor([0]))
    assert greys(pickle.loads(pickle.dumps(data))) == [0, 1, 2, 3, 4]
    assert greys(data) == [0, 1, 2, 3, 4]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_forked_worker_has_its_own_place_in_the_zip(tmp_path):
    """Shared, the places that several workers read at get mixed up."""
    data = folder(written(tmp_path, "zip", {f"{i}.png": encoded(picture(i)) for i in range(5)}), num_workers=2)
    data.read(torch.tensor([0]))
    place = data._source.archive.fp.tell()
    worker = multiprocessing.get_context("fork").Process(target=data.content, args=("4.png",))
    worker.start()
    worker.join()
    assert worker.exitcode == 0
    assert data._source.archive.fp.tell() == place
