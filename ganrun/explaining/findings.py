"""All that the curves of a run say, by every rule: what to heed first."""

from ganrun.explaining.course import Course
from ganrun.explaining.diversity import collapsed, memorised
from ganrun.explaining.finding import ALARMS, Finding
from ganrun.explaining.players import diverging, lead, vanished
from ganrun.explaining.progress import best, lost, no_score, noise, not_learning, progress
from ganrun.explaining.rates import augmentation, rates
from ganrun.explaining.story import changes, not_finite, state
from ganrun.files.record import Record

RULES = (state, not_finite, progress, best, not_learning, lost, collapsed, memorised, lead, vanished, diverging, rates,
         augmentation, no_score, noise, changes)  # fmt: skip
NEXT = ("interrupted", "improving", "past-best", "no-score", "too-few", "copies-unknown", "flat")  # after all alarms
IMPLIED = {  # what a finding says already
    "not-finite": ("no-score", "too-few", "unwatched"),
    "score-lost": ("worsening", "past-best", "flat"),
    "worsening": ("past-best",),
    "not-learning": ("flat", "past-best"),
    "rate-over": ("flat",),
}


def findings(record: Record) -> list[Finding]:
    """What the rules find in one run, from its files alone, in the order of RULES.

    Example:
        for finding in findings(Record("outputs/digits/...")):
            print(finding.kind, finding.text, finding.command)
    """
    course = Course(record)
    found = [finding for rule in RULES for finding in rule(course)]
    implied = {kind for finding in found for kind in IMPLIED.get(finding.kind, ())}
    return [finding for finding in found if finding.kind not in implied]


def proposal(found: list[Finding]) -> Finding | None:
    """The finding whose command is the one to try next: the gravest alarm's, else what continues a sound run."""
    order = [*ALARMS, *NEXT]
    able = [finding for finding in found if finding.command and finding.kind in order]
    return min(able, key=lambda finding: order.index(finding.kind), default=None)
