"""Top-k training: the generator learns from those fakes alone that the discriminator likes most."""

from torch import Tensor

from ganrun.adversary import Judge
from ganrun.errors import UserError
from ganrun.game import Batch, Recipe
from ganrun.lazy import Lazy
from ganrun.losses import AdversarialLoss
from ganrun.ramps import Ramp, at, bounds


def most_liked(logits: Tensor, k: int) -> Tensor:
    """Indices (k,) of the samples with the highest mean logits (batch, *patches)."""
    return logits.detach().reshape(len(logits), -1).mean(1).topk(k).indices


class TopK(Lazy):
    """The generator's adversarial loss over the k fakes with the highest logits: Sinha et al. 2020, arXiv 2002.06224.

    It takes the place of the loss over all fakes, which is then only logged. With micro_batch or several processes
    each pass has its own k. Losses on pairs keep each fake's own real.

    share: k as a share of the pass, more than 0 to 1 (1 = off). The paper's k falls by a factor of 0.99 each epoch,
    down to half of the batch or more; here a ramp says how.
    """

    players = ("generator",)
    replaces = ("adversarial",)

    def __init__(self, share: float | Ramp = 0.5, weight: float | Ramp = 1.0):
        super().__init__(weight)
        low, high = bounds(share)
        if low <= 0 or high > 1:
            raise UserError(f"share={share}; expected more than 0 and at most 1 (1 = off)")
        self.share = share

    def forward(self, recipe: Recipe, judge: Judge, batch: Batch, generated: Batch) -> Tensor:
        loss = self._loss_of(recipe, judge)
        logits = judge(generated["fake"]).logits
        chosen = most_liked(logits, max(1, round(at(self.share, self.now) * len(logits))))
        real = judge(batch["real"]).logits[chosen] if loss.needs_real else None
        return self.strength * loss.generator(real, logits[chosen])

    def _loss_of(self, recipe: Recipe, judge: Judge) -> AdversarialLoss:
        """The adversarial loss. Raises UserError where there is none that is a mean over samples."""
        if isinstance(judge, dict):
            raise UserError(f"term.top-k: it needs one discriminator; this recipe has {', '.join(judge)}")
        for name, term in recipe.terms.items():
            if term is not self and "generator" in term.players and "adversarial" in getattr(term, "replaces", ()):
                raise UserError(f"term.top-k: {name} replaces the adversarial loss too; leave one of them out")
        loss = recipe.adversary.loss
        if not loss.per_sample:
            raise UserError(f"term.top-k: {type(loss).__name__} is no mean over samples; choose another loss")
        return loss
