"""Where tar shards lie: brace patterns, lists, folders and URLs; and the bytes behind them."""

import glob
import http.client
import os
import re
import stat
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import product
from pathlib import Path
from typing import BinaryIO, NamedTuple

from ganrun.data.files import printable, reason
from ganrun.errors import UserError

ENDINGS = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")
COMPRESSED = (b"\x1f\x8b", b"BZh", b"\xfd7zXZ")  # first bytes
HEAD = 6  # bytes that tell
SCHEME = re.compile(r"([a-zA-Z][\w+.-]*):(?=[^\\]|$)")
REMOTE = ("http", "https")
WAIT = 60.0  # seconds for a server to answer
AT_ONCE = 16  # servers' answers waited for
MOST = 2**20  # shards that a pattern may name


class Place(NamedTuple):
    """A shard. name: for messages. stamp: changes whenever its content does. size: bytes; 0 = unknown."""

    path: str
    name: str
    stamp: str
    size: int
    is_compressed: bool

    @property
    def is_remote(self) -> bool:
        return is_remote(self.path)


def is_remote(path: str) -> bool:
    found = SCHEME.match(path)
    return found is not None and found[1].lower() in REMOTE


def places(path: str) -> list[Place]:
    """The shards that a path names, see `spelt_out`. Raises UserError for one that is not there, or named twice."""
    paths = spelt_out(path)
    twice = [each for each, num in Counter(paths).items() if num > 1]
    if twice:
        raise UserError(f"dataset.path={path}: {twice[0]} is named twice")
    with ThreadPoolExecutor(AT_ONCE) as pool:
        found = list(pool.map(lambda each: _remote(each) if is_remote(each) else _local(each), paths))
    gone = [(place, why) for place, why in zip(paths, found, strict=True) if isinstance(why, str)]
    if gone:
        more = f", and {len(gone) - 1:,} more" if len(gone) > 1 else ""
        raise UserError(f"dataset.path={printable(path)}: {printable(gone[0][0])}: {gone[0][1]}{more}")
    names = Counter(place.name for place in found)
    return [place._replace(name=place.path) if names[place.name] > 1 else place for place in found]


def spelt_out(path: str) -> list[str]:
    """`a-{00..09}.tar`, `{train,val}.tar`, `*.tar`, `[a.tar,b.tar]`, a folder of tars, or URLs -> each shard's path."""
    text = path.strip()
    parts = text[1:-1].split(",") if re.fullmatch(r"\[.*\]", text, re.S) and not os.path.lexists(text) else [text]
    found: list[str] = []
    for part in (part.strip().strip("'\"") for part in parts):
        check_scheme(part, path)
        for each in [part] if os.path.lexists(part) else braces(part, path):
            found += _in_folder(each, path) if not is_remote(each) else [each]
    return found


def check_scheme(part: str, path: str) -> None:
    """Raises UserError for what is neither a file nor on a web server; a `pipe:` would run a command."""
    scheme = SCHEME.match(part)
    if scheme and scheme[1].lower() not in REMOTE and not os.path.lexists(part):
        why = "it would run a command" if scheme[1].lower() == "pipe" else "it is not read"
        raise UserError(f"dataset.path={printable(path)}: {scheme[1]}: {why}; expected files, http:// or https://")


def braces(text: str, path: str) -> list[str]:
    """As a shell: {0000..0009} counts, also backwards and with leading zeros, {a,b} lists. Raises UserError."""
    pieces = re.split(r"\{([^{}]*)\}", text)  # text, content, text, content, ..., text
    if any(mark in piece for piece in pieces[::2] for mark in "{}"):
        raise UserError(f"dataset.path={path}: braces in braces, or one without its other; expected a-{{00..09}}.tar")
    options = [_alternatives(piece, path) if i % 2 else [piece] for i, piece in enumerate(pieces)]
    num = 1
    for some in options:
        num *= len(some)
    if num > MOST:
        raise UserError(f"dataset.path={path}: it names {num:,} shards; at most {MOST:,} are read")
    return ["".join(each) for each in product(*options)]


def _alternatives(content: str, path: str) -> list[str]:
    span = re.fullmatch(r"(\d+)\.\.(\d+)", content, re.A)
    if span is None and "," in content:
        return content.split(",")
    if span is None:
        raise UserError(f"dataset.path={path}: {{{content}}}; expected {{0000..0009}} or {{a,b}}")
    first, last = int(span[1]), int(span[2])
    if abs(last - first) >= MOST:
        raise UserError(f"dataset.path={path}: it names {abs(last - first) + 1:,} shards; at most {MOST:,} are read")
    padded = any(len(each) > 1 and each.startswith("0") for each in span.groups())
    step, width = 1 if first <= last else -1, max(map(len, span.groups())) if padded else 1
    return [f"{number:0{width}}" for number in range(first, last + step, step)]


def _in_folder(place: str, path: str) -> list[str]:
    """The shards in a folder or of a glob pattern; a file itself."""
    expanded = Path(place).expanduser()
    if expanded.is_dir():
        found = sorted(str(each) for each in expanded.iterdir() if each.name.endswith(ENDINGS) and each.name[0] != ".")
        if not found:
            raise UserError(f"dataset.path={path}: no shards in it; they end in {', '.join(ENDINGS)}")
        return found
    if not os.path.lexists(expanded) and any(mark in place for mark in "*?"):
        found = sorted(glob.glob(str(expanded)))
        if not found:
            raise UserError(f"dataset.path={path}: no file fits this pattern")
        return found
    return [str(expanded)]


def _local(path: str) -> Place | str:
    """The file, or why there is none."""
    try:
        status = os.stat(path)
        if not stat.S_ISREG(status.st_mode):
            return "not a regular file"
        with open(path, "rb") as file:
            head = file.read(HEAD)
    except OSError as error:
        return "a broken symbolic link" if os.path.islink(path) else reason(error)
    times = f"{status.st_mtime_ns} {status.st_ctime_ns}"
    known = f"{os.path.realpath(path)} {status.st_dev} {status.st_ino} {status.st_size} {times}"
    return Place(path, os.path.basename(path), known, status.st_size, head.startswith(COMPRESSED))


def _remote(url: str) -> Place | str:
    """What a server says of a file, or why it gives none."""
    try:
        with opened_url(url, f"bytes=0-{HEAD - 1}") as answer:
            head = answer.read(HEAD)
            about = answer.headers
            ranged = answer.status == 206
            total = about.get("Content-Range", "").rpartition("/")[2] if ranged else about.get("Content-Length", "")
    except OSError as error:
        return trouble(error)
    size = int(total) if total.isdigit() else 0
    known = f"{url} {about.get('ETag', '')} {about.get('Last-Modified', '')} {size}"
    return Place(url, url.rpartition("/")[2].partition("?")[0] or url, known, size, head.startswith(COMPRESSED))


@contextmanager
def opened_url(url: str, span: str | None = None) -> Iterator[http.client.HTTPResponse]:
    """A server's answer. Raises OSError."""
    request = urllib.request.Request(url, headers={"Range": span} if span else {})
    try:
        with urllib.request.urlopen(request, timeout=WAIT) as answer:
            yield answer
    except http.client.HTTPException as error:
        raise OSError(f"the server broke off: {trouble(error)}") from error


def trouble(error: Exception) -> str:
    """What went wrong with a server, in one line."""
    if isinstance(error, urllib.error.HTTPError):
        return f"the server answers {error.code} {error.reason}"
    return reason(error.reason if isinstance(getattr(error, "reason", None), Exception) else error)


@contextmanager
def opened(place: Place, begin: int = 0) -> Iterator[BinaryIO]:
    """Its bytes from `begin` on; a server that does not give a part is read through. Raises OSError."""
    if not place.is_remote:
        with open(place.path, "rb") as file:
            file.seek(begin)
            yield file
        return
    with opened_url(place.path, f"bytes={begin}-" if begin else None) as answer:
        rest = begin if answer.status != 206 else 0
        while rest > 0 and (some := answer.read(min(rest, 2**20))):
            rest -= len(some)
        yield answer
