"""Ranks runs by a score. Scores are compared only if they have the same protocol."""

from collections.abc import Callable, Iterable
from pathlib import Path
from statistics import fmean, stdev
from typing import Any, Literal, NamedTuple

from omegaconf import DictConfig, OmegaConf

from ganrun.commands.evaluate.evaluations import weights_of
from ganrun.commands.train.jobs import read_overrides
from ganrun.config.places import key_of
from ganrun.config.typed import check_known, check_types
from ganrun.errors import UserError, one_of
from ganrun.files.run_dir import RunDir, find_runs
from ganrun.metrics.protocol import difference

KEYS = {"of": str | list[str], "by": str, "source": Literal["evaluation", "evaluation-best", "best", "final"] | None,
        "group": str | None}  # fmt: skip
SOURCES = ("evaluation", "final")  # used if none is named; in these no run has picked the best of several scores
FILES = {"evaluation": "generator.safetensors", "evaluation-best": "best.safetensors"}
CHOOSING = {"truncation", "sampler"}  # in the protocol of scores of chosen samples


class Row(NamedTuple):
    """One run's score, or that of several runs which differ in one key alone.

    std: over sampling seeds, or over the runs; None = one. chosen: how, if it is the best of several.
    name: what to call it; values: of the runs
    """

    run: Path
    value: float
    std: float | None
    step: int | None
    better: Literal["lower", "higher"]
    source: str
    protocol: dict[str, Any]
    chosen: dict[str, Any] = {}  # noqa: RUF012 - read only
    name: str = ""
    values: tuple[float, ...] = ()

    @property
    def words(self) -> str:
        """The kind of score, in words."""
        if self.source in FILES:
            return f"`ganrun evaluate` of {FILES[self.source]}"
        chosen = ", ".join(f"{key}={value}" for key, value in self.chosen.items())
        return f"the best in training, by {chosen}" if chosen else "the final score in training"


def ranked(cfg: DictConfig) -> list[Row]:
    """The runs, the best first. Raises UserError for runs without this score and for different protocols."""
    OmegaConf.set_struct(cfg, False)
    check_known(cfg, KEYS)
    check_types(cfg, KEYS)
    runs = find_runs(cfg.of)
    rows = rows_of(runs, cfg.by, [cfg.source] if cfg.source else SOURCES)
    for row in rows[1:]:
        unlike = difference(rows[0].protocol, row.protocol)
        if unlike:
            raise UserError(f"{cfg.by} of {rows[0].run} and {row.run} do not compare: {unlike}")
        unlike = difference(rows[0].chosen, row.chosen)
        if unlike:
            raise UserError(
                f"the best {cfg.by} of {rows[0].run} and {row.run} do not compare, since one was chosen otherwise: "
                f"{unlike}; source=final compares what both have come to"
            )
    if cfg.group:
        rows = grouped(rows, cfg.group)
    return sorted(rows, key=lambda row: (row.value != row.value, row.value if row.better == "lower" else -row.value))


def grouped(rows: list[Row], key: str) -> list[Row]:
    """One row for the runs that were started with the same words, but for `key`."""
    groups: dict[tuple[str, ...], list[Row]] = {}
    for row in rows:
        words = read_overrides(RunDir(row.run).hydra / "overrides.yaml")
        groups.setdefault(tuple(sorted(word for word in words if key_of(word) not in (key, "run_dir"))), []).append(row)
    shared = set.intersection(*map(set, groups)) if len(groups) > 1 else set()
    found = []
    for words, some in groups.items():
        values = tuple(row.value for row in some)
        name = " ".join(word for word in words if word not in shared) or "all"
        std = stdev(values) if len(values) > 1 else None
        found.append(some[0]._replace(value=fmean(values), std=std, step=None, name=name, values=values))
    return found


def rows_of(runs: list[RunDir], by: str, sources: Iterable[str]) -> list[Row]:
    """A row for each run, from the first source that all runs have."""
    for source in sources:
        rows = [readable(row_of, run, by, source) for run in runs]
        if all(rows):
            return rows
    without = [run for run, row in zip(runs, rows, strict=True) if row is None]
    scores = {name for run in without for source in sources for name in readable(names, run, source)}
    known = one_of(scores, by) if scores else "it has none at all"
    raise UserError(f"by={by}: {without[0].path} has no such score; {known}; `ganrun evaluate` adds some")


def readable(read: Callable[..., Any], run: RunDir, *args: str) -> Any:
    """The result of `read` on a run's result.json, which anybody may have edited. Raises UserError if it fails."""
    try:
        return read(run.read_result(), run, *args)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UserError(f"{run.result}: its scores cannot be read; was it written by ganrun?") from error


def names(result: dict[str, Any], run: RunDir, source: str) -> list[str]:
    if source in FILES:
        return [one["metric"] for one in evaluations(result, run, source)]
    return list(result.get("scores", {}))


def evaluations(result: dict[str, Any], run: RunDir, source: str) -> list[dict[str, Any]]:
    """Evaluations of the run's generator as it is now, or of its best one."""
    file = run.path / FILES[source]
    found = [one for one in result.get("evaluations", []) if one["of"]["from"] == file.name]
    now = weights_of(file) if found and file.exists() else None
    return [one for one in found if now in (None, one["of"].get("weights"))]


def row_of(result: dict[str, Any], run: RunDir, by: str, source: str) -> Row | None:
    if source in FILES:
        found = [one for one in evaluations(result, run, source) if one["metric"] == by]
        if not found:
            return None
        plain = [one for one in found if not CHOOSING & one["protocol"].keys()]
        one = (plain or found)[-1]  # the newest
        std = float(one["std"]) if len(one["values"]) > 1 else None
        return checked(Row(run.path, one["mean"], std, one["of"]["steps"], one["better"], source, one["protocol"]))
    score = result.get("scores", {}).get(by)
    if score is None or (source == "best" and score["best"] is None):
        return None
    step = score["best_step" if source == "best" else "step"]
    chosen = {"evaluate.every": score["every"], "evaluate.best_by": score["best_by"]} if source == "best" else {}
    return checked(Row(run.path, score[source], None, step, score["better"], source, score["protocol"], chosen))


def checked(row: Row) -> Row:
    """The same row. Raises TypeError if it is not a score."""
    fits = isinstance(row.value, int | float) and isinstance(row.step, int | None) and isinstance(row.protocol, dict)
    if not fits or row.better not in ("lower", "higher"):
        raise TypeError(row)
    return row
