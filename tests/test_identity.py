"""What a data set is known by: the same pixels and labels are the same data, others never are; changes in words."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from test_data_images import written

from ganrun.data import decoded
from ganrun.data.identity import changes, digest_of
from ganrun.data.images import ImageArray, ImageFolder
from ganrun.data.vectors import Ring

SIDE = 160  # a .bmp of 77 kB, whose last bytes are the top row


def bitmaps(where: Path, num: int = 4) -> Path:
    """Images of noise in two class folders."""
    rng = np.random.default_rng(0)
    for i in range(num):
        (where / "ab"[i % 2]).mkdir(parents=True, exist_ok=True)
        pixels = rng.integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(where / "ab"[i % 2] / f"{i}.bmp")
    return where


def opened(path: Path, **settings) -> ImageFolder:
    return ImageFolder(**{"name": "mine", "path": str(path), "resolution": SIDE, "channels": 3} | settings)


def array(path: Path, labels: list[int], names: tuple[str, ...] = ("a", "b")) -> ImageArray:
    pixels = np.arange(len(labels) * 48, dtype=np.uint8).reshape(-1, 4, 4, 3)
    np.savez(path, arr_0=pixels, labels=np.array(labels))
    return ImageArray(name="mine", path=str(path), resolution=4, channels=3, names=names)


def test_prepared_decoded_and_streamed_sets_are_the_same_data(tmp_path, monkeypatch):
    path = bitmaps(tmp_path / "images")
    prepared = opened(path, cache=str(tmp_path / "cache"))
    mapped = opened(path, cache=str(tmp_path / "cache"))
    in_memory, streamed = opened(path), opened(path, num_workers=1)
    assert mapped.held and in_memory.held and not streamed.held
    monkeypatch.setattr(decoded.DecodedImages, "_decode", lambda *_: pytest.fail("decodes again"))
    assert prepared.fingerprint == mapped.fingerprint == in_memory.fingerprint
    monkeypatch.undo()
    assert streamed.fingerprint == in_memory.fingerprint


def test_copies_archives_and_other_formats_of_the_same_pixels_are_the_same_data(tmp_path):
    path = bitmaps(tmp_path / "images")
    shutil.copytree(path, tmp_path / "copy", copy_function=shutil.copy)
    archive = written(tmp_path, "zip", {f"{f.parent.name}/{f.name}": f.read_bytes() for f in sorted(path.rglob("*.*"))})
    for file in path.rglob("*.bmp"):
        (tmp_path / "png" / file.parent.name).mkdir(parents=True, exist_ok=True)
        Image.open(file).save(tmp_path / "png" / file.parent.name / f"{file.stem}.png")
    identities = {opened(place).identity for place in (path, tmp_path / "copy", archive, tmp_path / "png")}
    assert len(identities) == 1
    assert opened(path, fit="crop").identity in identities  # of square images the same pixels


def test_a_change_beyond_a_files_first_bytes_is_noticed(tmp_path):
    path = bitmaps(tmp_path / "images")
    for settings in ({}, {"num_workers": 1}, {"cache": str(tmp_path / "cache")}):
        before = opened(path, **settings).fingerprint
        file = path / "a" / "0.bmp"
        content = bytearray(file.read_bytes())
        content[-1] ^= 255
        file.write_bytes(content)
        assert changes(opened(path, **settings).fingerprint, before) == [
            "other contents: an edited file, or another version of what decodes it"
        ]


@pytest.mark.parametrize(
    "settings", [{"fit": "pad"}, {"resolution": 80}, {"resolution": [80, 320]}, {"channels": 1}, {"limit": 3}], ids=str
)
def test_whatever_changes_pixels_changes_the_data(tmp_path, settings):
    path = bitmaps(tmp_path / "images")
    Image.new("RGB", (320, 80), "red").save(path / "a" / "wide.png")
    assert opened(path, **settings).identity != opened(path).identity


def test_labels_and_names_of_classes_belong_to_the_data(tmp_path):
    first = array(tmp_path / "x.npz", [0, 1, 1])
    relabelled = array(tmp_path / "x.npz", [0, 1, 0])
    renamed = array(tmp_path / "x.npz", [0, 1, 1], ("a", "c"))
    assert len({first.identity, relabelled.identity, renamed.identity}) == 3
    assert first.digest() == relabelled.digest() == renamed.digest()
    ring = Ring(name="ring", channels=2, num=50)
    before, ring = ring.identity, Ring(name="ring", channels=2, num=50)
    ring.held["label"][7] += 1
    assert ring.identity != before


def test_a_digest_does_not_depend_on_parts_or_memory_formats():
    pixels = torch.randint(256, (7, 3, 5, 4)).byte()
    found = {digest_of(pixels.split(size)) for size in (1, 3, 7)}
    found.add(digest_of([pixels.contiguous(memory_format=torch.channels_last)]))
    assert len(found) == 1
    pixels[6, 2, 4, 3] ^= 1
    assert digest_of([pixels]) not in found


HAD = {"num": 1800, "shape": [1, 8, 8], "classes": ["cat", "dog"], "samples": "s", "labels": "l"}
SAID = [
    ({}, []),
    ({"num": 1797, "samples": "t", "labels": "m"}, ["1,797 samples, it had 1,800"]),
    ({"shape": [3, 8, 8], "samples": "t"}, ["samples of shape [3, 8, 8], they had [1, 8, 8]"]),
    ({"classes": ["cat", "cow"], "labels": "m"}, ["new classes: cow", "no more: dog"]),
    ({"classes": ["dog", "cat"]}, ["its classes are in another order"]),
    ({"labels": "m"}, ["other labels for the same classes"]),
    ({"samples": "t"}, ["other contents: an edited file, or another version of what decodes it"]),
]


@pytest.mark.parametrize(("change", "said"), SAID, ids=[str(change) for change, _ in SAID])
def test_changes_in_words(change, said):
    assert changes(HAD | change, HAD) == said
