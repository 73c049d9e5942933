"""Which class each image of a folder or .zip has: by its folder, or by StyleGAN's dataset.json."""

import json
import re
import shlex
from collections.abc import Iterable, Sequence
from typing import Any

from ganrun.classes import listed
from ganrun.data.files import printable
from ganrun.errors import UserError

FILE = "dataset.json"  # Karras et al. 2020 (arXiv 2006.06676), dataset_tool.py: labels, beside meaningless folders
MOST = 2**16  # classes that a dataset.json may number
SPLITS = {"train", "training", "trn", "trainval", "val", "valid", "validation", "dev", "test", "testing", "tst",
          "eval", "evaluation", "holdout"}  # fmt: skip
BESIDE_SPLITS = {"extra", "unlabeled", "unlabelled"}  # further parts of sets that have splits
FILLERS = {"", "set", "data", "dataset", "images", "image", "imgs", "img", "split", "seg"}  # as in train_images
OTHERWISE = "dataset.labels_from=folders takes the folders for classes, dataset.labels_from=none leaves labels out"


def first_folder(name: str, top: str = "") -> str:
    """The outermost folder of a name within `top`; "" if there is none."""
    folder, slash, _ = name.removeprefix(top).partition("/")
    return folder if slash else ""


def wrapping(names: Iterable[str]) -> str:
    """The nested folders around all names, with a slash at the end; "" if there are none."""
    names, top = list(names), ""
    while len(found := {first_folder(name, top) for name in names}) == 1 and found != {""}:
        top += f"{found.pop()}/"
    return top


def is_split(folder: str, words: Iterable[str] = SPLITS) -> bool:
    """Is it named like a part of a data set: train, Validation, test_images, val2017, trainA?"""
    found = [word for word in re.split(r"[\W\d_]+", folder.casefold()) if word not in FILLERS]
    return bool(found) and all(re.sub(r"(set|data|[ab])$", "", word) in words for word in found)


def check_splits(folders: Sequence[str], place: str) -> str | None:
    """A note about a folder named like a split that is taken as a class: a single one among several others.

    folders: the folders beside each other that hold images. place: their parent. Raises UserError for other splits.
    """
    splits = [folder for folder in folders if is_split(folder)]
    if splits:
        splits = [folder for folder in folders if is_split(folder, SPLITS | BESIDE_SPLITS)]
    if not splits or len(folders) == 1:
        return None
    one = shlex.quote(f"dataset.path={place}/{splits[0]}")
    if len(splits) == 1 and len(folders) > 2:
        return f"{splits[0]} is taken for a class, as it lies among others; {one} reads it alone"
    raise UserError(
        f"dataset.path={place}: {listed(splits)} look like splits of a data set, not like classes; {one} reads one of "
        f"them; dataset.labels_from=folders takes all {len(folders)} folders for classes"
    )


def check_splits_within(names: Iterable[str], top: str, place: str) -> None:
    """Raises UserError for splits inside the class folders (cat/train, cat/test), whose images would be mixed.

    top: the folders around everything. place: theirs, in messages.
    """
    beside: dict[str, set[str]] = {}
    for path in {name.removeprefix(top).rpartition("/")[0] for name in names}:
        folders = path.split("/")
        for i in range(1, len(folders)):
            if is_split(folders[i], SPLITS | BESIDE_SPLITS):
                beside.setdefault("/".join(folders[:i]), set()).add(folders[i])
    holders = sorted(folder for folder, splits in beside.items() if len(splits) > 1 and any(map(is_split, splits)))
    if holders:
        splits = sorted(beside[holders[0]])
        raise UserError(
            f"dataset.path={place}: {listed(splits)} in {listed(holders)} look like splits of a data set; move the one "
            f"to use around the classes, as in {place}/{splits[0]}/{holders[0]}; dataset.labels_from=folders reads all"
        )


def by_folder(names: Sequence[str], top: str) -> tuple[list[str] | None, str]:
    """The class of each image, None = no classes, and a note. top: the folders around everything."""
    folders = [first_folder(name, top) for name in names]
    classes = sorted(set(folders))
    where = f" in {top.rstrip('/')}" if top else ""
    if classes == [""]:
        return None, f"no classes: all images lie{where}" if top else ""
    if "" in classes:
        return None, f"no classes: {folders.count(''):,} of {len(names):,} images lie beside the folders"
    if len(classes) == 1:  # images of other folders cannot be read
        return None, f"no classes: all images lie in {classes[0]}"
    return folders, f"classes: {listed(classes)} from folders{where}"


def read_labels(content: bytes, place: str) -> dict[str, int] | str:
    """Name -> class number of a dataset.json: {"labels": [["00000/img.png", 3], ...]}; or why there are no classes.

    Raises UserError for any other content. place: its name in messages.
    """
    try:
        labels = json.loads(content)["labels"]
    except (ValueError, KeyError, IndexError, TypeError, RecursionError) as error:
        raise UserError(f'{place}: expected {{"labels": [["<file>", <class number>], ...]}}; {OTHERWISE}') from error
    if labels is None:
        return "it says that there are none"
    if not (isinstance(labels, list) and all(map(_is_row, labels))):
        raise UserError(f'{place}: labels; expected [["<file>", <class number>], ...] or null; {OTHERWISE}')
    if any(isinstance(label, list | dict) for _, label in labels):
        return f"its labels are lists; dataset.labels={place} reads them as attributes"
    wrong = next((row for row in labels if _number(row[1]) is None), None)
    if wrong:
        text = f"label {json.dumps(wrong[1])} of {printable(wrong[0])}; expected an integer from 0 to {MOST - 1:,}"
        raise UserError(f"{place}: {text}; {OTHERWISE}")
    return {name.replace("\\", "/"): _number(label) for name, label in labels}


def _is_row(row: Any) -> bool:
    return isinstance(row, list) and len(row) == 2 and isinstance(row[0], str)


def _number(label: Any) -> int | None:
    """3 and 3.0 -> 3"""
    if isinstance(label, bool) or not isinstance(label, int | float) or not 0 <= label < MOST or label != int(label):
        return None
    return int(label)


def by_file(names: Sequence[str], labels: dict[str, int], file: str) -> tuple[list[int] | None, list[str], str]:
    """The class number of each image, None = no classes; the names of all numbers; and a note."""
    numbers = [labels[name] for name in names]
    classes = [str(number) for number in range(max(numbers) + 1)]
    found = set(numbers)
    if len(found) < 2:
        return None, [], f"no classes: {file} gives every image the label {numbers[0]}"
    empty = [name for number, name in enumerate(classes) if number not in found]
    without = f"; without images: {listed(empty)}" if empty else ""
    return numbers, classes, f"classes: {listed(classes)} from {file}{without}"
