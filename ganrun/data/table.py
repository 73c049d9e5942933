"""A table of labels beside images: a .csv or .json with a row for each file."""

import csv
import io
import json
import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from ganrun.data.files import LARGEST, Zip, file_fault, printable, reason, within_zip
from ganrun.errors import UserError, one_of

KINDS = (".csv", ".json")
FORMS = 'expected {"labels": [["<file>", <number or list>], ...]} or {"<file>": {"<column>": <number>, ...}, ...}'
SEPARATORS = ",;\t"
WORDS = {"true": 1.0, "false": 0.0}
ONE = "label"  # the column of a dataset.json with one number for each file


class Row(NamedTuple):
    """name: of the file. where: in the table, for messages. cells: by column; a number, text, or anything JSON has."""

    name: str
    where: str
    cells: list[Any]


@dataclass(frozen=True)
class Table:
    """place: of the file, for messages. columns: names without that of the files."""

    place: str
    columns: list[str]
    rows: list[Row]

    def chosen(self, names: Sequence[str] | None) -> list[int]:
        """The places of these columns; None = all. Raises UserError for others."""
        for name in names or ():
            if name not in self.columns:
                got = f"dataset.columns=[{','.join(names)}]"
                raise UserError(f"{got}: {self.place} has no column {name}; {one_of(self.columns, name)}")
        if names and len(set(names)) < len(names):
            raise UserError(f"dataset.columns=[{','.join(names)}]: a column is named twice")
        return [self.columns.index(name) for name in (self.columns if names is None else names)]

    def matched(self, files: Iterable[str], top: str) -> tuple[dict[str, Row], list[str]]:
        """The row of each file that has one, and the names of rows without a file. top: the folders around all files.

        A row names a file by its path in the set, with or without `top`, or by its name alone if no other file has it.
        Raises UserError for names that fit several files, and for two rows of one file.
        """
        files = list(files)
        known = {file.removeprefix(top): file for file in files} | {file: file for file in files}
        alone = Counter(PurePosixPath(file).name for file in files)
        bare = {PurePosixPath(file).name: file for file in files}
        found: dict[str, Row] = {}
        gone = []
        for row in self.rows:
            file = known.get(row.name) or bare.get(row.name)
            if file is None:
                gone.append(row.name)
                continue
            if row.name not in known and alone[row.name] > 1:
                text = f"{alone[row.name]} files are called {printable(row.name)}; expected their paths in the set"
                raise UserError(f"{self.place} {row.where}: {text}")
            if file in found:
                text = f"{found[file].where} and {row.where} are both for {printable(file)}"
                raise UserError(f"{self.place}: {text}; expected one row for each file")
            found[file] = row
        return found, gone


def read_table(path: str) -> Table:
    """Reads a .csv, whose first line names the columns and whose first column the files; or a .json, see FORMS.

    path: may lead into a .zip. Raises UserError for anything else.
    """
    place, kind = printable(path), Path(path).suffix.lower()
    if kind not in KINDS:
        raise UserError(f"dataset.labels={place}: expected a .csv or .json with a row for each file")
    content = _content(path)
    try:
        text = content.decode("utf-8-sig")
        columns, rows = _read_csv(text, place) if kind == ".csv" else _read_json(text, place)
    except UserError:
        raise
    except (ValueError, csv.Error, RecursionError) as error:
        raise UserError(f"dataset.labels={place}: cannot be read: {reason(error)}") from error
    columns = [column.strip() for column in columns]
    twice = [name for name, num in Counter(columns).items() if num > 1 or not name]
    if twice:
        raise UserError(f"dataset.labels={place}: column {twice[0] or '(without a name)'}; expected names, each once")
    if not rows or not columns:
        raise UserError(f"dataset.labels={place}: there is no {'row' if columns else 'column of labels'} in it")
    return Table(place, columns, [row._replace(name=_as_path(row.name)) for row in rows])


def number_of(cell: Any) -> float | None:
    """The finite number in a cell, true and false being 1 and 0; None if there is none."""
    if isinstance(cell, str):
        cell = WORDS.get(cell.strip().casefold(), cell)
    try:
        number = float(cell) if isinstance(cell, str | int | float) else math.nan
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def whole_of(cell: Any) -> int | None:
    """The whole number that a cell holds; not 3.0 as text, and neither true nor false."""
    if isinstance(cell, str):
        digits = cell.strip().removeprefix("-")
        return int(cell) if digits.isascii() and digits.isdigit() and len(digits) < 16 else None
    if isinstance(cell, bool) or not isinstance(cell, int | float) or cell != cell or abs(cell) > 2**53:
        return None
    return int(cell) if cell == int(cell) else None


def _content(path: str) -> bytes:
    root, within = within_zip(Path(path).expanduser())
    try:
        fault = file_fault(root)
        if fault is None and not within:
            return root.read_bytes()
        if fault is None:
            name = within.rstrip("/")
            archive = Zip(root, table=PurePosixPath(name).name)
            tables = archive.find().tables
            fault = tables.get(name) if name in tables else f"there is no {printable(name)} in it"
            if fault is None:
                return archive.read(name, LARGEST)
    except Exception as error:  # of any kind, as in DecodedImages
        fault = reason(error)
    raise UserError(f"dataset.labels={printable(path)}: {fault}; expected a .csv or .json")


def _read_csv(text: str, place: str) -> tuple[list[str], list[Row]]:
    head = text.partition("\n")[0]
    lines = csv.reader(io.StringIO(text, newline=""), delimiter=max(SEPARATORS, key=head.count), strict=True)
    first = next(lines, [])
    rows = [Row(cells[0], f"line {lines.line_num}", cells[1:]) for cells in lines if cells]
    for row in rows:
        if len(row.cells) != len(first) - 1:
            expected = f"{len(first)}: {printable(', '.join(first))}"
            raise UserError(f"dataset.labels={place} {row.where}: {len(row.cells) + 1} values; expected {expected}")
    return first[1:], rows


def _read_json(text: str, place: str) -> tuple[list[str], list[Row]]:
    found = json.loads(text, object_pairs_hook=_without_twins)
    labels = found.get("labels") if isinstance(found, dict) else None
    if isinstance(labels, list):
        pairs = labels
    elif isinstance(found, dict) and found and all(isinstance(cells, dict) for cells in found.values()):
        columns = list(next(iter(found.values())))
        pairs = [[name, _in_order(cells, columns, name, place)] for name, cells in found.items()]
    else:
        raise UserError(f"dataset.labels={place}: {FORMS}")
    wrong = next((i for i, pair in enumerate(pairs, 1) if not _is_pair(pair)), None)
    if wrong:
        raise UserError(f"dataset.labels={place} row {wrong}: {printable(json.dumps(pairs[wrong - 1]))[:80]}; {FORMS}")
    cells = [label if isinstance(label, list) else [label] for _, label in pairs]
    if pairs is labels:
        columns = list(map(str, range(len(cells[0])))) if cells and isinstance(pairs[0][1], list) else [ONE]
    rows = [Row(name, f"row {i}", row) for i, ((name, _), row) in enumerate(zip(pairs, cells, strict=True), 1)]
    for row in rows:
        if len(row.cells) != len(columns):
            text = f"{len(row.cells)} numbers for {printable(row.name)}; expected {len(columns)}, as in row 1"
            raise UserError(f"dataset.labels={place} {row.where}: {text}")
    return columns, rows


def _is_pair(pair: Any) -> bool:
    return isinstance(pair, list) and len(pair) == 2 and isinstance(pair[0], str) and not isinstance(pair[1], dict)


def _in_order(cells: dict[str, Any], columns: list[str], name: str, place: str) -> list[Any]:
    if cells.keys() != set(columns):
        got, expected = (printable(", ".join(names)) for names in (cells, columns))
        raise UserError(f"dataset.labels={place}: {printable(name)} has {got}; expected {expected}, as the first file")
    return [cells[column] for column in columns]


def _without_twins(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    twice = [name for name, num in Counter(name for name, _ in pairs).items() if num > 1]
    if twice:
        raise ValueError(f"{twice[0]} is there twice; expected each name once")
    return dict(pairs)


def _as_path(name: str) -> str:
    return PurePosixPath(name.strip().replace("\\", "/")).as_posix()
