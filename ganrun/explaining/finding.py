"""One thing that the curves say."""

from typing import NamedTuple

ALARMS = (
    "not-finite", "failed", "rate-over", "diverging", "collapsed", "discriminator-sure", "score-lost",
    "gradient-vanished", "memorised", "augmentation-leaks", "not-learning", "worsening",
)  # the gravest first, or the cause before what follows from it  # fmt: skip


class Finding(NamedTuple):
    """kind: see ALARMS, all others are no cause for alarm. command: what to try, ready to paste, None = nothing.
    steps: those of the run that it is about.
    """

    kind: str
    text: str
    command: str | None = None
    steps: tuple[int, ...] = ()

    @property
    def alarm(self) -> bool:
        return self.kind in ALARMS


def number(value: float) -> str:
    """A number as people read it: four significant digits at most."""
    return f"{value:,.0f}" if 1000 <= abs(value) < 1e6 else f"{value:.4g}"
