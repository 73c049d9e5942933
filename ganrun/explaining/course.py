"""The course of a run as rules ask for it: its score, its players, its loss, where it stands."""

import math
from functools import cached_property
from typing import Any, NamedTuple

from ganrun.errors import CannotWrite
from ganrun.explaining.chance import chance, loss_name
from ganrun.files.record import Record
from ganrun.files.storage import is_owned

HIGHER = ("class-accuracy", "coverage", "density", "high-quality", "inception-score", "modes-covered", "precision",
          "psnr", "recall", "ssim", "test-accuracy")  # metrics of which more is better  # fmt: skip
NOT_FINITE = ("nan", "infinit", "no longer finite")  # in the reason of a failure


class Series(NamedTuple):
    """Finite values of one name, with their steps."""

    steps: list[int]
    values: list[float]


class Game(NamedTuple):
    """A discriminator that is told apart in the curves. name: the player and, of several games, which."""

    name: str
    player: str
    suffix: str


class Course:
    """One run's curves and settings; everything is read from its record, once."""

    def __init__(self, record: Record):
        self.record = record
        self.config, self.result = record.config, record.result

    def setting(self, path: str, default: Any = None) -> Any:
        """A value of the config by its dotted path."""
        node: Any = self.config
        for key in path.split("."):
            node = node.get(key) if isinstance(node, dict) else None
        return default if node is None else node

    def series(self, name: str) -> Series:
        steps, values = self.record.series(name)
        finite = [(s, float(v)) for s, v in zip(steps, values, strict=True) if is_number(v) and math.isfinite(v)]
        return Series([step for step, _ in finite], [value for _, value in finite])

    @cached_property
    def step(self) -> int:
        """The last step that is known to have been done."""
        logged = self.record.metrics[-1]["step"] if self.record.metrics else 0
        done = self.result.get("steps")
        return max(int(logged), done if isinstance(done, int) else 0)

    @property
    def goal(self) -> int | None:
        found = self.result.get("goal") or self.setting("steps")
        return found if isinstance(found, int) else None

    @cached_property
    def trains(self) -> bool:
        """Does another process train it at this moment?"""
        try:
            return is_owned(self.record.path)
        except (OSError, CannotWrite):  # somebody else's run, which only they can lock
            return self.record.status == "running"

    @property
    def not_finite(self) -> bool:
        """Did it fail of numbers that are no longer finite?"""
        reason = str(self.result.get("reason") or "").lower()
        return self.record.status == "failed" and any(word in reason for word in NOT_FINITE)

    # the score

    @cached_property
    def score(self) -> str | None:
        """The metric that chooses the best state, or the first; None = nothing has been scored."""
        scored = [name.removeprefix("score/") for name in self.record.names if name.startswith("score/")]
        about = self.result.get("scores")
        first = next(iter(about.values()), {}) if isinstance(about, dict) else {}
        wanted = first.get("best_by") if isinstance(first, dict) else None
        names = [wanted, self.setting("evaluate.best_by"), *scored]
        return next((name for name in names if name in scored and self.series(f"score/{name}").steps), None)

    @cached_property
    def scores(self) -> Series:
        return self.series(f"score/{self.score}")

    @property
    def lower(self) -> bool:
        """Is a lower score better?"""
        about = self.result.get("scores")
        own = about.get(self.score) if isinstance(about, dict) else None
        if isinstance(own, dict) and own.get("better") in ("lower", "higher"):
            return own["better"] == "lower"
        return self.score not in HIGHER

    @property
    def best(self) -> int:
        """Index of the best score."""
        values = self.scores.values
        return values.index(min(values) if self.lower else max(values))

    # the players

    @cached_property
    def games(self) -> list[Game]:
        found = []
        for name in self.record.names:
            player, _, rest = name.partition("/")
            suffix = rest.removeprefix("real_logits")
            if rest.startswith("real_logits") and f"{player}/adversarial{suffix}" in self.record.names:
                found.append(Game(player + suffix.replace("_", " "), player, suffix))
        return found

    @property
    def players(self) -> list[str]:
        """As logged; as configured where nothing has been logged."""
        logged = [n.removesuffix("/gradient_norm") for n in self.record.names if n.endswith("/gradient_norm")]
        nodes = self.setting("optimizer", {})
        configured = nodes.items() if isinstance(nodes, dict) else ()
        return logged or [name for name, node in configured if isinstance(node, dict) and "_target_" in node]

    @property
    def generators(self) -> list[str]:
        return [player for player in self.players if player not in [game.player for game in self.games]]

    @property
    def loss(self) -> dict[str, Any]:
        found = self.setting("loss", {})
        return found if isinstance(found, dict) else {}

    @property
    def chance(self) -> float | None:
        """The discriminator's loss at chance; None = it says nothing, or is unknown."""
        if loss_name(self.loss) == "DualContrastive" and "Patch" in str(self.setting("discriminator._target_", "")):
            return None  # each patch has a logit
        rows = self.setting("micro_batch") or self.setting("batch_size", 1) // self.devices
        return chance(self.loss, rows)

    @property
    def devices(self) -> int:
        found = self.setting("trainer.devices", 1)
        return found if isinstance(found, int) and found > 0 else 1

    @property
    def changes(self) -> list[dict[str, Any]]:
        """What resumes have changed, each with its step, key, and the values before and after."""
        return self.record.changes


def is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
