"""What was found of a folder's files at an earlier start, so that the next one need not look at each of them again."""

import hashlib
import json
import os
import random
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from datetime import datetime
from math import ceil
from pathlib import Path
from typing import Literal, NamedTuple, get_args

from ganrun.errors import CannotWrite
from ganrun.files.storage import mark_used, replacing

Check = Literal["fast", "full"]
CHECKS = get_args(Check)
FORMAT = 1
LOOKED_AT = 4096  # files looked at in any case: all of a smaller set, other ones each time of a larger one
SECONDS = 0.5  # within which more of them are looked at: on a local disk about 100,000
MARGIN = 3 * 10**9  # ns; file systems note times in steps of up to 2 s


class Entry(NamedTuple):
    """A folder's own files, when they were looked at.

    when:   ns, before that
    state:  the folder's identity, size and times
    names:  of the files, joined by slashes
    inodes: their numbers in the folder's list of names
    stamps: identity, size and times of each file, joined by slashes; an empty one = look again
    """

    when: int
    state: str
    names: str
    inodes: str
    stamps: str


class Known:
    """The files below `root` as they were found, kept in the folder `cache`; None = nothing is kept.

    A file is known while its folder has the same identity, times, names and inode numbers. That notices every file that
    is added, removed, renamed or replaced by another one, but not one that is edited in place: for these, LOOKED_AT of
    the known files and as many as SECONDS allow are looked at, and if any differs, all are. As in git, a folder that
    changed within MARGIN before it was listed is not trusted: a further change may have got the same time. Only a clock
    of the file system that is behind and an inode number that is used again, both at that moment, could hide a change.

    check: full = each file is looked at.
    """

    def __init__(self, root: Path | str, cache: str | None = None, check: Check = "fast"):
        name = hashlib.blake2b(f"{FORMAT} {os.path.realpath(root)}".encode(errors="surrogateescape"), digest_size=16)
        self._file = Path(cache).expanduser() / f"{name.hexdigest()}.files" if cache else None
        self._had: dict[str, Entry] = self._load() if check == "fast" else {}
        self._found: dict[str, Entry] = {}
        self._since = time.time_ns()

    def stamps(self, folder: str, status: os.stat_result, names: Sequence[str], inodes: Iterable[int]) -> list[str]:
        """The stamps of a folder's files; [] = not known."""
        had = self._had.get(folder)
        if had is None or had.state != state_of(status) or had.names != "/".join(names):
            return []
        if had.when - max(status.st_mtime_ns, status.st_ctime_ns) < MARGIN or had.inodes != joined(inodes):
            return []
        self._found[folder] = had
        self._since = min(self._since, had.when)
        return had.stamps.split("/")

    def add(
        self, folder: str, when: int, status: os.stat_result, names: Sequence[str], inodes: Iterable[int],
        stamps: Iterable[str],
    ) -> None:  # fmt: skip
        """Keeps what was found of a folder. when: time.time_ns() before `status` and the names."""
        if self._file:
            self._found[folder] = Entry(when, state_of(status), "/".join(names), joined(inodes), "/".join(stamps))

    def forget(self) -> None:
        self._had, self._found, self._since = {}, {}, time.time_ns()

    def save(self, num: int) -> None:
        """Writes it, unless nothing has changed. num: files in all; small sets are looked at whole."""
        if self._file and self._found != self._had and num > LOOKED_AT:
            content = json.dumps(self._found).encode()
            with suppress(OSError, CannotWrite):  # then the next start looks at all files
                self._file.parent.mkdir(parents=True, exist_ok=True)
                with replacing(self._file, sync=False) as file:
                    file.write(digest(content) + content)

    def said(self, num: int, of: int) -> str:
        """In words, that `num` of `of` files were not looked at."""
        since = datetime.fromtimestamp(self._since / 1e9).strftime("%Y-%m-%d %H:%M")
        where = f"{num:,} of {of:,} files, in folders unchanged since {since}"
        return f"not looked at: {where}; dataset.check=full looks at all"

    def _load(self) -> dict[str, Entry]:
        """{} if there is none, and for a damaged one or of another format."""
        if not self._file or not self._file.exists():
            return {}
        try:
            content = self._file.read_bytes()
            if digest(content[32:]) != content[:32]:
                return {}
            found = {folder: Entry(*entry) for folder, entry in json.loads(content[32:]).items()}
        except (OSError, ValueError, TypeError, AttributeError):
            return {}
        mark_used(self._file)
        return found


def state_of(status: os.stat_result) -> str:
    """A folder's identity, size and times."""
    return f"{status.st_dev} {status.st_ino} {status.st_size} {status.st_mtime_ns} {status.st_ctime_ns}"


stamp_of = state_of  # of a file: changes whenever its content does


def parts(names: Sequence[str]) -> Iterator[Sequence[str]]:
    """Evenly spaced parts of at most LOOKED_AT names, beginning with another one each time; no more after SECONDS."""
    num, end = ceil(len(names) / LOOKED_AT), time.monotonic() + SECONDS
    first = random.Random().randrange(num) if num else 0
    for i in range(num):
        yield names[(first + i) % num :: num]
        if time.monotonic() >= end:
            return


def joined(numbers: Iterable[int]) -> str:
    return " ".join(map(str, numbers))


def digest(content: bytes) -> bytes:
    return hashlib.blake2b(content, digest_size=16).hexdigest().encode()
