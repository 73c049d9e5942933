"""A start on a large folder: files that are known are not looked at again, and whatever changes is noticed."""

import json
import multiprocessing
import os
import shutil
import sys
import time
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from test_data_images import encoded, picture

from ganrun.data import known
from ganrun.data.files import Folder
from ganrun.data.images import ImageFolder
from ganrun.errors import UserError

FOLDERS, FILES = 5, 8  # files in each folder
LATER = 4  # seconds, more than known.MARGIN


@dataclass
class Looked:
    """Which files and folders are stat'ed, and what is opened, from now on."""

    place: Path
    patch: pytest.MonkeyPatch
    files: list[str] = field(default_factory=list)
    folders: list[str] = field(default_factory=list)
    opened: list[str] = field(default_factory=list)
    on: bool = True

    def __post_init__(self):
        stat = os.stat

        def watched(path, *args, **kwargs):
            found = stat(path, *args, **kwargs)
            if self.on and isinstance(path, str | Path) and str(path).startswith(str(self.place)):
                (self.files if Path(path).suffix else self.folders).append(str(path))
            return found

        self.patch.setattr(os, "stat", watched)
        sys.addaudithook(self.hear)

    def hear(self, event: str, args: tuple) -> None:
        if self.on and event in ("open", "os.scandir", "os.listdir") and str(args[0]).startswith(str(self.place)):
            self.opened.append(str(args[0]))


@pytest.fixture
def images(tmp_path) -> Path:
    """40 images in 5 class folders, and one folder around them."""
    place = tmp_path / "images"
    for i in range(FOLDERS * FILES):
        file = place / f"c{i % FOLDERS}" / f"{i:02}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(encoded(picture(5 * i)))
    return place


@pytest.fixture
def clock(monkeypatch) -> list[int]:
    """Seconds that this machine's clock is ahead of the file system's."""
    ahead, now = [LATER], time.time_ns
    monkeypatch.setattr(known.time, "time_ns", lambda: now() + ahead[0] * 10**9)
    return ahead


@pytest.fixture
def few(monkeypatch, clock) -> None:
    """A set is large from 4 files on, and no more than 4 are looked at."""
    monkeypatch.setattr(known, "LOOKED_AT", 4)
    monkeypatch.setattr(known, "SECONDS", 0)


def opened(place: Path, **settings) -> ImageFolder:
    settings = {"cache": str(place.parent / "cache"), "resolution": 4, "channels": 3} | settings
    return ImageFolder(name="mine", path=str(place), **settings)


def told(data: ImageFolder) -> list[str]:
    return [note for note in data.notes if note.startswith("not looked at")]


def index(place: Path) -> Path:
    (found,) = (place.parent / "cache").glob("*.files")
    return found


def test_a_second_start_looks_at_folders_and_a_few_files(images, monkeypatch, few):
    first = opened(images)
    assert not told(first)
    looked = Looked(images, monkeypatch)
    again = opened(images)
    looked.on = False
    assert len(looked.files) == 4 and len(set(looked.folders)) <= FOLDERS + 1 and len(looked.opened) == FOLDERS + 1
    assert again.digest() == first.digest() and again.classes == first.classes
    assert told(again)[0].startswith("not looked at: 36 of 40 files, in folders unchanged since ")
    assert told(again)[0].endswith("; dataset.check=full looks at all")


def test_all_are_looked_at_if_asked_for_or_if_there_is_time(images, monkeypatch, few):
    opened(images)
    for settings, seconds in (({"check": "full"}, 0), ({}, 1000)):
        monkeypatch.setattr(known, "SECONDS", seconds)
        looked = Looked(images, monkeypatch)
        assert not told(opened(images, **settings))
        looked.on = False
        assert len(set(looked.files)) == FOLDERS * FILES


def test_of_what_is_known_other_files_are_looked_at_each_time(monkeypatch):
    monkeypatch.setattr(known, "LOOKED_AT", 4)
    monkeypatch.setattr(known, "SECONDS", 0)
    names = [f"{i:02}" for i in range(37)]
    seen = [next(known.parts(names)) for _ in range(60)]
    assert max(map(len, seen)) == 4 and len({tuple(part) for part in seen}) == 10
    monkeypatch.setattr(known, "SECONDS", 1000)
    assert sorted(name for part in known.parts(names) for name in part) == names
    assert not list(known.parts([]))


def test_a_small_set_is_looked_at_whole_and_leaves_no_list(images, clock):
    opened(images)
    assert not told(opened(images)) and not list((images.parent / "cache").glob("*.files"))


def replace(path: Path, content: bytes) -> None:
    """By another file of that name, as most programs save."""
    path.with_suffix(".tmp").write_bytes(content)
    os.replace(path.with_suffix(".tmp"), path)


def edit(path: Path, *, keep_times: bool) -> None:
    """In place, to another picture of the same size."""
    status = os.stat(path)
    content = encoded(picture(99))[: status.st_size].ljust(status.st_size, b"\0")
    with path.open("r+b") as file:
        file.write(content)
        file.truncate(len(content))
    if keep_times:
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def swap_folders(place: Path) -> None:
    (place / "c0").rename(place / "x")
    (place / "c1").rename(place / "c0")
    (place / "x").rename(place / "c1")


def link_elsewhere(place: Path) -> None:
    """Makes a folder of links lead to other files, all of which keep their folder's times."""
    for file in (place.parent / "away").iterdir():
        file.write_bytes(encoded(picture(77)))


def linked(place: Path) -> None:
    (place.parent / "away").mkdir()
    (place / "c0" / "00.png").rename(place.parent / "away" / "00.png")
    (place / "c0" / "00.png").symlink_to(place.parent / "away" / "00.png")


def linked_folder(place: Path) -> None:
    (place / "c0").rename(place.parent / "c0")
    (place / "c0").symlink_to(place.parent / "c0")


def nothing(place: Path) -> None: ...


CHANGES: dict[str, tuple[Callable, Callable]] = {  # what is done before the first start, and after it
    "a file more": (nothing, lambda p: shutil.copy(p / "c0" / "00.png", p / "c0" / "99.png")),
    "a file less": (nothing, lambda p: (p / "c0" / "00.png").unlink()),
    "a file renamed": (nothing, lambda p: (p / "c0" / "00.png").rename(p / "c0" / "000.png")),
    "a file in another class": (nothing, lambda p: (p / "c0" / "00.png").rename(p / "c1" / "00.png")),
    "a file replaced": (nothing, lambda p: replace(p / "c0" / "00.png", encoded(picture(99)))),
    "a folder more": (nothing, lambda p: shutil.copytree(p / "c0", p / "c9")),
    "a folder less": (nothing, lambda p: shutil.rmtree(p / "c0")),
    "a folder renamed": (nothing, lambda p: (p / "c0").rename(p / "d0")),
    "two folders swapped": (nothing, swap_folders),
    "all files edited in place": (nothing, lambda p: [edit(f, keep_times=False) for f in p.glob("*/*")]),
    "all edited, times kept": (nothing, lambda p: [edit(f, keep_times=True) for f in p.glob("*/*")]),
    "where a link leads": (linked, link_elsewhere),
    "where a link to a folder leads": (linked_folder, lambda p: replace(p.parent / "c0" / "00.png", b"")),
}


@pytest.mark.parametrize("kind", CHANGES)
def test_what_a_fast_start_notices(images, few, kind):
    before, change = CHANGES[kind]
    before(images)
    opened(images)
    assert told(opened(images))
    change(images)
    skip = {"on_error": "skip"}
    assert opened(images, **skip).fingerprint == opened(images, cache=None, **skip).fingerprint
    if kind != "where a link to a folder leads":
        assert opened(images).fingerprint == opened(images, cache=None).fingerprint


@pytest.mark.parametrize("keep_times", [False, True])
def test_one_file_edited_in_place_is_the_stated_risk(images, few, monkeypatch, keep_times):
    """Unless it is among those looked at; a full check notices it, and so do later fast ones."""
    first = opened(images).digest()
    edit(images / "c0" / "00.png", keep_times=keep_times)
    truth = opened(images, cache=None).digest()
    monkeypatch.setattr(known, "parts", lambda names: iter([names[1:5]]))
    monkeypatch.setattr("ganrun.data.files.parts", known.parts)
    assert told(stale := opened(images)) and stale.digest() == first != truth
    assert opened(images, check="full").digest() == truth
    assert told(later := opened(images)) and later.digest() == truth
    edit(images / "c1" / "01.png", keep_times=keep_times)
    assert not told(other := opened(images, resolution=5)), "when files are read anyway, all are looked at"
    assert other.digest() == opened(images, resolution=5, cache=None).digest()


def test_on_error_skip_and_faults(images, few):
    (images / "c0" / "00.png").write_bytes(b"")
    (images / "c0" / "gone.png").symlink_to("nowhere")
    first, again = (opened(images, on_error="skip") for _ in range(2))
    assert told(again) and again.skipped == first.skipped and len(first.skipped) == 2
    (images / "c0" / "nowhere").write_bytes(encoded(picture(99)))  # the link leads somewhere now
    assert len(opened(images, on_error="skip")) == len(first) + 1


def test_labels_are_read_at_each_start(images, few):
    names = sorted(str(file.relative_to(images)) for file in images.glob("*/*"))
    table = images / "dataset.json"
    for labels in ([i % 2 for i in range(40)], [i % 4 for i in range(40)]):
        with table.open("w" if not table.exists() else "r+") as file:
            json.dump({"labels": list(map(list, zip(names, labels, strict=True)))}, file)
        data = opened(images)
        assert data.class_labels.tolist() == labels
    assert told(data)


def test_a_folder_that_has_just_changed_is_not_trusted(images, few, clock):
    """A further change may get the same time: coarse times, and clocks that are behind or ahead of the disk's."""
    opened(images)
    status = os.stat(images / "c0")
    for ahead, trusted in ((0, False), (-3600, False), (2, False), (LATER, True), (3600, True)):
        clock[0] = ahead
        opened(images, check="full")
        assert bool(told(opened(images))) == trusted, ahead
    clock[0] = 0  # the folder's time is the same, as on a disk that counts in seconds
    opened(images, check="full")
    replace(images / "c0" / "00.png", encoded(picture(99)))
    os.utime(images / "c0", ns=(status.st_atime_ns, status.st_mtime_ns))
    assert opened(images).digest() == opened(images, cache=None).digest()


def test_even_if_folders_had_no_times_names_and_inodes_tell(images, few, monkeypatch):
    monkeypatch.setattr(known, "state_of", lambda status: "")
    opened(images)
    assert told(opened(images))
    replace(images / "c0" / "00.png", encoded(picture(99)))
    shutil.copy(images / "c0" / "00.png", images / "c1" / "99.png")
    (images / "c2" / "02.png").unlink()
    assert opened(images).digest() == opened(images, cache=None).digest()


def other_format(path: Path) -> None:
    content = path.read_bytes()[32:].replace(b'"c0"', b'"c0": 1, "x"')
    path.write_bytes(known.digest(content) + content)


DAMAGES = {
    "a flipped bit": lambda p: p.write_bytes(
        p.read_bytes()[:-9] + bytes([p.read_bytes()[-9] ^ 1]) + p.read_bytes()[-8:]
    ),
    "cut off": lambda p: p.write_bytes(p.read_bytes()[:-1]),
    "empty": lambda p: p.write_bytes(b""),
    "something else": lambda p: p.write_bytes(known.digest(b"[1]") + b"[1]"),
    "of another format": other_format,
    "gone": lambda p: p.unlink(),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_list_is_made_anew(images, few, damage):
    first = opened(images).digest()
    DAMAGES[damage](index(images))
    data = opened(images)
    assert not told(data) and data.digest() == first
    assert told(opened(images))


def test_a_cache_that_cannot_be_written(images, few, monkeypatch):
    """As one of another user: what is prepared is used, and each start looks at all files."""
    first = opened(images).digest()
    index(images).unlink()
    monkeypatch.setattr(known, "replacing", lambda *_, **__: (_ for _ in ()).throw(PermissionError(13, "denied")))
    for _ in range(2):
        data = opened(images)
        assert not told(data) and data.digest() == first
    assert not list((images.parent / "cache").glob("*.files"))


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_several_starts_at_once(images, few):
    context = multiprocessing.get_context("fork")
    found = context.SimpleQueue()
    starts = [context.Process(target=lambda: found.put(opened(images).digest())) for _ in range(3)]
    for start in starts:
        start.start()
    digests = {found.get() for _ in starts}
    for start in starts:
        start.join()
    assert digests == {opened(images, cache=None).digest()} and told(opened(images))
    assert not list((images.parent / "cache").glob(".*"))


def test_a_zip_needs_no_list(images, few, tmp_path):
    archive = tmp_path / "images.zip"
    with zipfile.ZipFile(archive, "w") as file:
        for each in sorted(images.glob("*/*")):
            file.write(each, each.relative_to(images))
    assert opened(archive).digest() == opened(archive).digest() == opened(images).digest()
    status, replaced = os.stat(archive), tmp_path / "other.zip"
    with zipfile.ZipFile(replaced, "w") as file:
        for i, each in enumerate(sorted(images.glob("*/*"))):
            file.writestr(str(each.relative_to(images)), encoded(picture(i)))
    os.replace(replaced, archive)
    os.utime(archive, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert opened(archive).digest() == opened(archive, cache=None).digest() != opened(images).digest()


def test_what_check_may_be(images):
    with pytest.raises(UserError, match=r"dataset.check=half; valid: fast, full"):
        opened(images, check="half")


def test_stamps_are_those_of_a_stat(images, few):
    """What is prepared keeps its name, whichever way its files were looked at."""
    folder = Folder(images)
    names = sorted(folder.find().files)
    once, again = ([folder.stamp(name) for name in names] for _ in range(2))
    assert once == again and all(stamp.startswith(str(images)) for stamp in once)
    assert folder.stamp("gone.png") == ""
