"""Images in .npy and .npz files: which array, which layout, which labels; what is refused in one line."""

from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import TINY, ganrun

from ganrun.data import arrays
from ganrun.data.images import ImageFolder
from ganrun.errors import UserError

GREY = np.arange(6 * 5 * 7, dtype=np.uint8).reshape(6, 5, 7)
COLOUR = np.stack([GREY, GREY + 10, GREY // 2], -1)
LABELS = np.array([3, 5, 3, 5, 5, 3])


def saved(where: Path, content: np.ndarray | dict[str, np.ndarray]) -> Path:
    if isinstance(content, dict):
        np.savez(where / "images.npz", **content)
        return where / "images.npz"
    np.save(where / "images.npy", content)
    return where / "images.npy"


def opened(path: Path, **settings) -> ImageFolder:
    return ImageFolder(**{"name": "mine", "path": str(path), "resolution": [5, 7], "channels": 3} | settings)


def pixels(data: ImageFolder) -> np.ndarray:
    return data.read(torch.arange(len(data)))["real"].permute(0, 2, 3, 1).numpy()


OPACITY = "images (6, 5, 7, 4): opacity is laid over white; dataset.channels=4 keeps it"
FILES = {  # file -> its images (num, H, W, C), what is said
    "npy": (COLOUR, COLOUR, None),
    "as ganrun writes it": ({"arr_0": COLOUR}, COLOUR, None),
    "grey": (GREY, GREY[..., None].repeat(3, 3), None),
    "grey with a channel": ({"images": GREY[..., None]}, GREY[..., None].repeat(3, 3), None),
    "channels first": (
        {"x": COLOUR.transpose(0, 3, 1, 2)}, COLOUR, "x (6, 3, 5, 7) is read as (num, C, H, W)",
    ),
    "fortran order": (np.asfortranarray(COLOUR), COLOUR, None),
    "opaque": (np.concatenate([COLOUR, np.full((6, 5, 7, 1), 255, np.uint8)], -1), COLOUR, OPACITY),
    "transparent": (
        np.concatenate([COLOUR, np.zeros((6, 5, 7, 1), np.uint8)], -1), np.full_like(COLOUR, 255), OPACITY,
    ),
    "the one named so": (
        {"images": COLOUR, "masks": GREY, "ids": LABELS}, COLOUR,
        "images.npz: the images are images; not used: masks uint8 (6, 5, 7), ids int64 (6,)",
    ),
    "bits": (GREY > 99, (GREY > 99)[..., None].repeat(3, 3) * np.uint8(255), None),
}  # fmt: skip


@pytest.mark.parametrize("cached", [False, True])
@pytest.mark.parametrize("kind", FILES)
def test_images(tmp_path, kind, cached):
    content, expected, said = FILES[kind]
    path = saved(tmp_path, content)
    for _ in range(1 + cached):  # prepared, and as it was prepared before
        data = opened(path, cache=str(tmp_path / "cache") if cached else None)
        assert (pixels(data) == expected).all() and data.classes == []
        assert data.notes == ([said] if said else [])
    assert data._source._pixels is None or not data.held  # the whole file is not kept beside the pixels


DEEP = {  # values, dataset.range, what becomes 0 and 255
    "floats": (np.linspace(0, 1, 210, dtype=np.float32), [0, 1]),
    "floats with a sign": (np.linspace(-1, 1, 210, dtype=np.float64), [-1, 1]),
    "half floats": (np.linspace(0, 1, 210).astype(np.float16), "auto"),
    "12 bits": (np.linspace(0, 4095, 210).astype(np.uint16), [0, 4095]),
    "16 bits": (np.linspace(0, 65535, 210).astype(np.uint16), None),
    "wide": (np.linspace(0, 255, 210).astype(np.int64), [0, 255]),
    "signed": (np.linspace(-1024, 3071, 210).astype(np.int16), "auto"),
}


@pytest.mark.parametrize("kind", DEEP)
def test_values_of_any_depth(tmp_path, kind):
    values, span = DEEP[kind]
    data = opened(saved(tmp_path, values.reshape(6, 5, 7)), range=span, channels=1)
    assert np.abs(pixels(data).reshape(-1) - np.linspace(0, 255, 210)).max() < 1.1
    assert pixels(data).min() == 0 and pixels(data).max() == 255


LABELLED = {  # arrays beside the images -> labels, classes
    "numbers": ({"labels": LABELS}, [0, 1, 0, 1, 1, 0], ["3", "5"]),
    "names": ({"labels": LABELS - 3, "classes": np.array(["cat", "ape", "dog"])}, [0, 1, 0, 1, 1, 0], ["cat", "dog"]),
    "a column": ({"y": LABELS[:, None].astype(np.uint8)}, [0, 1, 0, 1, 1, 0], ["3", "5"]),
}


@pytest.mark.parametrize("kind", LABELLED)
def test_labels(tmp_path, kind):
    beside, labels, classes = LABELLED[kind]
    data = opened(saved(tmp_path, {"images": COLOUR} | beside))
    assert data.read(torch.arange(6))["label"].tolist() == labels and data.classes == classes
    assert data.notes == (["classes without images are left out: ape"] if kind == "names" else [])
    few = opened(saved(tmp_path, {"images": COLOUR} | beside), limit=2)
    assert few.read(torch.arange(2))["label"].tolist() == [labels[0], labels[5]]


REFUSED = {
    "floats": (GREY / 255.0, "0..0.819608, have no range of their own; give dataset.range=[0,1] or auto"),
    "integers of 8 bits": (GREY.astype(np.int64), "16-bit pixels lie in 0..209 of 0..65535 (6 of 6 images"),
    "12 bits": (GREY.astype(np.uint16) * 10, "16-bit pixels lie in 0..2090 of 0..65535 (6 of 6 images looked at)"),
    "not finite": (np.where(GREY == 5, np.nan, GREY), "arr_0[0]: its pixels are not all finite"),
    "objects": ({"arr_0": np.array([[["a", None]]], dtype=object)}, "arr_0 is object (1, 1, 2); expected numbers"),
    "texts": ({"images": np.array([[["a", "b"]]])}, "images is <U1 (1, 1, 2); expected numbers"),
    "points": ({"arr_0": np.zeros((9, 2))}, "arr_0 is float64 (9, 2); expected (num, H, W), (num, H, W, C) or"),
    "one image": (COLOUR[0], "is uint8 (5, 7, 3); expected (num, H, W), (num, H, W, C) or"),
    "two channels": (COLOUR[..., :2], "is uint8 (6, 5, 7, 2); expected (num, H, W), (num, H, W, C) or"),
    "none": (COLOUR[:0], "is uint8 (0, 5, 7, 3): there are no images in it"),
    "two arrays": (
        {"x_train": COLOUR, "x_test": COLOUR[:2]},
        "which of its arrays are the images? call one `images`; it has x_train uint8 (6, 5, 7, 3), x_test uint8 (2,",
    ),
    "labels of others": ({"images": COLOUR, "labels": LABELS[:5]}, "labels is int64 (5,); expected 6 integers, one"),
    "labels beyond the names": (
        {"images": COLOUR, "labels": LABELS, "classes": np.array(["a", "b"])}, "labels from 3 to 5; there are 2",
    ),
    "other size": (COLOUR, "7x5 pixels; expected 7x6", {"fit": "exact", "resolution": [6, 7]}),
}  # fmt: skip


@pytest.mark.parametrize("kind", REFUSED)
def test_what_is_refused(tmp_path, kind):
    content, why, *settings = REFUSED[kind]
    if kind == "not finite":
        content, settings = {"arr_0": content}, [{"range": [0, 255]}]
    with pytest.raises(UserError) as raised:
        opened(saved(tmp_path, content), **(settings[0] if settings else {}))
    assert why in str(raised.value) and "\n" not in str(raised.value)


@pytest.mark.parametrize("ending", [".npy", ".npz"])
@pytest.mark.parametrize("damage", ["cut off", "no array", "empty"])
def test_damaged_files_are_named(tmp_path, ending, damage):
    path = saved(tmp_path, COLOUR if ending == ".npy" else {"images": COLOUR})
    content = {"cut off": path.read_bytes()[:200], "no array": b"Dear diary,", "empty": b""}[damage]
    path.write_bytes(content)
    with pytest.raises(UserError, match=f"{path}: cannot be read as {ending}: |cannot read image images"):
        opened(path)


def test_what_sample_writes_trains_again_and_a_set_smaller_than_a_batch_says_so(tmp_path):
    colours = np.random.default_rng(0).integers(256, size=(10, 16, 16, 3), dtype=np.uint8)
    saved(tmp_path, {"arr_0": colours, "labels": np.arange(10) % 2, "classes": np.array(["cat", "dog"])})
    chosen = ["dataset=image-folder", "dataset.path=images.npz", "dataset.resolution=16", "conditional=label"]
    done = ganrun(*TINY, *chosen, "steps=1", "metric=[]", "run_dir=r", cwd=tmp_path)
    assert "10 samples, fewer than batch_size=16: each batch repeats some" in done.stdout
    assert "fewer than batch_size=16" in (tmp_path / "r" / "train.log").read_text()


def test_wrong_sizes_are_fitted(tmp_path):
    assert opened(saved(tmp_path, COLOUR), resolution=4, fit="crop").shape == (3, 4, 4)


def test_changed_arrays_are_another_set(tmp_path):
    first = opened(saved(tmp_path, COLOUR), cache=str(tmp_path / "cache"))
    other = opened(saved(tmp_path, COLOUR + 1), cache=str(tmp_path / "cache"))
    assert (pixels(other) == COLOUR + 1).all() and first.identity != other.identity


def test_an_npy_is_mapped_and_a_large_npz_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(arrays, "physical_memory", lambda: COLOUR.nbytes)
    assert (pixels(opened(saved(tmp_path, COLOUR), num_workers=1)) == COLOUR).all()
    with pytest.raises(UserError, match=r"half of the memory or more; save it as \.npy"):
        opened(saved(tmp_path, {"images": COLOUR}))
