"""Image files in a folder or a .zip: which exist, which must not be read, and the bytes of one."""

import os
import re
import stat
import threading
import time
import zipfile
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from operator import attrgetter
from pathlib import Path, PurePosixPath

from PIL import Image

from ganrun.data.known import Check, Known, parts, stamp_of
from ganrun.errors import UserError

NOT_DECODED = {".pdf", ".mpg", ".mpeg", ".h5", ".hdf"}  # Pillow lists these endings but reads no pixels from them
LARGEST = 2**28  # bytes of one file, uncompressed
OF_SYSTEMS = {"thumbs.db", "desktop.ini", ".ds_store"}  # what Windows and macOS leave behind
HEIF = {".heic", ".heif", ".hif"}  # photographs taken by phones
TO_CONVERT = HEIF | {".jxl", ".dng", ".cr2", ".cr3", ".nef", ".arw", ".orf", ".rw2", ".raf"}  # Pillow reads none
SHOWN = 3  # hidden names in one line
ENCRYPTED = 0x1  # bit of a zip member's flags
READING = threading.Lock()  # zipfile counts the readers of a file without a lock


with suppress(ImportError):  # then Pillow reads HEIF too
    from pillow_heif import register_heif_opener

    register_heif_opener()


@dataclass
class Listing:
    """What lies in a folder or .zip; names are relative to it.

    files:   images to be read
    faults:  images that cannot be read, with the reason
    folders: all folders, with images or not
    tables:  files with the requested name, and the reason why one must not be read; None = it may be
    others:  number of other files, by ending
    hidden:  hidden files and folders, without those that operating systems leave behind
    unseen:  in words, how many files were not looked at as they are known; None = none
    """

    files: list[str] = field(default_factory=list)
    faults: dict[str, str] = field(default_factory=dict)
    folders: set[str] = field(default_factory=set)
    tables: dict[str, str | None] = field(default_factory=dict)
    others: Counter[str] = field(default_factory=Counter)
    hidden: set[str] = field(default_factory=set)
    unseen: str | None = None

    def add(self, name: str, fault: str | None) -> None:
        if fault is None:
            self.files.append(name)
        else:
            self.faults[name] = fault

    def add_other(self, name: str) -> None:
        """Adds a file whose ending is not that of an image."""
        if PurePosixPath(name).name.lower() not in OF_SYSTEMS:
            self.others[PurePosixPath(name).suffix.lower()] += 1

    def add_hidden(self, name: str) -> None:
        """Adds a hidden file or folder, or one inside a hidden folder."""
        parts = PurePosixPath(name).parts
        first = next(part for part in parts if is_hidden(part))
        if first != "__MACOSX" and not first.startswith("._") and first.lower() not in OF_SYSTEMS:
            self.hidden.add("/".join(parts[: parts.index(first) + 1]))

    def unused(self) -> str | None:
        """In words: files that are not read, counted by ending, and how to read them; None if there are none."""
        kinds = [f"{num:,} {printable(kind) or 'without an ending'}" for kind, num in sorted(self.others.items())]
        if self.hidden:
            more = ", ..." if len(self.hidden) > SHOWN else ""
            kinds.append(f"{len(self.hidden):,} hidden ({printable(', '.join(sorted(self.hidden)[:SHOWN]))}{more})")
        convert, heif = sorted(self.others.keys() & TO_CONVERT), sorted(self.others.keys() & HEIF)
        advice = f"; convert {', '.join(convert)} to .jpg or .png" if convert else ""
        advice += f"; or pip install pillow-heif, which reads {', '.join(heif)}" if heif else ""
        return f"not used: {', '.join(kinds)}{advice}" if kinds else None


class Folder:
    """A folder's images at any depth, also through symbolic links; links to a parent folder are left out.

    table: name of another file to look for; "" = none. known: what was found earlier; None = each file is looked at.
    """

    def __init__(self, root: Path | str, table: str = "", known: Known | None = None):
        self.root, self.table = Path(root), table
        self._known = known or Known(root)
        self._place = os.path.realpath(root)
        self._stamps: dict[str, str] = {}  # of files that `stamp` was not asked for yet

    def find(self) -> Listing:
        found, trusted = self._walk()
        num = self._looked_at(trusted)
        if num is None:
            return self.look_at_all()
        self._save(found)
        if len(trusted) > num:
            found.unseen = self._known.said(len(trusted) - num, len(found.files) + len(found.faults))
        return found

    def look_at_all(self) -> Listing:
        """As `find`, whatever is known."""
        self._known.forget()
        found, _ = self._walk()
        self._save(found)
        return found

    def _save(self, found: Listing) -> None:
        self._known.save(len(found.files) + len(found.faults))

    def _looked_at(self, trusted: list[str]) -> int | None:
        """Looks at known files; returns at how many, None if one of them has changed."""
        num = 0
        for some in parts(trusted):
            if any(looked_up(f"{self.root}/{name}")[0] != self._stamps[name] for name in some):
                return None
            num += len(some)
        return num

    def _walk(self) -> tuple[Listing, list[str]]:
        """What is there, and the files that were not looked at, as they are known."""
        found, trusted, self._stamps = Listing(), [], {}
        pending: list[tuple[str, tuple]] = [("", ())]  # a folder, and the identities of its parents
        while pending:
            folder, above = pending.pop()
            place, when = f"{self.root}/{folder}" if folder else str(self.root), time.time_ns()
            try:
                status = os.stat(place)
                with os.scandir(place) as entries:
                    entries = sorted(entries, key=attrgetter("name"))
            except OSError as error:
                found.add(folder or ".", reason(error))
                continue
            own = (status.st_dev, status.st_ino)
            if own not in above:
                found.folders.add(folder)
                within = f"{folder}/" if folder else ""
                images, folders = self._sort_out(within, entries, found)
                pending += [(f"{within}{name}", (*above, own)) for name in folders]
                trusted += self._look(folder, when, status, images, found)
        return found, trusted

    def _sort_out(self, within: str, entries: list[os.DirEntry], found: Listing) -> tuple[list[os.DirEntry], list[str]]:
        """The images and the names of the folders in a folder; adds other files."""
        images, folders = [], []
        for entry in entries:
            if is_hidden(entry.name):
                found.add_hidden(f"{within}{entry.name}")
            elif is_folder(entry):
                folders.append(entry.name)
            elif has_ending(entry.name):
                images.append(entry)
            elif entry.name == self.table:
                found.tables[f"{within}{entry.name}"] = file_fault(entry.path)
            else:
                found.add_other(entry.name)
        return images, folders

    def _look(
        self, folder: str, when: int, status: os.stat_result, images: list[os.DirEntry], found: Listing
    ) -> list[str]:
        """Adds a folder's images; returns those that are known, never links: they may lead to what has changed."""
        within = f"{folder}/" if folder else ""
        files = [image for image in images if not image.is_symlink()]
        names, inodes = [file.name for file in files], [file.inode() for file in files]
        known = self._known.stamps(folder, status, names, inodes)
        trusted = {f"{within}{name}": stamp for name, stamp in zip(names, known, strict=False) if stamp}
        self._stamps |= trusted
        found.files += trusted
        stamps = [self._stamps.get(f"{within}{name}") or self._look_at(f"{within}{name}", found) for name in names]
        if not trusted:
            self._known.add(folder, when, status, names, inodes, stamps)
        for image in images:
            if image.is_symlink():
                self._look_at(f"{within}{image.name}", found)
        return list(trusted)

    def _look_at(self, name: str, found: Listing) -> str:
        """Adds one image; returns its stamp, "" if it must not be read."""
        stamp, fault = looked_up(f"{self.root}/{name}")
        found.add(name, fault)
        if fault:
            return ""
        self._stamps[name] = stamp
        return stamp

    def read(self, name: str, most: int = LARGEST) -> bytes:
        """The first `most` bytes of a file."""
        with open(self.root / name, "rb") as file:
            return file.read(most)

    def stamp(self, name: str) -> str:
        """Identity, size and modification times of the file, as `find` saw it; "" if there is none."""
        stamp = self._stamps.pop(name, "") or looked_up(f"{self.root}/{name}")[0]
        return stamp and f"{self._place} {stamp}"


class Zip:
    """A .zip's images. Names that lead out of it are never read; a backslash separates folders, as on Windows.

    within: the folder inside it that is read, with a slash at the end; "" = all. table: see Folder.
    """

    def __init__(self, path: Path, within: str = "", table: str = ""):
        self.path, self.within, self.table = path, within, table
        self.archive, self._opened_by = None, None
        self._members: dict[str, str] = {}  # name -> its spelling in the archive

    def find(self) -> Listing:
        found = Listing()
        for info in self._open().infolist():
            spelt = info.filename.replace("\\", "/")
            name = tidy(spelt)
            if leads_out(name):
                if has_ending(name):
                    found.faults[name] = "its name leads out of the .zip"
            elif f"{name}/".startswith(self.within):
                self._sort_out(name[len(self.within) :], spelt.endswith("/"), info.filename, found)
        for name, spelt in self._members.items():  # the last of several members with the same name counts
            fault = member_fault(self.archive.getinfo(spelt))
            if has_ending(name):
                found.add(name, fault)
            else:
                found.tables[name] = fault
        return found

    def _sort_out(self, name: str, is_folder: bool, spelt: str, found: Listing) -> None:
        """Adds one member. name: within the folder that is read. spelt: the archive's own spelling."""
        if is_hidden(name):
            found.add_hidden(name)
            return
        found.folders.add(name if is_folder else name.rpartition("/")[0])
        if is_folder:
            return
        if has_ending(name) or name.rpartition("/")[2] == self.table:
            self._members[name] = spelt
        else:
            found.add_other(name)

    def read(self, name: str, most: int = LARGEST) -> bytes:
        """The first `most` bytes of a member, piece by piece: it may hold more than it claims to."""
        parts, left = [], most
        with READING:
            info = self._open().getinfo(self._members[name])
            bounded = info.compress_type in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
            piece = 2**20 if bounded else 2**12  # other methods unpack all of their input at once
            with self.archive.open(info) as member:
                while left > 0 and (part := member.read(min(left, piece))):
                    parts.append(part)
                    left -= len(part)
        return b"".join(parts)

    def stamp(self, name: str) -> str:
        """Size and checksum of a member."""
        info = self._open().getinfo(self._members[name])
        return f"{info.file_size} {info.CRC}"

    def _open(self) -> zipfile.ZipFile:
        if self._opened_by != os.getpid():  # a forked worker would share its parent's file position
            self.archive, self._opened_by = zipfile.ZipFile(self.path), os.getpid()
        return self.archive

    def __getstate__(self) -> dict:
        return self.__dict__ | {"archive": None, "_opened_by": None}


def renew_lock() -> None:
    """In a forked process nobody else reads, but another thread of its parent may have held the lock."""
    global READING
    READING = threading.Lock()


def source(
    path: str, table: str = "", *, cache: str | None = None, check: Check = "fast"
) -> tuple[Folder | Zip, Listing]:
    """A folder, a .zip or a folder within one (x.zip/train), and its content. Raises UserError for anything else.

    table: name of another file to look for beside the images; "" = none. cache, check: of a folder, see Known.
    """
    root, within = within_zip(Path(path).expanduser())
    if not root.exists():
        raise UserError(f"dataset.path={path}: there is no such folder or .zip")
    if root.is_dir():
        found = Folder(root, table, Known(root, cache, check))
        return found, found.find()
    if not root.is_file() or not zipfile.is_zipfile(root):
        what = "a damaged or cut off" if root.is_file() and begins_as_zip(root) else "neither a folder nor a"
        raise UserError(f"dataset.path={path} is {what} .zip file")
    found = Zip(root, within, table)
    try:
        listing = found.find()
    except Exception as error:  # a damaged directory of members raises exceptions of every kind
        raise UserError(f"dataset.path={path} cannot be read as a .zip file: {reason(error)}") from error
    if within and not listing.folders:
        raise UserError(f"dataset.path={path}: there is no folder {within.rstrip('/')} in {root}")
    return found, listing


def within_zip(path: Path) -> tuple[Path, str]:
    """(the .zip, the folder inside it with a slash at the end) for a path into a .zip; otherwise (path, "")."""
    for place in path.parents:
        if place.is_file():
            return place, f"{path.relative_to(place).as_posix()}/"
    return path, ""


def begins_as_zip(path: Path) -> bool:
    with open(path, "rb") as file:
        return file.read(4) == b"PK\x03\x04"


def looked_up(path: Path | str) -> tuple[str, str | None]:
    """A file's identity, size and times, "" if it is not there; why it must not be read, None if it may be."""
    try:
        status = os.stat(path)
    except OSError as error:
        return "", "a broken symbolic link" if os.path.islink(path) else reason(error)
    return stamp_of(status), size_fault(status.st_size) if stat.S_ISREG(status.st_mode) else "not a regular file"


def file_fault(path: Path | str) -> str | None:
    """Why a file of a folder must not be read; None if it may be."""
    return looked_up(path)[1]


def is_folder(entry: os.DirEntry) -> bool:
    """Unlike its own is_dir, False if access is denied."""
    try:
        return entry.is_dir()
    except OSError:
        return False


def member_fault(info: zipfile.ZipInfo) -> str | None:
    """Why a member of a .zip must not be read; None if it may be."""
    return "it is encrypted" if info.flag_bits & ENCRYPTED else size_fault(info.file_size)


def size_fault(size: int) -> str | None:
    return f"{size:,} bytes; at most {LARGEST:,} of a file are read; save it smaller" if size > LARGEST else None


def leads_out(name: str) -> bool:
    """Is the name absolute, on a drive, or does it contain ..?"""
    above = ".." in name and ".." in PurePosixPath(name).parts
    return name.startswith("/") or above or re.match("[A-Za-z]:", name) is not None


def tidy(name: str) -> str:
    """The name without empty parts, "." and a slash at the end."""
    plain = name and "//" not in name and "/." not in f"/{name}" and not name.endswith("/")
    return name if plain else PurePosixPath(name).as_posix()


def is_hidden(name: str) -> bool:
    """Is it a hidden file or folder, or one that macOS adds to archives?"""
    if "/." not in f"/{name}" and "__MACOSX" not in name:  # nearly all: taking a path apart is slow
        return False
    return any(part.startswith(".") or part == "__MACOSX" for part in PurePosixPath(name).parts)


def has_ending(name: str) -> bool:
    """Does the name have the ending of an image?"""
    stem, dot, ending = name.rpartition("/")[2].rpartition(".")
    suffix = f".{ending.lower()}" if stem and dot else ""
    return suffix in Image.registered_extensions() and suffix not in NOT_DECODED


def is_image(name: str) -> bool:
    """Is it an image, by its ending? Hidden files are not."""
    return has_ending(name) and not is_hidden(name)


def reason(error: Exception) -> str:
    """What went wrong, in one line."""
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return printable(" ".join(text.split()) or type(error).__name__)


def printable(text: str) -> str:
    """The text with escapes for line breaks, control characters and bytes that are not UTF-8: safe to print."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)
