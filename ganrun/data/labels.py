"""Which class each image of a folder or .zip has: by the folder that it lies in, or by StyleGAN's dataset.json."""

import json
import re
from collections.abc import Iterable
from typing import Any

from ganrun.classes import natural_order
from ganrun.errors import UserError

LABELS = "dataset.json"  # Karras et al. 2020, arXiv 2006.06676: its code's labels, beside folders that only hold files
SPLITS = {"train", "training", "trn", "val", "valid", "validation", "dev", "test", "testing", "tst", "eval",
          "evaluation", "holdout"}  # fmt: skip
FILLERS = {"set", "data", "dataset", "images", "image", "imgs", "img", "split"}  # words beside them, as in train_images
SHOWN = 10  # classes that a note names


def first_folder(name: str, top: str = "") -> str:
    """The outermost folder within `top` that a name lies in; "" for none."""
    folder, slash, _ = name.removeprefix(top).partition("/")
    return folder if slash else ""


def wrapping(names: Iterable[str]) -> str:
    """The folders, with a slash at the end, that are around all names, one in another; "" if there are none."""
    names, top = list(names), ""
    while len(found := {first_folder(name, top) for name in names}) == 1 and found != {""}:
        top += f"{found.pop()}/"
    return top


def is_split(folder: str) -> bool:
    """Is it named as a part of a data set is: train, Validation, test_images, val2017?"""
    words = [word for word in re.split(r"[\W\d_]+", folder.casefold()) if word not in FILLERS | {""}]
    return len(words) == 1 and re.sub(r"(set|data)$", "", words[0]) in SPLITS


def check_splits(folders: Iterable[str], place: str) -> list[str]:
    """Folders beside each other that hold images -> those that are named as a split and yet taken for a class.

    Raises UserError where all of them are splits. place: the folder or .zip that they lie in.
    """
    folders = sorted(folders)
    splits = [folder for folder in folders if is_split(folder)]
    if len(splits) == len(folders) > 1:
        raise UserError(
            f"dataset.path={place}: its folders {', '.join(folders)} are splits of a data set, not classes; name one: "
            + " or ".join(f"dataset.path={place}/{folder}" for folder in folders)
        )
    return splits


def read_labels(content: bytes, place: str) -> dict[str, int] | str:
    """Name -> class number of a dataset.json: {"labels": [["00000/img.png", 3], ...]}, or why there are none.

    Raises UserError for what is no such file. place: what to call it.
    """
    try:
        labels = json.loads(content)["labels"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise UserError(f'{place}: cannot be read; expected {{"labels": [["<file>", <class number>], ...]}}') from error
    if labels is None:
        return "it has no labels"
    if not (isinstance(labels, list) and all(_is_row(row) for row in labels)):
        raise UserError(f'{place}: expected "labels": a list of ["<file>", <class number>], or null')
    if not all(isinstance(label, int) and not isinstance(label, bool) for _, label in labels):
        return "its labels are no class numbers, and ganrun reads only those"
    if any(label < 0 for _, label in labels):
        raise UserError(f"{place}: a class number is negative; expected 0, 1, 2, ...")
    return dict(labels)


def _is_row(row: Any) -> bool:
    return isinstance(row, list) and len(row) == 2 and isinstance(row[0], str)


def listed(classes: list[str]) -> str:
    """The first names, and how many more there are."""
    names = [classes[index] for index in natural_order(classes)]
    more = f" and {len(names) - SHOWN:,} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more
