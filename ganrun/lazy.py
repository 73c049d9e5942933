"""What penalties and terms have in common: a weight, and how often they act."""

from ganrun.game import Timed
from ganrun.ramps import Ramp, at, bounds


class Lazy(Timed):
    """Something with a weight that acts every `every` steps.

    weight: coefficient. every: steps from one action to the next, 1 = each step; the result is multiplied by `every`
    to keep the mean strength (lazy regularisation: Karras et al. 2020, arXiv 1912.04958, section 3.1). It joins the
    player's move, or with schedule.lazy_moves follows in a move of its own, unless it acts each step.
    """

    needs_generated = True  # does it look at what was generated? Otherwise a lazy move need not generate anew

    def __init__(self, weight: float | Ramp, every: int = 1):
        super().__init__()
        low, high = bounds(weight)
        if low < 0 or high <= 0:
            raise ValueError(f"weight={weight}; expected more than 0; to do without, leave it out")
        if every < 1:
            raise ValueError(f"every={every}; expected at least 1 step (1 = each step)")
        self.weight = weight
        self.every = every

    @property
    def due(self) -> bool:
        """Does it act in this move?"""
        return self.now.step % self.every == 0 and self.now.lazy in (None, self.every > 1)

    @property
    def strength(self) -> float:
        """The current factor of its formula."""
        return at(self.weight, self.now) * self.every
