"""What the files of a run say, whatever state it is in: read without torch, and without building anything."""

import json
import re
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

from ganrun.files.run_dir import RunDir

LARGEST = 2**53  # of whole numbers, as floats hold them


class Record:
    """One run, as its files tell it; what cannot be read is empty. Reads each file once, when it is first asked for."""

    def __init__(self, run: RunDir | str | Path):
        self.run = run if isinstance(run, RunDir) else RunDir(run)
        self.path = self.run.path

    @cached_property
    def config(self) -> dict[str, Any]:
        """The composed config, as the run was started with."""
        found = _read_yaml(self.run.config)
        return found if isinstance(found, dict) else {}

    @cached_property
    def overrides(self) -> list[str]:
        """The words of the command line that started it."""
        found = _read_yaml(self.run.hydra / "overrides.yaml")
        return [str(word) for word in found] if isinstance(found, list) else []

    @cached_property
    def result(self) -> dict[str, Any]:
        """The content of result.json."""
        return self.run.read_result()

    @property
    def status(self) -> str:
        """`running`, `finished`, `failed`, ..., or `no result`."""
        return str(self.result.get("status", "no result"))

    @property
    def steps(self) -> int:
        """How far it has come: of a run that has ended its steps, of another the last one logged."""
        ended = self.result.get("steps") if self.status != "running" else None
        return ended if isinstance(ended, int) else max((row["step"] for row in self.metrics), default=0)

    @cached_property
    def changes(self) -> list[dict[str, Any]]:
        """What resumes have changed, in their order: step, key, had, got of each."""
        found = _read_yaml(self.run.changes)
        changes = found if isinstance(found, list) else []
        return [one for one in changes if isinstance(one, dict) and {"step", "key", "had", "got"} <= one.keys()]

    @cached_property
    def metrics(self) -> list[dict[str, float]]:
        """One row per logged step: its `step` and all that was logged or scored at it, in the order of steps."""
        rows: dict[int, dict[str, float]] = {}
        for row in _lines(self.run.metrics):
            rows.setdefault(row["step"], {}).update(row)
        return [rows[step] for step in sorted(rows)]

    @property
    def names(self) -> list[str]:
        """What was logged, in the order of its first appearance."""
        return list(dict.fromkeys(name for row in self.metrics for name in row if name != "step"))

    def series(self, name: str) -> tuple[list[int], list[float]]:
        """The steps at which `name` was logged, and its values."""
        rows = [row for row in self.metrics if name in row]
        return [int(row["step"]) for row in rows], [row[name] for row in rows]

    def grids(self) -> dict[int, Path]:
        """The sample pictures by their steps, in order."""
        found = {
            int(match[1]): path
            for path in self.run.samples.glob("step-*.png")
            if (match := re.fullmatch(r"step-(\d+)", path.stem))
        }
        return dict(sorted(found.items()))

    def newest_grid(self) -> Path | None:
        """The picture of a finished run's end, or the last one on the way; None if there is none."""
        final, steps = self.run.samples / "final.png", [*self.grids().values()]
        if final.exists() and (self.status == "finished" or not steps):
            return final
        return steps[-1] if steps else None


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    """The objects of a file of JSON lines that have a step; what is no number, and a line cut off, is left out."""
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return
    for line in text.splitlines():
        try:
            row = json.loads(line)
        except ValueError:
            continue
        if isinstance(row, dict) and isinstance(row.get("step"), int):
            yield {name: value for name, value in row.items() if _is_number(value)}


def _is_number(value: Any) -> bool:
    return isinstance(value, float) or (type(value) is int and abs(value) < LARGEST)


def _read_yaml(path: Path) -> Any:
    try:
        return yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError):
        return None
