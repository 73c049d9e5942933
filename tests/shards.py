"""Small sets of digits as Parquet files and tar shards, and a web server on the loopback."""

import http.server
import io
import tarfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path

import pyarrow
import pyarrow.parquet
from PIL import Image
from sklearn.datasets import load_digits

NAMES = ["zero", "one", "two"]


@cache
def digits(num: int, side: int = 8) -> tuple[list[bytes], list[int]]:
    """PNGs of the first digits that are 0, 1 or 2, and their labels."""
    found = load_digits(n_class=3)
    files = []
    for pixels in found.images[:num]:
        file = io.BytesIO()
        Image.fromarray((pixels * 15).astype("uint8")).resize((side, side)).save(file, "png")
        files.append(file.getvalue())
    return files, [int(label) for label in found.target[:num]]


def write_parquet(path: Path, num: int, *, first: int = 0, group: int = 8, **columns: list) -> None:
    """Rows from `first` on; columns that say nothing of images or classes."""
    images, labels = (values[first:] for values in digits(num))
    table = {"image": [{"bytes": image, "path": None} for image in images], "label": labels} | columns
    pyarrow.parquet.write_table(pyarrow.table(table), path, row_group_size=group)


def add(archive: tarfile.TarFile, name: str, content: bytes) -> None:
    info = tarfile.TarInfo(name)
    info.size = len(content)
    archive.addfile(info, io.BytesIO(content))


def write_shards(folder: Path, sizes: list[int], ending: str = "tar") -> None:
    """train-0000.tar, ... with so many samples each: png and cls."""
    folder.mkdir(exist_ok=True)
    images, labels = digits(sum(sizes))
    number = 0
    for shard, size in enumerate(sizes):
        with tarfile.open(folder / f"train-{shard:04}.{ending}", f"w:{ending.partition('.')[2]}") as archive:
            for _ in range(size):
                add(archive, f"{number:05}.cls", str(labels[number]).encode())
                add(archive, f"{number:05}.png", images[number])
                number += 1


@contextmanager
def served(folder: Path, *, ranges: bool) -> Iterator[tuple[str, list[str]]]:
    """The address of a server of the folder's files, and its requests: name and range. ranges: does it give parts?"""
    asked: list[str] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            path = folder / self.path.lstrip("/")
            if not path.is_file():
                return self.send_error(404)
            content, span = path.read_bytes(), self.headers.get("Range")
            asked.append(f"{path.name} {span}")
            first, _, last = (span or "bytes=0-").removeprefix("bytes=").partition("-")
            end = min(int(last) + 1, len(content)) if last else len(content)
            part = content[int(first) : end] if ranges else content
            self.send_response(206 if span and ranges else 200)
            if span and ranges:
                self.send_header("Content-Range", f"bytes {first}-{end - 1}/{len(content)}")
            self.send_header("Content-Length", str(len(part)))
            self.end_headers()
            with suppress(OSError):  # who asked has enough
                self.wfile.write(part)

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", asked
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
