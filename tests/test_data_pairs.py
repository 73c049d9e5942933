"""Pairs of images: matched by name in folders and .zip files, side by side in one file, moved together."""

import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from test_configs import composed
from test_data_rounds import loaded, same

from ganrun.data import decoded
from ganrun.data.datamodule import GANDataModule, Rounds
from ganrun.data.folders import PairedImages, UnpairedImages
from ganrun.errors import UserError
from ganrun.training.nodes import open_data


def image(number: int, channels: int = 3) -> np.ndarray:
    """(4, 4, channels) or, of one channel, (4, 4): a ramp that tells its number and whether it is mirrored."""
    ramp = np.arange(16, dtype=np.uint8).reshape(4, 4) + number
    return ramp if channels == 1 else np.stack([ramp] * channels, -1)


def folder(place: Path, *names: str, add: int = 0) -> Path:
    """Image i is the ramp from 10 * i + add."""
    for i, name in enumerate(names):
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image(10 * i + add)).save(place / name)
    return place


def zipped(place: Path, top: str = "") -> Path:
    path = place.with_suffix(".zip")
    with zipfile.ZipFile(path, "w") as archive:
        for file in sorted(place.rglob("*.*")):
            archive.write(file, f"{top}{file.relative_to(place).as_posix()}")
    return path


def pairs(source: Path | None, path: Path, **settings) -> PairedImages:
    about = {"name": "pairs", "resolution": 4, "channels": 3, "fit": "exact"} | settings
    return PairedImages(source=source and str(source), path=str(path), **about)


def numbers(data: PairedImages) -> list[tuple[int, int]]:
    """The first pixels of each pair."""
    batch = data.read(torch.arange(len(data)))
    return list(zip(*(batch[key][:, 0, 0, 0].tolist() for key in ("source", "real")), strict=True))


NAMES = ("a.png", "b.b.png", "c/a.png", "c/d.png")


@pytest.mark.parametrize("source_zipped", [False, True])
@pytest.mark.parametrize("tops", [("", ""), ("A/", "B/images/")], ids=["", "within other folders"])
def test_files_of_the_same_name_are_pairs(tmp_path, source_zipped, tops):
    source = folder(tmp_path / "A", *(name.replace(".png", ".bmp") for name in NAMES))
    real = folder(tmp_path / "B", *NAMES, add=100)
    source = zipped(source, tops[0]) if source_zipped or tops[0] else source
    real = zipped(real, tops[1]) if tops[1] else real
    data = pairs(source, real, labels_from="none")
    assert numbers(data) == [(0, 100), (10, 110), (20, 120), (30, 130)]
    assert data.paired and data.parts == {"source": (3, 4, 4), "real": (3, 4, 4)} and data.notes == []


def test_the_order_is_that_of_the_names_whatever_the_endings(tmp_path):
    source = folder(tmp_path / "A", "a-.png", "a.png")  # '-' comes before '.'
    real = folder(tmp_path / "B", "a-.png", "a.jpeg", add=100)
    assert [s for s, _ in numbers(pairs(source, real))] == [10, 0]
    one, other = pairs(source, real, limit=1), pairs(source, real, limit=1, on_error="skip")
    assert numbers(one) == numbers(other) and len(one) == 1


def test_arrays_are_matched_by_row(tmp_path):
    np.save(tmp_path / "A.npy", np.stack([image(i) for i in range(3)]))
    np.savez(tmp_path / "B.npz", images=np.stack([image(i + 100) for i in range(3)]))
    assert numbers(pairs(tmp_path / "A.npy", tmp_path / "B.npz")) == [(0, 100), (1, 101), (2, 102)]


def test_images_without_a_partner_are_refused_or_left_out(tmp_path):
    source, real = folder(tmp_path / "A", "a.png", "b.png", "x.png"), folder(tmp_path / "B", "b.png", "a.png", "y.png")
    with pytest.raises(UserError) as raised:
        pairs(source, real)
    told = f"dataset.path={real} has no partner for 1 images by name: x; dataset.on_error=skip leaves out what is bad"
    assert str(raised.value) == told
    data = pairs(source, real, on_error="skip")
    assert numbers(data) == [(0, 10), (10, 0)]
    assert data.skipped == [
        ("x", f"without a partner in dataset.path={real}"),
        ("y", f"without a partner in dataset.source={source}"),
    ]
    with pytest.raises(UserError, match=r"has no partner for 9 images by name: 0, 1, 2, 3, 4, \.\.\.$"):
        pairs(folder(tmp_path / "C", *(f"{i}.png" for i in range(9))), real, on_error="skip")


def test_an_image_that_cannot_be_read_takes_its_partner_with_it(tmp_path):
    names = ["a.png", "b.png", "c.png", "d.png"]
    source, real = folder(tmp_path / "A", *names), folder(tmp_path / "B", *names, add=100)
    (source / "b.png").write_bytes(b"")
    (real / "c.png").write_bytes((real / "c.png").read_bytes()[:50])
    data = pairs(source, real, on_error="skip")
    assert numbers(data) == [(0, 100), (30, 130)]
    assert [name for name, _ in data.skipped] == ["b.png", "c.png", "b", "c"]
    assert (
        data.skipped[0][1].startswith("source: the file is empty") and data.skipped[2][1] == "its partner is left out"
    )
    assert numbers(pairs(source, real, on_error="skip", limit=1)) == [(0, 100)]
    with pytest.raises(UserError, match=r"dataset pairs, source: cannot read image b\.png: the file is empty"):
        pairs(source, real)


def side_by_side(place: Path, num: int = 3, left: int = 0, right: int = 100, mode: str = "RGB") -> Path:
    """Image i: the ramps from 10 * i + left and 10 * i + right beside each other."""
    place.mkdir()
    for i in range(num):
        both = np.concatenate([image(10 * i + left), image(10 * i + right)], axis=1)
        Image.fromarray(both).convert(mode).save(place / f"{i}.png")
    return place


@pytest.mark.parametrize("side", ["left", "right"])
def test_halves_of_images_side_by_side(tmp_path, side):
    data = pairs(None, side_by_side(tmp_path / "AB"), side=side)
    found = [(0, 100), (10, 110), (20, 120)]
    assert numbers(data) == [pair if side == "left" else pair[::-1] for pair in found]
    real = data.read(torch.tensor([1]))["real"][0]
    assert real.permute(1, 2, 0).tolist() == image(110 if side == "left" else 10).tolist()


def test_a_half_is_resized_without_the_other(tmp_path):
    (tmp_path / "AB").mkdir()
    both = np.zeros((256, 512, 3), dtype=np.uint8)
    both[:, 256:] = 255
    for name in ("a.png", "b.jpg"):
        Image.fromarray(both).save(tmp_path / "AB" / name, quality=100)
    data = pairs(None, tmp_path / "AB", side="left", fit="crop", source_channels=1)
    batch = data.read(torch.arange(2))
    assert batch["source"].shape == (2, 1, 4, 4) and not batch["source"].any()
    assert batch["real"].shape == (2, 3, 4, 4) and (batch["real"] == 255).all()


def test_halves_of_photographs_that_lie_on_their_side(tmp_path):
    upright = np.concatenate([image(0), image(100)], axis=1)
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees clockwise
    (tmp_path / "AB").mkdir()
    Image.fromarray(np.rot90(upright)).save(tmp_path / "AB" / "a.png", exif=exif)
    assert numbers(pairs(None, tmp_path / "AB", side="left")) == [(0, 100)]


def test_an_odd_width_is_no_pair(tmp_path):
    place = side_by_side(tmp_path / "AB")
    Image.new("RGB", (9, 4)).save(place / "odd.png")
    with pytest.raises(UserError, match=r"cannot read image odd\.png: 9 pixels wide; expected an even number"):
        pairs(None, place, side="left")
    data = pairs(None, place, side="left", on_error="skip")
    assert len(data) == 3 and [name for name, _ in data.skipped] == ["odd.png"]


def test_each_side_is_prepared_once(tmp_path, monkeypatch):
    place, cache = side_by_side(tmp_path / "AB"), str(tmp_path / "cache")
    first = pairs(None, place, side="left", cache=cache)
    assert len(list((tmp_path / "cache").glob("*.pixels"))) == 2
    monkeypatch.setattr(decoded.DecodedImages, "_decode", lambda *_: pytest.fail("decodes again"))
    again = pairs(None, place, side="left", cache=cache)
    assert numbers(again) == numbers(first) == numbers(pairs(None, place, side="left", cache=cache, num_workers=1))
    swapped = pairs(None, place, side="right", cache=cache)  # the same two files
    assert numbers(swapped)[0] == (100, 0)


def test_sides_of_other_depths_have_their_own_range_and_channels(tmp_path):
    real = folder(tmp_path / "B", "a.png", "b.png")
    (tmp_path / "A").mkdir()
    for name, value in (("a", 0), ("b", 1000)):
        Image.fromarray(np.full((4, 4), value, dtype=np.uint16)).save(tmp_path / "A" / f"{name}.png")
    with pytest.raises(UserError, match=r"dataset\.source_range="):
        pairs(tmp_path / "A", real, source_channels=1)
    data = pairs(tmp_path / "A", real, source_channels=1, source_range=[0, 1000])
    assert numbers(data) == [(0, 0), (255, 10)] and data.parts["source"] == (1, 4, 4)


@pytest.mark.parametrize("num_workers", [0, 1])
@pytest.mark.parametrize("on_error", ["refuse", "skip"])
def test_flips_and_crops_move_both_sides_of_a_pair_together(tmp_path, num_workers, on_error):
    names = [f"{i}.png" for i in range(9)]
    source, real = folder(tmp_path / "A", *names), folder(tmp_path / "B", *names, add=100)
    if on_error == "skip":
        (source / "4.png").write_bytes(b"")
    data = pairs(source, real, flip=True, random_crop=1, num_workers=num_workers, on_error=on_error)
    assert data.is_resident == (num_workers == 0)
    batches = [data.complete(Rounds(data, batch_size=8, num_batches=1, seed=0)[i]) for i in range(4)]
    module = GANDataModule(data, batch_size=8, num_batches=1, seed=0)
    for batch in batches:
        assert torch.equal(batch["source"] + 100, batch["real"])
    mirrored = torch.cat([batch["real"][:, 0, 2, 1] > batch["real"][:, 0, 2, 2] for batch in batches])
    assert 5 < mirrored.sum() < 27
    assert len({int(batch["real"][i, 0, 0, 0]) % 10 for batch in batches for i in range(8)}) > 4  # places of the window
    ready = module.on_after_batch_transfer(Rounds(data, batch_size=8, num_batches=1, seed=0)[0], 0)
    assert torch.equal(ready["real"], data.to_range(batches[0]["real"])) and ready["source"].dtype == torch.float32


def test_indices_and_samples_on_their_way_are_the_same(tmp_path):
    source, real = folder(tmp_path / "A", *NAMES), folder(tmp_path / "B", *NAMES, add=100)
    data = pairs(source, real, flip=True, labels_from="none")
    index, read = (Rounds(data, batch_size=8, num_batches=1, seed=0, only_index=only)[0] for only in (True, False))
    assert index.keys() == {"source/index", "real/index", "flip"} and read.keys() == {
        "source/real",
        "real/real",
        "flip",
    }
    assert same(data.complete(index), data.complete(read))
    assert data.lies_on(torch.device("cpu")) and data.num_bytes == 2 * 4 * 48


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_pairs_through_worker_processes(tmp_path):
    source, real = folder(tmp_path / "A", *NAMES), folder(tmp_path / "B", *NAMES, add=100)
    streams = [
        loaded(pairs(source, real, flip=True, labels_from="none", num_workers=num), start=2, num=4) for num in (0, 2)
    ]
    assert all(same(one, other) for one, other in zip(*streams, strict=True))


def test_labels_are_of_the_real_side(tmp_path):
    names = ["x/1.png", "x/2.png", "y/1.png"]
    data = pairs(folder(tmp_path / "A", *names), folder(tmp_path / "B", *names, add=100))
    assert data.classes == ["x", "y"] and data.num_classes == 2 and data.class_labels.tolist() == [0, 0, 1]
    assert data.read(torch.tensor([2]))["label"].tolist() == [1]
    assert data.notes == ["classes: x, y from folders"]
    with pytest.raises(UserError, match="look like splits"):
        names = [f"{split}/{i}.png" for split in ("trainA", "trainB") for i in range(2)]
        pairs(folder(tmp_path / "C", *names), folder(tmp_path / "D", *names))


def test_pairs_for_scores_are_aligned(tmp_path):
    names = [f"{i}.png" for i in range(9)]
    data = pairs(folder(tmp_path / "A", *names), folder(tmp_path / "B", *names, add=100))
    batches = list(data.shuffled(7, chunk=4))
    assert [len(batch["real"]) for batch in batches] == [4, 3]
    assert all(torch.equal(batch["source"] + 100, batch["real"]) for batch in batches)
    for key, side in data.sides.items():
        (alone,) = side.shuffled(7)
        assert torch.equal(torch.cat([batch[key] for batch in batches]), alone["real"])


def test_identity_is_that_of_both_sides_and_not_of_their_place(tmp_path):
    source, real = folder(tmp_path / "A", *NAMES), folder(tmp_path / "B", *NAMES, add=100)
    data = pairs(source, real)
    copy = pairs(zipped(source), shutil.copytree(real, tmp_path / "other"))
    assert data.identity == copy.identity
    same_files = UnpairedImages(name="x", source=str(source), path=str(real), resolution=4, channels=3)
    others = [pairs(real, source), pairs(source, source), pairs(source, real, source_channels=1), same_files]
    assert len({other.identity for other in others} | {data.identity, data.sides["real"].identity}) == 6
    assert data.held_out() is None


REFUSED = [
    ({"path": None}, "dataset=pairs needs dataset.source=<folder or .zip>, .* and dataset.path=<folder or .zip>"),
    ({"source": None}, "dataset=pairs needs dataset.source="),
    ({"source": "nowhere"}, r"dataset\.source=nowhere: there is no such folder"),
    ({"path": "nowhere"}, r"dataset\.path=nowhere: there is no such folder"),
    ({"side": "left"}, r"dataset\.side=left: it is for images side by side; expected dataset\.source=null"),
    ({"side": "top"}, r"dataset\.side=top; valid: left, right"),
    ({"source_channels": 7}, r"dataset\.source_channels=7; valid: 1"),
    ({"source_range": [5, 1]}, r"dataset\.source_range=\[5"),
    ({"on_error": "stop"}, r"dataset\.on_error=stop"),
]


@pytest.mark.parametrize(("settings", "told"), REFUSED, ids=[str(settings) for settings, _ in REFUSED])
def test_mistakes_are_told_in_one_line(tmp_path, settings, told):
    source, real = folder(tmp_path / "A", "a.png"), folder(tmp_path / "B", "a.png")
    about = {"name": "pairs", "resolution": 4, "channels": 3, "source": str(source), "path": str(real)}
    with pytest.raises(UserError, match=told) as raised:
        PairedImages(**about | settings)
    assert "\n" not in str(raised.value)


def test_two_files_of_one_name_are_refused(tmp_path):
    source, real = folder(tmp_path / "A", "a.png", "a.bmp"), folder(tmp_path / "B", "a.png")
    with pytest.raises(UserError, match=r"dataset\.source=.*: a\.bmp and a\.png have the same name without its ending"):
        pairs(source, real)


def test_pairs_from_the_config(tmp_path):
    source, real = folder(tmp_path / "A", *NAMES), folder(tmp_path / "B", *NAMES, add=100)
    words = ["dataset=pairs", f"dataset.source={source}", f"dataset.path={real}", "dataset.resolution=4"]
    words += ["dataset.cache=null", "dataset.source_channels=1", "dataset.labels_from=none"]
    data = open_data(composed(*words)[0])
    assert data.parts == {"source": (1, 4, 4), "real": (3, 4, 4)}
    with pytest.raises(UserError, match="has two sides already; expected pairs=none"):
        open_data(composed(*words, "pairs=invert")[0])
