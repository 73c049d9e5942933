"""Which scores of several runs compare, and which run has the best."""

from collections.abc import Iterable
from math import isfinite

from ganrun.commands.report.runs import View
from ganrun.metrics.protocol import difference


def metrics_of(views: Iterable[View]) -> list[str]:
    """The names of all scores, those that most runs have first."""
    found = [name for view in views for name in view.scores]
    return sorted(dict.fromkeys(found), key=lambda name: -found.count(name))


def unlike(views: Iterable[View], name: str) -> dict[int, str]:
    """The runs, by number, whose score was made otherwise than the first run's, and how: they do not compare."""
    scored = [view for view in views if name in view.scores]
    told = {view.number: difference(scored[0].scores[name].protocol, view.scores[name].protocol) for view in scored}
    return {number: text for number, text in told.items() if text}


def best_of(views: Iterable[View], name: str) -> View | None:
    """The run with the best score among those that compare with the first run's."""
    views = list(views)
    other = unlike(views, name)
    scored = [v for v in views if name in v.scores and v.number not in other and isfinite(v.scores[name].value)]
    sign = -1 if scored and scored[0].scores[name].better == "higher" else 1
    return min(scored, key=lambda view: sign * view.scores[name].value, default=None)
