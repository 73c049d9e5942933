"""Results of `ganrun evaluate`, kept in a run's result.json."""

import hashlib
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from ganrun.files.run_dir import RunDir
from ganrun.files.storage import owning
from ganrun.metrics.protocol import difference


@dataclass(frozen=True)
class Scored:
    """One metric's values, one for each seed."""

    metric: str
    mean: float
    std: float | None  # sample standard deviation over seeds; None for one seed
    values: list[float]
    within: float | None  # the metric's own deviation over subsets or splits, mean over seeds
    better: Literal["lower", "higher"]
    floor: float | None  # the score of real samples of the other split; None if there are none
    of: dict[str, Any]  # what was scored; for a generator its file, the identity of that, and the steps of training
    protocol: dict[str, Any]


def write_into(run: RunDir, scores: Iterable[Scored]) -> None:
    """Adds scores to the run's result.json, replacing those that they supersede.

    Raises UserError while the run is being trained.
    """
    with owning(run.path):
        result = run.read_result()
        given = result.get("evaluations")
        kept = [old for old in given if is_entry(old)] if isinstance(given, list) else []
        for score in map(asdict, scores):
            kept = [old for old in kept if not supersedes(score, old)] + [score]
        run.write_result(result | {"evaluations": kept})


def weights_of(file: Path) -> str:
    """The identity of a generator file."""
    return hashlib.blake2b(file.read_bytes(), digest_size=8).hexdigest()


def is_entry(old: Any) -> bool:
    return isinstance(old, dict) and all(isinstance(old.get(key), dict) for key in ("of", "protocol"))


def supersedes(new: dict[str, Any], old: dict[str, Any]) -> bool:
    """Is it the same score of the same file, with other weights or with at least as many seeds?"""
    same = old.get("metric") == new["metric"] and old["of"].get("from") == new["of"]["from"]
    if not same or difference(old["protocol"], new["protocol"]):
        return False
    return old["of"].get("weights") != new["of"].get("weights") or len(old.get("values", ())) <= len(new["values"])
