"""Where an image set's labels come from, what is taken for a class, and what is left out, in a folder as in a .zip."""

import json
import zipfile

import pytest
import torch
from PIL import Image

from ganrun.classes import ambiguities, by_number, index_of, listed, spaced
from ganrun.commands.evaluate.sources import DatasetSource
from ganrun.data.images import ImageFolder
from ganrun.data.labels import is_split, read_labels, wrapping
from ganrun.errors import UserError
from ganrun.sampling.files import folder_names, write_folder
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


def table(labels) -> dict[str, str]:
    return {"dataset.json": json.dumps({"labels": labels})}


def test_folders_around_everything_are_no_level(opened):
    data = opened([f"all/animals/{kind}/{i}.png" for kind in ("cat", "dog") for i in range(2)])
    assert data.classes == ["cat", "dog"] and data.class_labels.tolist() == [0, 0, 1, 1]
    assert data.notes == ["classes: cat, dog from folders in all/animals"]


def test_a_bad_image_beside_the_folders_hides_no_labels(opened):
    names = ["top/cat/a.png", "top/cat/b.png", "top/dog/c.png"]
    data = opened(names, {"bad.png": "x", "top/dog/bad.png": "x"}, on_error="skip")
    assert data.classes == ["cat", "dog"] and data.class_labels.tolist() == [0, 0, 1] and len(data.skipped) == 2


def test_a_class_whose_images_are_all_bad_gives_no_other_classes(opened):
    data = opened(["cat/x/a.png", "cat/y/b.png"], {"dog/bad.png": "x"}, on_error="skip")
    assert data.classes == [] and data.notes == ["no classes: all images lie in cat"]


@pytest.mark.parametrize("around", ["", "all/", "all/animals/"])
def test_dataset_json_says_the_classes_of_files_in_storage_folders(opened, around):
    names = [f"00000/{i}.png" for i in range(2)] + [f"00001/{i}.png" for i in range(2)]
    labels = table([*map(list, zip(names, (2, 0, 0.0, 2), strict=True)), ["gone.png", 1]])
    data = opened([f"{around}{name}" for name in names], {f"{around}{file}": text for file, text in labels.items()})
    assert data.classes == ["0", "1", "2"] and data.class_labels.tolist() == [2, 0, 0, 2]
    assert data.notes == [
        f"{around}dataset.json has labels of 1 files that are not there, such as {around}gone.png",
        f"classes: 0, 1, 2 from {around}dataset.json; without images: 1",
    ]


def test_other_labels_are_another_set(opened):
    one, other = ([["0/a.png", label], ["0/b.png", 1 - label]] for label in (0, 1))
    prints = [opened(["0/a.png", "0/b.png"], table(labels)).fingerprint for labels in (one, other)]
    assert prints[0]["labels"] != prints[1]["labels"]


@pytest.mark.parametrize(
    ("labels", "why"),
    [
        (None, "dataset.json is there, and it says that there are none"),
        ([["0/a.png", [0.5, 1.0]], ["1/b.png", [0.1, 0.2]]], "its labels are lists; dataset.labels="),
        ([["0/a.png", 3], ["1/b.png", 3]], "dataset.json gives every image the label 3"),
    ],
)
def test_dataset_json_without_classes(opened, labels, why):
    data = opened(["0/a.png", "1/b.png"], table(labels))
    assert data.classes == [] and data.class_labels is None
    assert data.notes[0].startswith("no classes: dataset.json ") and why in data.notes[0]


@pytest.mark.parametrize(
    ("content", "why"),
    [
        ('{"labels": [["a/1.png", 0]]}', "cannot read image b/2.png: dataset.json gives it no label; dataset.on_error"),
        ('{"labels": 3}', r"expected \[\[\"<file>\", <class number>\], ...\] or null"),
        ('{"labels": {"a/1.png": 0}}', "or null; dataset.labels_from=folders takes"),
        ('{"labels": [["a/1.png", -1], ["b/2.png", 0]]}', "label -1 of a/1.png; expected an integer from 0 to 65,535"),
        ('{"labels": [["a/1.png", 0], ["b/2.png", 65536]]}', "label 65536 of b/2.png"),
        ('{"labels": [["a/1.png", 0.5], ["b/2.png", 0]]}', "label 0.5 of a/1.png"),
        ('{"labels": [["a/1.png", "cat"], ["b/2.png", 0]]}', 'label "cat" of a/1.png'),
        ('{"labels": [["a/1.png", true], ["b/2.png", 0]]}', "label true of a/1.png"),
        ('{"labels": [["a/1.png", null], ["b/2.png", 0]]}', "label null of a/1.png"),
        ("[]", "dataset.json: expected {"),
        ("{", "dataset.json: expected {"),
        ("[" * 10**5, "dataset.json: expected {"),
    ],
)
def test_a_dataset_json_that_does_not_fit_is_one_line(opened, content, why):
    names = ["a/1.png", "b/2.png"]
    with pytest.raises(UserError, match=why) as raised:
        opened(names, {"dataset.json": content})
    assert "\n" not in str(raised.value)
    assert opened(names, labels_from="folders").classes == ["a", "b"]
    assert opened(names, labels_from="none").classes == []


def test_images_without_a_label_can_be_left_out(opened):
    data = opened(["a/1.png", "a/2.png", "b/3.png"], table([["a/1.png", 1], ["b/3.png", 0]]), on_error="skip")
    assert data.class_labels.tolist() == [1, 0] and data.skipped == [("a/2.png", "dataset.json gives it no label")]


def test_splits_are_refused_and_one_can_be_named(opened):
    names = [f"data/{split}/{kind}/1.png" for split in ("train", "Test") for kind in ("cat", "dog")]
    with pytest.raises(UserError, match=r"Test, train look like splits .*/data/Test reads"):
        opened(names)
    data = opened([], within="data/train")
    assert data.classes == ["cat", "dog"] and len(data) == 2
    assert opened([], labels_from="folders").classes == ["Test", "train"]
    assert opened([], labels_from="none").notes == []


def test_splits_inside_class_folders_are_not_mixed_silently(opened):
    names = [f"all/{kind}/{split}/1.png" for kind in ("cat", "dog") for split in ("train", "test")]
    advice = "test, train in cat, dog look like splits .*/all/test/cat; dataset.labels_from=folders reads all"
    with pytest.raises(UserError, match=advice):
        opened(names)
    assert opened([], labels_from="folders").classes == ["cat", "dog"]
    assert len(opened([], within="all/cat/train")) == 1


def test_one_split_in_each_class_folder_mixes_nothing(opened):
    assert opened([f"{kind}/train/1.png" for kind in ("cat", "dog")]).classes == ["cat", "dog"]


def test_a_folder_that_is_not_there(opened):
    with pytest.raises(UserError, match="there is no "):
        opened(["a/1.png"], within="train")


@pytest.mark.parametrize(
    "names", [["cat/1.png", "train/1.png"], ["train/1.png", "extra/1.png"], ["a/1", "val/1", "dev/1"]]
)
def test_a_split_beside_something_else_is_refused(opened, names):
    with pytest.raises(UserError, match="splits of a data set"):
        opened([name.removesuffix(".png") + ".png" for name in names])


def test_one_of_several_classes_may_be_named_as_a_split(opened):
    data = opened(["bus/1.png", "car/1.png", "train/1.png"])
    assert data.classes == ["bus", "car", "train"]
    assert data.notes[0].startswith("train is taken for a class, as it lies among others; dataset.path=")


def test_what_is_not_used_is_counted_by_kind(opened):
    files = {
        "IMG_1.HEIC": "x",
        "b/IMG_2.heic": "x",
        "notes.txt": "x",
        "README": "x",
        "Thumbs.db": "x",
        "b/._a.png": "x",
    }
    files |= {".cache": "x", "b/.thumbnails/a.png": "x", "b/.thumbnails/b.png": "x", "__MACOSX/a.png": "x"}
    data = opened(["a.png", "b/c.png"], files | {"b/dataset.json": "{}"})
    assert data.notes == [
        "not used: 1 without an ending, 2 .heic, 1 .json, 1 .txt, 2 hidden (.cache, b/.thumbnails); convert .heic to "
        ".jpg or .png; or pip install pillow-heif, which reads .heic",
        "no classes: 1 of 2 images lie beside the folders",
    ]
    with pytest.raises(UserError, match=r"no images in it; not used: 1 .heic; convert"):
        opened([], {"only/IMG_1.HEIC": "x"}, within="only")


def test_many_classes_are_listed_by_number(opened):
    data = opened([f"{i}/0.png" for i in range(1, 13)])
    assert data.classes[:3] == ["1", "10", "11"]  # indices stay those of sorted text
    assert data.notes == ["classes: 1, 2, 3, 4, 5, 6, 7, 8, 9, 10 and 2 more from folders"]


@pytest.mark.parametrize(
    "name",
    [
        "train",
        "Validation",
        "TEST",
        "val2017",
        "test_images",
        "trainset",
        "data-eval",
        "trainA",
        "seg_test",
        "train_val",
    ],
)
def test_names_of_splits(name):
    assert is_split(name)


@pytest.mark.parametrize("name", ["cat", "trains", "0", "", "contest", "training_wheels", "images", "bullet train"])
def test_other_names(name):
    assert not is_split(name)


def test_wrapping_folders():
    assert wrapping(["a/b/1", "a/b/c/2"]) == "a/b/" and wrapping(["a/1", "b/2"]) == wrapping(["1", "a/2"]) == ""
    assert wrapping([]) == ""


def test_labels_of_a_file_by_name():
    assert read_labels(b'\xef\xbb\xbf{"labels": [["a\\\\b.png", 3]]}', "x") == {"a/b.png": 3}


def test_numbers_are_ordered_as_numbers_and_other_names_as_they_are():
    assert by_number(["1", "10", "2", "-3"]) == [3, 0, 2, 1]
    assert by_number(["b", "10", "a", "9"]) == [3, 1, 0, 2]
    assert listed([str(i) for i in range(300)]) == "0, 1, 2, 3, 4, 5, 6, 7, 8, 9 and 290 more"


def test_evenly_spaced():
    assert spaced(range(300), 4) == [0, 99, 199, 299] and spaced([7, 8], 4) == [7, 8] and spaced([7, 8], 1) == [7]


def sampling(classes):
    return SamplingGenerator(None, None, value_range=None, classes=classes)


def test_a_name_comes_before_an_index():
    classes = ["1", "10", "2", "ü", "true", "003"]
    assert [index_of(text, classes) for text in ("2", "10", "ü", "true", "003", "5", "1")] == [2, 1, 3, 4, 5, 5, 0]
    assert [index_of(label, classes) for label in ("6", "3.0", "03", "-1", True, 6, -1, None)] == [None] * 8
    assert sampling(classes).turn([2, "4"]).tolist() == [2, 4]
    with pytest.raises(UserError, match="expected names of classes, or indices from 0 to 5"):
        sampling(classes).turn("6")


def test_what_could_mean_two_classes_is_said():
    classes = ["1", "10", "2"]
    assert ambiguities(["2", "10", "ü", 2, "0"], classes) == []
    assert ambiguities(["1"], classes) == ["label=1 is the class named 1; the class of index 1 is 10"]
    assert ambiguities([1], classes) == ["label=1 is the class of index 1, 10; label='1' is the class named 1"]


def test_samples_go_through_the_classes_by_index_whatever_their_names():
    assert sampling(["1", "10", "2"]).turn().tolist() == [0, 1, 2]


def test_written_samples_are_read_back_as_the_same_classes(tmp_path):
    classes = ["T-shirt/top", "con", "Cat", "cat", "..", "train"]
    images, labels = torch.zeros(6, 1, 8, 8), torch.tensor([5, 4, 3, 2, 1, 0])
    write_folder(tmp_path / "made", [(images, labels)], num=6, classes=classes)
    made = ImageFolder(name="made", path=str(tmp_path / "made"), resolution=8, channels=1)
    names = folder_names(classes)
    assert made.classes == sorted(names)
    data = ImageFolder(name="own", path=str(tmp_path / "made"), resolution=8, channels=1)
    data.classes = classes
    source = DatasetSource(made, data, 6)
    assert source.conditional and source._labels.tolist() == [names.index(name) for name in sorted(names)]
