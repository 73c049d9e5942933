"""Where an image set's labels come from, what is taken for a class, and what is left out, in a folder as in a .zip."""

import json
import zipfile

import pytest
from PIL import Image

from ganrun.classes import natural_order
from ganrun.data.images import ImageFolder
from ganrun.data.labels import is_split, read_labels, wrapping
from ganrun.errors import UserError
from ganrun.sampling.generator import SamplingGenerator


@pytest.fixture(params=["folder", "zip"])
def opened(request, tmp_path):
    """Opens a set of 8x8 images with these names, as a folder and as a .zip; files: further ones."""

    def make(names, files=(), within="", **settings):
        root = tmp_path / "set"
        for i, name in enumerate(names):
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            Image.new("L", (8, 8), 60 * i % 256).save(root / name)
        for name, content in dict(files).items():
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_text(content)
        place = root
        if request.param == "zip":
            place = tmp_path / "set.zip"
            with zipfile.ZipFile(place, "w") as archive:
                for path in sorted(root.rglob("*")):
                    archive.write(path, path.relative_to(root))
        place = f"{place}/{within}" if within else str(place)
        return ImageFolder(name="own", path=place, resolution=8, channels=1, **settings)

    return make


def test_folders_around_everything_are_no_level(opened):
    data = opened([f"all/animals/{kind}/{i}.png" for kind in ("cat", "dog") for i in range(2)])
    assert data.classes == ["cat", "dog"] and data.labels.tolist() == [0, 0, 1, 1]
    assert data.notes == ["2 classes from folders: cat, dog"]


def test_dataset_json_says_the_classes_of_files_in_storage_folders(opened):
    names = [f"00000/{i}.png" for i in range(2)] + [f"00001/{i}.png" for i in range(2)]
    labels = {"labels": [[name, label] for name, label in zip(names, (2, 0, 0, 2), strict=True)] + [["gone.png", 1]]}
    data = opened(names, {"dataset.json": json.dumps(labels)})
    assert data.classes == ["0", "1", "2"] and data.labels.tolist() == [2, 0, 0, 2]
    assert "dataset.json has labels of 1 files that are not there" in data.notes
    assert "3 classes from dataset.json: 0, 1, 2" in data.notes
    assert not any("not used" in note for note in data.notes)


@pytest.mark.parametrize("labels", [None, [["0/a.png", [0.5, 1.0]], ["1/b.png", [0.1, 0.2]]]])
def test_dataset_json_without_class_numbers_makes_no_classes(opened, labels):
    data = opened(["0/a.png", "1/b.png"], {"dataset.json": json.dumps({"labels": labels})})
    assert data.classes == [] and data.notes[0].startswith("no classes: dataset.json is there, but it")


@pytest.mark.parametrize(
    ("content", "why"),
    [
        ('{"labels": [["a/1.png", 0]]}', "no label for 1 of 2 images, such as b/2.png"),
        ('{"labels": 3}', "a list of"),
        ('{"labels": [["a/1.png", -1], ["b/2.png", 0]]}', "negative"),
        ("[]", "cannot be read"),
        ("{", "cannot be read"),
    ],
)
def test_a_dataset_json_that_does_not_fit_is_refused(opened, content, why):
    with pytest.raises(UserError, match=why):
        opened(["a/1.png", "b/2.png"], {"dataset.json": content})


def test_splits_are_refused_and_one_can_be_named(opened):
    names = [f"data/{split}/{kind}/1.png" for split in ("train", "Test") for kind in ("cat", "dog")]
    with pytest.raises(UserError, match=r"Test, train are splits .* dataset.path=\S+/data/Test or .*/data/train"):
        opened(names)
    data = opened([], within="data/train")
    assert data.classes == ["cat", "dog"] and len(data) == 2


def test_a_split_that_is_not_there(opened):
    with pytest.raises(UserError, match="no "):
        opened(["a/1.png"], within="train")


def test_a_class_named_as_a_split_is_said(opened):
    data = opened(["bus/1.png", "train/1.png"])
    assert data.classes == ["bus", "train"] and "taken for classes, not for splits: train" in data.notes


def test_what_is_not_used_is_counted_by_kind(opened):
    files = {"IMG_1.HEIC": "x", "b/IMG_2.heic": "x", "notes.txt": "x", "README": "x", "Thumbs.db": "x", ".cache": "x"}
    data = opened(["a.png", "b/c.png"], files)
    assert data.notes == [
        "not used: 1 without an ending, 2 .heic, 1 .txt, 1 hidden; convert .heic to .jpg or .png",
        "no classes: some images lie in no folder",
    ]
    with pytest.raises(UserError, match=r"no images in it; not used: 1 .heic; convert"):
        opened([], {"only/IMG_1.HEIC": "x"}, within="only")


def test_many_classes_are_listed_by_number(opened):
    data = opened([f"{i}/0.png" for i in range(1, 13)])
    assert data.classes[:3] == ["1", "10", "11"]  # indices stay those of sorted text
    assert data.notes == ["12 classes from folders: 1, 2, 3, 4, 5, 6, 7, 8, 9, 10 and 2 more"]


@pytest.mark.parametrize("name", ["train", "Validation", "TEST", "val2017", "test_images", "trainset", "data-eval"])
def test_names_of_splits(name):
    assert is_split(name)


@pytest.mark.parametrize("name", ["cat", "trains", "0", "", "contest", "training_wheels", "images"])
def test_other_names(name):
    assert not is_split(name)


def test_wrapping_folders():
    assert wrapping(["a/b/1", "a/b/c/2"]) == "a/b/" and wrapping(["a/1", "b/2"]) == wrapping(["1", "a/2"]) == ""
    assert wrapping([]) == ""


def test_numbers_are_ordered_as_numbers_and_names_as_they_are():
    assert natural_order(["1", "10", "2", "-3"]) == [3, 0, 2, 1]
    assert natural_order(["b", "10", "a"]) == [0, 1, 2]


def test_labels_of_a_file_by_name():
    assert read_labels(b'{"labels": [["a.png", 3]]}', "x") == {"a.png": 3}


def sampling(classes):
    return SamplingGenerator(None, None, value_range=None, classes=classes)


def test_a_name_wins_over_an_index():
    generator = sampling(["1", "10", "2", "ü", "true", "003"])
    assert generator.turn(["2", "10", "ü", "true", "003", "5", "1"]).tolist() == [2, 1, 3, 4, 5, 5, 0]
    assert generator.turn(2).tolist() == [2] and generator.turn("4").tolist() == [4]
    assert generator.meant("2") == [] and generator.meant(["10", "ü", 1]) == []
    assert generator.meant("1") == ["label=1: the class named 1; index 1 is named 10"]
    with pytest.raises(UserError, match="expected names of classes, or indices from 0 to 5"):
        generator.turn("6")


def test_all_classes_in_turn_go_by_number():
    assert sampling(["1", "10", "2"]).turn().tolist() == [0, 2, 1]
