"""Rows of tables, read from front to back: Parquet by its row groups, anything else as `datasets` streams it."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from ganrun.data.sequence import Shards

ROWS = 64  # read at once


class ParquetRows(Shards):
    """Parquet files, on the disk or wherever fsspec finds them; a file's end says how many rows its groups have.

    labels: of all rows, None = there are none. Only this column is read beforehand.
    """

    def __init__(self, files: Sequence[str], image: str, label: str | None):
        self.files, self.image = files, image
        self.labels: list[Any] | None = [] if label else None
        self.groups: list[np.ndarray] = []  # of each file, where its groups end
        for path in files:
            with parquet(path) as found:
                about = found.metadata
                sizes = [about.row_group(i).num_rows for i in range(about.num_row_groups)]
                self.groups.append(np.cumsum(sizes, dtype=np.int64))
                if label:
                    self.labels += found.read([label], use_threads=False).column(0).to_pylist()
        self.sizes = [int(ends[-1]) if len(ends) else 0 for ends in self.groups]

    def open(self, shard, place):
        """Groups before the one that holds `place` are not read."""
        ends = self.groups[shard]
        first = int(np.searchsorted(ends, place, side="right"))
        passed = place - (int(ends[first - 1]) if first else 0)
        with parquet(self.files[shard]) as file:
            rest = list(range(first, len(ends)))
            for some in file.iter_batches(ROWS, row_groups=rest, columns=[self.image], use_threads=False):
                skip = min(passed, len(some))
                passed -= skip
                yield from some.column(0)[skip:].to_pylist()


class IterableRows(Shards):
    """An IterableDataset as one shard. It does not say how many rows there are, so it is read once beforehand.

    as_files: are images kept as files, instead of being decoded?
    """

    def __init__(self, table: Any, image: str, label: str | None, as_files: bool):
        import datasets

        self.image = image
        rows = table.select_columns([image, *([label] if label else [])])
        self.table = rows.cast_column(image, datasets.Image(decode=False)) if as_files else rows
        self.labels: list[Any] | None = [] if label else None
        num = 0
        for row in self.table:
            num += 1
            if label:
                self.labels.append(row[label])
        self.sizes = [num]

    def open(self, shard, place):
        return (row[self.image] for row in self.table.skip(place))


@contextmanager
def parquet(path: str) -> Iterator[Any]:
    import fsspec
    import pyarrow.parquet

    with fsspec.open(path, "rb") as file, pyarrow.parquet.ParquetFile(file) as found:
        yield found
