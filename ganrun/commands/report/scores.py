"""The scores of a run, read from its result.json."""

from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

from ganrun.commands.rank.ranking import evaluations
from ganrun.files.record import Record
from ganrun.metrics.protocol import short

WRONG = (AttributeError, KeyError, TypeError, ValueError, OSError)  # of a result.json that anybody may have edited


@dataclass(frozen=True)
class Score:
    """value: over the seeds of `ganrun evaluate`, or the final one in training. std: over n seeds, None = one.

    floor: the score of real data of the other split; best: in training, at best_step. also: another value, in words.
    """

    value: float
    better: str
    made: str
    protocol: Mapping[str, Any]
    std: float | None = None
    n: int = 1
    floor: float | None = None
    best: float | None = None
    best_step: int | None = None
    also: str = ""

    def __str__(self) -> str:
        return f"{self.value:.4g}" + (f" ± {self.std:.2g}" if self.std is not None else "")


Scores = dict[str, Score]  # by their metrics


def settled(records: Iterable[Record]) -> list[Scores]:
    """The scores of each run: of `ganrun evaluate` where all runs that have the score have it so, else the final ones.

    What cannot be read is left out.
    """
    both = [(evaluated(record), trained_all(record)) for record in records]
    found: list[Scores] = [{} for _ in both]
    for name in dict.fromkeys(name for pair in both for scores in pair for name in scores):
        everywhere = all(name in new for new, old in both if name in new or name in old)
        for scores, (new, old) in zip(found, both, strict=True):
            first, second = (new, old) if everywhere else (old, new)
            score, other = first.get(name), second.get(name)
            if score and other:
                also = f"{'in training' if everywhere else 'evaluated'} {other}"
                score = replace(score, also=also, floor=score.floor or other.floor)
            if score or other:
                scores[name] = score or other
    return found


def trained_all(record: Record) -> Scores:
    """The final score of each metric in training."""
    found = {}
    scores = record.result.get("scores")
    for name, score in scores.items() if isinstance(scores, dict) else ():
        with suppress(*WRONG):
            found[str(name)] = trained(score)
    return found


def trained(score: Mapping[str, Any]) -> Score:
    """From an entry of `scores`."""
    best, step = score.get("best"), score.get("best_step")
    better, protocol = score.get("better", "lower"), dict(score.get("protocol") or {})
    made = f"the final score in training, at step {int(score['step']):,}; {said(protocol)}"
    return Score(float(score["final"]), better, made, protocol, best=None if best is None else float(best),
                 best_step=None if step is None else int(step))  # fmt: skip


def evaluated(record: Record) -> Scores:
    """The newest evaluation of the run's generator for each metric, of plain samples if there is one."""
    try:
        found = evaluations(record.result, record.run, "evaluation")
    except WRONG:
        return {}
    scores = {}
    for one in sorted(found, key=lambda one: "truncation" not in one["protocol"]):
        with suppress(*WRONG):
            n, floor = len(one["values"]), one.get("floor")
            made = f"`ganrun evaluate`, {n} seed{'s' * (n > 1)}; {said(one['protocol'])}"
            std = float(one["std"]) if n > 1 else None
            scores[str(one["metric"])] = Score(float(one["mean"]), one["better"], made, one["protocol"], std, n,
                                               None if floor is None else float(floor))  # fmt: skip
    return scores


def said(protocol: Mapping[str, Any]) -> str:
    """The protocol in one line; of an older format, what there is."""
    try:
        return short(protocol)
    except WRONG:
        return "its protocol is not known"
